"""A profile against its file: every multiplication is found again, whatever onnxruntime fused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import InvalidInput
from runtime.profile import Profile, profile
from zoo.layers import count
from zoo.profiling import Node, feed_of, model_of, nodes_of, operators_of, owner_of, rate, rule_of
from zoo.shapes import read


def profiled(file: Path, *, batch: int = 1) -> tuple[list[Node], Profile, onnx.ModelProto]:
    """The nodes of a file, run on noise."""
    proto = read(file)
    model = model_of(proto, file)
    table = count(proto, batch=batch)
    taken = profile(model, feed_of(proto, table, where=str(file), picture=None), runs=3, threads=1)
    return nodes_of(taken, table, proto), taken, proto


def integer_file(folder: Path) -> Path:
    """Conv in float -> int8 Conv -> Erf, which has no int8 kernel -> int8 Conv -> Erf: 4 channels, 8x8, in QDQ."""
    rng = np.random.default_rng(0)
    nodes, stored = [], {"scale": np.float32(0.05), "zero": np.uint8(128), "w_scale": np.float32(0.01)}
    stored["w_zero"], stored["first_w"] = np.int8(0), rng.normal(size=(4, 4, 3, 3)).astype(np.float32)

    def through(name: str) -> str:
        nodes.append(
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"], name=f"{name}_quantize")
        )
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"], name=f"{name}_d")
        )
        return f"{name}_dq"

    def convolve(name: str, value: str) -> str:
        stored[f"{name}_w"] = rng.integers(-100, 100, (4, 4, 3, 3), dtype=np.int8)
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_w", "w_scale", "w_zero"], [f"{name}_f"], name=f"{name}_wd")
        )
        nodes.append(helper.make_node("Conv", [value, f"{name}_f"], [name], name=name, pads=[1] * 4))
        return through(name)

    nodes.append(helper.make_node("Conv", ["input", "first_w"], ["first"], name="first", pads=[1] * 4))
    value = convolve("second", through("first"))
    nodes.append(helper.make_node("Erf", [value], ["middle"], name="middle"))
    value = convolve("third", through("middle"))
    nodes.append(helper.make_node("Erf", [value], ["output"], name="last"))
    shape = [1, 4, 8, 8]
    graph = helper.make_graph(
        nodes, "integers", [helper.make_tensor_value_info("input", 1, shape)],
        [helper.make_tensor_value_info("output", 1, shape)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path = folder / "integers.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", [1, 3])
def test_every_multiplication_is_found_in_a_file_of_nameless_nodes(tiny: Callable[..., Path], batch: int) -> None:
    nodes, _, proto = profiled(tiny(), batch=batch)
    assert all(node.name for node in proto.graph.node), "named, to tell them by"
    macs = {node.operator.replace("Fused", ""): node.macs for node in nodes if node.macs}
    assert macs == {"Conv": batch * 6 * 8 * 8 * 3 * 9, "Gemm": batch * 6 * 4}
    conv = next(node for node in nodes if "Conv" in node.operator)
    assert conv.gflops == pytest.approx(2 * conv.macs / (conv.milliseconds * 1e6))  # type: ignore[operator]
    assert sum(node.share for node in nodes) == pytest.approx(1)
    assert {node.arithmetic for node in nodes} <= {"float", "other"}


@pytest.mark.parametrize("name", ["conv_a", "", "twice"])
def test_namesakes_are_told_apart(tmp_path: Path, name: str) -> None:
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [helper.make_node("MatMul", [a, "w"], [b], name=name) for a, b in (("x", "h"), ("g", "y"))]
    nodes.insert(1, helper.make_node("Softmax", ["h"], ["g"], name=name))
    value = [helper.make_tensor_value_info(one, 1, [2, 4]) for one in "xy"]
    graph = helper.make_graph(nodes, "namesakes", value[:1], value[1:], [weights])
    path = tmp_path / "namesakes.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    found, _, _ = profiled(path)
    assert [(node.operator, node.macs) for node in found] == [("MatMul", 32), ("Softmax", 0), ("MatMul", 32)]
    assert len({node.layer for node in found}) == 3


def test_a_fused_layer_keeps_its_multiplications(lenet_file: Path) -> None:
    nodes, taken, proto = profiled(lenet_file)
    assert sum(node.macs or 0 for node in nodes) == 416_520  # LeNet-5's, as in its Facts
    assert len(nodes) < len(proto.graph.node), "nothing was fused: this tests nothing"
    groups = operators_of(nodes)
    assert sum(group.milliseconds for group in groups) == pytest.approx(sum(node.milliseconds for node in taken.nodes))
    assert sum(group.nodes for group in groups) == len(nodes)
    assert [group.milliseconds for group in groups] == sorted((group.milliseconds for group in groups), reverse=True)


def test_what_runs_in_float_among_integers(tmp_path: Path) -> None:
    nodes, _, _ = profiled(integer_file(tmp_path))
    told = {node.layer: node for node in nodes if node.layer}
    assert {name for name, node in told.items() if node.operator == "QLinearConv"} == {"second", "third"}
    assert {told[name].arithmetic for name in ("second", "third")} == {"integer"}
    assert {name for name, node in told.items() if node.arithmetic == "float"} == {"first", "middle", "last"}
    between = {name: told[name].between for name in ("first", "second", "middle", "last")}
    assert between == {"first": False, "second": None, "middle": True, "last": False}
    assert {told[name].macs for name in ("first", "second", "third")} == {4 * 8 * 8 * 4 * 9}


def test_names_that_onnxruntime_makes_lead_back() -> None:
    known = {"features.0": "features.0", "fc": "fc", "value": "node"}
    made = {
        "features.0": "features.0", "features.0_nchwc": "features.0", "fc/MatMulAddFusion": "fc", "fused fc": "fc",
        "fc/MatMulAddFusion_token_3": "fc", "features.0_token_10_token_2": "features.0", "value_nchwc": "node",
        "ReorderOutput_token_2": None, "": None,
    }  # fmt: skip
    assert {name: owner_of(name, known) for name in made} == made


def test_inputs_are_made_up_by_type(tmp_path: Path) -> None:
    kinds = {"a": TensorProto.FLOAT16, "b": TensorProto.UINT8, "c": TensorProto.INT64, "d": TensorProto.BOOL}
    inputs = [helper.make_tensor_value_info(name, kind, ["n", 5]) for name, kind in kinds.items()]
    nodes = [helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in kinds]
    nodes.append(helper.make_node("Concat", [f"{name}_f" for name in kinds], ["out"], axis=0))
    graph = helper.make_graph(nodes, "casts", inputs, [helper.make_tensor_value_info("out", 1, [None, 5])])
    path = tmp_path / "casts.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    proto = read(path)
    feed = feed_of(proto, count(proto, batch=4), where="casts", picture=None)
    assert {name: str(array.dtype) for name, array in feed.items()} == {
        "a": "float16", "b": "uint8", "c": "int64", "d": "bool",
    }  # fmt: skip
    assert {array.shape for array in feed.values()} == {(4, 5)}
    with pytest.raises(InvalidInput, match="leave --image out"):
        feed_of(proto, count(proto), where="casts", picture=np.zeros((1, 3, 8, 8), np.float32))


def test_inputs_of_text_are_refused() -> None:
    value = helper.make_tensor_value_info("words", TensorProto.STRING, [2])
    node = helper.make_node("Identity", ["words"], ["same"])
    out = helper.make_tensor_value_info("same", TensorProto.STRING, [2])
    proto = helper.make_model(helper.make_graph([node], "text", [value], [out]))
    with pytest.raises(InvalidInput, match="input words holds no numbers"):
        feed_of(proto, count(proto), where="text", picture=None)


def test_a_picture_fills_the_batch_and_must_fit(tiny: Callable[..., Path]) -> None:
    proto = read(tiny())
    picture = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    feed = feed_of(proto, count(proto, batch=2), where="tiny", picture=picture)
    assert np.array_equal(feed["input"], np.concatenate([picture, picture]))
    with pytest.raises(InvalidInput, match=r"takes float32 \[1, 3, 8, 8\]"):
        feed_of(proto, count(proto), where="tiny", picture=np.zeros((1, 3, 9, 9), np.float32))
    assert rule_of(proto, "tiny").size == (8, 8)
    with pytest.raises(InvalidInput, match="add --preprocess"):
        rule_of(read(tiny("foreign.onnx", stamped=False)), "foreign")


def test_a_rate_needs_work_and_time() -> None:
    assert rate(1_000_000, 2.0) == pytest.approx(1.0)  # 2 MFLOP in 2 ms
    assert rate(0, 1.0) is None
    assert rate(None, 1.0) is None
    assert rate(5, 0.0) is None
