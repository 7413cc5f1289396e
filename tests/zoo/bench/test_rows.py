"""What is measured: the catalogue's first rows, names, files."""

from pathlib import Path

import pytest

from runtime.errors import InvalidInput, UnknownName
from zoo.bench.rows import MISSION, subjects


def test_without_names_from_lenet_to_efficientnet_b7() -> None:
    names = [spec.name for spec in MISSION]
    assert (names[0], names[-1]) == ("lenet5", "efficientnet_b7")
    # Keras' table lacks these, which is why there is one of our own.
    assert {"lenet5", "alexnet", "googlenet", "inception_v4", "mobilenet_v3_small", "mobilenet_v3_large"} <= set(names)
    assert {f"efficientnet_b{number}" for number in range(8)} <= set(names)
    assert [subject.name for subject in subjects([])] == names


def test_quick_takes_the_eight_smallest() -> None:
    quick = subjects([], quick=True)
    assert len(quick) == 8
    size = {
        subject.name: subject.variant.facts.total
        for subject in subjects([])
        if subject.variant and subject.variant.facts
    }
    most = max(size[subject.name] for subject in quick)
    assert all(size[name] >= most for name in size.keys() - {subject.name for subject in quick})


def test_names_files_and_libraries(tiny: object, tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(b"")
    found = subjects(["MobileNet-V2", "timm:resnet10t", str(file), "mobilenet_v2"], sources=["keras", "torch"])
    assert [(subject.name, subject.source) for subject in found] == [
        ("mobilenet_v2", "torch"),
        ("mobilenet_v2", "keras"),
        ("resnet10t", "torch"),
        ("mine", "file"),
    ]
    assert found[2].variant is None and found[0].variant is not None


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [tmp_path / folder / "model.onnx" for folder in ("old", "new")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(b"")
    found = subjects([str(file) for file in [*files, files[0]]])
    assert [subject.name for subject in found] == [str(file) for file in files]


def test_a_source_leaves_out_rows_without_it_unless_they_are_named() -> None:
    assert "mini_xception" not in [subject.name for subject in subjects([], sources=["torch"])]
    with pytest.raises(InvalidInput, match="mini_xception has no torch source: it has keras"):
        subjects(["mini_xception"], sources=["torch"])


def test_mistakes() -> None:
    with pytest.raises(UnknownName):
        subjects(["mobilnet_v9"])
    with pytest.raises(InvalidInput, match="no such file"):
        subjects(["nowhere.onnx"])
    with pytest.raises(InvalidInput, match="--quick"):
        subjects(["lenet5"], quick=True)
