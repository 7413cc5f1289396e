"""Tuning on real engines: it keeps to its limits, says why, and remembers for this file on this machine alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import runtime
from runtime.engines import ENGINES
from runtime.errors import DeviceUnavailable, InvalidInput, OutputNotWritable
from runtime.files import sha256
from runtime.metadata import Labels, Metadata, Preprocess, Provenance
from runtime.model import Model
from runtime.quantization import Quantization
from runtime.tuning import record as records
from runtime.tuning.record import PREPARED, SUFFIX, Setting, beside, read, remember
from runtime.tuning.search import family, tune
from tests.conftest import tiny_proto

pytest.importorskip("openvino")

PICTURES = [np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8) for seed in range(6)]


def stamped() -> onnx.ModelProto:
    proto = tiny_proto()
    told = Metadata(
        name="tiny", task="classification",
        preprocess=Preprocess(size=(8, 8), resize=10, mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255),
        labels=Labels(names=("red", "green", "blue", "grey")),
        provenance=Provenance(
            framework="none", framework_version="0", exporter="none", edgezoo_version="0", builder="tests", opset=18,
            weights="file",
        ),
    )  # fmt: skip
    for key, value in told.to_props().items():
        proto.metadata_props.add(key=key, value=value)
    return proto


def coarser(path: Path, name: str, metadata: Metadata, *, step: float) -> Path:
    """A file that says it was quantized from ``path``: the same network, its weights rounded to multiples of step."""
    proto = onnx.load(path)
    for item in proto.graph.initializer:
        values = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array((np.round(values / step) * step).astype(np.float32), item.name))
    told = Quantization(
        scheme="int8", target="cpu", search="none", integer_nodes=1, float_nodes=1, calibration=1,
        calibration_sha256="0", images=1, agreement=100.0, distance=0.0, top1=None, top5=None, time_ratio=None,
        float_ms=None, machine="none", float_sha256=sha256(path),
    )  # fmt: skip
    del proto.metadata_props[:]
    for key, value in replace(metadata, quantization=told).to_props().items():
        proto.metadata_props.add(key=key, value=value)
    made = path.with_name(name)
    made.write_bytes(proto.SerializeToString())
    return made


def test_every_engine_is_tried_and_none_passes_that_answers_otherwise(tiny: Callable[..., Path]) -> None:
    path = tiny()
    record = tune(path, pictures=PICTURES, tolerance=1e-4, budget_s=0.5)
    assert {trial.setting.engine for trial in record.trials} == set(ENGINES)
    timed = [trial for trial in record.trials if trial.ms is not None]
    assert record.chosen in {trial.setting for trial in timed}
    assert all(trial.error is not None and trial.error <= 1e-4 for trial in timed)
    assert [trial.ms for trial in timed] == sorted(trial.ms for trial in timed if trial.ms is not None)
    for trial in record.trials:
        assert (trial.ms is not None) or trial.verdict, "who was not timed has a reason"
        if trial.setting.precision == "bf16" and trial.error is not None:
            assert trial.ms is None and "allowed" in trial.verdict
    assert {trial.setting.threads for trial in timed} >= {record.chosen.threads}


def test_limits_are_kept_to(tiny: Callable[..., Path]) -> None:
    path = tiny()
    record = tune(path, device="cpu", threads=1, precision="fp32", budget_s=0.3)
    assert record.asked["material"] == "noise"
    assert {trial.setting.threads for trial in record.trials} == {1}
    assert {(ENGINES[trial.setting.engine].device, trial.setting.precision) for trial in record.trials} == {
        ("cpu", "fp32")
    }


def test_files_made_from_it_take_part_within_the_tolerance(tiny: Callable[..., Path], metadata: Metadata) -> None:
    path = tiny()
    near, far = coarser(path, "near.onnx", metadata, step=1e-4), coarser(path, "far.onnx", metadata, step=0.8)
    stranger = tiny("stranger.onnx", explain_layer="relu")
    assert family(path) == [path, far, near] == [*family(near)[:1], far, near]
    assert stranger not in family(path)
    record = tune(near, pictures=PICTURES, tolerance=1e-2, budget_s=0.5)
    assert record.reference == path.name
    verdicts = {(t.setting.file, t.setting.engine): t.verdict for t in record.trials if t.setting.precision == "fp32"}
    assert "allowed" in verdicts["far.onnx", "onnxruntime"]
    assert {trial.setting.file for trial in record.trials if trial.ms is not None} <= {path.name, near.name}
    # On noise nobody can judge what rounding does to a network.
    assert {trial.setting.file for trial in tune(path, budget_s=0.2).trials} == {path.name}


def test_accuracy_may_be_the_measure(tiny: Callable[..., Path], metadata: Metadata) -> None:
    path = tiny()
    coarser(path, "far.onnx", metadata, step=3.0)  # every weight becomes 0, and so does every score
    with Model(path) as model:
        truth = [model.predict(picture).index for picture in PICTURES]
    assert 0 not in truth
    truth[0] = 0
    for allowed, passes in ((10.0, False), (90.0, True)):
        record = tune(path, pictures=PICTURES, truth=truth, max_drop=allowed, device="cpu", threads=1, budget_s=0.2)
        found = {(t.setting.file, t.setting.engine, t.setting.precision): t for t in record.trials}
        own, far = found[path.name, "onnxruntime", "fp32"], found["far.onnx", "onnxruntime", "fp32"]
        assert own.top1 == pytest.approx(500 / 6) and far.top1 == pytest.approx(100 / 6)
        assert (far.ms is not None) == passes
        assert passes or "66.67 points of top-1 lost, 10 allowed" in far.verdict


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tolerance": 0.1, "max_drop": 1.0}, "one of the two"),
        ({"tolerance": -1.0}, "tolerance -1"),
        ({"pictures": []}, "0 pictures"),
        ({"pictures": PICTURES, "truth": [1]}, "6 pictures and 1 labels"),
        ({"precision": "int4"}, "nothing here runs it"),
        ({"device": "cuda", "precision": "fp16", "threads": 1}, "nothing here runs it"),
    ],
)
def test_bad_options_are_one_line(tiny: Callable[..., Path], options: dict[str, object], said: str) -> None:
    if options.get("device") == "cuda" and runtime_has_gpu():
        pytest.skip("a GPU runs it")
    with pytest.raises(InvalidInput) as caught:
        tune(tiny(), **options)  # type: ignore[arg-type]
    assert said in str(caught.value) and "\n" not in str(caught.value)


def runtime_has_gpu() -> bool:
    from runtime.engines import why_not

    return why_not("cuda") is None


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file, tuned on noise."""
    path = tmp_path_factory.mktemp("tuned") / "tiny.onnx"
    path.write_bytes(stamped().SerializeToString())
    remember(path, tune(path, budget_s=0.2))
    return path


@pytest.fixture
def tuned(once: Path, tmp_path: Path) -> Path:
    """Of its own for each test."""
    folder = tmp_path / "tuned"
    shutil.copytree(once.parent, folder)
    return folder / once.name


def record_of(path: Path) -> records.Record:
    record = read(path)
    assert record is not None
    return record


def test_what_was_found_is_what_auto_opens(tuned: Path) -> None:
    path, record = tuned, record_of(tuned)
    picture = PICTURES[0]
    with runtime.load(path, engine="auto") as model, Model(path) as plain:
        assert (model.engine, model.precision) == (record.chosen.engine, record.chosen.precision)
        assert model.predict(picture).label == plain.predict(picture).label


def test_auto_tunes_what_nobody_has_tuned_and_remembers(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny()
    monkeypatch.setattr("runtime.tuning.search.BUDGET_S", 0.2)
    runtime.load(path, engine="auto").close()
    before = beside(path, SUFFIX).read_bytes()
    runtime.load(path, engine="auto").close()
    assert beside(path, SUFFIX).read_bytes() == before, "the second time it was known"
    runtime.load(path, engine="auto", threads=1).close()
    assert record_of(path).chosen.threads == 1


def test_a_setting_beyond_the_limits_is_not_taken(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, record = tuned, record_of(tuned)
    monkeypatch.setattr("runtime.tuning.search.BUDGET_S", 0.2)
    beside(path, SUFFIX).write_text(json.dumps(replace(record, chosen=replace(record.chosen, threads=1)).to_dict()))
    with runtime.load(path, engine="auto", threads=2) as model:
        assert model.threads == 2
    if runtime_has_gpu():
        pytest.skip("a GPU runs it")
    with pytest.raises((InvalidInput, DeviceUnavailable)):
        runtime.load(path, engine="auto", device="cuda")


def spoilt(data: dict[str, object], what: str) -> object:
    """A record that must not be trusted."""
    changes: dict[str, dict[str, object]] = {
        "schema": {"schema": 99},
        "machine": {"machine": {**data["machine"], "cpu": "another"}},  # type: ignore[dict-item]
        "versions": {"machine": {**data["machine"], "versions": {}}},  # type: ignore[dict-item]
        "digests": {"digests": dict.fromkeys(data["digests"], "0" * 64)},  # type: ignore[attr-defined]
        "no setting": {"chosen": {}},
        "engine": {"chosen": {**data["chosen"], "engine": "another"}},  # type: ignore[dict-item]
        "precision": {"chosen": {**data["chosen"], "precision": "int1"}},  # type: ignore[dict-item]
        "threads": {"chosen": {**data["chosen"], "threads": 0}},  # type: ignore[dict-item]
        "path": {"chosen": {**data["chosen"], "file": "../elsewhere.onnx"}},  # type: ignore[dict-item]
        "options": {"chosen": {**data["chosen"], "options": 5}},  # type: ignore[dict-item]
        "unknown key": {"surprise": 1},
        "trials": {"trials": [1]},
    }
    return {**data, **changes[what]}


@pytest.mark.parametrize(
    "what",
    [
        *(
            "schema",
            "machine",
            "versions",
            "digests",
            "no setting",
            "engine",
            "precision",
            "threads",
            "path",
            "options",
        ),
        *("unknown key", "trials"),
    ],
)
def test_a_stale_or_damaged_record_is_passed_over(tuned: Path, what: str) -> None:
    data = json.loads(json.dumps(record_of(tuned).to_dict()))
    beside(tuned, SUFFIX).write_text(json.dumps(spoilt(data, what)))
    assert read(tuned) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "[" * 100_000, "\x00"])
def test_what_is_no_record_is_passed_over(tuned: Path, text: str) -> None:
    beside(tuned, SUFFIX).write_text(text)
    assert read(tuned) is None


def test_another_file_of_the_name_is_tuned_again(tuned: Path, tiny: Callable[..., Path]) -> None:
    shutil.copy(tiny(explain_layer="relu"), tuned)
    assert read(tuned) is None


def test_a_damaged_program_is_not_run(tuned: Path) -> None:
    path, record = tuned, record_of(tuned)
    beside(path, PREPARED).write_bytes(b"garbage")
    with runtime.load(path, engine="auto") as model:
        assert model.engine == record.chosen.engine
        assert np.isfinite(model.run(np.zeros((1, 3, 8, 8), np.float32))).all()


def test_a_folder_that_cannot_be_written_is_said(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny()

    def full(path: Path, data: bytes) -> None:
        raise OutputNotWritable(f"{path}: cannot be written (No space left on device); nothing was kept")

    monkeypatch.setattr(records, "write", full)
    monkeypatch.setattr("runtime.tuning.search.BUDGET_S", 0.2)
    with pytest.warns(UserWarning, match="tuned again the next time"):
        runtime.load(path, engine="auto").close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_setting_says_what_it_is() -> None:
    setting = Setting("a.onnx", "onnxruntime", "fp32", 2, (("session.intra_op.allow_spinning", "0"),))
    assert str(setting) == "a.onnx: onnxruntime fp32, 2 threads, allow_spinning=0"


def test_moved_together_it_still_holds(once: Path, tuned: Path) -> None:
    assert record_of(tuned) == record_of(once)
