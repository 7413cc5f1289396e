"""Files of other tools: each is imported and answers as before, or is refused in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from exporters import import_opset, import_parity, importer
from exporters.source import sample_files
from runtime.errors import InvalidArtifact, InvalidInput, InvalidWeights, ParityError
from runtime.image import preprocess
from runtime.metadata import Labels, Metadata, Preprocess
from runtime.model import Model
from tests.exporters import foreign
from tests.exporters.graphs import normal

PIXELS = Preprocess(size=(8, 8), resize=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
SMALL = replace(PIXELS, scale=1 / 255)
FOUR = Preprocess(size=(4, 4), resize=(4, 4), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1 / 255)
Import = Callable[..., importer.Imported]


@pytest.fixture
def bring(tmp_path: Path) -> Import:
    """Writes a model and imports it; checks that a refusal leaves nothing behind."""

    def run(proto: onnx.ModelProto | bytes, *, preprocess: Any = SMALL, **options: Any) -> importer.Imported:
        path = tmp_path / "given.onnx"
        path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
        before = sorted(tmp_path.rglob("*"))
        try:
            return importer.import_onnx(path, tmp_path / "out.onnx", preprocess=preprocess, **options)
        except Exception as error:
            assert sorted(tmp_path.rglob("*")) == before
            assert "\n" not in str(error)
            raise

    return run


def answers(path: Path, batch: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Every output, by onnxruntime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray[Any, Any]] = session.run(None, {session.get_inputs()[0].name: batch})
    return outputs


def photos(rule: Preprocess, count: int = 2) -> np.ndarray[Any, Any]:
    """The first bundled photos, preprocessed."""
    return np.concatenate([preprocess(path, rule) for path in sample_files("photos")[:count]])


INPUTS_TOO = "weights that were inputs too"
NHWC = replace(PIXELS, layout="NHWC")
WORKS: dict[str, tuple[Callable[[], onnx.ModelProto], Preprocess, str, list[str]]] = {
    # name: (model, preprocessing, task, what must be said)
    "opset 7, weights as inputs": (
        lambda: foreign.weights_as_inputs(foreign.plain(opset=7)), SMALL, "classification",
        ["inputs too and are no longer: 2", "opset 7 -> 13"]),
    "upsample of opset 7": (lambda: foreign.upsample(7), SMALL, "classification", [INPUTS_TOO, "opset 7 -> 13"]),
    "upsample of opset 9": (lambda: foreign.upsample(9), SMALL, "classification", [INPUTS_TOO, "opset 9 -> 13"]),
    "spatial=1": (lambda: foreign.batch_norm(1), SMALL, "classification", [INPUTS_TOO, "opset 7 -> 13"]),
    "spatial=0": (lambda: foreign.batch_norm(0), SMALL, "classification",
                  [INPUTS_TOO, "kept at opset 7: the converter fails (Attribute spatial must have value 1)"]),
    "training": (foreign.batch_norm_in_training, SMALL, "classification", ["BatchNormalization is in training mode"]),
    "a dropout's mask": (foreign.dropout_with_mask, SMALL, "classification",
                         ["kept at opset 10: at opset 13 it answers otherwise"]),
    "reshape of opset 1": (foreign.old_reshape, replace(SMALL, size=(2, 2), resize=(2, 2)), "classification",
                           [INPUTS_TOO, "opset 4 -> 13"]),
    "if": (foreign.branches, FOUR, "classification", ["kept at opset 11: If may hold branches"]),
    "loop": (foreign.loop, FOUR, "classification", []),
    "own functions": (lambda: foreign.local_function(12), FOUR, "classification",
                      ["kept at opset 12: the converter drops the file's own functions"]),
    "qdq": (foreign.quantized, SMALL, "classification", []),
    "float16": (foreign.half, SMALL, "classification", ["casts it to float16", "cast from float16 to float32"]),
    "uint8 NHWC": (foreign.pixels_in, NHWC, "classification", ["casts it to uint8"]),
    "opset 21": (lambda: foreign.plain(opset=21, ir=10), SMALL, "classification", []),
    "batch 4": (lambda: foreign.plain(batch="4"), SMALL, "classification", []),
    "free height and width": (lambda: foreign.plain(side="H"), SMALL, "classification", []),
    "two outputs": (foreign.two_outputs, SMALL, "other", []),
    "onnxruntime's own operators": (
        lambda: foreign.tail("q = com.microsoft.Gelu(r) p = GlobalAveragePool(q) y = Flatten(p)", "float[N,4] y",
                             opset=11, domains=foreign.RUNTIME_OPERATORS),
        SMALL, "classification", ["opset 11 -> 13"]),
    "their opset not named": (
        lambda: foreign.tail("q = com.microsoft.Gelu(r) p = GlobalAveragePool(q) y = Flatten(p)", "float[N,4] y"),
        SMALL, "classification", ["onnx.checker objects", "opset 1 of com.microsoft is named"]),
    "(N, C, 1, 1)": (lambda: foreign.tail("y = GlobalAveragePool(r)", "float[N,4,1,1] y"), SMALL, "classification",
                     ["the first output is reshaped to (N, classes)"]),
    "(N, 1, C)": (
        lambda: foreign.tail("p = GlobalAveragePool(r) y = Reshape(p, k)", "float[N,1,4] y", k=np.array([-1, 1, 4])),
        SMALL, "classification", ["the first output is reshaped to (N, classes)"]),
    "(C,), batch only named free": (
        lambda: foreign.tail("p = GlobalAveragePool(r) y = Reshape(p, k)", "float[4] y", k=np.array([4])),
        SMALL, "classification", ["does not run 3 at a time", "reshaped to (N, classes)", "frozen to batch 1"]),
    "a map": (lambda: foreign.tail("y = Neg(r)", "float[N,4,6,6] y"), SMALL, "other", []),
    "sigmoid": (lambda: foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) y = Sigmoid(f)", "float[N,4] y"),
                SMALL, "multilabel", []),
    "one sigmoid": (
        lambda: foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) g = MatMul(f, k) y = Sigmoid(g)", "float[N,1] y",
                             k=normal(4, 1)),
        SMALL, "binary", []),
    "argmax": (lambda: foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) y = ArgMax<axis = 1>(f)", "int64[N,1] y"),
               SMALL, "other", []),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_it_works(bring: Import, tmp_path: Path, name: str) -> None:
    make, rule, task, said = WORKS[name]
    proto = make()
    done = bring(proto, preprocess=rule)
    for words in said:
        assert any(words in change for change in done.changes), done.changes
    assert len(done.changes) == len(said), done.changes
    onnx.checker.check_model(str(done.path), full_check=True)
    assert done.metadata.task == task
    element = proto.graph.input[0].type.tensor_type.elem_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    with Model(done.path) as model:
        assert model.metadata == done.metadata
        batch = photos(rule, model.batch_size or 2)
        if model.batch_size is None or not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
            old = answers(tmp_path / "given.onnx", batch.astype(dtype))
        else:
            old = answers(tmp_path / "given.onnx", batch[:1].astype(dtype))
        new = list(model.run_all(batch.astype(dtype).astype(np.float32)).values())
        assert len(new) == len(old)
        for mine, theirs in zip(new, old, strict=True):
            assert mine.size == theirs.size
            scale = np.abs(theirs.astype(np.float64)).max() or 1
            tolerance = 1e-3 if dtype == np.float16 else 1e-5
            np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, atol=tolerance * scale)
        if task in ("classification", "binary", "multilabel"):
            assert new[0].dtype == np.float32
            answer = model.predict(sample_files("photos")[0])
            assert answer.label in done.metadata.labels.names  # type: ignore[union-attr]


CANNOT: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "nothing": (lambda: b"", "the file is empty"),
    "text": (lambda: b"hello" * 40, "not an ONNX file"),
    "cut short": (lambda: foreign.plain().SerializeToString()[:-9], "cut short"),
    "no graph": (lambda: foreign.model("() => () { }"), "cannot open it"),
    "a circle": (lambda: foreign.model("(float[N,4] x) => (float[N,4] y) { a = Add(x, b) b = Relu(a) y = Relu(b) }"),
                 "not acyclic"),
    "a name twice": (lambda: foreign.model("(float[N,4] x) => (float[N,4] y) { y = Relu(x) y = Sigmoid(x) }"),
                     "Duplicate definition"),
    "two inputs": (lambda: foreign.model("(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add(x, z) }"),
                   r"takes 2 inputs \(x, z\): edgezoo runs networks of one input"),
    "no inputs": (lambda: foreign.model("() => (float[1] y) { y = Constant<value_floats = [1.0]>() }"),
                  "takes no input"),
    "a sequence": (lambda: foreign.model("(float[N,4] x) => (seq(float[N,4]) s) { s = SequenceConstruct(x) }"),
                   r"output 's' is a seq\(tensor\(float\)\)"),
    "a map of names": (
        lambda: foreign.model("(float[N,2] x) => (m) { m = ai.onnx.ml.ZipMap<classlabels_int64s = [0, 1]>(x) }",
                              domains=foreign.CLASSIC), r"output 'm' is a seq\(map\(int64,tensor\(float\)\)\)"),
    "strings": (lambda: foreign.model("(string[N] x) => (string[N] y) { y = Identity(x) }"),
                "input 'x' is a tensor.string"),
    "no shape": (lambda: foreign.model("(float[] x) => (y) { y = Relu(x) }"), "states no shape"),
    "another's operator": (lambda: foreign.model("(float[N,4] x) => (y) { y = acme.Thing(x) }", domains=' "acme": 1,'),
                           "uses an operator that onnxruntime .* does not have"),
    "chance": (lambda: foreign.tail("n = RandomNormalLike(r) y = Add(r, n)", "float[N,4,6,6] y"),
               r"differently each time \(RandomNormalLike\)"),
    "dropout in training": (
        lambda: foreign.tail("y = Dropout(r, q, t)", "float[N,4,6,6] y", q=np.float32(0.5), t=np.bool_(True)),
        r"differently each time \(Dropout\)"),
    "not finite": (
        lambda: foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) z = Sub(f, f) y = Log(z)", "float[N,4] y"),
        "scores are not finite"),
    "softmax elsewhere": (
        lambda: foreign.tail("p = GlobalAveragePool(r) s = Softmax<axis = 3>(p) y = Flatten(s)", "float[N,4] y"),
        "not over the classes: say --scores"),
    "another form of input": (lambda: foreign.plain(side="9"),
                              r"the input is \['N', 3, 9, 9\], the preprocessing gives"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_it_is_refused(bring: Import, name: str) -> None:
    make, message = CANNOT[name]
    with pytest.raises((InvalidArtifact, InvalidInput, InvalidWeights), match=message):
        bring(make())


@pytest.mark.parametrize(
    ("text", "arrays"),
    [
        ("(float[N] x) => (float[N] y) { y = Relu(x) }", "random arrays, seed 0"),
        ("(float x) => (float y) { y = Relu(x) }", "random arrays, seed 0"),
        ("(float[N,T,10] x) => (float[N,T,10] y) { y = Relu(x) }", "random arrays, seed 0"),
        ("(float[N,1,4,4,4] x) => (float[N,1,4,4,4] y) { y = Relu(x) }", "random arrays, seed 0"),
        ("(float[N,64,7,7] x) => (float[N,64,7,7] y) { y = Relu(x) }", "random arrays, seed 0"),
        ("(float[N,7] x) => (float[N,7] y) { y = ai.onnx.ml.Normalizer<norm = \"L2\">(x) }", "random arrays, seed 0"),
    ],
)  # fmt: skip
def test_inputs_that_are_no_pictures(bring: Import, text: str, arrays: str) -> None:
    done = bring(foreign.model(text, domains=foreign.CLASSIC), preprocess=None)
    assert (done.metadata.task, done.metadata.preprocess, done.metadata.labels) == ("other", None, None)
    assert done.metadata.parity is not None
    assert done.metadata.parity.inputs_kind == arrays


def test_indices_stay_in_their_table(bring: Import) -> None:
    done = bring(
        foreign.model("(int64[N,7] x) => (float[N,7,4] y) { y = Gather(t, x) }", t=normal(2, 4)), preprocess=None
    )
    assert "casts it to int64, exact to 2^24" in done.changes[0]
    with Model(done.path) as model:
        np.testing.assert_array_equal(model.run(np.ones((2, 7), np.float32))[1, 3], normal(2, 4)[1])


def test_a_picture_needs_a_rule(bring: Import) -> None:
    with pytest.raises(InvalidInput, match=r"\['N', 3, 8, 8\] looks like a picture: .* --preprocess torch, tf, caffe"):
        bring(foreign.plain(), preprocess=None)
    done = bring(foreign.plain(), preprocess="none", task="classification")
    assert (done.metadata.preprocess, done.metadata.task) == (None, "classification")
    with pytest.raises(InvalidInput, match=r"takes uint8 pixels, .* whole numbers from 0 to 255"):
        bring(foreign.pixels_in(), preprocess=replace(NHWC, scale=1 / 255))


# ---- scores, labels, tasks


def test_softmax_decides_and_the_user_may(bring: Import) -> None:
    soft = foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) y = Softmax(f)", "float[N,4] y")
    hand = foreign.tail(
        "p = GlobalAveragePool(r) f = Flatten(p) e = Exp(f) s = ReduceSum(e, k) y = Div(e, s)", "float[N,4] y",
        k=np.array([1]),
    )  # fmt: skip
    raw = foreign.tail("p = GlobalAveragePool(r) y = Flatten(p)", "float[N,4] y")
    logs = foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) y = LogSoftmax(f)", "float[N,4] y")
    kinds = [bring(proto).metadata.scores for proto in (soft, hand, raw, logs)]
    assert kinds == ["probabilities", "probabilities", "logits", "logits"]
    assert "add up to 1" in bring(hand).changes[0]
    assert bring(soft, scores="logits").metadata.scores == "logits"
    with pytest.raises(InvalidInput, match="they are no probabilities"):
        bring(logs, scores="probabilities")


def test_labels_are_counted(bring: Import) -> None:
    five = Labels(tuple("abcde"))
    assert bring(foreign.plain(), labels=five).metadata.labels == five
    assert bring(foreign.plain()).metadata.labels == Labels(tuple(f"class {index}" for index in range(5)))
    with pytest.raises(InvalidInput, match="5 outputs, but 3 labels: give one name per output"):
        bring(foreign.plain(), labels=Labels(("a", "b", "c")))
    with pytest.raises(InvalidInput, match=r"1001 outputs, but 1000 labels: .* background first"):
        bring(foreign.pixels_in(), preprocess=NHWC, labels=Labels(tuple(map(str, range(1000)))))
    with pytest.raises(InvalidInput, match="leave --labels out, or give --task"):
        bring(foreign.two_outputs(), labels=five)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("binary", "task binary needs 1 output"),
        ("score-map", "a score map needs its windows"),
        ("detection", "unknown task 'detection': choose from classification"),
    ],
)
def test_tasks_that_do_not_fit(bring: Import, task: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        bring(foreign.plain(), task=task)


def test_tasks_that_do(bring: Import) -> None:
    for task in ("features", "other"):
        done = bring(foreign.plain(), task=task)
        assert (done.metadata.task, done.metadata.labels) == (task, None)
    assert bring(foreign.plain(), task="multilabel").metadata.scores == "logits"
    with pytest.raises(InvalidInput, match=r"\[3, 4, 6, 6\] for 3 in a run: task features needs \(N, classes\)"):
        bring(foreign.tail("y = Neg(r)", "float[N,4,6,6] y"), task="features")


def test_another_output_comes_first(bring: Import) -> None:
    done = bring(foreign.two_outputs(), output_name="y")
    assert done.metadata.task == "classification"
    assert "output y comes first" in done.changes
    with Model(done.path) as model:
        assert list(model.run_all(photos(SMALL))) == ["y", "b"]
    with pytest.raises(InvalidInput, match="no output 'z': it has b, y"):
        bring(foreign.two_outputs(), output_name="z")


# ---- opsets


def test_an_opset_that_is_asked_for(bring: Import) -> None:
    done = bring(foreign.plain(opset=11), opset=17)
    assert "opset 11 -> 17" in done.changes[0]
    assert done.metadata.provenance.opset == 17
    assert bring(foreign.branches(), preprocess=FOUR, opset=13).metadata.provenance.opset == 13
    with pytest.raises(
        InvalidInput, match="cannot be brought to opset 13: the converter drops the file's own functions"
    ):
        bring(foreign.local_function(12), preprocess=FOUR, opset=13)
    with pytest.raises(InvalidInput, match="opset 5 is not supported: choose 13 to 23"):
        bring(foreign.plain(), opset=5)
    with pytest.raises(ParityError, match="differs from the file's own"):
        bring(foreign.dropout_with_mask(), opset=13)


def test_a_converter_that_is_wrong_is_found_out(bring: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(proto: onnx.ModelProto, wanted: int | None) -> tuple[onnx.ModelProto, str]:
        result, said = import_opset.raised(proto, wanted)
        (tensor,) = (tensor for tensor in result.graph.initializer if tensor.name == "f4")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), "f4"))
        return result, said

    monkeypatch.setattr("exporters.import_rewrite.raised", wrong)
    done = bring(foreign.plain(opset=11))
    assert done.changes == ("kept at opset 11: at opset 13 it answers otherwise",)
    with pytest.raises(ParityError, match=r"relative error 1\.0e-03 above 1e-05"):
        bring(foreign.plain(opset=11), opset=13)
    with pytest.raises(ParityError, match=r"relative error 1\.0e-03 above 1e-05"):
        bring(foreign.plain())  # no other opset to fall back to


# ---- what the file says of itself


def test_provenance(bring: Import, tmp_path: Path) -> None:
    proto = foreign.weights_as_inputs(foreign.plain(opset=9))
    proto.producer_name, proto.producer_version = "acme\x1b[31m", "1.2"
    proto.metadata_props.add(key="author", value="somebody")
    proto.metadata_props.add(key="edgezoo.schema", value="0")
    done = bring(proto, license="MIT", name="mine")
    told = done.metadata.provenance
    assert (done.metadata.name, told.license, told.framework, told.framework_version) == (
        "mine", "MIT", "onnx", "acme?[31m 1.2"
    )  # fmt: skip
    assert (told.builder, told.weights, told.weights_file) == ("file:given.onnx", "file", "given.onnx")
    assert told.weights_sha256 == hashlib.sha256((tmp_path / "given.onnx").read_bytes()).hexdigest()
    assert "opset 9 -> 13" in told.exporter
    assert done.metadata.explain_layer in {name for node in proto.graph.node for name in node.output}
    assert any("own metadata was dropped: metadata schema '0'" in change for change in done.changes)
    props = {entry.key: entry.value for entry in onnx.load(done.path).metadata_props}
    assert props["author"] == "somebody"
    assert Metadata.from_props(props) == done.metadata


def test_a_file_of_edgezoo_is_stamped_again(tmp_path: Path, tiny: Callable[..., Path], metadata: Metadata) -> None:
    untrained = replace(metadata.provenance, weights="none", seed=3)
    path = tiny(provenance=untrained)
    done = importer.import_onnx(path, tmp_path / "out.onnx")
    assert (done.metadata.preprocess, done.metadata.labels) == (metadata.preprocess, metadata.labels)
    assert not done.metadata.trained
    assert done.metadata.provenance.exporter == f"{untrained.exporter}; stamped by zoo import"
    assert any("carries edgezoo metadata" in change for change in done.changes)
    names = Labels(("a", "b", "c", "d"))
    again = importer.import_onnx(path, tmp_path / "out.onnx", labels=names, preprocess=SMALL)
    assert (again.metadata.preprocess, again.metadata.labels) == (SMALL, names)


def test_the_same_file_gives_the_same_bytes(bring: Import) -> None:
    first = bring(foreign.upsample(9)).path.read_bytes()
    assert bring(foreign.upsample(9)).path.read_bytes() == first


# ---- files


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A model whose weights lie in a file beside it."""
    folder = tmp_path / "apart"
    folder.mkdir()
    onnx.save_model(
        foreign.plain(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )  # fmt: skip
    return folder / "m.onnx"


def test_weights_in_another_file(apart: Path, tmp_path: Path) -> None:
    done = importer.import_onnx(apart, tmp_path / "out.onnx", preprocess=SMALL)
    assert "tensors read from w.bin: 2" in done.changes
    data = apart.read_bytes() + (apart.parent / "w.bin").read_bytes()
    told = done.metadata.provenance
    assert (told.weights_file, told.weights_sha256) == ("m.onnx + w.bin", hashlib.sha256(data).hexdigest())
    np.testing.assert_array_equal(answers(done.path, photos(SMALL))[0], answers(apart, photos(SMALL))[0])


def test_weights_outside_the_folder(apart: Path, tmp_path: Path) -> None:
    (apart.parent / "w.bin").rename(tmp_path / "w.bin")
    with pytest.raises(InvalidArtifact, match=r"'w\.bin' is missing"):
        importer.import_onnx(apart, tmp_path / "out.onnx", preprocess=SMALL)
    proto = foreign.plain()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../w.bin")
    apart.write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidArtifact, match="is not inside the model's folder"):
        importer.import_onnx(apart, tmp_path / "out.onnx", preprocess=SMALL)
    assert not (tmp_path / "out.onnx").exists()


def test_nothing_that_is_imported_is_written_over(apart: Path) -> None:
    with pytest.raises(InvalidInput, match=r"would replace m\.onnx, which is being imported"):
        importer.import_onnx(apart, apart, preprocess=SMALL)
    (apart.parent / "w.bin").rename(apart.parent / "x.onnx.data")
    proto = onnx.load(apart, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = "x.onnx.data"
    apart.write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidInput, match=r"would replace x\.onnx\.data, which is being imported"):
        importer.import_onnx(apart, apart.with_name("x.onnx"), preprocess=SMALL)


def test_a_large_file_keeps_its_weights_apart(bring: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.artifact.EXTERNAL_DATA_ABOVE", 10_000)
    done = bring(foreign.pixels_in(), preprocess=NHWC, task="other")
    assert (tmp_path / "out.onnx.data").stat().st_size > 10_000 > done.path.stat().st_size
    batch = photos(NHWC)
    (new,), (old,) = answers(done.path, batch), answers(tmp_path / "given.onnx", batch.astype(np.uint8))
    np.testing.assert_array_equal(new, old)


# ---- the guard


def test_difference() -> None:
    one = np.array([1.0, -2.0], np.float32)
    assert import_parity.difference(one, one) == 0
    assert import_parity.difference(one + 1, one) == 0.5
    assert import_parity.difference(one[:1], one) == np.inf
    assert import_parity.difference(one, one * 0) == np.inf
    assert import_parity.difference(one * 0, one * 0) == 0
    odd = np.array([np.nan, np.inf, 1.0])
    assert import_parity.difference(odd, odd) == 0
    assert import_parity.difference(one, odd[:2]) == np.inf
    assert import_parity.difference(odd[:2], one) == np.inf
    assert import_parity.difference(np.array([True]), np.array([False])) == np.inf
    assert import_parity.difference(one[:0], one[:0]) == 0


@pytest.mark.parametrize("seed", range(2))
def test_damaged_files_are_refused_or_answer_as_they_did(bring: Import, seed: int) -> None:
    """Bytes flipped anywhere: an error of ours in one line, or a file that was verified against the damaged one."""
    random = np.random.default_rng(seed)
    whole = foreign.weights_as_inputs(foreign.plain(opset=9)).SerializeToString()
    for _ in range(15):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(256)
        try:
            done = bring(bytes(data))
        except (InvalidArtifact, InvalidInput, InvalidWeights):
            continue
        onnx.checker.check_model(str(done.path))
        done.path.unlink()


# ---- files that take pixels


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (foreign.plain, replace(SMALL, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))),
        (foreign.plain, replace(SMALL, color="BGR", mean=(0.4, 0.5, 0.6))),
        (foreign.half, SMALL),
        (foreign.quantized, SMALL),
        (foreign.pixels_in, NHWC),
        (lambda: foreign.plain(batch="4"), SMALL),
    ],
)
def test_pixels_in_front_of_a_file_from_elsewhere(
    bring: Import, tmp_path: Path, make: Callable[[], onnx.ModelProto], rule: Preprocess, layout: Any
) -> None:
    proto = make()
    plain = bring(proto, preprocess=rule)
    wanted = _scores(plain.path)
    done = bring(proto, preprocess=rule, pixels=layout)
    assert f"the input takes uint8 pixels, {layout}, and normalises them" in done.changes
    assert done.metadata.preprocess == replace(rule, input="uint8", layout=layout)
    assert (done.metadata.labels, done.metadata.explain_layer) == (plain.metadata.labels, plain.metadata.explain_layer)
    np.testing.assert_allclose(_scores(done.path), wanted, atol=2e-3 * np.abs(wanted).max(), rtol=0)
    again = importer.import_onnx(done.path, tmp_path / "again.onnx", name="renamed")
    assert again.metadata.preprocess == done.metadata.preprocess
    assert not any("uint8 pixels" in change for change in again.changes)
    np.testing.assert_array_equal(_scores(again.path), _scores(done.path))
    turned = importer.import_onnx(done.path, tmp_path / "turned.onnx", pixels="NCHW" if layout == "NHWC" else "NHWC")
    np.testing.assert_array_equal(_scores(turned.path), _scores(done.path))
    with pytest.raises(InvalidInput, match="normalises pixels itself: leave --preprocess out"):
        importer.import_onnx(done.path, tmp_path / "other.onnx", preprocess=rule)


def test_pixels_where_there_is_no_picture(bring: Import) -> None:
    with pytest.raises(InvalidInput, match="--uint8-input: the input is no picture"):
        bring(foreign.plain(), preprocess="none", pixels="NHWC")


def _scores(path: Path) -> np.ndarray[Any, Any]:
    with Model(path) as model:
        return np.concatenate(list(model.scores_many(sample_files("photos"))))
