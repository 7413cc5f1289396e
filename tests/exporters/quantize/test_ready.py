"""What the search takes is for any number of pictures and tidy, and answers as the file does."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import runtime
from exporters.quantize import search
from exporters.quantize.emit import emit
from exporters.quantize.forms import forms
from exporters.quantize.network import Network, add_biases
from exporters.quantize.observe import observe
from exporters.quantize.ready import frozen, frozen_batch, ready
from exporters.quantize.road import Trial, quantize
from exporters.quantize.scheme import Style, candidates, make_scheme
from runtime.errors import InvalidInput
from tests.exporters.graphs import normal, parse, run
from tests.exporters.quantize.networks import SIDE, pictures, silent

PHOTOS = pictures(8)


def operators(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def flattened(batch: int | str, target: list[int], **attributes: int) -> Any:
    """A convolution, and a dense layer on what a Reshape to ``target`` makes of it."""
    said = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    reshape = f"flat = Reshape <{said}> (mean, target)" if said else "flat = Reshape (mean, target)"
    return parse(
        f"""(float[{batch},3,{SIDE},{SIDE}] input) => (float[{batch},5] logits) {{
            conv = Conv <pads = [1, 1, 1, 1]> (input, w, b)  act = Relu (conv)
            mean = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (act)
            {reshape}  logits = Gemm (flat, fw, fb) }}""",
        w=normal(6, 3, 3, 3), b=normal(6), fw=normal(24, 5), fb=normal(5), target=np.array(target),
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("rest", "attributes"), [([24], {"allowzero": 1}), ([24], {}), ([-1], {})])
def test_a_batch_that_was_frozen_is_freed(batch: int, rest: list[int], attributes: dict[str, int]) -> None:
    proto = flattened(batch, [batch, *rest], **attributes)
    before = proto.SerializeToString()
    made = ready(proto, PHOTOS, "net.onnx", foreign=False)
    assert (frozen_batch(proto), frozen_batch(made)) == (batch, None)
    assert proto.SerializeToString() == before
    some = next(PHOTOS.batches(batch))
    wanted = run(proto, {"input": some})[0]
    np.testing.assert_allclose(run(made, {"input": some})[0], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(made, {"input": some[:1]})[0], wanted[:1], rtol=1e-5, atol=1e-5)
    again = frozen(made, batch)
    onnx.checker.check_model(again, full_check=True)
    assert frozen_batch(again) == batch == again.graph.output[0].type.tensor_type.shape.dim[0].dim_value
    assert frozen_batch(made) is None
    assert frozen(made, None) is made


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("mode", "sizes", "more"),
    [
        ("nearest", [31, 17], ""), ("linear", [49, 5], ""), ("linear", [16, 16], ""),
        ("linear", [40, 24], ', keep_aspect_ratio_policy = "stretch"'),
    ],
)  # fmt: skip
def test_a_resize_to_given_sizes_is_freed(batch: int, mode: str, sizes: list[int], more: str) -> None:
    """As PyTorch's exporter writes upsampling where the batch is fixed."""
    proto = parse(
        f"""(float[{batch},3,{SIDE},{SIDE}] input) => (float[{batch},3,{sizes[0]},{sizes[1]}] map) {{
            act = Relu (input)  map = Resize <mode = "{mode}", nearest_mode = "floor"{more}> (act, , , sizes) }}""",
        sizes=np.array([batch, 3, *sizes]),
    )  # fmt: skip
    made = ready(proto, PHOTOS, "net.onnx", foreign=True, outputs=None)
    some = next(PHOTOS.batches(4))
    wanted = np.concatenate([run(proto, {"input": some[start : start + batch]})[0] for start in range(0, 4, batch)])
    np.testing.assert_allclose(run(made, {"input": some})[0], wanted, rtol=1e-4, atol=1e-4)


def test_what_edgezoo_exports_is_ready() -> None:
    proto = flattened("N", [0, 24])
    assert ready(proto, PHOTOS, "net.onnx", foreign=False) is proto


def test_a_network_whose_pictures_hang_together_is_refused() -> None:
    proto = flattened(4, [4, 24])
    proto.graph.node.insert(0, onnx.helper.make_node("ReduceMean", ["input", "axes"], ["mixed"], keepdims=1))
    proto.graph.node.insert(1, onnx.helper.make_node("Sub", ["input", "mixed"], ["apart"]))
    proto.graph.node[2].input[0] = "apart"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    with pytest.raises(InvalidInput, match=r"^net\.onnx: for 4 pictures, .* --batch dynamic$"):
        ready(proto, PHOTOS, "net.onnx", foreign=False)
    with pytest.raises(InvalidInput, match=r"for 4 pictures, .* for any number, and without non-maximum suppression$"):
        ready(proto, PHOTOS, "net.onnx", foreign=True)


def untidy(opset: int = 18) -> Any:
    """As other tools leave networks: weights in nodes, BatchNorm, HardSwish spelled out, sizes computed."""
    weights = {
        "w": normal(8, 3, 3, 3), "scale": 1 + 0.1 * normal(8), "shift": normal(8), "mean": normal(8),
        "variance": np.square(normal(8)) + 1, "three": np.float32(3), "zero": np.float32(0), "six": np.float32(6),
        "fw": normal(8, 5), "fb": normal(5), "start": np.array([0]), "end": np.array([1]), "all": np.array([-1]),
    }  # fmt: skip
    proto = parse(
        """(float[N,3,H,W] input) => (float[N,5] scores, float[N,8,H,W] swish) {
            conv = Conv <pads = [1, 1, 1, 1]> (input, w)
            norm = BatchNormalization (conv, scale, shift, mean, variance)
            more = Add (norm, three)  gate = Clip (more, zero, six)
            product = Mul (norm, gate)  swish = Div (product, six)
            pool = GlobalAveragePool (swish)
            shape = Shape (pool)  first = Slice (shape, start, end)
            target = Concat <axis = 0> (first, all)
            flat = Reshape (pool, target)  dense = MatMul (flat, fw)  scores = Add (dense, fb) }""",
        opset=opset,
    )
    made = [
        onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array), name))
        for name, array in weights.items()
    ]
    nodes = [*made, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def test_what_comes_from_elsewhere_is_tidied() -> None:
    proto = untidy()
    made = ready(proto, PHOTOS, "net.onnx", foreign=True)
    onnx.checker.check_model(made, full_check=True)
    assert operators(made) == Counter(["Conv", "HardSwish", "GlobalAveragePool", "Reshape", "Gemm"])
    assert [item.name for item in made.graph.output] == ["scores"], "the first alone"
    assert {node.output[0] for node in made.graph.node} <= {node.output[0] for node in proto.graph.node}
    (some,) = PHOTOS.batches(8)
    wanted = run(proto, {"input": some})[0]
    np.testing.assert_allclose(run(made, {"input": some})[0], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_scores_that_are_all_next_to_nothing_are_alike() -> None:
    """As a detector of text gives them for pictures without any: float32 rounds such a sigmoid to 2**-24."""
    proto = parse(
        f"""(float[N,3,{SIDE},{SIDE}] input) => (float[N,4,{SIDE},{SIDE}] scores) {{
            conv = Conv <pads = [1, 1, 1, 1]> (input, w, b)
            more = Add (conv, three)  gate = Clip (more, zero, six)  product = Mul (conv, gate)
            act = Div (product, six)
            mixed = Conv (act, u, c)  scores = Sigmoid (mixed) }}""",
        w=normal(8, 3, 3, 3), b=normal(8), u=0.1 * normal(4, 8, 1, 1), c=np.full(4, -14, np.float32),
        zero=np.float32(0), three=np.float32(3), six=np.float32(6),
    )  # fmt: skip
    made = ready(proto, PHOTOS, "net.onnx", foreign=True)
    assert operators(made) == Counter(["Conv", "HardSwish", "Conv", "Sigmoid"])


@pytest.mark.parametrize(
    ("body", "opset", "operator"),
    [
        ("a = Add (conv, three)  k = Clip (a, zero, six)  m = Mul (conv, k)  act = Div (m, six)", 14, "HardSwish"),
        ("gate = HardSigmoid <alpha = 0.16666667, beta = 0.5> (conv)  act = Mul (conv, gate)", 14, "HardSwish"),
        ("act = Clip (conv, zero, six)", 13, "Clip"),
    ],
)
def test_hard_swish_of_old_opsets_is_one_operator(body: str, opset: int, operator: str) -> None:
    """As Paddle and PyTorch wrote it: its pieces would each be rounded, and be slower."""
    numbers = {"zero": np.float32(0), "three": np.float32(3), "six": np.float32(6)}
    proto = parse(
        f"""(float[N,3,{SIDE},{SIDE}] input) => (float[N,5] scores) {{
            conv = Conv <pads = [1, 1, 1, 1]> (input, w, b)
            {body}
            mean = GlobalAveragePool (act)  flat = Flatten (mean)  scores = Gemm (flat, fw, fb) }}""",
        opset=13, w=normal(8, 3, 3, 3), b=normal(8), fw=normal(8, 5), fb=normal(5),
        **{name: number for name, number in numbers.items() if name in body},
    )  # fmt: skip
    made = ready(proto, PHOTOS, "net.onnx", foreign=True)
    assert [(item.domain, item.version) for item in made.opset_import] == [("", opset)]
    assert operators(made) == Counter(["Conv", operator, "GlobalAveragePool", "Reshape", "Gemm"])
    assert ready(proto, PHOTOS, "net.onnx", foreign=False) is proto


def test_all_outputs_stay_where_they_are_wanted() -> None:
    proto = untidy()
    made = ready(proto, PHOTOS, "net.onnx", foreign=True, outputs=None)
    assert [item.name for item in made.graph.output] == ["scores", "swish"]
    (some,) = PHOTOS.batches(8)
    for got, wanted in zip(run(made, {"input": some}), run(proto, {"input": some}), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_on_one_axis_with_their_places_are_freed(batch: int) -> None:
    """As Softmax of opset 9 becomes in opset 13."""
    places = SIDE * SIDE // 64
    proto = parse(
        f"""(float[{batch},3,{SIDE},{SIDE}] input) => (float[{batch},{places},3] scores) {{
            mean = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (input)
            last = Transpose <perm = [0, 2, 3, 1]> (mean)  rows = Reshape (last, merged)
            shares = Softmax <axis = -1> (rows)  scores = Reshape (shares, apart) }}""",
        merged=np.array([batch * places, 3]), apart=np.array([batch, places, 3]),
    )  # fmt: skip
    made = ready(proto, PHOTOS, "net.onnx", foreign=True, outputs=None)
    some = next(PHOTOS.batches(4))
    wanted = np.concatenate([run(proto, {"input": some[start : start + batch]})[0] for start in range(0, 4, batch)])
    np.testing.assert_allclose(run(made, {"input": some})[0], wanted, rtol=1e-5)


def test_sizes_that_are_computed_stay_beside_the_integers() -> None:
    proto = flattened("N", [0, 24])
    at = next(place for place, node in enumerate(proto.graph.node) if node.op_type == "Reshape")
    for offset, node in enumerate(
        [
            onnx.helper.make_node("Shape", ["mean"], ["shape"], end=1),
            onnx.helper.make_node("Concat", ["shape", "rest"], ["target2"], axis=0),
        ]
    ):
        proto.graph.node.insert(at + offset, node)
    proto.graph.node[at + 2].input[1] = "target2"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([24]), "rest"))
    add_biases(proto)
    network = Network(proto)
    assert network.apart == {"shape", "target2"}
    seen, able = observe(network, PHOTOS, silent), candidates(network, Style())
    assert not {"shape", "target2"} & seen.keys()
    assert able == {"conv", "mean", "logits"}, "neither the sizes nor what is reshaped by them"
    (some,) = PHOTOS.batches(8)
    made = emit(network, make_scheme(network, seen, able, "whole", Style())).proto
    wanted = run(proto, {"input": some})[0]
    np.testing.assert_allclose(run(made, {"input": some})[0], wanted, atol=0.05 * np.abs(wanted).max())


def test_what_has_its_pictures_on_another_axis_stays_in_float() -> None:
    """As attention has, where queries, keys and values come first."""
    proto = parse(
        f"""(float[N,3,{SIDE},{SIDE}] input) => (float[N,5] logits) {{
            conv = Conv (input, w, b)  mean = GlobalAveragePool (conv)  flat = Flatten (mean)
            turned = Transpose <perm = [1, 0]> (flat)  more = Add (turned, six)  twice = Add (more, turned)
            back = Transpose <perm = [1, 0]> (twice)  logits = Gemm (back, fw, fb) }}""",
        w=normal(6, 3, 3, 3), b=normal(6), six=normal(6, 1), fw=normal(6, 5), fb=normal(5),
    )  # fmt: skip
    network = Network(proto)
    seen = observe(network, pictures(7), silent)  # four, then three
    assert network.apart == {"turned", "more", "twice"}
    assert seen.keys() == {"input", "conv", "mean", "flat", "back", "logits"}
    able = candidates(network, Style())
    assert able == {"conv", "mean", "flat", "logits"}
    (form,) = forms(proto, seen, Style())
    assert form.network.apart == network.apart
    (some,) = pictures(7).batches(7)
    made = emit(form.network, make_scheme(form.network, form.seen, able, "whole", Style())).proto
    wanted = run(proto, {"input": some})[0]
    np.testing.assert_allclose(run(made, {"input": some})[0], wanted, atol=0.05 * np.abs(wanted).max())


@pytest.mark.slow
def test_a_frozen_file_stays_frozen(mobile_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "milliseconds", lambda models, picture, **options: [1.0] + [0.5] * (len(models) - 1))
    proto = onnx.load(mobile_file)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(proto, mobile_file)
    output, few = tmp_path / "int8.onnx", pictures(32).sources
    quantize(mobile_file, output, Trial(few, pictures(10, seed=1).sources), force=True)
    with runtime.load(output) as model, runtime.load(mobile_file) as exact:
        assert (model.batch_size, exact.batch_size) == (3, 3)
        pixels = next(PHOTOS.batches(3))
        wanted = exact.run(pixels)
        assert np.linalg.norm(model.run(pixels) - wanted) < 0.2 * np.linalg.norm(wanted)
