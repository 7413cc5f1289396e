"""Files that bring their own network: programs of torch.export, TorchScript, pickles. Nothing runs without trust."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.export import export
from exporters.torch import load
from exporters.torch_program import load as read
from exporters.weights_file import kind_of
from runtime.errors import InvalidInput, InvalidWeights
from runtime.files import sha256
from tests.exporters.torch_support import BATCH, RULE, Tiny, answer, named, recipe, seeded

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Detected pickle protocol", "ignore::UserWarning"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def program(model: Any, *, batch: int | None = None, shape: tuple[int, ...] = (3, 16, 16)) -> bytes:
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model.eval(), (torch.zeros(batch or 2, *shape),), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def saved() -> bytes:
    """A program of any batch size."""
    return program(seeded(Tiny(4, nn.Softmax(1))))


def stored(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---- programs that load


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", ["net.pt2", "net.pt"])
def test_a_program_brings_its_own_network(name: str, trust: bool, saved: bytes, tmp_path: Path) -> None:
    path = stored(tmp_path / name, saved)
    assert kind_of(path) == "pt2"
    source = load(recipe(f"file:{name}", path, trust=trust))
    network = seeded(Tiny(4))
    np.testing.assert_allclose(source.forward(BATCH), answer(network), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        source.features(BATCH), answer(lambda x: network.features(x).mean((2, 3))), rtol=1e-5, atol=1e-6
    )
    assert (source.task, len(source.labels.names), source.builder) == ("classification", 4, f"file:{name}")
    assert source.weights_sha256 == sha256(path)


@pytest.mark.slow
def test_a_program_is_exported(saved: bytes, tmp_path: Path) -> None:
    done = export(recipe("file:net.pt2", stored(tmp_path / "net.pt2", saved)), "torch", tmp_path / "out.onnx")
    assert done.metadata.parity is not None
    assert done.metadata.parity.batch_sizes == (1, 3)
    assert done.metadata.explain_layer == "features.3"


ENDS: dict[str, tuple[Any, int, str]] = {
    "none": (None, 3, "classification"),
    "log_softmax": (nn.LogSoftmax(1), 3, "classification"),
    "sigmoid": (nn.Sigmoid(), 3, "multilabel"),
    "sigmoid of one": (nn.Sigmoid(), 1, "binary"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_ends_of_programs(kind: str, tmp_path: Path) -> None:
    end, outputs, task = ENDS[kind]
    source = load(recipe("file:n.pt2", stored(tmp_path / "n.pt2", program(seeded(Tiny(outputs, end))))))
    assert source.task == task
    np.testing.assert_allclose(source.forward(BATCH), answer(seeded(Tiny(outputs))), rtol=1e-5, atol=1e-6)


def test_a_batch_that_was_frozen(tmp_path: Path) -> None:
    path = stored(tmp_path / "n.pt2", program(seeded(Tiny()), batch=1))
    source = load(recipe("file:n.pt2", path))
    assert source.forward(BATCH[:1]).shape == (1, 4)
    for batch in (None, 3):
        with pytest.raises(InvalidInput, match=r"n.pt2: was exported for batches of 1 alone: give --batch 1, or"):
            source.convert(18, batch)
    assert source.convert(18, 1).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


class Twice(nn.Module):  # type: ignore[misc]
    """Two inputs."""

    def forward(self, one: Any, two: Any) -> Any:
        return (one + two).mean((2, 3))


class Training(nn.Module):  # type: ignore[misc]
    """Changes its own state at every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3, momentum=0.1), nn.Linear(3, 4)

    def forward(self, batch: Any) -> Any:
        self.norm.training = True
        return self.head(self.norm(batch).mean((2, 3)))


class Nested(Tiny):
    """Several results."""

    def forward(self, batch: Any) -> Any:
        scores = self.logits(batch)
        return {"logits": scores, "more": (scores * 2, scores.sum())}


def test_results_are_picked_from_a_program(tmp_path: Path) -> None:
    source = load(recipe("file:n.pt2", stored(tmp_path / "n.pt2", program(seeded(Nested())))))
    np.testing.assert_allclose(source.forward(BATCH), answer(seeded(Tiny())), rtol=1e-5, atol=1e-6)


def twice() -> bytes:
    buffer = io.BytesIO()
    zeros = torch.zeros(2, 3, 16, 16)
    torch.export.save(torch.export.export(Twice(), (zeros, zeros)), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (twice, "takes 2 inputs"),
        (lambda: program(Training()), "was exported in training mode: export it again after model.eval"),
        (lambda: program(seeded(Tiny()), shape=(3, 24, 16)), "takes 3x24x16 .* the preprocessing gives 3x16x16"),
        (lambda: program(nn.Flatten(), shape=(3, 4, 4)), "takes 3x4x4"),
        (lambda: program(nn.Sequential(nn.Conv2d(3, 4, 16))), r"gives \[2, 4, 1, 1\] for 2 pictures"),
        (lambda: program(nn.Linear(5, 4), shape=(5,)), "does not take float32 pictures"),
    ],
)
def test_programs_of_another_kind(make: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"n.pt2: {message}"):
        load(recipe("file:n.pt2", stored(tmp_path / "n.pt2", make())))


# ---- programs that would run code


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


Parts = dict[str, bytes]


def packed(parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(marker), buffer)
    return buffer.getvalue()


def changed(parts: Parts, change: Callable[[dict[str, Any]], Any], name: str = "models/model.json") -> Parts:
    content = copy.deepcopy(json.loads(parts[name]))
    change(content)
    return {**parts, name: json.dumps(content).encode()}


def first_node(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda program: program["graph_module"]["graph"]["nodes"][0].update(values)


def renamed_input(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(program: dict[str, Any]) -> None:
        text = json.dumps(program["graph_module"]).replace('{"name": "batch"}', json.dumps({"name": name}))
        program["graph_module"] = json.loads(text.replace('"batch": {"dtype"', json.dumps(name) + ': {"dtype"'))

    return change


def size(text: str) -> Callable[[dict[str, Any]], Any]:
    expression = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}
    return lambda program: program["graph_module"]["graph"]["tensor_values"]["batch"]["sizes"].__setitem__(
        0, expression
    )


def file_argument(marker: Path) -> list[dict[str, Any]]:
    given = {"filename": {"as_string": str(marker)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}
    return [{"name": name, "arg": value, "kind": 1} for name, value in given.items()]


def one_pickled(prefix: str, folder: str, data: bytes) -> Callable[[Parts], Parts]:
    config = f"data/{folder}/model_{folder}_config.json"
    entry = {"path_name": f"{prefix}99", "is_param": False, "use_pickle": True, "tensor_meta": None}

    def change(parts: Parts) -> Parts:
        added = changed(parts, lambda content: content["config"].__setitem__("evil", entry), config)
        return {**added, f"data/{folder}/{prefix}99": data}

    return change


def bombs(marker: Path) -> dict[str, tuple[Callable[[Parts], Parts], str | None]]:
    """How an archive is changed, and what the refusal says; None where the dangerous part is just not read."""
    code, bomb = f"__import__('os').mkdir({str(marker)!r})", pickled(marker)
    return {
        "sample inputs": (lambda parts: {**parts, "data/sample_inputs/model.pt": bomb}, None),
        "guards": (lambda parts: changed(parts, lambda content: content.update(guards_code=[code])), None),
        "weights of an older layout": (lambda parts: {**parts, "data/weights/model.pt": bomb}, "of an older layout"),
        "pickled weight": (one_pickled("weight_", "weights", bomb), "pickled tensors or objects"),
        "opaque object": (one_pickled("opaque_obj_", "constants", pickle.dumps(Bomb(marker))), "pickled tensors"),
        "size": (lambda parts: changed(parts, size(code)), "where a expr_str should be"),
        "name": (lambda parts: changed(parts, renamed_input(f"batch={code}")), "where a name should be"),
        "operator that opens files": (
            lambda parts: changed(
                parts, first_node(target="torch.ops.aten.from_file.default", inputs=file_argument(marker))
            ),
            "it calls 'torch.ops.aten.from_file.default'",
        ),
    }


@pytest.mark.parametrize("kind", bombs(Path("x")))
def test_nothing_is_executed(kind: str, saved: bytes, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "net.pt2"
    change, refusal = bombs(marker)[kind]
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    stored(path, packed(change(parts)))
    if refusal is None:
        assert answer(read(path, trust=False).module()).shape == (3, 4)
    else:
        with pytest.raises(InvalidWeights, match=refusal) as told:
            load(recipe("file:net.pt2", path))
        assert str(told.value).endswith("if you trust the file, add --trust")
        assert "\n" not in str(told.value)
    assert not marker.exists()
    with contextlib.suppress(Exception):  # some go off and then leave nothing to load
        answer(torch.export.load(path).module())  # the bomb is a real one: anything less careful sets it off
    assert marker.exists()
    shutil.rmtree(marker) if marker.is_dir() else marker.unlink()


STRANGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "function of torch": (first_node(target="torch.os.system"), "it calls 'torch.os.system'"),
    "library": (first_node(target="torch.ops.image.read_file.default"), "it calls 'torch.ops.image.read_file"),
    "no operator": (first_node(target="torch.ops.aten.add"), "it calls"),
    "dunder": (first_node(target="_operator.__call__"), "it calls"),
    "word": (
        first_node(inputs=[{"name": "x", "arg": {"as_string": "/etc/passwd"}, "kind": 1}]), "it gives '/etc/passwd'"
    ),
    "function as argument": (
        first_node(inputs=[{"name": "x", "arg": {"as_operator": "torch.os.system"}, "kind": 1}]), "objects of its own"
    ),
    "power": (size("9**9**9**9"), "where a expr_str should be"),
    "attribute": (size("Symbol('s1').__class__"), "where a expr_str should be"),
    "other symbol": (size("Symbol('x, __import__')"), "where a expr_str should be"),
    "long digits": (size("1" * 5000 + "!"), "where a expr_str should be"),
    "class of results": (
        lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec='[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'
        ),
        "of a class of their own",
    ),
    "enum in results": (
        lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec='[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": true, \\"fqn\\": \\"os:x\\"}]", '
            '"children_spec": []}]'
        ),
        "nested in a way of their own",
    ),
    "no nodes": (lambda program: program["graph_module"].pop("graph"), "not a readable torch.export program"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_programs(kind: str, saved: bytes, tmp_path: Path) -> None:
    change, message = STRANGE[kind]
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    with pytest.raises(InvalidWeights, match=message) as told:
        read(stored(tmp_path / "n.pt2", packed(changed(parts, change))), trust=False)
    assert len(str(told.value).splitlines()) == 1


def test_archives_that_are_not_whole(saved: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    without = {name: data for name, data in parts.items() if name != "data/weights/weight_0"}
    compiled = {"archive_format": b"pt2", "archive_version": b"0", "data/aotinductor/model/net.so": b"\x7fELF"}
    older = io.BytesIO()
    with zipfile.ZipFile(older, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    cases = {
        "not a readable torch.export program": packed(without),
        "holds no torch.export program": packed(compiled),
        "of an older layout that holds pickles": older.getvalue(),
        "damaged or cut short": saved[:2000],
    }
    for message, data in cases.items():
        with pytest.raises(InvalidWeights, match=message):
            load(recipe("file:n.pt2", stored(tmp_path / "n.pt2", data)))


# ---- TorchScript


@pytest.mark.parametrize("compile_", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(1, 3, 16, 16))])
def test_torchscript_needs_trust(compile_: Callable[[Any], Any], tmp_path: Path) -> None:
    path, network = tmp_path / "net.pt", seeded(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AvgPool2d(14),
                                                            nn.Flatten(), nn.Linear(6, 4), nn.Softmax(1)))  # fmt: skip
    torch.jit.save(compile_(network), path)
    with pytest.raises(InvalidWeights, match=r"a TorchScript archive holds code: .* if you trust the file, add"):
        load(recipe("file:net.pt", path))
    source = load(recipe("file:net.pt", path, trust=True))
    np.testing.assert_allclose(source.forward(BATCH), answer(network[:5]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(source.features(BATCH), answer(network[:4]), rtol=1e-5, atol=1e-6)
    assert source.builder == "file:net.pt"
    assert source.convert(18, None).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


# ---- pickles


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net,
        nn.DataParallel,
        lambda net: net.half(),
        lambda net: {"model": net, "ema": None, "epoch": 3},
        lambda net: {"ema": net},
    ],
)
def test_a_pickled_network(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    network = seeded(Tiny(4, nn.Softmax(1)))
    torch.save(wrap(network), path)
    expected = answer(network.float().logits)
    with pytest.raises(InvalidWeights, match=r"net.pth: refused, .* if you trust the file, add --trust$"):
        load(recipe("file:net.pth", path))
    source = load(recipe("file:net.pth", path, trust=True))
    np.testing.assert_allclose(source.forward(BATCH), expected, rtol=1e-6)
    assert source.builder == "file:net.pth"


def test_a_pickled_network_as_weights(tmp_path: Path) -> None:
    """Where the builder is known only the numbers are taken."""
    path, network = tmp_path / "net.pth", seeded(Tiny(4))
    torch.save(network, path)
    source = load(recipe("tests.exporters.torch_support:Tiny", path, trust=True, labels=named(4)))
    np.testing.assert_array_equal(source.forward(BATCH), answer(network))


def test_a_pickled_network_of_a_file(tmp_path: Path) -> None:
    """Its class is looked for under the name of the file, which the builder brings."""
    (tmp_path / "own_net.py").write_text("from tests.exporters.torch_support import Tiny\nclass Net(Tiny): pass\n")
    path, builder = tmp_path / "net.pth", f"{tmp_path / 'own_net.py'}:Net"
    load(recipe(builder))
    network = seeded(sys.modules["own_net"].Net(4))
    torch.save(network, path)
    source = load(recipe(builder, path, trust=True))
    np.testing.assert_array_equal(source.forward(BATCH), answer(network))
    del sys.modules["own_net"]
    with pytest.raises(InvalidWeights, match=r"saved with code that is not here \(No module named 'own_net'\)"):
        load(recipe("file:net.pth", path, trust=True))


def test_no_network_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(Tiny().state_dict(), path)
    for trust in (False, True):
        with pytest.raises(InvalidWeights, match=r"holds weights alone, no network: give the network's name or FILE"):
            load(recipe("file:net.pth", path, trust=trust))
    assert RULE.size == (16, 16)
