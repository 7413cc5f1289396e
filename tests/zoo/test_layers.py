"""The layer table: counted by PyTorch's own counter, by published figures, and by formulae written out by hand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from runtime.errors import ArtifactNotFound, InvalidArtifact, InvalidInput
from zoo import shapes
from zoo.layers import Layer, LayerTable, count
from zoo.macs import PRODUCTS, UNCOUNTED
from zoo.stand_ins import MICROSOFT, STAND_INS

Node = onnx.NodeProto


def model(
    nodes: list[Node],
    inputs: dict[str, Any],
    weights: dict[str, Any] | None = None,
    *,
    output: str = "y",
    opset: int = 18,
    kind: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A graph of these nodes; weights as arrays, each of its own type."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(output)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.zeros(shape, dtype)


def node(operator: str, inputs: str, outputs: str = "y", domain: str = "", **attributes: Any) -> Node:
    """Inputs and outputs separated by blanks."""
    return helper.make_node(operator, inputs.split(" "), outputs.split(" "), domain=domain, **attributes)


def only(table: LayerTable) -> Layer:
    (layer,) = table.layers
    return layer


# ---- against PyTorch's own counter


def _exported(module: Any, *inputs: Any) -> tuple[LayerTable, int, int]:
    """The table of a module's export; the FLOPs that PyTorch counted while it ran, and its parameters."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    _settled(module)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    program = torch.onnx.export(module, inputs, dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    return count(program.model_proto), counter.get_total_flops(), sum(p.numel() for p in module.parameters())


def _settled(module: Any) -> Any:
    """Every number drawn at random: exporters fold a bias of zeros away, and share tensors that are alike."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.1 + 0.5)
    return module.eval()


def _modules() -> dict[str, Callable[[], tuple[Any, tuple[int, ...]]]]:
    from torch import nn

    class Attention(nn.Module):
        """Two heads of four numbers, in plain matrix products: PyTorch does not count its own fused ones on the CPU."""

        def __init__(self) -> None:
            super().__init__()
            self.joint, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.joint(x).chunk(3, -1))
            mixed = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
            return self.out(mixed.transpose(1, 2).flatten(2))

    return {
        "strided": lambda: (nn.Conv2d(3, 8, 5, stride=(2, 3), padding=(2, 1)), (2, 3, 17, 23)),
        "grouped": lambda: (nn.Conv2d(6, 9, 3, groups=3, bias=False), (1, 6, 9, 8)),
        "dilated": lambda: (nn.Conv2d(4, 4, 3, dilation=2, padding=2), (1, 4, 11, 11)),
        "depthwise": lambda: (nn.Conv2d(4, 8, 3, groups=4, stride=2), (1, 4, 11, 11)),
        "one axis": lambda: (nn.Conv1d(3, 5, 4, stride=2, padding=1), (2, 3, 19)),
        "three axes": lambda: (nn.Conv3d(2, 3, (1, 3, 2)), (1, 2, 4, 6, 5)),
        "transposed": lambda: (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (1, 4, 7, 5)),
        "transposed, grouped": lambda: (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (2, 4, 3, 5)),
        "dense": lambda: (nn.Linear(7, 5), (3, 7)),
        "dense over a sequence": lambda: (nn.Linear(7, 5), (3, 4, 7)),
        "attention": lambda: (Attention(), (2, 5, 8)),
        "a network": lambda: (
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=8),
                nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1),
            ),
            (1, 3, 12, 12),
        ),
    }  # fmt: skip


@pytest.mark.slow
def test_macs_are_half_of_the_flops_that_pytorch_counts() -> None:
    torch = pytest.importorskip("torch")
    wrong = {}
    for name, build in _modules().items():
        module, shape = build()
        table, flops, parameters = _exported(module, torch.randn(*shape))
        assert flops > 0
        got, want = (table.complete, 2 * table.macs, table.parameters), (True, flops, parameters)
        if got != want:
            wrong[name] = got, want
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "separable"), [("mobilenet_v2", 17), ("squeezenet1_1", None)])
def test_published_macs(root: Path, name: str, separable: int | None) -> None:
    """torchvision's own table: "GFLOPS", rounded to three places, are multiply-accumulates."""
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    with (root / "zoo" / "tables" / "torchvision_weights.csv").open(encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["model"] == name)
    module = _settled(torchvision.models.get_model(name, weights=None))
    program = torch.onnx.export(module, (torch.zeros(1, 3, 224, 224),), dynamo=True, opset_version=18, verbose=False)
    table = count(program.model_proto)
    assert f"{table.macs / 1e9:.3f}" == row["gflops"]
    assert table.complete
    assert all(layer.output_shape is not None for layer in table.layers)
    # The exporter folds each BatchNorm into its convolution: a bias per channel in place of two parameters.
    norms = sum(part.num_features for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d))
    assert table.parameters == int(row["num_params"]) - norms
    assert (table.separable is None) == (separable is None)
    if table.separable is not None:
        assert (len(table.separable.pairs), table.separable.alone) == (separable, 0)


# ---- against formulae written out


def test_convolution_by_hand() -> None:
    """VGG's second layer (Simonyan and Zisserman 2015): 64 filters of 3x3x64 at 224x224 places."""
    graph = model(
        [node("Conv", "x w b", pads=[1] * 4)], {"x": [1, 64, 224, 224]}, {"w": zeros(64, 64, 3, 3), "b": zeros(64)}
    )
    layer = only(count(graph))
    assert (layer.detail, layer.kind) == ("3x3", "convolution")
    assert layer.output_shape == (1, 64, 224, 224)
    assert layer.parameters == 36_928
    assert layer.macs == 224 * 224 * 9 * 64 * 64 == 1_849_688_064


@pytest.mark.parametrize(
    ("attributes", "weight", "detail", "kind"),
    [
        ({"strides": [2, 2]}, (8, 4, 3, 3), "3x3 / 2", "convolution"),
        ({"strides": [2, 1]}, (8, 4, 3, 3), "3x3 / 2x1", "convolution"),
        ({"strides": [2, 2], "group": 2}, (8, 2, 3, 3), "3x3 / 2, groups 2", "grouped"),
        ({"group": 2}, (8, 2, 1, 1), "1x1, groups 2", "grouped"),
        ({"group": 4, "dilations": [2, 2]}, (8, 1, 3, 3), "3x3, dilation 2, groups 4", "depthwise"),
        ({}, (8, 4, 1, 1), "1x1", "pointwise"),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (8, 4, 5, 3), "5x3 / 2", "convolution"),
    ],
)
def test_what_is_said_of_a_convolution(
    attributes: dict[str, Any], weight: tuple[int, ...], detail: str, kind: str
) -> None:
    layer = only(count(model([node("Conv", "x w", **attributes)], {"x": [1, 4, 9, 9]}, {"w": zeros(*weight)})))
    assert (layer.detail, layer.kind) == (detail, kind)


PRODUCT_CASES: list[tuple[Node, dict[str, Any], dict[str, Any], int, int, str]] = [
    # node, inputs, weights, MACs, parameters, kind
    (node("Gemm", "x w b"), {"x": [2, 7]}, {"w": zeros(7, 5), "b": zeros(5)}, 2 * 7 * 5, 40, "dense"),
    (node("Gemm", "x w", transB=1, transA=1), {"x": [7, 2]}, {"w": zeros(5, 7)}, 2 * 7 * 5, 35, "dense"),
    (node("MatMul", "x w"), {"x": [2, 3, 7]}, {"w": zeros(7, 5)}, 2 * 3 * 7 * 5, 35, "dense"),
    (node("MatMul", "a b"), {"a": [2, 3, 4, 5], "b": [3, 5, 6]}, {}, 2 * 3 * 4 * 5 * 6, 0, "product"),
    (node("MatMul", "x w"), {"x": [2, 7]}, {"w": zeros(7)}, 2 * 7, 7, "dense"),
    (node("FusedMatMul", "a b", domain=MICROSOFT), {"a": [2, 4, 5], "b": [2, 5, 6]}, {}, 2 * 4 * 5 * 6, 0, "product"),
    (
        node("FusedMatMul", "a b", domain=MICROSOFT, transB=1, alpha=0.5),
        {"a": [2, 3, 4, 5], "b": [2, 3, 6, 5]}, {}, 2 * 3 * 4 * 5 * 6, 0, "product",
    ),
    (
        node("FusedMatMul", "a b", domain=MICROSOFT, transA=1),
        {"a": [2, 5, 4], "b": [2, 5, 6]}, {}, 2 * 4 * 5 * 6, 0, "product",
    ),
    (
        node("FusedGemm", "x w b", domain=MICROSOFT, activation="Relu"),
        {"x": [2, 7]}, {"w": zeros(7, 5), "b": zeros(5)}, 70, 40, "dense",
    ),
    (
        node("FusedConv", "x w", domain=MICROSOFT, activation="Relu", pads=[1] * 4),
        {"x": [1, 2, 5, 5]}, {"w": zeros(3, 2, 3, 3)}, 25 * 9 * 2 * 3, 54, "convolution",
    ),
    (node("Einsum", "a b", equation="bij,bkj->bik"), {"a": [2, 3, 5], "b": [2, 4, 5]}, {}, 2 * 3 * 4 * 5, 0, "product"),
    (node("Einsum", "a b", equation="bi,bi->bi"), {"a": [2, 3], "b": [2, 3]}, {}, 0, 0, "product"),
    (
        node("ConvTranspose", "x w", strides=[2]),
        {"x": [2, 3, 5]}, {"w": zeros(3, 4, 3)}, 2 * 3 * 5 * 4 * 3, 36, "transposed",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", PRODUCT_CASES, ids=lambda case: f"{case[0].op_type}")
def test_products_by_hand(case: tuple[Node, dict[str, Any], dict[str, Any], int, int, str]) -> None:
    made, inputs, weights, macs, parameters, kind = case
    table = count(model([made], inputs, weights))
    layer = only(table)
    assert (layer.macs, layer.parameters, layer.kind) == (macs, parameters, kind)
    assert layer.output_shape is not None
    assert (table.macs, table.parameters, table.complete) == (macs, parameters, True)


def test_attention_as_one_operator() -> None:
    """Two heads of four numbers; 3 queries, 5 keys: each pair costs 4 products, and 4 more for the value."""
    split = model([node("Attention", "q k v")], {"q": [1, 2, 3, 4], "k": [1, 2, 5, 4], "v": [1, 2, 5, 4]}, opset=23)
    joined = model(
        [node("Attention", "q k v", q_num_heads=2, kv_num_heads=2)],
        {"q": [1, 3, 8], "k": [1, 5, 8], "v": [1, 5, 8]},
        opset=23,
    )
    assert count(split).macs == count(joined).macs == 2 * 3 * 5 * (4 + 4)


def _quantized() -> onnx.ModelProto:
    """QLinearConv -> QLinearAdd -> QLinearGlobalAveragePool -> QGemm, as onnxruntime's quantizer writes them."""
    byte = np.uint8(0)
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w ws wz s z b", "c", pads=[1] * 4),
        node("QLinearAdd", "c s z c s z s z", "a", domain=MICROSOFT),
        node("QLinearGlobalAveragePool", "a s z s z", "g", domain=MICROSOFT),
        node("Flatten", "g", "f"),
        node("QGemm", "f s z v s z d s z", "h", domain=MICROSOFT, transB=1),
        node("DequantizeLinear", "h s z", "y"),
    ]
    weights = {
        "s": np.float32(1), "z": byte, "w": zeros(4, 3, 3, 3, dtype=np.int8), "ws": zeros(4),
        "wz": zeros(4, dtype=np.int8), "b": zeros(4, dtype=np.int32), "v": zeros(5, 4, dtype=np.uint8),
        "d": zeros(5, dtype=np.int32),
    }  # fmt: skip
    return model(nodes, {"x": ["batch", 3, 6, 6]}, weights)


def test_quantized_weights_count_and_their_scales_do_not() -> None:
    table = count(_quantized())
    assert table.complete
    assert all(layer.output_shape is not None for layer in table.layers)
    assert table.parameters == (4 * 3 * 9 + 4) + (5 * 4 + 5)
    assert table.macs == 36 * 4 * 27 + 20


def test_dequantized_weights_belong_to_the_layer_that_uses_them() -> None:
    nodes = [
        node("DequantizeLinear", "w s z", "wf", axis=0),
        node("DequantizeLinear", "b bs", "bf", axis=0),
        node("Conv", "x wf bf", "y"),
    ]
    weights = {
        "w": zeros(4, 3, 3, 3, dtype=np.int8), "s": zeros(4), "z": zeros(4, dtype=np.int8),
        "b": zeros(4, dtype=np.int32), "bs": zeros(4),
    }  # fmt: skip
    layer = only(count(model(nodes, {"x": [1, 3, 8, 8]}, weights)))
    assert (layer.operator, layer.parameters, layer.macs) == ("Conv", 108 + 4, 36 * 4 * 27)


def test_what_is_no_parameter() -> None:
    nodes = [
        node("Clip", "x low high", "a"),
        node("Add", "a three", "b"),
        node("Resize", "b  scales", "c"),
        node("Reshape", "c target", "d"),
        node("MatMul", "d w", "e"),
        node("MatMul", "e w2", "f"),
        node("MatMul", "f w2", "y"),
    ]
    weights = {
        "low": np.float32(0), "high": np.float32(6), "three": np.float32(3), "scales": np.float32([1, 1, 2, 2]),
        "target": np.int64([0, -1]), "w": zeros(64, 5), "w2": zeros(5, 5), "dead": zeros(9),
    }  # fmt: skip
    table = count(model(nodes, {"x": ["N", 4, 2, 2]}, weights))
    assert table.parameters == 64 * 5 + 25  # w2 once
    assert table.macs == 64 * 5 + 2 * 25
    assert table.unread == 9


# ---- sizes


def test_batch_and_size_of_free_axes() -> None:
    nodes = [node("Conv", "x w", "c", pads=[1] * 4), node("GlobalAveragePool", "c")]
    graph = model(nodes, {"x": ["N", 3, "H", "W"]}, {"w": zeros(2, 3, 3, 3)})
    table = count(graph, batch=3, size=(10, 20))
    assert table.inputs == {"x": (3, 3, 10, 20)}
    assert table.macs == 3 * 10 * 20 * 2 * 27
    unknown = count(graph)
    assert (unknown.complete, unknown.macs, unknown.inputs) == (False, 0, {"x": None})
    assert [layer.macs for layer in unknown.layers] == [None, 0]
    assert unknown.parameters == 54


def test_channels_last_pictures_take_a_size() -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w")]
    graph = model(nodes, {"x": ["N", "H", "W", 3]}, {"w": zeros(2, 3, 1, 1)})
    assert count(graph, size=(4, 6)).macs == 4 * 6 * 6


def test_sizes_that_the_network_does_not_take() -> None:
    fixed = model([node("Relu", "x")], {"x": [1, 3, 8, 8]})
    with pytest.raises(InvalidInput, match="input x is fixed to 8x8"):
        count(fixed, size=(9, 9))
    assert count(fixed, size=(8, 8)).complete
    with pytest.raises(InvalidInput, match="no input is a picture"):
        count(model([node("Relu", "x")], {"x": [1, 3]}), size=(8, 8))
    nodes = [node("Flatten", "x", "f"), helper.make_node("Gemm", ["f", "w"], ["y"], name="fc")]
    free = model(nodes, {"x": [1, 3, "H", "W"]}, {"w": zeros(3 * 16, 5)})
    assert count(free, size=(4, 4)).macs == 48 * 5
    with pytest.raises(InvalidInput, match="layer fc takes 48 numbers and would get 75"):
        count(free, size=(5, 5))


def test_shapes_that_old_exporters_compute() -> None:
    """PyTorch 1.2's view(x.size(0), -1), where onnx's own propagation of data stops."""
    constant = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.int64(0)))
    nodes = [
        node("Shape", "x", "s"),
        constant,
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n", "n1", axes=[0]),
        node("Concat", "n1 rest", "t", axis=0),
        node("Reshape", "x t", "r"),
        node("MatMul", "r w"),
    ]
    graph = model(nodes, {"x": ["N", 3, 2, 2]}, {"rest": np.int64([-1]), "w": zeros(12, 5)}, opset=9)
    table = count(graph, batch=2)
    assert (table.macs, table.complete, table.parameters) == (2 * 12 * 5, True, 60)


def test_weights_beside_the_file_are_not_read(tmp_path: Path) -> None:
    weights = {"w": zeros(64, 64), "t": np.int64([-1, 64])}
    graph = model([node("Reshape", "x t", "r"), node("MatMul", "r w")], {"x": [2, 8, 8]}, weights)
    path = tmp_path / "a.onnx"
    onnx.save_model(graph, path, save_as_external_data=True, location="a.data", size_threshold=0)
    size = path.stat().st_size + (tmp_path / "a.data").stat().st_size
    proto = shapes.read(path)
    assert shapes.stored_bytes(path, proto) == size
    assert not proto.graph.initializer[0].raw_data
    table = count(proto)
    assert (table.parameters, table.macs) == (4096, 2 * 4096)
    (tmp_path / "a.data").unlink()
    with pytest.raises(InvalidArtifact, match=r"a\.data"):
        shapes.read(path)
    with pytest.raises(ArtifactNotFound):
        shapes.read(tmp_path / "none.onnx")


def test_more_weights_than_protobuf_holds() -> None:
    """3 GB of weights that exist as shapes only."""
    graph = model([node("MatMul", "x w")], {"x": [1, 30_000]})
    tensor = graph.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[30_000, 25_000])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    table = count(graph)
    assert (table.parameters, table.macs, table.complete) == (750_000_000, 750_000_000, True)


# ---- what cannot be known


def test_an_operator_that_nobody_knows_makes_the_totals_incomplete() -> None:
    nodes = [node("Conv", "x w", "c"), node("Magic", "c v", "m", domain="com.example"), node("Conv", "m w2")]
    weights = {"w": zeros(2, 3, 1, 1), "v": zeros(7), "w2": zeros(2, 2, 1, 1)}
    graph = model(nodes, {"x": [1, 3, 4, 4]}, weights)
    graph.opset_import.append(helper.make_opsetid("com.example", 1))
    table = count(graph)
    assert [(layer.macs, layer.output_shape is None) for layer in table.layers] == [
        (96, False),
        (None, True),
        (None, True),
    ]
    assert (table.complete, table.macs, table.parameters) == (False, 96, 6 + 7 + 4)


def test_recurrent_operators_are_not_taken_for_free() -> None:
    made = node("LSTM", "x w r", "y", hidden_size=3)
    layer = only(count(model([made], {"x": [5, 1, 2]}, {"w": zeros(1, 12, 2), "r": zeros(1, 12, 3)})))
    assert (layer.macs, layer.parameters) == (None, 24 + 36)


@pytest.mark.parametrize("heavy", [True, False])
def test_branches_are_counted_only_where_they_cost_nothing(heavy: bool) -> None:
    def branch(name: str, weight: str) -> onnx.GraphProto:
        made = node("MatMul" if heavy else "Add", f"x {weight}", name)
        values = [numpy_helper.from_array(zeros(4, 4), weight)]
        return helper.make_graph([made], name, [], [helper.make_empty_tensor_value_info(name)], values)

    choice = node("If", "c", then_branch=branch("t", "w1"), else_branch=branch("e", "w2"))
    layer = only(count(model([choice], {"x": [4, 4]}, {"c": np.bool_(True)})))
    assert (layer.kind, layer.parameters, layer.macs) == ("control", 32, None if heavy else 0)
    assert ("not counted" in layer.detail) == heavy


def test_a_graph_that_onnx_refuses_says_so() -> None:
    nodes = [node("Pad", "x", "p"), node("MatMul", "p w")]
    table = count(model(nodes, {"x": [1, 4]}, {"w": zeros(4, 2)}))
    assert table.problem is not None
    assert "Pad" in table.problem
    assert (table.parameters, table.complete) == (8, False)


def test_local_functions_are_looked_into() -> None:
    graph = model([helper.make_node("Twice", ["x", "w"], ["y"], domain="local")], {"x": [2, 4]}, {"w": zeros(4, 4)})
    body = [node("MatMul", "a b", "c"), node("MatMul", "c b", "d")]
    graph.functions.append(
        helper.make_function("local", "Twice", ["a", "b"], ["d"], body, [helper.make_opsetid("", 18)])
    )
    graph.opset_import.append(helper.make_opsetid("local", 1))
    table = count(graph)
    assert (table.macs, table.parameters, table.complete) == (2 * 32, 16, True)


# ---- depthwise-separable pairs


def _separable(
    inputs: int, multiplier: int, outputs: int, *, between: list[Node] | None = None, stride: int = 2, **point: Any
) -> LayerTable:
    """depthwise 3x3 (a -> b), whatever stands between (b -> c), pointwise."""
    weights = {
        "w": zeros(inputs * multiplier, 1, 3, 3), "v": zeros(outputs, inputs * multiplier, 1, 1),
        "n": zeros(inputs * multiplier), "six": np.float32(6), "zero": np.float32(0),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["b"], name="dw", group=inputs, strides=[stride] * 2, pads=[1] * 4),
        *(between or [node("Identity", "b", "c")]),
        helper.make_node("Conv", ["c", "v"], ["y"], name="pw", **point),
    ]
    return count(model(nodes, {"x": [1, inputs, 14, 14]}, weights))


def test_ratio_of_the_paper() -> None:
    """Howard et al. 2017, section 3.1: D_K^2 M D_F^2 + M N D_F^2 beside D_K^2 M N D_F^2; the ratio is 1/N + 1/D_K^2."""
    table = _separable(64, 1, 128, between=[node("BatchNormalization", "b n n n n", "bn"), node("Relu", "bn", "c")])
    assert table.separable is not None
    (pair,) = table.separable.pairs
    d_k, m, n, d_f = 3, 64, 128, 7
    assert pair.macs == d_k**2 * m * d_f**2 + m * n * d_f**2
    assert pair.standard_macs == d_k**2 * m * n * d_f**2
    assert pair.ratio == pytest.approx(1 / n + 1 / d_k**2, rel=1e-12)
    assert (pair.parameters, pair.standard_parameters) == (9 * 64 + 64 * 128, 9 * 64 * 128)
    assert (pair.depthwise, pair.pointwise, pair.kernel, pair.strides) == ("dw", "pw", (3, 3), (2, 2))
    assert (table.separable.network_macs, table.separable.standard_network_macs) == (pair.macs, pair.standard_macs)


@given(
    inputs=st.integers(2, 6), multiplier=st.integers(1, 3), outputs=st.integers(1, 9), stride=st.integers(1, 3)
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_channel_multiplier_scales_the_ratio(inputs: int, multiplier: int, outputs: int, stride: int) -> None:
    table = _separable(inputs, multiplier, outputs, stride=stride)
    assert table.separable is not None
    (pair,) = table.separable.pairs
    assert (pair.channels_in, pair.multiplier, pair.channels_out) == (inputs, multiplier, outputs)
    assert pair.ratio == pytest.approx(multiplier * (1 / outputs + 1 / 9), rel=1e-12)
    assert pair.macs is not None and pair.standard_macs is not None
    assert pair.macs / pair.standard_macs == pytest.approx(pair.ratio, rel=1e-12)
    # The standard one, built and counted: same stride, same picture.
    standard = model(
        [node("Conv", "x w", strides=[stride] * 2, pads=[1] * 4)],
        {"x": [1, inputs, 14, 14]},
        {"w": zeros(outputs, inputs, 3, 3)},
    )
    assert (count(standard).macs, count(standard).parameters) == (pair.standard_macs, pair.standard_parameters)
    assert table.macs == pair.macs


BETWEEN = {
    "ReLU6": [node("Clip", "b zero six", "c")],
    "SiLU": [node("Sigmoid", "b", "s"), node("Mul", "b s", "c")],
    "hard swish, old": [node("Add", "b six", "a"), node("Clip", "a zero six", "k"), node("Mul", "b k", "c")],
}
NOT_BETWEEN = {
    "squeeze and excitation": [node("GlobalAveragePool", "b", "g"), node("Mul", "b g", "c")],
    "a residual": [node("Conv", "x w", "o", group=4, strides=[2, 2], pads=[1] * 4), node("Add", "b o", "c")],
    "pooling": [node("MaxPool", "b", "c", kernel_shape=[2, 2])],
    "pooling to one": [node("GlobalAveragePool", "b", "c")],
}


@pytest.mark.parametrize("name", [*BETWEEN, *NOT_BETWEEN])
def test_what_may_stand_between(name: str) -> None:
    separable = _separable(4, 1, 8, between=(BETWEEN | NOT_BETWEEN)[name]).separable
    assert separable is not None
    assert len(separable.pairs) == (name in BETWEEN)
    assert separable.alone == (0 if name in BETWEEN else 2 if name == "a residual" else 1)


@pytest.mark.parametrize("point", [{"strides": [2, 2]}, {"pads": [1] * 4}, {"auto_pad": "SAME_UPPER"}])
def test_a_pointwise_that_moves_over_the_picture_is_no_pair(point: dict[str, Any]) -> None:
    separable = _separable(4, 1, 8, **point).separable
    assert separable is not None
    assert (len(separable.pairs), separable.alone) == (0, 1)


def test_an_expansion_before_the_depthwise_is_no_part_of_it() -> None:
    weights = {"e": zeros(12, 4, 1, 1), "w": zeros(12, 1, 3, 3), "p": zeros(6, 12, 1, 1)}
    nodes = [node("Conv", "x e", "a"), node("Conv", "a w", "b", group=12), node("Conv", "b p")]
    table = count(model(nodes, {"x": [1, 4, 8, 8]}, weights))
    assert table.separable is not None
    (pair,) = table.separable.pairs
    assert (pair.channels_in, pair.channels_out, pair.parameters) == (12, 6, 12 * 9 + 12 * 6)
    assert table.separable.standard_network_macs == 64 * 48 + 36 * 9 * 12 * 6
    assert table.separable.network_macs == table.macs


# ---- shapes against onnxruntime


def _run(graph: onnx.ModelProto, feeds: dict[str, Any]) -> tuple[int, ...]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return tuple(session.run(None, feeds)[0].shape)


@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_windows_have_the_shape_that_onnxruntime_gives(data: st.DataObject) -> None:
    """Convolutions and pools of one or two axes; ceil_mode is where onnx's own inference differs before opset 22."""
    rank = data.draw(st.integers(1, 2))
    lengths = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    operator = data.draw(st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool"]))
    size = data.draw(st.lists(st.integers(3, 12), min_size=rank, max_size=rank))
    kernel, strides, dilations = data.draw(lengths), data.draw(lengths), data.draw(lengths)
    attributes: dict[str, Any] = {"strides": strides, "kernel_shape": kernel}
    if operator != "AveragePool":
        attributes["dilations"] = dilations
    else:
        dilations = [1] * rank
    padding = data.draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    pads = [data.draw(st.integers(0, length - 1)) for length in kernel * 2] if padding == "pads" else [0] * 2 * rank
    if padding == "pads":
        attributes["pads"] = pads
        attributes |= {"ceil_mode": data.draw(st.integers(0, 1))} if operator.endswith("Pool") else {}
    else:
        attributes["auto_pad"] = padding
        assume(set(dilations) == {1})
    spans = [(length - 1) * step + 1 for length, step in zip(kernel, dilations, strict=True)]
    assume(all(span <= length for span, length in zip(spans, size, strict=True)))
    weights = {"w": zeros(2, 2, *kernel)} if operator.startswith("Conv") else {}
    made = node(operator, "x w" if weights else "x", **attributes)
    opset = data.draw(st.sampled_from([11, 18, 22]))
    graph = model([made], {"x": [1, 2, *size]}, weights, opset=opset)
    try:
        real = _run(graph, {"x": zeros(1, 2, *size)})
    except Exception:  # a window that onnxruntime refuses has no shape
        assume(False)
        raise
    table = count(graph)
    assert only(table).output_shape == real
    if operator == "Conv":
        assert table.macs == np.prod(real) * 2 * np.prod(kernel)


# ---- the tables


def test_every_product_has_a_case_and_no_light_twin() -> None:
    """A rule without a case would be a claim; an operator both counted and uncounted a contradiction."""
    cases = {(made.domain, made.op_type) for made, *_ in PRODUCT_CASES}
    elsewhere = {("", "Conv"), ("", "QLinearConv"), (MICROSOFT, "QGemm"), ("", "Attention")}
    integer = {key for key in PRODUCTS if key[1] in INTEGER}
    assert set(PRODUCTS) == cases | elsewhere | integer
    assert not {operator for _, operator in PRODUCTS} & UNCOUNTED


INTEGER: dict[str, tuple[Node, int, int]] = {
    "ConvInteger": (node("ConvInteger", "x w z z"), 54, 9 * 9 * 2 * 3 * 9),
    "QLinearConv": (node("QLinearConv", "x s z w s z s z", domain=MICROSOFT), 54, 9 * 9 * 2 * 3 * 9),
    "MatMulInteger": (node("MatMulInteger", "x m"), 55, 2 * 11 * 11 * 5),
    "QLinearMatMul": (node("QLinearMatMul", "x s z m s z s z"), 55, 2 * 11 * 11 * 5),
    "MatMulIntegerToFloat": (node("MatMulIntegerToFloat", "x m s s", domain=MICROSOFT), 55, 2 * 11 * 11 * 5),
    "DynamicQuantizeMatMul": (node("DynamicQuantizeMatMul", "x m s", domain=MICROSOFT), 55, 2 * 11 * 11 * 5),
}


@pytest.mark.parametrize("name", INTEGER)
def test_integer_products_by_hand(name: str) -> None:
    made, parameters, macs = INTEGER[name]
    weights = {
        "s": np.float32(1),
        "z": np.uint8(0),
        "w": zeros(3, 2, 3, 3, dtype=np.uint8),
        "m": zeros(11, 5, dtype=np.uint8),
    }
    kind = onnx.TensorProto.FLOAT if name.startswith("Dynamic") else onnx.TensorProto.UINT8
    table = count(model([made], {"x": [1, 2, 11, 11]}, weights, kind=kind))
    assert (table.complete, table.parameters, table.macs) == (True, parameters, macs)


def test_channels_last_integer_convolutions_stay_unknown() -> None:
    made = node("QLinearConv", "x s z w s z s z", domain=MICROSOFT, channels_last=1)
    weights = {"s": np.float32(1), "z": np.uint8(0), "w": zeros(3, 2, 3, 3, dtype=np.uint8)}
    layer = only(count(model([made], {"x": [1, 11, 11, 2]}, weights, kind=onnx.TensorProto.UINT8)))
    assert (layer.output_shape, layer.macs, layer.parameters) == (None, None, 54)


def test_a_stand_in_may_have_more_outputs_than_its_model() -> None:
    nodes = [node("SkipLayerNormalization", "x x g", "n   sum", domain=MICROSOFT), node("MatMul", "n w")]
    table = count(model(nodes, {"x": [1, 3, 4]}, {"g": zeros(4), "w": zeros(4, 2)}))
    assert (table.macs, table.complete, table.parameters) == (24, True, 12)


def test_stand_ins_are_operators_of_onnx() -> None:
    assert all(onnx.defs.has(operator) for operator, _ in STAND_INS.values())
    assert not [key for key in STAND_INS if key[0] == "" and onnx.defs.has(key[1])]


# ---- files of others


@pytest.mark.parametrize(
    ("name", "macs", "convolutions"),
    [
        # By hand: 28*28*8*25 + 14*14*16*8*25 + 256*10
        ("mnist", 786_560, 2),
        ("candy", None, 16),
        # ultraface's authors state 90 to 109 M FLOPs (multiply-accumulates) for this network at 320x240
        ("ultraface-RFB-320", None, 52),
    ],
)
def test_files_of_others(shared_data: Path, name: str, macs: int | None, convolutions: int) -> None:
    path = shared_data / "onnx" / f"{name}.onnx"
    table = count(shapes.read(path))
    assert table.complete
    assert macs is None or table.macs == macs
    assert sum(layer.operator in ("Conv", "ConvTranspose") for layer in table.layers) == convolutions
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {
        value.name: zeros(*(size if isinstance(size, int) else 1 for size in value.shape))
        for value in session.get_inputs()
    }
    by_name = {value.name: value for value in shapes.read(path).graph.output}
    made = {layer.output_shape for layer in table.layers}
    for output, array in zip(by_name, session.run(list(by_name), feeds), strict=True):
        assert array.shape in made, output


def test_shapes_that_the_file_states_wrongly_are_not_believed() -> None:
    """quantize_static and torch's exporter leave such behind; onnx refuses the whole graph for it."""
    graph = model([node("MatMul", "x w", "m"), node("Relu", "m")], {"x": [1, 4]}, {"w": zeros(4, 2)})
    graph.graph.value_info.append(helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [1, 3]))
    table = count(graph)
    assert [layer.output_shape for layer in table.layers] == [(1, 2), (1, 2)]
    assert (table.macs, table.complete) == (8, True)


def test_shapes_that_the_file_states_help_past_an_unknown_operator() -> None:
    graph = model(
        [node("Magic", "x", "m", domain="com.example"), node("MatMul", "m w")], {"x": [1, 4]}, {"w": zeros(3, 2)}
    )
    graph.opset_import.append(helper.make_opsetid("com.example", 1))
    graph.graph.value_info.append(helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [1, 3]))
    table = count(graph)
    assert [(layer.macs, layer.output_shape) for layer in table.layers] == [(None, (1, 3)), (6, (1, 2))]
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"  # then what it states is of another batch
    assert [layer.macs for layer in count(graph).layers] == [None, None]
