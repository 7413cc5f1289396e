"""The comparison with other runtimes: each that is installed runs a small network, and what it answers is checked."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import peer_ncnn, peer_table, peers
from benchmarks.peer_runners import OURS, PEERS, Opened, Peer
from benchmarks.peer_worker import fastest, laid
from runtime.metadata import Labels, Metadata, Preprocess, Provenance
from runtime.tuning.race import LEAST_RUNS, turn
from runtime.tuning.record import remember
from runtime.tuning.search import tune
from zoo.bench.child import Child
from zoo.bench.machine import Watch

ALL = OURS | PEERS
PARAM = """7767517
5 5
Input in0 0 1 in0
Convolution first 1 1 in0 a 0=4 1=3 11=3 2=1 3=2 4=1 5=1 6=108 9=1
Convolution second 1 1 a b 0=6 1=1 11=1 2=1 3=1 4=0 5=1 6=24
Pooling mean 1 1 b c 0=1 4=1
InnerProduct last 1 1 c out0 0=5 1=1 2=30
"""


TOLD = Metadata(
    name="tiny", task="classification",
    preprocess=Preprocess(size=(8, 8), resize=8, mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255),
    labels=Labels(names=tuple("abcde")),
    provenance=Provenance(
        framework="none", framework_version="0", exporter="none", edgezoo_version="0", builder="tests", opset=18,
        weights="file",
    ),
)  # fmt: skip


class Tiny:
    """Two convolutions, a mean and a dense layer, (N, 3, 8, 8) -> (N, 5): the weights, and numpy's answer."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shapes = [(4, 3, 3, 3), (4,), (6, 4, 1, 1), (6,), (5, 6), (5,)]
        self.weights = [random.normal(size=shape).astype(np.float32) for shape in shapes]
        self.pictures = random.normal(size=(3, 3, 8, 8)).astype(np.float32)

    def answer(self, pictures: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = (values.astype(np.float64) for values in self.weights)
        padded = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
        x = np.maximum(np.einsum("nchwij,ocij->nohw", windows, w1) + b1[:, None, None], 0)
        x = np.einsum("nchw,oc->nohw", x, w2[:, :, 0, 0]) + b2[:, None, None]
        return x.mean(axis=(2, 3)) @ w3.T + b3

    def write(self, folder: Path) -> None:
        names = ["w1", "b1", "w2", "b2", "w3", "b3"]
        nodes = [
            helper.make_node("Conv", ["input", "w1", "b1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Conv", ["r", "w2", "b2"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["f"]),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
            [numpy_helper.from_array(values, name) for values, name in zip(self.weights, names, strict=True)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        helper.set_model_props(model, TOLD.to_props())
        for name in ("torch.onnx", "int8.onnx", "stock.onnx"):  # no peer here looks at what is inside
            onnx.save(model, folder / name)
        (folder / "ncnn.param").write_text(PARAM)
        flag = b"\0\0\0\0"
        parts = [flag * (values.ndim > 1) + values.tobytes() for values in self.weights]
        (folder / "ncnn.bin").write_bytes(b"".join(parts))
        np.save(folder / "torch.npy", self.pictures)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, Path]:
    network, folder = Tiny(), tmp_path_factory.mktemp("tiny")
    network.write(folder)
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:1])  # the workers have one
    try:
        remember(folder / "torch.onnx", tune(folder / "torch.onnx", budget_s=0.2, precision="fp32"))
    finally:
        os.sched_setaffinity(0, every)
    return network, folder


def answers_of(name: str, folder: Path, row: str = "lenet5") -> tuple[dict[str, Any], dict[str, Any]]:
    """What a worker says first, and to a turn."""
    with Child("benchmarks.peer_worker", name, row, str(folder), "1", environment={"OMP_NUM_THREADS": "1"}) as child:
        return child.answer(), child.ask({"seconds": 0.01})


FROM_FILES = [name for name in ALL if name.startswith(("edgezoo", "onnxruntime", "OpenVINO", "ncnn"))]


@pytest.mark.parametrize("name", [name for name in FROM_FILES if name != "ncnn int8"])
def test_a_peer_runs_its_file(name: str, tiny: tuple[Tiny, Path]) -> None:
    network, folder = tiny
    if importlib.util.find_spec(ALL[name].package) is None:
        pytest.skip(f"{ALL[name].package} is not installed")
    told, taken = answers_of(name, folder)
    found = peers.judge(told, network.answer(network.pictures), exact=ALL[name].exact)
    assert found["skipped"] is None
    # bfloat16 has 8 bits, so that each value is off by up to 1/512; float16 is only what ncnn stores.
    assert found["relative_error"] < (1e-5 if ALL[name].exact else 0.02)
    assert "1" in found["setting"]  # of threads
    assert len(taken["ms"]) >= LEAST_RUNS
    assert min(taken["ms"]) > 0


def test_ncnn_int8(tiny: tuple[Tiny, Path]) -> None:
    pytest.importorskip("ncnn")
    network, folder = tiny
    peer_ncnn.quantize(folder / "ncnn.param", folder / "ncnn_int8.param", [p[None] for p in network.pictures])
    text = (folder / "ncnn_int8.param").read_text()
    # The first hands integers on to the second, which the mean that follows cannot take.
    assert re.findall(r" 8=(\d+)$", text, re.MULTILINE) == ["101", "1", "1"]
    told, _ = answers_of("ncnn int8", folder)
    found = peers.judge(told, network.answer(network.pictures), exact=False)
    assert found["skipped"] is None
    assert 1e-4 < found["relative_error"] < 0.05  # rounded to 8 bits, and no further off


def test_ncnn_scales_by_hand(tiny: tuple[Tiny, Path]) -> None:
    network, folder = tiny
    _, first, _, _, last = peer_ncnn.read(folder / "ncnn.param")
    for layer, weights in ((first, network.weights[0]), (last, network.weights[4])):
        assert peer_ncnn.weight_scales(layer) == pytest.approx([127 / np.abs(row).max() for row in weights])


def test_weights_of_a_layer_that_is_not_known_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.param").write_text("7767517\n2 2\nInput in0 0 1 in0\nPReLU p 1 1 in0 out0 0=3\n")
    (tmp_path / "a.bin").write_bytes(bytes(12))
    with pytest.raises(RuntimeError, match="12 bytes of weights"):
        peer_ncnn.read(tmp_path / "a.param")


@pytest.fixture(scope="module")
def catalogued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of one network stay for all that run it."""
    return tmp_path_factory.mktemp("catalogued")


@pytest.mark.slow
@pytest.mark.parametrize("library", ["PyTorch", "torch.compile", "Keras", "LiteRT", "ncnn"])
def test_a_peer_runs_a_network_of_the_catalogue(library: str, catalogued: Path) -> None:
    wanted = {name: peer for name, peer in PEERS.items() if name.startswith(library)}
    row = peers.compare("lenet5", wanted, catalogued, threads=1, budget_s=0.1, data=None, launches=1)
    for name, entry in row["peers"].items():
        if importlib.util.find_spec(wanted[name].package) is None:
            assert "not installed" in entry["skipped"]
            continue
        if name.startswith("torch.compile") and "no C++ compiler" in str(entry["skipped"]):
            continue
        assert entry["skipped"] is None, f"{name}: {entry['skipped']}"
        # int8 of trained-like activations: 8 bits through five layers.
        assert entry["relative_error"] < (1e-3 if wanted[name].exact else 0.1)
        assert entry["min"] <= entry["low"] <= entry["ms"] <= entry["high"]
        assert row["peers_ms"][name] == entry["ms"]


def test_what_is_not_installed_or_not_there_is_skipped(tiny: tuple[Tiny, Path]) -> None:
    ghost = replace(PEERS["OpenVINO fp32"], package="no_such_package")
    assert "not installed" in str(peers.missing("ghost", ghost, "mobilenet_v2"))
    assert "no keras variant" in str(peers.missing("Keras fp32", PEERS["Keras fp32"], "squeezenet1_1"))
    row = peers.compare("lenet5", {"ghost": ghost}, tiny[1], threads=1, budget_s=0.01, data=None)
    assert (row["ours_ms"], row["peers_ms"]) == (None, {})
    assert 'pip install "edgezoo[peers]"' in row["peers"]["ghost"]["skipped"]


def test_torch_compile_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "C++ compiler" in str(peers.missing("torch.compile fp32", PEERS["torch.compile fp32"], "mobilenet_v2"))
    assert peers.missing("PyTorch fp32", PEERS["PyTorch fp32"], "mobilenet_v2") is None


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    told, _ = answers_of("edgezoo fp32", tmp_path)
    assert "torch.onnx" in told["problem"]
    assert "\n" not in told["problem"]


@pytest.mark.parametrize(
    ("logits", "exact", "skipped"),
    [
        ([[1.0, -2.0], [0.0, 4.0]], True, None),
        ([[1.0, -2.0], [0.0, 4.1]], True, "at fault: 2.5e-02 off"),
        ([[1.0, -2.0], [0.0, 4.1]], False, None),
        ([[1.0, -2.0, 3.0]], False, r"gives \(1, 3\)"),
        ([[1.0, -2.0], [0.0, float("nan")]], False, "no numbers"),
    ],
)
def test_judgement(logits: list[list[float]], exact: bool, skipped: str | None) -> None:
    expected = np.array([[1.0, -2.0], [0.0, 4.0]])
    found = peers.judge({"logits": logits, "setting": "s"}, expected, exact=exact)
    assert found["skipped"] is None if skipped is None else re.search(skipped, found["skipped"])


def test_agreement_counts_answers() -> None:
    expected = np.array([[1.0, 2.0], [2.0, 1.0]])
    found = peers.judge({"logits": [[1.0, 2.0], [1.0, 2.0]], "setting": ""}, expected, exact=False)
    assert found["agreement"] == 50
    assert found["relative_error"] == 0.5


def test_the_row_has_the_shape_that_others_read(tiny: tuple[Tiny, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    network, folder = tiny
    monkeypatch.setattr(peers, "reference", lambda row, folder, source: network.answer(network.pictures))
    wanted = OURS | {name: PEERS[name] for name in ("onnxruntime fp32", "onnxruntime int8")}
    row = peers.compare("mobilenet_v2", wanted, folder, threads=1, budget_s=0.05, data=None)
    files = row["ours"]["files"]
    assert row["model"] == "mobilenet_v2"
    assert row["ours_ms"] == files["edgezoo tuned"]["ms"]
    assert row["ratio"] == row["ours_ms"] / row["peers_ms"][row["rival"]]
    assert row["peers_ms"][row["rival"]] == min(row["peers_ms"].values())
    assert row["ours"]["interval"] == [row["ours"]["low"], row["ours"]["high"]]
    assert set(row["peers_ms"]) == {"onnxruntime fp32", "onnxruntime int8"}
    for entry in (*files.values(), *row["peers"].values()):
        told = {"ms", "low", "high", "min", "samples", "setting", "relative_error", "agreement", "skipped", "source"}
        assert set(entry) == told
        assert entry["samples"] >= peers.ROUNDS * LEAST_RUNS


def test_a_record_keeps_the_rows_of_earlier_runs(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    for model, ms, noise in (("resnet50", 9.0, ["busy"]), ("mobilenet_v2", 2.0, ["busy"]), ("resnet50", 8.0, [])):
        peers.keep(file, [{"model": model, "ours_ms": ms, "noise": noise}], Watch([], 1), {"threads": 1})
    record = json.loads(file.read_text())
    assert [(row["model"], row["ours_ms"]) for row in record["rows"]] == [("mobilenet_v2", 2.0), ("resnet50", 8.0)]
    assert {"schema", "machine", "date", "versions", "settings"} <= set(record)
    assert record["schema"] == 1
    assert record["noise"] == {"noisy": True, "rows": ["mobilenet_v2"]}


def test_names_of_peers() -> None:
    assert list(peers.chosen_peers([])) == list(ALL)
    assert set(peers.chosen_peers(["openvino d", "LiteRT"])) == {
        *OURS,
        "OpenVINO default",
        "LiteRT fp32",
        "LiteRT int8",
    }
    with pytest.raises(ValueError, match="--peer tvm"):
        peers.chosen_peers(["tvm"])


def test_of_several_ways_the_fastest_is_timed() -> None:
    calls = dict.fromkeys(("idle", "busy"), 0)

    def way(name: str, work: int) -> Any:
        def infer(x: Any) -> int:
            calls[name] += 1
            return sum(range(work))

        return infer

    opened = Opened({"busy": way("busy", 300_000), "idle": way("idle", 1)}, "")
    assert fastest(opened, np.zeros(1, np.float32))[0] == "idle"
    assert min(calls.values()) >= LEAST_RUNS
    alone = Opened({"": way("busy", 1)}, "")
    assert fastest(alone, np.zeros(1, np.float32))[0] == ""


def test_a_turn_counts_no_run_before_it_has_settled() -> None:
    runs: list[int] = []
    taken = turn(lambda: runs.append(1), 0.0)
    assert len(taken) == LEAST_RUNS
    assert len(runs) > LEAST_RUNS + 1


def test_layouts() -> None:
    batch = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    turned = laid(batch, Opened({}, "", "NHWC"))
    assert turned.flags.c_contiguous
    assert turned.shape == (1, 3, 4, 2)
    assert turned[0, 2, 1, 1] == batch[0, 1, 2, 1]
    assert np.array_equal(laid(batch, Opened({}, "")), batch)


def record() -> dict[str, Any]:
    """Made up."""

    def entry(ms: float | None) -> dict[str, Any]:
        return {"ms": ms, "skipped": None if ms else "not installed", "relative_error": 0.0}

    row = {
        "model": "mobilenet_v2",
        "ours": {"files": {"edgezoo fp32": entry(4.123), "edgezoo int8": entry(1.9)}},
        "peers": {
            "onnxruntime fp32": entry(4.2),
            "onnxruntime int8": entry(5.0),
            "PyTorch fp32": entry(20.04),
            "PyTorch bf16": entry(10.0),
            "torch.compile fp32": entry(None),
            "ncnn fp32": entry(None),
            "ncnn int8": entry(1.85),
        },
    }
    return {
        "date": "2026-11-21T22:40:00+00:00",
        "machine": {"cpu": "A CPU"},
        "settings": {"threads": 2},
        "versions": {"edgezoo": "0.1.0", "torch": "2.15.0"},
        "noise": {"noisy": True, "rows": ["mobilenet_v2"]},
        "rows": [row],
    }


def test_the_table() -> None:
    lines = peer_table.markdown(record()).splitlines()
    assert lines[0].startswith("| | edgezoo | onnxruntime |")
    # The slower of two precisions is left out, except float32; a dash is no time at all.
    cells = ["mobilenet_v2", "4.12 / 1.90 int8", "4.20", "20.0 / 10.0 bf16", "–", "–", "–", "–", "**1.85** int8"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == cells
    assert "2026-11-21" in lines[-1]
    assert "A CPU, 2 threads" in lines[-1]
    assert lines[-1].endswith("during mobilenet_v2.")


def test_the_terminal_has_every_peer() -> None:
    row = record()["rows"][0]
    for entry in (*row["ours"]["files"].values(), *row["peers"].values()):
        entry |= {"low": 1.0, "high": 2.0, "relative_error": 1e-6, "setting": "two threads"} if entry["ms"] else {}
    _, lines = peer_table.of_row(row)
    assert lines[0] == ("edgezoo fp32", "4.12", "1.00 to 2.00", "1e-06", "two threads")
    assert lines[-2] == ("ncnn fp32", "", "", "", "not installed")
    assert len(lines) == 9


def test_the_readme_has_the_table_of_the_record(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    between = re.findall(f"{peer_table.START}\n(.*?){peer_table.END}", text, re.DOTALL)
    kept = json.loads(peers.RECORD.read_text(encoding="utf-8"))
    assert between == [peer_table.markdown(kept)], "run `python benchmarks/peers.py --table` and paste what it prints"


def test_every_row_is_in_the_catalogue_in_torch() -> None:
    from zoo.models import find

    assert all("torch" in find(row).sources for row in peers.ROWS)
    assert isinstance(next(iter(ALL.values())), Peer)
