"""What is written for onnxruntime's CPU computes what it did, and is of the forms that have fast kernels."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.quantize.emit import emit
from exporters.quantize.kernels import suited, written
from exporters.quantize.network import Network, add_biases
from exporters.quantize.observe import observe
from exporters.quantize.scheme import Scheme, Style, candidates, make_scheme
from tests.exporters.graphs import run
from tests.exporters.quantize.networks import SIDE, Builder, mobile, pictures, silent, swish

PHOTOS = pictures(8)


def scheme_of(model: Any, style: Style) -> tuple[Network, Scheme]:
    add_biases(model)
    network = Network(model)
    return network, make_scheme(network, observe(network, PHOTOS, silent), candidates(network, style), "whole", style)


def both(model: Any, style: Style | None = None) -> tuple[Any, Any]:
    """The model in QDQ form, as ``emit`` writes it and as it goes into the file."""
    network, scheme = scheme_of(model, style or Style())
    plain, made = emit(network, scheme).proto, written(network, scheme)
    onnx.checker.check_model(made)
    return plain, made


def answers(model: Any, *names: str) -> list[np.ndarray]:
    """Of these tensors, with onnxruntime's integer kernels."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    if names:
        del asked.graph.output[:]
        asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run(asked, {"input": next(iter(PHOTOS.batches(8)))}, optimized=True)


def convolutions(model: Any) -> dict[str, tuple[int, tuple[int, ...]]]:
    """(groups, shape of the weights) of every convolution, by the name of its node."""
    stored = {item.name: numpy_helper.to_array(item).shape for item in model.graph.initializer}
    up = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name: (
            next((item.i for item in node.attribute if item.name == "group"), 1),
            stored[up.get(node.input[1], node.input[1])],
        )
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def operators(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("bits", [8, 7])
def test_channels_are_added_that_no_answer_shows(bits: int) -> None:
    plain, made = both(mobile(1), Style(weight_bits=bits))
    np.testing.assert_array_equal(*answers(plain)[:1], *answers(made)[:1])
    before, after = convolutions(plain), convolutions(made)
    assert before["dw"] == (8, (8, 1, 3, 3))
    assert after["dw"] == (16, (16, 1, 3, 3))
    assert after["stem"] == (1, (16, 4, 3, 3)), "its output as wide as the depthwise layer, its input 4 colours"
    assert after["pw"] == (1, (8, 16, 1, 1))
    untouched = set(before) - {"dw", "stem", "pw"}
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert operators(made)["Pad"] == 1
    names = {node.output[0] for node in made.graph.node}
    assert {item.name for item in made.graph.initializer} == {
        name for node in made.graph.node for name in node.input if name and name not in names and name != "input"
    }, "and nothing is stored that nobody reads"


def squeezed(width: int) -> Any:
    """A depthwise layer whose maps are gated, squared and added to: everything that is as wide as it."""
    net = Builder(3)
    x = net.add("HardSwish", [net.conv("input", "stem", 3, width, 3)], "stem.act")
    x = y = net.add("Relu", [net.conv(x, "dw", width, width, 5, group=width)], "dw.act")
    gate = net.add("Relu", [net.conv(net.add("GlobalAveragePool", [x], "pool"), "squeeze", width, 4)], "squeeze.act")
    gate = net.add("Sigmoid", [net.conv(gate, "excite", 4, width)], "gate")
    x = net.add("Mul", [x, gate], "se")
    x = net.add("Add", [x, y], "sum")
    x = net.add("Mul", [x, net.constant("each", np.linspace(0.5, 2, width).reshape(1, width, 1, 1))], "scaled")
    x = net.add("MaxPool", [x], "max", kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv(x, "project", width, 12)
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    return net.model(net.gemm(x, "logits", 12, 10), 10)


@pytest.mark.parametrize("front", [False, True])
def test_all_that_is_as_wide_is_widened_with_it(front: bool) -> None:
    model = squeezed(20)
    network, scheme = scheme_of(model, Style())
    if front:  # the first layer in float
        chosen = scheme.chosen - {"stem", "stem.act"}
        scheme = make_scheme(network, observe(network, PHOTOS, silent), chosen, "whole", Style())
    plain, made = emit(network, scheme).proto, written(network, scheme)
    np.testing.assert_array_equal(answers(plain)[0], answers(made)[0])
    after = convolutions(made)
    assert after["stem"] == (1, (32, 3 if front else 4, 3, 3))
    assert after["dw"] == (32, (32, 1, 5, 5))
    assert after["squeeze"][1] == (4, 32, 1, 1)
    assert after["excite"][1] == (32, 4, 1, 1)
    assert after["project"][1] == (12, 32, 1, 1)
    (wide,) = answers(made, "dw.act::dequantized")
    assert wide.shape[1] == 32
    np.testing.assert_array_equal(wide[:, 20:], 0)


def test_silu_is_as_wide_as_what_it_takes() -> None:
    net = Builder(9)
    x = net.conv("input", "stem", 3, 20, 3)
    x = net.add("Mul", [x, net.add("Sigmoid", [x], "stem.gate")], "stem.act")
    x = net.add("Relu", [net.conv(x, "dw", 20, 20, 3, group=20)], "dw.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [net.conv(x, "project", 20, 8)], "mean")], "flat")
    _, made = both(net.model(net.gemm(x, "logits", 8, 10), 10))
    assert operators(made)["QuickGelu"] == 1
    assert convolutions(made) == {
        "stem": (1, (32, 4, 3, 3)), "dw": (32, (32, 1, 3, 3)), "project": (1, (8, 32, 1, 1))
    }  # fmt: skip


def test_where_shapes_are_not_known_nothing_is_widened() -> None:
    net = Builder(10)
    x = net.add("Relu", [net.conv("input", "stem", 3, 20, 1)], "stem.act")
    x = net.add("Mul", [x, net.constant("each", np.linspace(0.5, 2, 20).reshape(20, 1, 1))], "scaled")
    x = net.add("Relu", [net.conv(x, "dw", 20, 20, 3, group=20)], "dw.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    network, scheme = scheme_of(net.model(net.gemm(x, "logits", 20, 10), 10), Style())
    plain = emit(network, scheme).proto
    del plain.graph.input[0].type.tensor_type.shape.dim[:]
    plain.graph.input[0].type.tensor_type.ClearField("shape")
    assert convolutions(suited(plain)) == convolutions(plain)


@pytest.mark.parametrize("output", ["dw.act", "cat"])
def test_what_something_else_reads_stays_as_wide_as_it_is(output: str) -> None:
    net = Builder(4)
    x = net.add("Relu", [net.conv("input", "stem", 3, 20, 1)], "stem.act")
    dw = net.add("Relu", [net.conv(x, "dw", 20, 20, 3, group=20)], "dw.act")
    cat = net.add("Concat", [dw, x], "cat", axis=1)
    x = {"dw.act": dw, "cat": cat}[output]
    width = 20 if output == "dw.act" else 40
    x = net.add("Reshape", [x, "flat"], "rows")
    net.weights.append(numpy_helper.from_array(np.array([0, width * SIDE * SIDE]), "flat"))
    model = net.model(net.gemm(x, "logits", width * SIDE * SIDE, 10), 10)
    plain, made = both(model)
    np.testing.assert_array_equal(answers(plain)[0], answers(made)[0])
    assert convolutions(made) == convolutions(plain)


@pytest.mark.parametrize(("groups", "outputs", "merged"), [(16, 64, 2), (8, 64, 2), (2, 64, 2), (32, 64, 1)])
def test_narrow_groups_are_merged(groups: int, outputs: int, merged: int) -> None:
    inputs = 32 if groups == 32 else 64
    net = Builder(5)
    x = net.add("Relu", [net.conv("input", "stem", 3, inputs, 1)], "stem.act")
    x = net.add("Relu", [net.conv(x, "grouped", inputs, outputs, 3, group=groups)], "grouped.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    plain, made = both(net.model(net.gemm(x, "logits", outputs, 10), 10))
    assert convolutions(made)["grouped"] == (merged, (outputs, inputs // merged, 3, 3))
    np.testing.assert_array_equal(answers(plain)[0], answers(made)[0])


POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 0, 1, 1]},
    {"kernel_shape": [5, 3], "strides": [1, 2], "pads": [2, 1, 0, 0]},
    {"kernel_shape": [SIDE, SIDE]},
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("how", POOLS, ids=lambda how: "-".join(map(str, how.values())))
def test_an_average_is_a_convolution(how: dict[str, Any], signed: bool) -> None:
    net = Builder(6)
    x = net.add("Relu", [net.conv("input", "stem", 3, 16, 1)], "stem.act")
    x = net.add("AveragePool", [x], "pool", **how)
    x = net.add("Relu", [net.conv(x, "next", 16, 24)], "next.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    network, scheme = scheme_of(net.model(net.gemm(x, "logits", 24, 10), 10), Style(signed=signed))
    made = written(network, scheme)
    assert not operators(made)["AveragePool"]
    assert convolutions(made)["pool"][0] == 16
    border = any(how.get("pads", [])) and not how.get("count_include_pad")
    assert operators(made)["Mul"] == bool(border)
    names = [f"{name}::dequantized" for name in ("stem.act", "pool")]
    given, got = answers(made, *names)
    pool = onnx.helper.make_node("AveragePool", ["input"], ["y"], **how)
    value = onnx.helper.make_tensor_value_info("input", 1, given.shape)
    graph = onnx.helper.make_graph([pool], "pool", [value], [onnx.ValueInfoProto(name="y")])
    alone = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (wanted,) = run(alone, {"input": given})
    # Half a step for the rounding; with a border another one, as much larger as what is scaled up.
    steps = 0.51 * (1 + (np.prod(how["kernel_shape"]) if border else 0))
    assert np.abs(got - wanted).max() <= steps * scheme.grids["pool"].scale
    assert np.abs(got - wanted).mean() <= 0.51 * scheme.grids["pool"].scale


@pytest.mark.parametrize(("how", "able"), [({"dilations": [1, 1]}, True), ({"dilations": [2, 2]}, False),
                                           ({"ceil_mode": 1}, False), ({"ceil_mode": 0}, True)])  # fmt: skip
def test_pools_that_integers_can_take(how: dict[str, Any], able: bool) -> None:
    net = Builder(11)
    x = net.add("Relu", [net.conv("input", "stem", 3, 16, 1)], "stem.act")
    x = net.conv(net.add("AveragePool", [x], "pool", kernel_shape=[2, 2]), "next", 16, 16)
    model = net.model(
        net.gemm(net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat"), "y", 16, 10), 10
    )
    pool = next(node for node in model.graph.node if node.name == "pool")
    pool.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in how.items())
    assert ("pool" in candidates(Network(model), Style())) is able


def test_pools_that_say_more_stay_as_they_are() -> None:
    net = Builder(7)
    x = net.add("Relu", [net.conv("input", "stem", 3, 16, 1)], "stem.act")
    x = net.add("AveragePool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    plain, made = both(net.model(net.gemm(x, "logits", 16, 10), 10))
    assert operators(made)["AveragePool"] == 1
    np.testing.assert_array_equal(answers(plain)[0], answers(made)[0])


def test_silu_is_one_kernel_in_float() -> None:
    plain, made = both(swish())
    assert operators(made)["QuickGelu"] == 2
    assert not {"Sigmoid", "Mul"} & operators(made).keys()
    values, gated = answers(made, "stem::dequantized", "stem.act")
    np.testing.assert_allclose(gated, values / (1 + np.exp(-values.astype(np.float64))), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(answers(made)[0], answers(plain)[0], atol=0.02 * np.abs(answers(plain)[0]).max())


def test_silu_on_integers_stays_two_kernels() -> None:
    plain, made = both(swish(), Style(silu=True))
    assert (operators(made)["Sigmoid"], operators(made)["Mul"], operators(made)["QuickGelu"]) == (2, 2, 0)
    np.testing.assert_array_equal(answers(plain)[0], answers(made)[0])


def test_other_targets_have_the_plain_form() -> None:
    for style in (Style(signed=True, symmetric=True), Style(fused=True)):
        plain, made = both(mobile(1), style)
        assert made == plain
