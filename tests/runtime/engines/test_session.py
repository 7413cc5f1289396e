"""open_session against the real onnxruntime: every wrong file and device is one clear line."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from runtime.engines import DEVICES, ENGINES, open_session, why_unavailable
from runtime.engines import session as engines
from runtime.errors import ArtifactNotFound, DeviceUnavailable, InvalidArtifact, InvalidInput, UserError
from runtime.machine import load_onnxruntime, usable_cores

onnxruntime = load_onnxruntime()

WEIGHTS = np.random.default_rng(0).standard_normal((24, 24)).astype(np.float32)
INPUT = np.random.default_rng(1).standard_normal((1, 3, 24)).astype(np.float32)
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 24])


def make_model(
    *,
    nodes: list[Any] | None = None,
    initializers: list[Any] | None = None,
    opsets: tuple[tuple[str, int], ...] = (("", 18),),
    ir_version: int = 9,
    metadata: int = 0,
) -> onnx.ModelProto:
    """softmax(x @ w): what Softmax does to three dimensions changed with opset 13."""
    nodes = nodes or [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="product"),
        helper.make_node("Softmax", ["z"], ["y"], axis=1, name="softmax"),
    ]
    initializers = [numpy_helper.from_array(WEIGHTS, "w")] if initializers is None else initializers
    graph = helper.make_graph(nodes, "g", [X], [Y], initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets], ir_version=ir_version
    )
    helper.set_model_props(model, {f"key{index}": "value" * 3 for index in range(metadata)})
    return model


def run(session: Any) -> np.ndarray:
    return session.run(None, {"x": INPUT})[0]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def write(model: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write


def refusal(model: Any, expected: type[Exception] = InvalidArtifact, **options: Any) -> str:
    with pytest.raises(expected) as caught:
        open_session(model, **options)
    assert type(caught.value) is expected
    text = str(caught.value)
    assert text.isprintable(), "one line, no control characters"
    assert ".cc:" not in text and "onnxruntime_src" not in text, "no noise from onnxruntime's sources"
    return text


# --- files that open ---------------------------------------------------------------------------


def test_path_string_and_bytes_open_and_compute(write: Callable[..., Path]) -> None:
    path = write(make_model())
    product = INPUT @ WEIGHTS
    exponents = np.exp(product - product.max(axis=1, keepdims=True))
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    for source in (path, str(path), path.read_bytes()):
        session = open_session(source)
        np.testing.assert_allclose(run(session), expected, rtol=1e-5, atol=1e-7)
        assert session.get_providers() == ["CPUExecutionProvider"]


def test_relative_path_opens(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(make_model()).parent)
    assert run(open_session("model.onnx")).shape == (1, 3, 24)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_onnxruntime(write: Callable[..., Path], threads: int) -> None:
    assert open_session(write(make_model()), threads=threads).get_session_options().intra_op_num_threads == threads


def test_threads_default_to_usable_cores(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "usable_cores", lambda: usable_cores() + 1)
    options = open_session(write(make_model())).get_session_options()
    assert options.intra_op_num_threads == usable_cores() + 1


def test_the_session_keeps_to_its_provider(write: Callable[..., Path]) -> None:
    # onnxruntime would otherwise rebuild the session on the CPU when a run fails.
    assert open_session(write(make_model()))._enable_fallback is False


def test_the_file_name_decides_nothing(write: Callable[..., Path]) -> None:
    # onnxruntime takes an .ort file for its own binary format.
    assert run(open_session(write(make_model(), "model.ort"))).shape == (1, 3, 24)


def test_opening_prints_nothing(write: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    # onnxruntime warns of weights that no operator reads.
    unused = numpy_helper.from_array(WEIGHTS, "unused")
    open_session(write(make_model(initializers=[numpy_helper.from_array(WEIGHTS, "w"), unused])))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_is_an_error(write: Callable[..., Path], threads: int) -> None:
    assert str(threads) in refusal(write(make_model()), InvalidInput, threads=threads)


# --- files that do not -------------------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.onnx"
    assert str(missing) in refusal(missing, ArtifactNotFound)
    assert "a folder" in refusal(tmp_path, ArtifactNotFound)
    (tmp_path / "dangling.onnx").symlink_to(missing)
    refusal(tmp_path / "dangling.onnx", ArtifactNotFound)
    refusal(tmp_path / "file.txt" / "model.onnx", ArtifactNotFound)
    refusal(tmp_path / ("long" * 100), ArtifactNotFound)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text on this system")
def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.onnx")
    path.write_bytes(make_model().SerializeToString())
    assert "rename" in refusal(path, InvalidInput)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "not a regular file" in refusal(tmp_path / "pipe.onnx", ArtifactNotFound)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(write: Callable[..., Path]) -> None:
    path = write(make_model())
    path.chmod(0)
    assert "Permission denied" in refusal(path)


NOT_MODELS = {
    "empty": b"",
    "text": b"this is a text file\n" * 20,
    "page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "image": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(100),
    "zeros": bytes(1000),
    "random": random.Random(0).randbytes(4000),
    "valid protobuf of something else": bytes.fromhex("089601120774657374696e67"),
    "onnxruntime's own format": bytes.fromhex("1c000000") + b"ORTM" + bytes(200),
}


@pytest.mark.parametrize("content", NOT_MODELS.values(), ids=NOT_MODELS)
def test_not_a_model(write: Callable[..., Path], content: bytes) -> None:
    path = write(content)
    assert str(path) in refusal(path)
    assert "model bytes" in refusal(content)


def test_a_git_lfs_pointer_is_called_one(write: Callable[..., Path]) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 14000000\n"
    assert "git lfs pull" in refusal(write(pointer))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_never_anything_but_invalid(content: bytes) -> None:
    refusal(content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_bytes_open_or_are_an_error_of_ours(data: st.DataObject) -> None:
    content = bytearray(make_model(initializers=[numpy_helper.from_array(WEIGHTS[:, :1], "w")]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        open_session(bytes(content), threads=1)
    except UserError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("opsets", [(("", 11),), (("com.microsoft", 1), ("", 11)), (("", 18), ("com.microsoft", 1))])
def test_every_cut_is_invalid_or_computes_the_same(opsets: tuple[tuple[str, int], ...]) -> None:
    """Protobuf has no end mark: a file cut exactly between two top-level fields is well-formed.

    What may still open is a file that lost nothing but what stands behind the graph and the
    opset of ONNX itself: other opsets that no operator needs, and metadata.
    """
    content = make_model(opsets=opsets, metadata=3).SerializeToString()
    expected = run(open_session(content))
    opened = {}
    for length in range(len(content)):
        try:
            opened[length] = open_session(content[:length], threads=1)
        except InvalidArtifact as error:
            assert "cut short" in str(error)
    assert len(opened) == 3 + [domain for domain, _ in reversed(opsets)].index("")
    for session in opened.values():
        np.testing.assert_array_equal(run(session), expected)


def test_a_cut_file_is_named(write: Callable[..., Path]) -> None:
    path = write(make_model().SerializeToString()[:1500])
    assert refusal(path).startswith(f"{path}: ")


def test_newer_opset(write: Callable[..., Path]) -> None:
    text = refusal(write(make_model(opsets=(("", 99),))))
    assert f"opset 99 is newer than onnxruntime {onnxruntime.__version__} reads (" in text
    newest = int(text.partition("reads (")[2].partition(")")[0])
    # What it says it reads, it reads; the next it refuses.
    open_session(write(make_model(opsets=(("", newest),))))
    refusal(write(make_model(opsets=(("", newest + 1),))))


def test_newer_opset_of_another_domain(write: Callable[..., Path]) -> None:
    text = refusal(write(make_model(opsets=(("", 18), ("ai.onnx.ml", 99)))))
    assert "opset 99 of ai.onnx.ml" in text


def test_newer_ir_version(write: Callable[..., Path]) -> None:
    assert "IR version 99" in refusal(write(make_model(ir_version=99)))


@pytest.mark.parametrize(("operator", "domain"), [("Frobnicate", ""), ("Frobnicate", "com.example")])
def test_unknown_operator(write: Callable[..., Path], operator: str, domain: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    text = refusal(write(make_model(nodes=[node], initializers=[], opsets=(("", 18), ("com.example", 1)))))
    assert "operator" in text and operator in text


def test_operator_without_a_kernel(write: Callable[..., Path]) -> None:
    # In the standard and known to onnxruntime, which computes it in other types only.
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.UINT16),
        helper.make_node("Sin", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    assert "Sin" in refusal(write(make_model(nodes=nodes, initializers=[])))


def _no_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def _no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _no_weights(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]


def _short_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"abc"


def _terminal_escape(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "\x1b[31mred\nline"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_outputs, "no outputs"),
        (_no_nodes, "output (y)"),
        (_no_opset, "names no opset"),
        (_no_weights, "'w'"),
        (_short_weights, "size"),
        (_terminal_escape, "?[31mred"),
    ],
)
def test_broken_graph(write: Callable[..., Path], damage: Callable[[onnx.ModelProto], None], said: str) -> None:
    model = make_model()
    damage(model)
    path = write(model)
    text = refusal(path)
    assert str(path) in text and said in text


def test_a_megabyte_long_name_gives_a_short_message(write: Callable[..., Path]) -> None:
    model = make_model()
    model.graph.node[0].input[0] = "a" * 1_000_000
    assert len(refusal(write(model))) < 1000


# --- weights in other files ---------------------------------------------------------------------


def external(location: str, dims: tuple[int, ...] = (24, 24)) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer(location: str) -> onnx.ModelProto:
    return make_model(initializers=[external(location)])


def in_constant(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=external(location))
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    return make_model(nodes=[constant, product], initializers=[])


def in_branch(location: str) -> onnx.ModelProto:
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3, 24])
    then = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["b"])], "then", [], [out], [external(location)])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "else", [], [out])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return make_model(nodes=[node], initializers=[numpy_helper.from_array(np.array(True), "c")])


def in_sparse(location: str) -> onnx.ModelProto:
    sparse = onnx.SparseTensorProto(dims=[24, 24], values=external(location, (4,)))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4, dtype=np.int64), "i"))
    model = make_model(initializers=[])
    model.graph.sparse_initializer.append(sparse)
    return model


def in_function(location: str) -> onnx.ModelProto:
    body = [
        helper.make_node("Constant", [], ["w"], value=external(location)),
        helper.make_node("MatMul", ["a", "w"], ["o"]),
    ]
    function = helper.make_function("local", "F", ["a"], ["o"], body, [helper.make_opsetid("", 18)])
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    model = make_model(nodes=[call], initializers=[], opsets=(("", 18), ("local", 1)))
    model.functions.append(function)
    return model


PLACES = [in_initializer, in_constant, in_branch, in_sparse, in_function]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """models/ with a weights file, and one beside models/ that no model in it may reach."""
    folder = tmp_path / "models"
    folder.mkdir()
    for path in (folder / "inside.bin", tmp_path / "outside.bin"):
        path.write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop.bin").symlink_to(folder / "loop.bin")
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_weights_beside_the_model_are_read(folders: Path, place: Callable[[str], onnx.ModelProto]) -> None:
    path = folders / "model.onnx"
    path.write_bytes(place("inside.bin").SerializeToString())
    assert run(open_session(path)).shape == (1, 3, 24)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location",
    ["../outside.bin", "{}/outside.bin", "{}/models/inside.bin", "up/../../outside.bin", "link.bin", "up/outside.bin"],
)
def test_weights_outside_the_folder_are_refused(
    folders: Path, place: Callable[[str], onnx.ModelProto], location: str
) -> None:
    path = folders / "model.onnx"
    path.write_bytes(place(location.format(folders.parent)).SerializeToString())
    assert "not inside the model's folder" in refusal(path)


def test_nothing_outside_is_looked_at(folders: Path) -> None:
    # The answer must not even tell whether the file exists.
    path = folders / "model.onnx"
    answers = set()
    for name in ("outside.bin", "missing.bin"):
        path.write_bytes(in_initializer(f"../{name}").SerializeToString())
        answers.add(refusal(path).replace(name, "NAME"))
    assert len(answers) == 1


@pytest.mark.parametrize("location", ["missing.bin", "", ".", "*/_ORT_MEM_ADDR_/*"])
def test_missing_weights(folders: Path, location: str) -> None:
    path = folders / "model.onnx"
    path.write_bytes(in_initializer(location).SerializeToString())
    assert "missing" in refusal(path)


@pytest.mark.parametrize("location", ["inside.bin\0", "loop.bin", "n" * 5000])
def test_weights_with_an_impossible_name(folders: Path, location: str) -> None:
    path = folders / "model.onnx"
    path.write_bytes(in_initializer(location).SerializeToString())
    refusal(path)


def test_short_weights_file(folders: Path) -> None:
    (folders / "short.bin").write_bytes(b"1234")
    path = folders / "model.onnx"
    path.write_bytes(in_initializer("short.bin").SerializeToString())
    assert "out of bounds" in refusal(path)


def test_bytes_have_no_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders)
    assert "by its path" in refusal(in_initializer("inside.bin").SerializeToString())


def test_a_linked_model_finds_the_weights_linked_beside_it(tmp_path: Path) -> None:
    # As download caches lay files out: names that link into one folder of contents.
    contents, names = tmp_path / "contents", tmp_path / "names"
    contents.mkdir()
    names.mkdir()
    (contents / "1").write_bytes(in_initializer("model.bin").SerializeToString())
    (contents / "2").write_bytes(WEIGHTS.tobytes())
    (names / "model.onnx").symlink_to(contents / "1")
    (names / "model.bin").symlink_to(contents / "2")
    assert run(open_session(names / "model.onnx")).shape == (1, 3, 24)


# --- devices ------------------------------------------------------------------------------------


def test_unknown_device_lists_the_known(write: Callable[..., Path]) -> None:
    text = refusal(write(make_model()), InvalidInput, device="tpu")
    assert "tpu" in text and all(device in text for device in DEVICES)
    with pytest.raises(InvalidInput):
        why_unavailable("tpu")


def test_the_cpu_is_always_there() -> None:
    assert why_unavailable("cpu") is None


def test_the_probe_is_a_valid_model() -> None:
    onnx.checker.check_model(onnx.load_from_string(engines._PROBE), full_check=True)


def test_providers_are_names_onnxruntime_knows() -> None:
    providers = {engine.provider for engine in ENGINES.values() if engine.provider != "OpenVINO CPU"}
    assert providers <= set(onnxruntime.get_all_providers())


def test_wheel_without_the_provider(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    text = refusal(write(make_model()), DeviceUnavailable, device="cuda")
    assert "has no CUDAExecutionProvider" in text
    assert 'pip install "edgezoo[gpu]"' in text and "--device cpu" in text and "zoo doctor" in text


needs_cuda_wheel = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="this wheel has no CUDA"
)


@needs_cuda_wheel
def test_no_driver(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "cuda", replace(ENGINES["cuda"], driver="libnodriver.so.1"))
    text = refusal(write(make_model()), DeviceUnavailable, device="cuda")
    assert "driver" in text and "libnodriver.so.1" in text and "--device cpu" in text


@needs_cuda_wheel
def test_no_silent_fallback_and_no_log_lines(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Without the look at the driver, onnxruntime is asked for CUDA and quietly gives the CPU.
    monkeypatch.setitem(ENGINES, "cuda", replace(ENGINES["cuda"], driver=None))
    if why_unavailable("cuda") is None:
        pytest.skip("CUDA works on this machine")
    text = refusal(write(make_model()), DeviceUnavailable, device="cuda")
    assert "CUDAExecutionProvider does not load" in text
    assert "lib" in text or ".dll" in text
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@needs_cuda_wheel
def test_a_bad_file_on_a_bad_device_is_silent_too(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENGINES, "cuda", replace(ENGINES["cuda"], driver=None))
    model = make_model()
    _no_nodes(model)
    with pytest.raises((DeviceUnavailable, InvalidArtifact)):
        open_session(write(model), device="cuda")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


class _Driver:
    """The three calls of the NVIDIA driver that are used, with chosen answers."""

    def __init__(self, code: int, version: int) -> None:
        self.code, self.version = code, version

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuGetErrorName(self, code: int, text: Any) -> int:
        text._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0


@pytest.mark.parametrize(
    ("code", "version", "said"),
    [
        (100, 0, "no usable GPU (CUDA_ERROR_NO_DEVICE)"),
        (0, 12080, "supports CUDA 12.8, onnxruntime needs 13.0"),
        (0, 13000, "does not start (CUDA failure 100: cudaSetDevice failed)"),
    ],
)
def test_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, code: int, version: int, said: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _Driver(code, version))
    ort = SimpleNamespace(cuda_version="13.0", __file__=onnxruntime.__file__)
    error = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 100: cudaSetDevice failed ; GPU=0 ; hostname=pc")
    assert said in engines._diagnose(ort, ENGINES["cuda"], error)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, runtime.engines, runtime.machine\n"
        "heavy = {'onnxruntime', 'onnx', 'torch', 'tensorflow', 'rich', 'numpy', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
