"""From a float32 artifact to an int8 one, or to a refusal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import runtime
from exporters.quantize import search
from exporters.quantize.guard import Limits, Measured
from exporters.quantize.layers import compare
from exporters.quantize.road import Trial, _first_that_holds, _worth_measuring, quantize
from exporters.quantize.targets import this_machine
from exporters.quantize.way import Way
from runtime.errors import InvalidInput, QuantizationRefused
from runtime.metadata import Layout
from runtime.pixel_input import without_pixels
from runtime.quantization import Precision
from tests.exporters.pixel_files import as_pixels
from tests.exporters.quantize.networks import pictures, silent


def own_answers(file: Path, images: list[Any]) -> list[int]:
    with runtime.load(file) as model:
        return [int(scores.argmax()) for scores in model.scores_many(images, batch_size=1)]


@pytest.fixture
def even_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same way is the best in two searches, and integers are faster, whatever else the machine does."""
    monkeypatch.setattr(search, "milliseconds", lambda models, picture, **options: [1.0] + [0.5] * (len(models) - 1))


@pytest.mark.slow
@pytest.mark.usefixtures("even_times")
def test_a_forced_file_says_how_it_was_made(mobile_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "NEGLIGIBLE", 0.0)  # the small network's error is: its layers are looked at anyway
    calibration, held_out = pictures(32).sources, pictures(40, seed=1).sources
    right, output = own_answers(mobile_file, held_out), tmp_path / "int8.onnx"
    steps: list[str] = []
    done = quantize(
        mobile_file, output, Trial(calibration, held_out, right), force=True,
        progress=lambda what, done, total: steps.append(what),
    )  # fmt: skip
    assert {"ranges", "histograms", "correction", "sensitivity", "timing", "measuring"} <= set(steps)
    with runtime.load(output) as model:
        assert model.metadata == done.metadata
        record = model.metadata.quantization if model.metadata else None
        assert record is not None
        assert (record.calibration, record.images, record.target) == (32, 40, this_machine())
        assert record.top1 == (100, record.agreement)
        assert record.agreement >= 75
        assert 0 < record.integer_nodes < record.integer_nodes + record.float_nodes
    assert record.search == done.way.name
    with pytest.raises(InvalidInput, match="already"):
        quantize(output, tmp_path / "again.onnx", Trial(calibration, held_out, right))


@pytest.mark.parametrize(
    ("drops", "ratios", "allowed", "taken", "measured"),
    [
        ((2.0, 0.4), (0.5, 0.6), 0.5, "b", "ab"),
        ((2.0, 3.0, 1.5, 0.4, 0.3), (0.5,) * 5, 0.5, "d", "abcd"),  # the third of the ways, then one more
        ((2.0, 3.0, 1.5, 0.9, 1.0), (0.5,) * 5, 0.5, "d", "abcde"),  # none: the one that loses least
        ((0.1, 0.2, 0.3, 0.4), (1.1, 1.0, 1.2, 0.5), 0.5, "a", "abc"),  # not for want of accuracy
    ],
)
def test_more_stays_in_float_only_where_accuracy_is_amiss(
    drops: tuple[float, ...], ratios: tuple[float, ...], allowed: float, taken: str, measured: str
) -> None:
    ways = [
        Way(name, None, 0, error=0.3 - 0.05 * place, times=(2.0, 1 + 0.1 * place))
        for place, name in enumerate("abcde"[: len(drops)])
    ]
    asked: list[str] = []

    def figures(way: Way) -> Measured:
        asked.append(way.name)
        place = "abcde".index(way.name)
        return Measured(900, 95.0, {"logits": 0.1}, (80.0, 80.0 - drops[place]), None, (2.0, 2 * ratios[place]))

    tried = ways[:3]
    way, found = _first_that_holds(tried, iter(ways[3:]), figures, Limits(allowed))
    assert (way.name, "".join(asked)) == (taken, measured)
    assert found.drop == pytest.approx(drops["abcde".index(taken)])
    assert [way.name for way in tried] == list("abcde"[: max(len(measured), len(ways[:3]))])


def test_what_is_measured_errs_less_and_less() -> None:
    def way(name: str, error: float, ratio: float) -> Way:
        return Way(name, None, 0, error=error, times=(1.0, ratio))

    slow = [way("f", 0.02, 0.9), way("g", 0.01, 0.95), way("h", 0.005, 1.1)]
    tried = [way("a", 0.1, 0.5), way("b", 0.2, 0.4), way("c", 0.08, 0.6), way("d", 0.09, 0.7), way("e", 0.05, 0.8)]
    assert [way.name for way in _worth_measuring(tried + slow)] == ["a", "c", "e", "f"]
    assert [way.name for way in _worth_measuring([*tried[:2], *slow[1:]])] == ["a", "g"]


@pytest.mark.slow
def test_a_refusal_writes_nothing(mobile_file: Path, tmp_path: Path) -> None:
    before, held_out = sorted(tmp_path.iterdir()), pictures(40, seed=1).sources
    trial = Trial(pictures(32).sources, held_out, own_answers(mobile_file, held_out))
    with pytest.raises(QuantizationRefused, match=r"top-1 (falls|rises)? ?from|not faster") as refusal:
        quantize(mobile_file, tmp_path / "int8.onnx", trial, limits=Limits(-1.0))
    assert "tried: " in str(refusal.value)
    assert "--force" in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_an_interrupted_search_goes_on_where_it_was(
    mobile_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, even_times: None
) -> None:
    monkeypatch.setattr(search, "NEGLIGIBLE", 0.0)
    monkeypatch.setattr(search, "CAUTIONS", search.CAUTIONS[:1])  # those not taken would be corrected for nothing
    trial = Trial(pictures(32).sources, pictures(40, seed=1).sources)
    searches, before = tmp_path / "searches", []

    def interrupt(what: str, done: int, total: int) -> None:
        before.append(f"{what} {done}")
        if what == "sensitivity" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(mobile_file, tmp_path / "int8.onnx", trial, searches=searches, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mobile.onnx", "searches"]
    (subject,) = searches.iterdir()
    damaged = max(subject.iterdir(), key=lambda file: file.stat().st_size)  # corrections; the times are smaller
    damaged.write_bytes(damaged.read_bytes()[:20])  # is worked out again
    steps: list[str] = []
    made = quantize(
        mobile_file, tmp_path / "int8.onnx", trial, searches=searches, force=True,
        progress=lambda what, done, total: steps.append(f"{what} {done}"),
    )  # fmt: skip
    kept = before.count("correction 0") - 1  # all but the damaged one
    assert kept >= 3
    assert steps.count("correction 0") == len(made.tried) - kept
    assert not any(searches.iterdir())


def test_a_target_that_is_not_at_hand_is_not_timed(mobile_file: Path, tmp_path: Path) -> None:
    other = next(name for name in ("arm64", "x86-vnni") if name != this_machine())
    trial = Trial(pictures(32).sources, pictures(40, seed=1).sources)
    done = quantize(mobile_file, tmp_path / "int8.onnx", trial, target=other, force=True)
    told = done.metadata.quantization
    assert told is not None
    assert (told.target, told.time_ratio, told.float_ms) == (other, None, None)
    assert done.measured.complaint(Limits(100.0)) is None


def test_half_precision_is_measured_like_any_other(mobile_file: Path, tmp_path: Path) -> None:
    held_out = pictures(40, seed=1).sources
    trial = Trial([], held_out, own_answers(mobile_file, held_out))
    done = quantize(mobile_file, tmp_path / "fp16.onnx", trial, precision="fp16")
    told = done.metadata.quantization
    assert told is not None
    assert (told.precision, told.target, told.calibration, told.calibrated_on) == ("fp16", "cuda", 0, None)
    assert told.agreement == 100
    assert told.distance < 1e-2
    weights = onnx.load(done.path).graph.initializer
    assert {item.data_type for item in weights} == {onnx.TensorProto.FLOAT16}
    with pytest.raises(InvalidInput, match=r"--bf16: onnxruntime has no such kernels for this network on device 'cpu'"):
        quantize(mobile_file, tmp_path / "bf16.onnx", trial, precision="bf16")


@pytest.mark.parametrize("precision", ["fp16", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("had", [None, "NHWC"])
def test_of_a_file_that_takes_pixels(
    mobile_file: Path, tmp_path: Path, precision: Precision, had: Layout | None, even_times: None
) -> None:
    """The same smaller network as of the float32 file, the pixels in front of it again; and put there when asked."""
    calibration = pictures(32).sources if precision == "int8" else []
    trial = Trial(calibration, pictures(12, seed=1).sources)
    options: dict[str, Any] = {"precision": precision, "plain": True, "force": True}
    wanted = quantize(mobile_file, tmp_path / "plain.onnx", trial, **options)
    file = as_pixels(mobile_file, tmp_path / "pixels.onnx", had) if had else mobile_file
    done = quantize(file, tmp_path / "small.onnx", trial, pixels=None if had else "NCHW", **options)
    with runtime.load(done.path) as model:
        assert model.metadata == done.metadata
        assert (model.rule.input, model.rule.layout) == ("uint8", had or "NCHW")
    assert without_pixels(onnx.load(done.path)).graph == onnx.load(wanted.path).graph
    assert done.measured.agreement == wanted.measured.agreement
    assert done.measured.distance == pytest.approx(wanted.measured.distance, rel=0.05)
    assert done.measured.milliseconds is not None or precision == "fp16"
    reports = [
        {layer.name: layer.error for layer in compare(one.way, given, one.path, pictures(4), progress=silent)}
        for one, given in ((done, file), (wanted, mobile_file))
    ]
    assert reports[0] == reports[1]


def test_weights_beyond_float16_are_said(mobile_file: Path, tmp_path: Path) -> None:
    proto = onnx.load(mobile_file)
    weight = next(item for item in proto.graph.initializer if item.name == "head.w")
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] = 1e5
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "head.w"))
    onnx.save(proto, mobile_file)
    with pytest.raises(InvalidInput, match=r"head\.w: its weights reach 1e\+05, beyond fp16"):
        quantize(mobile_file, tmp_path / "fp16.onnx", Trial([], pictures(4).sources), precision="fp16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"stamped": False}, "zoo import"), ({"task": "other", "labels": None}, "task other: .* --max-distance")],
)
def test_what_cannot_be_quantized(
    tiny: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        quantize(tiny(**changes), tmp_path / "o.onnx", Trial([], []))
    with pytest.raises(InvalidInput, match="x86-vnni"):
        quantize(tiny(), tmp_path / "o.onnx", Trial([], []), target="z80")


@pytest.mark.slow
def test_real_weights_keep_their_answers(zoo: Any, tmp_path: Path, shared_data: Path) -> None:
    """onnxruntime's own recipe with min-max ranges agrees on 92.6 % of 900 photos here (benchmarks/int8.py)."""
    weights, output = shared_data / "weights" / "squeezenet1_1_onnxzoo.pth", tmp_path / "float.onnx"
    assert zoo("export", "squeezenet1_1", "--weights", weights, "-o", output).code == 0
    photos, table = shared_data / "photos", tmp_path / "some.csv"
    table.write_text("".join((photos / "labels.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:301]))
    options = ["--data", photos, "--labels", table, "--force", "-o", tmp_path / "int8.onnx", "--json"]
    done = zoo("quantize", output, *options)
    assert done.code == 0, done.err
    record = json.loads(done.out)["quantization"]
    assert (record["calibration"], record["images"]) == (100, 200)
    # Which of the ways is taken hangs on times, and the answers to 200 photos on that; the distance hardly does.
    assert record["agreement"] >= 92.6
    assert record["distance"] <= 0.022
    told = zoo("eval", tmp_path / "int8.onnx", table, "--images", photos, "--skip", 100, "--json")
    assert json.loads(told.out)["top1"] == pytest.approx(record["top1"][1], abs=0.5)  # a photo: other batches


@pytest.mark.slow
def test_lenet_keeps_its_answers(zoo: Any, tmp_path: Path, shared_data: Path, lenet_file: Path) -> None:
    options = ["--data", shared_data / "mnist", "--force", "-o", tmp_path / "int8.onnx", "--json"]
    done = zoo("quantize", lenet_file, *options)
    assert done.code == 0, done.err
    record = json.loads(done.out)["quantization"]
    assert record["images"] == 9900
    assert record["agreement"] >= 99.5
    assert record["top1"][0] - record["top1"][1] <= 0.1
