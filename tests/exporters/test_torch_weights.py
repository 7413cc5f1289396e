"""PyTorch weights: every file that should load does, every other is refused in one line, and nothing is executed."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.architectures.lenet5 import build_torch
from exporters.source import Recipe, Weights
from exporters.torch import load
from exporters.weights_file import kind_of
from runtime.errors import InvalidWeights
from runtime.files import sha256
from zoo.labels import load as labels
from zoo.models import find

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:Detected pickle protocol")

BUNDLED = Path(__file__).parents[2] / "zoo" / "bundled" / "lenet5.safetensors"
BATCH = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
State = dict[str, Any]
Zoo = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # two, when others compute too, are slower


@pytest.fixture(scope="module")
def state() -> State:
    """A state dict of LeNet-5 that is neither the bundled one nor what a seed of 0 gives."""
    torch.manual_seed(11)
    return dict(build_torch().state_dict())


def recipe(path: Path, **changes: Any) -> Recipe:
    _, variant = find("lenet5").variant("torch")
    weights = Weights(kind="file", path=path)
    values = {"name": "lenet5", "builder": variant.builder, "preprocess": variant.preprocess, "samples": "digits"}
    return Recipe(**{**values, "labels": labels("digits"), "weights": weights, **changes})


def logits(state: State) -> np.ndarray[Any, Any]:
    """What LeNet-5 answers with that state, by torch alone."""
    network = build_torch()
    network.load_state_dict({key: value.float() for key, value in state.items()})
    with torch.inference_mode():
        return np.asarray(network.eval()(torch.from_numpy(BATCH)).numpy())


def refused(zoo: Zoo, path: Path, *argv: object, name: str = "lenet5") -> str:
    """The one line that ``zoo export`` ends with, having written nothing."""
    before = sorted(path.parent.rglob("*"))
    done = zoo("export", name, "--source", "torch", "--weights", path, "-o", path.parent / "out.onnx", *argv)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("zoo: error: ")
    assert done.err.count("\n") == 1
    assert sorted(path.parent.rglob("*")) == before
    return str(done.err)


# ---- files that load


def zeros(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def lightning(state: State) -> dict[str, Any]:
    """A LightningModule's: the network is its attribute ``model``, beside a loss with weights of its own."""
    named = {f"model.{key}": value for key, value in state.items()}
    return {
        "epoch": 3, "pytorch-lightning_version": "2.5.0", "state_dict": {**named, "loss.weight": torch.ones(10)},
        "optimizer_states": [{"param_groups": []}], "hyper_parameters": {"lr": 0.1},
    }  # fmt: skip


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 7, "best": torch.tensor(0.5)},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "net": lambda state: {"net": state, "acc": 93.1, "epoch": 7},
    "network": lambda state: {"network": state},
    "model_state": lambda state: {"model_state": state},
    "lightning": lambda state: lightning(state),
    "plain before averaged": lambda state: {"state_dict_ema": zeros(state), "state_dict": state, "ema": zeros(state)},
    "averaged alone": lambda state: {"state_dict_ema": state, "optimizer": {"lr": 0.1}},
    "ema": lambda state: {"ema": {f"module.{key}": value for key, value in state.items()}, "updates": 3},
    "compiled and parallel": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "both": lambda state: {"model": {"state_dict": {f"module.{key}": value for key, value in state.items()}}},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "float16": lambda state: {key: value.half() for key, value in state.items()},
    "bfloat16": lambda state: {key: value.bfloat16() for key, value in state.items()},
    "float64": lambda state: {key: value.double() for key, value in state.items()},
    "parameters": lambda state: {key: torch.nn.Parameter(value) for key, value in state.items()},
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".weird", ".safetensors"])
@pytest.mark.parametrize("kind", ["plain", "state_dict"])
def test_names_of_files_do_not_matter(kind: str, suffix: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(WRAPPINGS[kind](state), path)
    source = load(recipe(path))
    assert np.array_equal(source.forward(BATCH), logits(state))
    assert source.weights_sha256 == sha256(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("kind", WRAPPINGS)
def test_checkpoints(kind: str, legacy: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[kind](state), path, _use_new_zipfile_serialization=not legacy)
    rounded = {
        "float16": lambda value: value.half(),
        "bfloat16": lambda value: value.bfloat16(),
    }.get(kind, lambda value: value)
    assert np.array_equal(
        load(recipe(path)).forward(BATCH), logits({key: rounded(value) for key, value in state.items()})
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_safetensors(name: str, dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    path = tmp_path / name
    from safetensors.torch import save_file

    cast = {key: value.to(dtype) for key, value in state.items()}
    save_file(cast, path)
    assert np.array_equal(load(recipe(path)).forward(BATCH), logits(cast))


def normalized() -> Recipe:
    """A small network with BatchNorm, and so with counters of training steps."""
    _, variant = find("squeezenet1_1").variant("torch")
    return Recipe(
        name="shufflenet",
        builder="torchvision:shufflenet_v2_x0_5",
        preprocess=variant.preprocess,
        labels=labels("digits"),
        weights=Weights(kind="none"),
    )


@pytest.mark.parametrize("counters", ["none", "some", "other"])
def test_training_counters_do_not_matter(counters: str, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(3)
    network = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=10)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    state = dict(network.state_dict())
    names = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(names) > 10
    kept = {
        name: value
        for index, (name, value) in enumerate(state.items())
        if name not in names or (counters != "none" and (index % 2 == 0 or counters == "other"))
    }
    if counters == "other":
        kept["of.another.network.num_batches_tracked"] = torch.tensor(9)
    torch.save(kept, tmp_path / "weights.pth")
    source = load(replace(normalized(), weights=Weights(kind="file", path=tmp_path / "weights.pth")))
    batch = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        assert np.array_equal(source.forward(batch), network.eval()(torch.from_numpy(batch)).numpy())


def test_real_checkpoint_of_a_parallel_run(shared_data: Path) -> None:
    """Names with "module." inside a "state_dict" among accuracies: read, and then refused for its network."""
    with pytest.raises(InvalidWeights, match=r"do not fit lenet5 with 10 labels: .* 96 unexpected \(bn1\.weight"):
        load(recipe(shared_data / "weights" / "resnet20_cifar10.th"))


@pytest.mark.parametrize(
    ("name", "file", "folder", "tolerance"),
    [
        # of the largest logit: the published one was run before the classifier's weights were rounded to 8 bits
        ("mobilenet_v2", "mobilenet_v2_torchvision.pth", "mobilenetv2", 1e-2),
        ("squeezenet1_1", "squeezenet1_1_onnxzoo.pth", "squeezenet1_1", 1e-5),
    ],
)
def test_real_weights_give_the_published_answers(
    name: str, file: str, folder: str, tolerance: float, shared_data: Path
) -> None:
    """Inputs and outputs that others published with these weights, for another file format."""
    _, variant = find(name).variant("torch")
    weights = Weights(kind="file", path=shared_data / "weights" / file, hub=variant.hub)
    source = load(
        recipe(BUNDLED, name=name, builder=variant.builder, preprocess=variant.preprocess, weights=weights,
               labels=labels("imagenet"))
    )  # fmt: skip
    inputs = sorted((shared_data / "vectors" / folder).glob("*_input_0.npy"))
    assert inputs
    for path in inputs:
        given = source.forward(np.load(path))
        published = np.load(path.with_name(path.name.replace("input", "output"))).reshape(given.shape)
        assert given.argmax() == published.argmax()
        assert np.abs(given - published).max() <= tolerance * np.abs(published).max()


# ---- files that do not fit


@pytest.mark.parametrize("names", [("model", "net"), ("state_dict", "model"), ("ema", "state_dict_ema")])
def test_two_networks_that_could_be_meant(names: tuple[str, str], state: State, zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(dict.fromkeys(names, state), path)
    line = refused(zoo, path)
    assert "weights.pth: holds several networks (" in line
    assert all(name in line for name in names)


def test_names_that_begin_like_a_wrapping(tmp_path: Path) -> None:
    """A network whose own parts are called "model" keeps their names."""
    from tests.exporters.torch_support import BATCH as PICTURES
    from tests.exporters.torch_support import Tiny, answer, loaded, seeded

    weights = seeded(Tiny(4), seed=9)
    torch.save({f"model.{key}": value for key, value in weights.state_dict().items()}, tmp_path / "w.pth")
    source = loaded(
        lambda: torch.nn.Sequential(OrderedDict(model=Tiny(4))), weights=Weights(kind="file", path=tmp_path / "w.pth")
    )
    assert np.array_equal(source.forward(PICTURES), answer(weights))


MISFITS: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != "fc2.bias"}, "1 missing (fc2.bias)"),
    "unexpected": (lambda s: {**s, "fc4.weight": torch.zeros(2)}, "1 unexpected (fc4.weight)"),
    "many": (lambda s: {f"x.{k}": v for k, v in s.items()}, "10 missing (conv1.weight, conv1.bias, conv2.weight, ...)"),
    "shape": (
        lambda s: {**s, "fc1.weight": torch.zeros(120, 256)},
        "1 of another shape (fc1.weight [120, 256] instead of [120, 400])",
    ),
    "transposed": (lambda s: {**s, "fc2.weight": s["fc2.weight"].T}, "fc2.weight [120, 84] instead of [84, 120]"),
    "classes": (
        lambda s: {**s, "fc3.weight": torch.zeros(26, 84), "fc3.bias": torch.zeros(26)},
        "2 of another shape (fc3.weight [26, 84] instead of [10, 84], fc3.bias [26] instead of [10])",
    ),
    "Keras": (lambda s: {"conv1/kernel": torch.zeros(2)}, "(conv1/kernel); Keras' names need --source keras"),
    "empty": (lambda s: {}, "10 missing"),
    "scalar": (lambda s: {**s, "fc3.bias": torch.tensor(0.0)}, "fc3.bias [] instead of [10]"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_weights_of_another_network(kind: str, state: State, zoo: Zoo, tmp_path: Path) -> None:
    change, what = MISFITS[kind]
    path = tmp_path / "weights.pth"
    torch.save(change(state), path)
    line = refused(zoo, path)
    assert "weights.pth: the weights do not fit lenet5 with 10 labels: " in line
    assert what in line


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.complex64, torch.bool])
def test_numbers_that_are_no_floats(dtype: torch.dtype, state: State, zoo: Zoo, tmp_path: Path) -> None:
    """torch itself copies them into float parameters without a word."""
    path = tmp_path / "weights.pth"
    torch.save({**state, "fc1.weight": state["fc1.weight"].to(dtype)}, path)
    assert f"fc1.weight is {dtype}: give the weights before quantization" in refused(zoo, path)


def test_number_of_labels(state: State, zoo: Zoo, tmp_path: Path) -> None:
    path, names = tmp_path / "weights.pth", tmp_path / "names.txt"
    torch.save(state, path)
    names.write_text("a\nb\nc\n")
    line = refused(zoo, path, "--labels", names)
    assert "do not fit lenet5 with 3 labels" in line
    assert "fc3.weight [10, 84] instead of [3, 84]" in line


@pytest.mark.parametrize(
    "content",
    [7, "text", [torch.zeros(2)], {"epoch": 3}, {"state_dict": {"a": 1}}, {1: torch.zeros(2)}, torch.zeros(3), None],
    ids=lambda value: type(value).__name__,
)
def test_no_state_dict(content: Any, zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert "weights.pth: holds no state dict: save model.state_dict()" in refused(zoo, path)


def test_a_dictionary_that_holds_itself(zoo: Zoo, tmp_path: Path) -> None:
    path, content = tmp_path / "weights.pth", dict[str, Any]()
    content["model"] = content
    torch.save(content, path)
    assert "holds no state dict" in refused(zoo, path)


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("-inf"), marks=pytest.mark.slow)])
def test_weights_that_are_not_finite(value: float, state: State, zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    weight = state["fc3.weight"].clone()
    weight[4, 2] = value
    torch.save({**state, "fc3.weight": weight}, path)
    done = zoo("export", "lenet5", "--weights", path, "-o", tmp_path / "out.onnx")
    assert done.code == 2
    assert "not finite" in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.pth"]


# ---- files of the wrong kind


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(build_torch(), torch.zeros(1, 1, 28, 28)), buffer)
    return buffer.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def archive(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return buffer.getvalue()


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


WRONG: dict[str, tuple[str, Callable[[State], bytes], str]] = {
    "text": ("w.pth", lambda s: b"not the weights you are looking for\n", "w.pth: not a weights file: give .pth"),
    "page": ("w.pth", lambda s: b"<!DOCTYPE html><html></html>", "w.pth: not a weights file"),
    "nothing": ("w.pth", lambda s: b"", "w.pth: is empty"),
    "byte": ("w.pth", lambda s: b"\x80", "w.pth: not a"),
    "pointer": ("w.pth", lambda s: b"version https://git-lfs.github.com/spec/v1\n", "w.pth: not a weights file"),
    "cut": ("w.pth", lambda s: saved(s)[:100_000], "w.pth: damaged or cut short"),
    "cut before 1.6": (
        "w.pth",
        lambda s: saved(s, _use_new_zipfile_serialization=False)[:100_000],
        "w.pth: not a readable checkpoint",
    ),
    "cut safetensors": ("w.safetensors", lambda s: BUNDLED.read_bytes()[:100_000], "w.safetensors: not a readable"),
    "script": ("w.pt", lambda s: scripted(), "w.pt: refused, a TorchScript archive holds code: save model.state_dict"),
    "other zip": ("w.pth", lambda s: archive(a="b"), "w.pth: a zip archive, but no weights file"),
    "keras": ("w.keras", lambda s: archive(**{"config.json": "{}"}), "w.keras: a Keras file: use --source keras"),
    "hdf5": ("w.h5", lambda s: b"\x89HDF\r\n\x1a\n" + bytes(99), "w.h5: a Keras file: use --source keras"),
    "huge header": ("w.safetensors", lambda s: safetensors({}, length=2**62), "w.safetensors: not a readable"),
    "long header": ("w.safetensors", lambda s: safetensors({}, length=10**9), "w.safetensors: not a readable"),
    "no header": ("w.safetensors", lambda s: safetensors(b"{{{{"), "w.safetensors: not a readable"),
    "data elsewhere": (
        "w.safetensors",
        lambda s: safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        "w.safetensors: not a readable",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_kinds_of_file(kind: str, state: State, zoo: Zoo, tmp_path: Path) -> None:
    name, make, message = WRONG[kind]
    path = tmp_path / name
    path.write_bytes(make(state))
    assert message in refused(zoo, path)


def test_a_folder_and_a_file_that_is_not_there(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "weights.pth"
    folder.mkdir()
    assert "weights.pth" in refused(zoo, folder)
    assert "none.pth: no such weights file" in refused(zoo, tmp_path / "none.pth")


def test_kinds_by_their_bytes(tmp_path: Path, state: State) -> None:
    files = {
        "torch": saved(state),
        "torchscript": scripted(),
        "pt2": archive(**{"net/archive_format": "pt2", "net/models/model.json": "{}"}),
        "safetensors": BUNDLED.read_bytes(),
        "keras": archive(**{"config.json": "{}"}),
        "hdf5": b"\x89HDF\r\n\x1a\n",
    }
    for kind, data in files.items():
        (tmp_path / "file").write_bytes(data)
        assert kind_of(tmp_path / "file") == kind
    (tmp_path / "file").write_bytes(saved(state, _use_new_zipfile_serialization=False))
    assert kind_of(tmp_path / "file") == "torch"


# ---- nothing is executed


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


class Custom(torch.nn.Linear):
    """A network whose class would be imported, and its __setstate__ called."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["marker"]).mkdir()


def bombs(state: State, marker: Path) -> dict[str, bytes]:
    custom = Custom(2, 2)
    custom.__dict__["marker"] = str(marker)
    script = f"import os\nos.mkdir({str(marker)!r})\n"
    return {
        "plain pickle": pickle.dumps({**state, "x": Bomb(marker)}),
        "plain pickle, protocol 2": pickle.dumps(Bomb(marker), protocol=2),
        "text pickle": pickle.dumps(Bomb(marker), protocol=0),
        "saved": saved({**state, "x": Bomb(marker)}),
        "saved before 1.6": saved({**state, "x": Bomb(marker)}, _use_new_zipfile_serialization=False),
        "nested": saved({"state_dict": {**state, "x": [Bomb(marker)]}}),
        "whole network": saved(custom),
        "whole network before 1.6": saved(custom, _use_new_zipfile_serialization=False),
        "eval": pickle.dumps({"x": 1}).replace(b"K\x01", b"cbuiltins\nexec\n(X" + struct.pack("<I", len(script))
                                               + script.encode() + b"tR"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors", "weights.bin"])
@pytest.mark.parametrize("kind", bombs({}, Path("x")))
def test_nothing_is_executed(kind: str, name: str, state: State, zoo: Zoo, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / name
    path.write_bytes(bombs(state, marker)[kind])
    line = refused(zoo, path)
    assert name in line
    assert "could run code" in line or kind == "text pickle"
    assert line.endswith("if you trust the file, add --trust\n") or kind == "text pickle"
    assert not marker.exists()
    # The bomb is a real one: anything less careful sets it off.
    if "pickle" in kind or kind == "eval":
        pickle.loads(path.read_bytes())
    else:
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert marker.exists()
    shutil.rmtree(marker)


def test_the_refusal_names_what_would_run(zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(build_torch(), path)
    line = refused(zoo, path)
    assert "weights.pth: refused, it holds torch.nn.modules.container.Sequential, and reading that could run" in line
    assert "save model.state_dict() with torch.save, or as .safetensors" in line


def test_with_trust_a_checkpoint_of_anything_is_read(state: State, tmp_path: Path) -> None:
    """As many training scripts save it: weights beside their options in an argparse.Namespace."""
    path = tmp_path / "weights.pth"
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, path)
    with pytest.raises(InvalidWeights, match=r"it holds argparse.Namespace, and reading that could run code"):
        load(recipe(path))
    assert np.array_equal(load(recipe(path, trust=True)).forward(BATCH), logits(state))
