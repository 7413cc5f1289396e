"""A run from end to end on small files: every precision, batch and problem; and one that was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from runtime.errors import DeviceUnavailable, InvalidInput
from runtime.model import load
from zoo.bench import files, run
from zoo.bench.record import SCHEMA_FILE
from zoo.bench.run import Options, bench

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def quick(cache: Path | None, *names: Path | str, **options: Any) -> tuple[dict[str, Any], list[str], list[int]]:
    notes: list[str] = []
    shown: list[int] = []
    values: dict[str, Any] = {"budget_s": 0.05, "rounds": 2, "threads": 1} | options
    record = bench(
        Options(names=[str(name) for name in names], **values),
        cache=cache,
        progress=lambda what, done, total: None,
        show=lambda record, done, total: shown.append(done),
        note=notes.append,
    )
    VALIDATOR.validate(record)
    return record, notes, shown


def test_precisions_and_batches_of_a_file(tiny: Callable[..., Path], tmp_path: Path) -> None:
    record, notes, shown = quick(tmp_path / "cache", tiny(), precisions=("fp32", "int8"), batches=(1, 2))
    rows = record["rows"]
    assert [(row["precision"], row["batch"]) for row in rows] == [
        ("fp32", 1), ("int8", 1), ("fp32", 2), ("int8", 2),
    ]  # fmt: skip
    assert all(row["problem"] is None and row["latency_ms"]["rounds"] >= 2 for row in rows)
    assert [row["ratio_to_fp32"] is None for row in rows] == [True, False, True, False]
    assert [row["calibrated_on"] for row in rows] == [None, "noise", None, "noise"]
    assert record["finished"] and not notes and shown[0] == 0
    assert record["machine"]["peak_gflops"] and record["settings"]["threads"] == 1
    assert not list((tmp_path / "cache").glob("unfinished-*"))
    # The int8 file is what the next run takes.
    (kept,) = (tmp_path / "cache").glob("*int8*.onnx")
    before = kept.stat().st_mtime_ns
    quick(tmp_path / "cache", tiny(), precisions=("int8",))
    assert kept.stat().st_mtime_ns == before


def test_problems_are_rows(tiny: Callable[..., Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    record, _, _ = quick(None, broken, tiny("one.onnx", batch=1), tiny(), batches=(2,))
    said = [row["problem"] for row in record["rows"]]
    assert "broken.onnx" in said[0] and "takes 1 pictures" in said[1] and said[2] is None


def test_an_int8_file_is_measured_as_what_it_is(tiny: Callable[..., Path], tmp_path: Path) -> None:
    quick(tmp_path / "cache", tiny(), precisions=("int8",))
    (int8,) = (tmp_path / "cache").glob("*int8*.onnx")
    record, _, _ = quick(None, int8, precisions=("fp32",))
    assert [row["precision"] for row in record["rows"]] == ["int8"]


def test_accuracy_is_measured_on_labelled_pictures(tiny: Callable[..., Path], tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tiny()
    for name in ("red", "green"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    record, _, _ = quick(None, path, data=tmp_path / "data")
    (row,) = record["rows"]
    with load(path) as model:
        pictures = sorted((tmp_path / "data").rglob("*.png"))
        right = [
            model.predict(picture).top[0].label == picture.parent.name for picture in pictures
        ]  # fmt: skip
    assert row["accuracy"] == "measured" and row["top1"] == pytest.approx(100 * sum(right) / 12, abs=0.01)
    assert record["settings"]["images"] == 12


def test_pictures_that_do_not_fit_are_a_note(tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "a.png")
    record, notes, _ = quick(None, tiny(), data=tmp_path / "data")
    assert record["rows"][0]["accuracy"] is None
    assert len(notes) == 1 and "without labels" in notes[0]


def test_an_interrupted_run_goes_on(tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, path, rounds = tmp_path / "cache", tiny(), 0
    whole = run.measuring._round

    def break_off(*args: Any) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise KeyboardInterrupt
        whole(*args)

    monkeypatch.setattr(run.measuring, "_round", break_off)
    monkeypatch.setattr(run.measuring, "CALM", np.inf)  # every turn counts, whatever else the machine does
    with pytest.raises(KeyboardInterrupt):
        quick(cache, path, rounds=3)
    (kept,) = cache.glob("unfinished-*.json")
    first = json.loads(kept.read_text())["raws"]["tiny/file/fp32/cpu/1"]["rounds"][0]
    rounds = 2
    record, _, _ = quick(cache, path, rounds=3)
    assert not kept.exists()
    assert record["rows"][0]["turns_ms"][0] == [float(f"{np.median(turn):.5g}") for turn in first]
    assert rounds - 2 == record["rows"][0]["latency_ms"]["rounds"] - 1


def test_a_damaged_or_unwanted_remainder_is_not_taken(tiny: Callable[..., Path], tmp_path: Path) -> None:
    from zoo.bench.kept import Kept

    file = tmp_path / "unfinished.json"
    for text in ("{", "[]", '{"raws": 3, "accuracies": {}}', "{}"):
        file.write_text(text)
        assert Kept(file, fresh=False).raws == {}
    file.write_text('{"raws": {"a": {}}, "accuracies": {}}')
    assert Kept(file, fresh=False).raws == {"a": {}}
    assert Kept(file, fresh=True).raws == {}


def test_mistakes_come_before_any_work(tiny: Callable[..., Path], tmp_path: Path) -> None:
    from runtime.engines import why_unavailable

    if why_unavailable("cuda"):
        with pytest.raises(DeviceUnavailable, match="leave it out"):
            quick(None, tiny(), devices=("cpu", "cuda"))
    for wrong in ({"batches": (0,)}, {"rounds": 0}, {"budget_s": 0.0}, {"threads": 0}, {"data": tmp_path / "no"}):
        with pytest.raises(InvalidInput):
            quick(None, tiny(), **wrong)


def test_weights_that_are_at_hand() -> None:
    (lenet, mobilenet, mini) = (subject for subject in run.subjects(["lenet5", "mobilenet_v2", "mini_xception"]))
    assert files._choices(lenet, "auto") == ["bundled", "none"]
    assert files._choices(mobilenet, "auto") == ["cached", "none"]
    assert files._choices(mini, "auto") == ["none"]
    assert files._choices(mobilenet, "imagenet") == ["imagenet"]


@pytest.mark.slow
def test_networks_are_exported_once(tmp_path: Path) -> None:
    record, _, _ = quick(tmp_path, "lenet5", sources=("torch", "keras"))
    assert [(row["source"], row["weights"], row["problem"]) for row in record["rows"]] == [
        ("torch", "bundled", None), ("keras", "bundled", None),
    ]  # fmt: skip
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.onnx")}
    assert len(made) == 2
    quick(tmp_path, "lenet5", sources=("torch", "keras"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.onnx")} == made


@pytest.mark.slow
def test_what_cannot_be_exported_is_a_row(tmp_path: Path) -> None:
    record, _, _ = quick(tmp_path, "timm:no_such_network")
    (row,) = record["rows"]
    assert "not exported" in row["problem"] and "no_such_network" in row["problem"]
    assert not list(tmp_path.iterdir())
