from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import WeightsUnavailable
from zoo.models import MODELS, find
from zoo.spec import ModelSpec, Variant
from zoo.weights import framework_of, resolve

LENET, MOBILENET = find("lenet5"), find("mobilenet_v2")
HUB = "IMAGENET1K_V1"


def variant(spec: ModelSpec) -> Variant:
    return spec.variant()[1]


@pytest.mark.parametrize(
    ("weights", "framework"),
    [
        ("a.pth", "torch"),
        ("a.pt", "torch"),
        ("folder/a.th", "torch"),
        ("a.weights.pth", "torch"),
        ("pytorch_model.bin", "torch"),
        ("last.ckpt", "torch"),
        ("A.PTH", "torch"),
        ("a.keras", "keras"),
        ("a.h5", "keras"),
        ("a.weights.h5", "keras"),
        ("a.hdf5", "keras"),
        ("A.H5", "keras"),
        ("a.safetensors", None),  # both frameworks write it
        ("a.onnx", None),
        ("imagenet", None),
        ("none", None),
        ("", None),
        (None, None),
        (".h5", None),  # a hidden file without a suffix
    ],
)
def test_framework_by_suffix(weights: str | None, framework: str | None) -> None:
    assert framework_of(weights) == framework


def test_the_default_is_bundled_else_imagenet() -> None:
    for spec in MODELS:
        for row in spec.sources.values():
            if not row.bundled and not row.hub:  # nobody published any: nothing is taken in their place
                with pytest.raises(WeightsUnavailable, match="use bundled, none or a FILE"):
                    resolve(spec, row, None)
                continue
            weights = resolve(spec, row, None)
            assert weights.kind == ("bundled" if row.bundled else "imagenet")
            assert (weights.hub is None) == (weights.kind == "bundled")
            if weights.path is not None:
                assert weights.path.is_file()


def test_each_choice(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"x")
    none = resolve(MOBILENET, variant(MOBILENET), "none", seed=9)
    assert (none.kind, none.path, none.seed) == ("none", None, 9)
    hub = resolve(MOBILENET, variant(MOBILENET), "imagenet", seed=9)
    assert (hub.kind, hub.path, hub.hub, hub.seed) == ("imagenet", None, HUB, 0)
    bundled = resolve(LENET, variant(LENET), "bundled")
    assert bundled.path is not None
    assert (bundled.kind, bundled.path.name) == ("bundled", "lenet5.safetensors")
    given = resolve(MOBILENET, variant(MOBILENET), str(file))
    # The hub's name stays: it says which of the library's preprocessings the file is verified against.
    assert (given.kind, given.path, given.hub) == ("file", file, HUB)


def test_a_file_called_as_a_choice_is_given_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("none", "imagenet", "bundled"):
        Path(name).write_bytes(b"x")
        assert resolve(MOBILENET, variant(MOBILENET), os.path.join(".", name)).path == Path(name)  # noqa: PTH118
    assert resolve(MOBILENET, variant(MOBILENET), "none").kind == "none"


@pytest.mark.parametrize(
    ("spec", "choice", "message"),
    [
        (LENET, "imagenet", "lenet5 has no ImageNet weights: use bundled, none or a FILE"),
        (MOBILENET, "bundled", "mobilenet_v2 has no bundled weights: use imagenet, none or a FILE"),
        (MOBILENET, "imagnet", "imagnet: no such weights file (or give imagenet, bundled or none)"),
        (MOBILENET, "IMAGENET", "IMAGENET: no such weights file (or give imagenet, bundled or none)"),
        (MOBILENET, "nowhere/w.pth", "nowhere/w.pth: no such weights file"),
        (MOBILENET, "folder", "folder: is a folder: give the weights file itself"),
        (MOBILENET, ".", ".: is a folder"),
    ],
)
def test_what_is_not_there(
    spec: ModelSpec, choice: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(WeightsUnavailable) as caught:
        resolve(spec, variant(spec), choice)
    assert str(caught.value).startswith(message)
