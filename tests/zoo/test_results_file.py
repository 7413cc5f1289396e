"""Results that grow row by row: read back by others, torn, resumed, and refused where they are not ours."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidInput, MissingDependency, OutputNotWritable
from zoo.results_file import SUFFIXES, Asked, check, identity, key, opened

ASKED = Asked("0123456789abcdef", 2)


def answer(label: str = "cat", second: str = "dog, small") -> dict[str, Any]:
    top = [
        {"index": 7, "label": label, "probability": 0.75, "id": "n1"},
        {"index": 3, "label": second, "probability": 0.25, "id": None},
    ]
    return {"top": top, "trained": True}


def write(path: Path, images: Sequence[str], asked: Asked = ASKED, bad: Sequence[str] = ()) -> list[str]:
    """One run over these pictures; those it did."""
    done = []
    with opened(path, asked, images) as results:
        for image in images:
            if not results.has(image):
                results.add(image, {"error": f"{image}: is torn"} if image in bad else answer())
                done.append(image)
    return done


def read(path: Path) -> list[dict[str, Any]]:
    """Image, first label, first probability, error of every row, by another reader than ours."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        told = [row.get("top", [{}])[0] for row in rows]
        return [
            {"image": row["image"], "label": top.get("label"), "p": top.get("probability"), "error": row.get("error")}
            for row, top in zip(rows, told, strict=True)
        ]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            cells = [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]
    else:
        cells = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return [
        {
            "image": row["image"], "label": row["label_1"],
            "p": None if row["probability_1"] is None else float(row["probability_1"]), "error": row["error"],
        }
        for row in cells
    ]  # fmt: skip


def rows(images: Sequence[str], bad: Sequence[str] = ()) -> list[dict[str, Any]]:
    return [
        {"image": image, "label": None, "p": None, "error": f"{image}: is torn"}
        if image in bad
        else {"image": image, "label": "cat", "p": 0.75, "error": None}
        for image in images
    ]


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A results file of every kind, not there yet."""
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"results{request.param}"


def test_a_second_run_does_what_is_missing(path: Path) -> None:
    assert write(path, ["a.png", "b, c.png"]) == ["a.png", "b, c.png"]
    assert read(path) == rows(["a.png", "b, c.png"])
    before = path.read_bytes()
    assert write(path, ["b, c.png", "a.png"]) == []
    assert path.read_bytes() == before
    assert write(path, ["0.png", "a.png", "ü.png"]) == ["0.png", "ü.png"]
    assert read(path) == rows(["a.png", "b, c.png", "0.png", "ü.png"])
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_what_failed_is_tried_again_and_stands_once(path: Path) -> None:
    write(path, ["a", "b", "c", "d"], bad=["b", "d"])
    assert read(path) == rows(["a", "b", "c", "d"], bad=["b", "d"])
    assert write(path, ["a", "b"]) == ["b"]
    assert read(path) == rows(["a", "c", "d", "b"], bad=["d"])


def test_an_interrupted_run_keeps_its_answers(path: Path) -> None:
    images = ["a", "b", "c"]
    with pytest.raises(KeyboardInterrupt), opened(path, ASKED, images) as results:
        results.add("a", answer())
        raise KeyboardInterrupt
    assert path.exists() == (path.suffix != ".parquet")  # never a part of one
    assert write(path, images) == ["b", "c"]
    assert read(path) == rows(images)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_torn_last_line_is_dropped_wherever_it_was_torn(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    images = ["a", 'quo"te, x', "c"]
    write(path, images)
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")][-3:]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        missing = [image for image, end in zip(images, ends, strict=True) if end > length]
        assert write(path, images) == missing
        assert path.read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_two_runs_do_not_write_one_file(path: Path) -> None:
    with opened(path, ASKED, ["a", "b"]) as first:
        first.add("a", answer())
        with pytest.raises(InvalidInput, match="another run is writing it"), opened(path, ASKED, ["b"]):
            raise AssertionError
        first.add("b", answer())
    assert [row["image"] for row in read(path)] == ["a", "b"]
    assert write(path, ["b", "c"]) == ["c"]


def test_another_model_or_other_options_are_refused(path: Path) -> None:
    write(path, ["a"])
    before = path.read_bytes()
    for asked, said in ((Asked("fedcba9876543210", 2), "an answer of model 0123456789abcdef, this is fedcba9876543210"),
                        (Asked(ASKED.model, 1), "of 2 classes: give the same --top")):  # fmt: skip
        with pytest.raises(InvalidInput, match=said) as caught:
            write(path, ["a", "b"], asked)
        assert "another --out" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".csv", b"file,label\na.png,cat\n"),
        (".csv", b"\xff\xfe\x00\n"),
        (".jsonl", b"[1, 2]\n"),
        (".jsonl", b'{"image": "a"}\n'),
        (".jsonl", b'{"image": "a", \n{"image": "b"}\n'),
        (".parquet", b"no columns at all"),
    ],
)
def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path, suffix: str, data: bytes) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"results{suffix}"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="is not what `zoo predict --out` writes"):
        write(path, ["a"])
    assert path.read_bytes() == data


def test_columns_are_typed(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "results.parquet"
    write(path, ["a", "b"], bad=["b"])
    table = parquet.read_table(path)
    assert [f"{field.name} {field.type}" for field in table.schema][:7] == [
        "image string", "error string", "trained bool", "label_1 string", "id_1 string", "index_1 int32",
        "probability_1 float",
    ]  # fmt: skip
    assert table.column("model").to_pylist() == [ASKED.model] * 2
    assert table.column("id_2").to_pylist() == [None, None]


def test_every_name_of_a_picture_makes_one_line(path: Path) -> None:
    images = ["two\nlines.png", "two\rlines.png", b"caf\xe9.png".decode("utf-8", "surrogateescape"), 'q"uote.png']
    write(path, images)
    assert write(path, images) == []
    assert [row["image"] for row in read(path)] == [key(image) for image in images]
    assert len({key(image) for image in images}) == len(images)


def test_where_nothing_can_be_written_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputNotWritable, match=r"give a file name ending in \.jsonl, \.csv, \.parquet"):
        check(tmp_path / "results.xlsx")
    with pytest.raises(OutputNotWritable, match="no such folder"):
        check(tmp_path / "none" / "results.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputNotWritable, match="is a folder"):
        check(tmp_path / "folder.csv")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r'pip install "edgezoo\[parquet\]"'):
        check(tmp_path / "results.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_full_disk_is_one_line_and_the_answers_stay(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    path, images = tmp_path / f"results{suffix}", [f"{number}.png" for number in range(50)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # in the middle of a row
    try:
        with pytest.raises(OutputNotWritable, match="the answers so far are kept"):
            write(path, images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == 1000
    kept = path.read_bytes().count(b"\n") - (suffix == ".csv")
    assert write(path, images) == images[kept:]
    assert read(path) == rows(images)


def test_identity_is_of_the_bytes_and_the_options(tiny: Callable[..., Path], metadata: Any) -> None:
    path = tiny()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert identity(path) == digest[:16]
    assert identity(path, "other labels").startswith(f"{digest[:16]}-")
    assert identity(path, "other labels") != identity(path, "no labels")
    path.with_name("tiny.onnx.data").write_bytes(b"weights")
    assert identity(path) != digest[:16]
    assert identity(tiny("b.onnx", labels=replace(metadata.labels, names=tuple("abcd")))) != digest[:16]
