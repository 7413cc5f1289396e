"""Networks without their top, and networks that slide."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.equivariance import RULES
from exporters.top import embedding, fully_convolutional
from runtime.errors import InvalidInput
from tests.exporters.graphs import normal, parse, run
from tests.exporters.sliding import LENET, PADDED, SIDE, UNPADDED, answers, network

TOLERANCE = 1e-5  # float32 sums of some 100 products, in another order


def close(given: Any, expected: Any) -> None:
    assert given.shape == expected.shape
    assert np.abs(given - expected).max() <= TOLERANCE * np.abs(expected).max()


def window(picture: Any, place: tuple[int, int], stride: tuple[int, int]) -> Any:
    top, left = place[0] * stride[0], place[1] * stride[1]
    return picture[:, :, top : top + SIDE, left : left + SIDE]


# ---- sliding


@pytest.mark.parametrize("name", UNPADDED)
def test_every_place_is_the_network_on_its_window(name: str) -> None:
    proto = network(**UNPADDED[name])
    sliding = fully_convolutional(proto)
    assert (sliding.size, sliding.padding) == ((SIDE, SIDE), ())
    down, across = sliding.stride
    picture = normal(2, 3, SIDE + 2 * down, SIDE + 3 * across, seed=7)
    given = answers(sliding.proto, picture)
    assert given.shape == (2, 5, 3, 4)
    crops = [[answers(proto, window(picture, (i, j), sliding.stride)) for j in range(4)] for i in range(3)]
    close(given, np.transpose(crops, (2, 3, 0, 1)))


@pytest.mark.parametrize("name", PADDED)
def test_padded_networks_agree_at_the_native_size_and_away_from_borders(name: str) -> None:
    proto = network(**PADDED[name])
    sliding = fully_convolutional(proto)
    assert sliding.padding
    (down, across), ((head, extent),) = sliding.stride, sliding.heads
    picture = normal(3, 3, SIDE, SIDE, seed=7)
    close(answers(sliding.proto, picture)[:, :, 0, 0], answers(proto, picture))
    # A piece of a picture has borders where the picture has none: away from them both say the same.
    large = normal(1, 3, SIDE + 6 * down, SIDE + 6 * across, seed=8)
    part = large[:, :, 2 * down :, 3 * across :]
    shown = onnx.ModelProto()
    shown.CopyFrom(sliding.proto)
    shown.graph.output.append(onnx.helper.make_tensor_value_info(head, 1, None))
    whole, piece = (run(shown, {"input": array}) for array in (large, part))
    assert whole[0].shape == (1, 5, 7, 7)
    assert piece[0].shape == (1, 5, 5, 4)
    assert whole[1].shape[2:] == (extent[0] + 6, extent[1] + 6)
    close(piece[1][:, :, 3:-3, 3:-3], whole[1][:, :, 5:-3, 6:-3])
    assert np.abs(piece[1][:, :, 0] - whole[1][:, :, 2, 3:]).max() > 1e-3  # and at the border they do not


def test_rows_and_columns_count_whole_strides_beyond_the_window() -> None:
    for body in (*UNPADDED.values(), *PADDED.values()):
        sliding = fully_convolutional(network(**body))
        for steps in (0, 1, 4):
            height, width = (SIDE + steps * stride for stride in sliding.stride)
            assert answers(sliding.proto, normal(1, 3, height, width)).shape == (1, 5, steps + 1, steps + 1)


def test_the_given_model_stays_as_it_was() -> None:
    proto = network(**LENET)
    before = proto.SerializeToString()
    fully_convolutional(proto)
    embedding(proto)
    assert proto.SerializeToString() == before


def test_the_result_is_plain_convolutions() -> None:
    sliding = fully_convolutional(network(**LENET))
    operators = Counter(node.op_type for node in sliding.proto.graph.node)
    assert operators == {"Conv": 4, "Relu": 3, "MaxPool": 2}
    shapes = [
        [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (sliding.proto.graph.input[0], sliding.proto.graph.output[0])
    ]
    assert shapes == [["batch", 3, "height", "width"], ["batch", 5, "rows", "columns"]]
    assert [value.name for value in (*sliding.proto.graph.input, *sliding.proto.graph.output)] == ["input", "logits"]
    assert [extent for _, extent in sliding.heads] == [(3, 3)]
    used = {name for node in sliding.proto.graph.node for name in node.input}
    assert {tensor.name for tensor in sliding.proto.graph.initializer} <= used


def test_a_frozen_batch_stays_frozen() -> None:
    sliding = fully_convolutional(network(**LENET, batch=2))
    assert answers(sliding.proto, normal(2, 3, SIDE, SIDE + 4)).shape == (2, 5, 1, 2)
    with pytest.raises(Exception, match="invalid dimensions"):
        answers(sliding.proto, normal(1, 3, SIDE, SIDE))


CONV = "c = Conv(x, w1) r = Relu(c) "
TOP = "g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, w2)"
REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "squeeze-excite": (
        f"{CONV} s = GlobalAveragePool(r) t = Conv(s, w3) u = Sigmoid(t) d = Mul(r, u) {TOP}",
        r"Mul \(layer mul\): a map meets what was pooled from the whole picture \(squeeze-excite\)",
        {"w3": (4, 4, 1, 1)},
    ),
    "attention": (
        f"{CONV} s = Reshape(r, to) t = Transpose <perm = [0, 2, 1]> (s) m = MatMul(s, t) n = Softmax <axis = -1> (m) "
        "o = MatMul(n, s) q = Reshape(o, back) d = Relu(q) " + TOP,
        r"Reshape \(layer reshape\): it gives the map another shape that is fixed",
        {"to": np.array([-1, 4, 324]), "back": np.array([-1, 4, 18, 18])},
    ),
    "a piece of fixed place": (
        f"{CONV} d = Slice(r, one, ten, two) " + TOP,
        r"Slice \(layer slice\): it cuts a piece of fixed place",
        {"one": np.array([1]), "ten": np.array([10]), "two": np.array([2])},
    ),
    "a resized map": (
        f"{CONV} d = Resize(r, , scales) " + TOP,
        r"Resize \(layer resize\): no rule says",
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "positions learnt": (
        f"{CONV} d = Add(r, where) " + TOP,
        r"Add \(layer add\): a constant of it has other values at other places",
        {"where": (1, 4, 18, 18)},
    ),
    "positions in a row": (
        f"{CONV} d = Mul(r, where) " + TOP,
        r"Mul \(layer mul\): a constant of it has other values at other places",
        {"where": (18,)},
    ),
    "a constant over the flattened map": (
        f"{CONV} f = Flatten(r) h = Mul(f, where) y = Gemm(h, w3)",
        r"Mul \(layer mul\): a constant of it has other values at other places",
        {"where": (1296,), "w3": (1296, 5)},
    ),
    "beside the window": (
        f"{CONV} s = GlobalAveragePool(r) t = Conv <pads = [1, 1, 1, 1]> (s, w3) f = Flatten(t) y = Gemm(f, w2)",
        r"Conv \(layer conv_2\): it looks beside a window that has become one place",
        {"w3": (4, 4, 3, 3)},
    ),
    "maps of other sizes": (
        f"{CONV} s = GlobalAveragePool(r) g = Flatten(s) f = Flatten(r) j = Concat <axis = 1> (f, g) y = Gemm(j, w3)",
        r"Concat \(layer concat\): it joins maps of different sizes or strides",
        {"w3": (1300, 5)},
    ),
    "normalised over space": (
        f"{CONV} d = InstanceNormalization(r, b, b) " + TOP,
        r"InstanceNormalization \(layer instancenormalization\): no rule says",
        {"b": (4,)},
    ),
    "rows reduced alone": (
        f"{CONV} m = ReduceMean <keepdims = 0> (r, axis) f = Flatten(m) y = Gemm(f, w3)",
        r"ReduceMean \(layer reducemean\): it does not reduce over height and width",
        {"axis": np.array([2]), "w3": (72, 5)},
    ),
    "space among the channels": (
        f"{CONV} d = SpaceToDepth <blocksize = 2> (r) g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, w3)",
        r"SpaceToDepth \(layer spacetodepth\): no rule says",
        {"w3": (16, 5)},
    ),
    "joined along rows": (
        f"{CONV} d = Concat <axis = 2> (r, c) " + TOP,
        r"Concat \(layer concat\): it works along axis 2, not along the channels",
        {},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_slide_is_refused_by_name(name: str) -> None:
    body, message, weights = REFUSED[name]
    proto = network(body, **{"w1": (4, 3, 3, 3), "w2": (4, 5), **weights})
    with pytest.raises(InvalidInput, match=rf"^fully convolutional: ({message})") as caught:
        fully_convolutional(proto)
    assert "\n" not in str(caught.value)


SECOND = {  # operand -> operators that need one
    "s": "Add Div Max Min Mul PRelu Sub Sum".split(),
    "half": ["Pow"],
    "s, s, s, t": ["BatchNormalization"],
}
ALONE = [
    name
    for name, rule in RULES.items()
    if rule is RULES["Relu"] and not any(name in names for names in SECOND.values())
]  # fmt: skip


@pytest.mark.parametrize("name", [*ALONE, *(name for names in SECOND.values() for name in names)])
def test_operators_that_treat_every_place_alike(name: str) -> None:
    second = next((f", {operand}" for operand, names in SECOND.items() if name in names), "")
    text = (
        f"(float[n, 3, 6, 6] input) => (float[n, 4] logits) {{ c = Conv(input, w) a = Abs(c) e = {name}(a{second}) "
        "d = GlobalAveragePool(e) logits = Flatten(d) }"
    )
    ones = {"s": normal(4, 1, 1)} if name != "BatchNormalization" else {"s": normal(4), "t": np.full(4, 0.5, "f")}
    proto = parse(text, opset=20, w=normal(4, 3, 3, 3), half=np.array(0.5, np.float32), **ones)
    for node in proto.graph.node:
        node.name = node.output[0]
    proto = onnx.shape_inference.infer_shapes(proto)
    picture = normal(1, 3, 6, 8)
    given = run(fully_convolutional(proto).proto, {"input": picture})[0]
    crops = [run(proto, {"input": picture[:, :, :, j : j + 6]})[0] for j in range(3)]
    close(given, np.stack(crops, axis=-1)[:, :, None])


def test_every_rule_has_a_case() -> None:
    seen = {node.op_type for body in (*UNPADDED.values(), *PADDED.values()) for node in network(**body).graph.node}
    alike = {*ALONE, *(name for names in SECOND.values() for name in names)}
    rest = {"ReduceMean", "Squeeze", "Unsqueeze", "MatMul"}  # a pass writes them otherwise; they share their rule
    assert set(RULES) == (seen | alike | rest) - {"Transpose"}
    assert {RULES[name] for name in rest} <= {RULES[name] for name in seen - {"Transpose"}}


# ---- features


FEATURES = {
    "below the dense layer": (LENET["body"], lambda maps: maps["r3"]),
    "a map, averaged": (
        "c = Conv(x, w1) r = Relu(c) d = Conv(r, w2) g = GlobalAveragePool(d) y = Flatten(g)",
        lambda maps: maps["r"].mean(axis=(2, 3)),
    ),
    "a map of one place": (
        "c = Conv(x, w1) r = GlobalAveragePool(c) d = Conv(r, w2) s = Sigmoid(d) y = Flatten(s)",
        lambda maps: maps["r"][:, :, 0, 0],
    ),
    "a map, flattened by the network": (
        "c = Conv(x, w1) r = Relu(c) f = Flatten(r) m = MatMul(f, w5) y = Add(m, b5)",
        lambda maps: maps["r"].reshape(len(maps["r"]), -1),
    ),
    "two ways from one layer": (
        "c = Conv(x, w1) r = Relu(c) p = GlobalMaxPool(r) f = Flatten(p) g = Gemm(f, w6) s = Sigmoid(g) y = Mul(g, s)",
        lambda maps: maps["r"].max(axis=(2, 3)),
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_what_the_last_layer_takes_in(name: str) -> None:
    body, expected = FEATURES[name]
    weights = LENET if body == LENET["body"] else {
        "w1": (6, 3, 3, 3), "w2": (5, 6, 1, 1), "w5": (1944, 5), "b5": (5,), "w6": (6, 5)
    }  # fmt: skip
    used = {key: value for key, value in weights.items() if key != "body" and f"{key}" in body}
    proto = network(body, **used)
    result = embedding(proto)
    (output,) = result.graph.output
    pictures = normal(3, 3, SIDE, SIDE, seed=9)
    # The cleaned network, each value shown under the name that the body gives it.
    text = network_values(body, used, pictures)
    wanted = expected(text)
    close(answers(result, pictures), wanted)
    assert output.name == "features"
    dims = [dim.dim_value or dim.dim_param for dim in output.type.tensor_type.shape.dim]
    assert dims == ["batch", wanted.shape[1]]


def network_values(body: str, weights: dict[str, Any], pictures: Any) -> dict[str, Any]:
    """Every value of a body, by onnx's own reference implementation."""
    from onnx.reference import ReferenceEvaluator

    arrays = {
        name: normal(*value, seed=index) if isinstance(value, tuple) else value
        for index, (name, value) in enumerate(weights.items())
    }
    proto = parse(f"(float[n, 3, {SIDE}, {SIDE}] x) => (float[n, 5] y) {{ {body} }}", **arrays)
    names = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    return dict(zip(names, ReferenceEvaluator(proto).run(None, {"x": pictures}), strict=True))


def test_dead_weights_do_not_stay() -> None:
    proto = network(**LENET)
    result = embedding(proto)
    assert len(result.SerializeToString()) < len(proto.SerializeToString())
    used = {name for node in result.graph.node for name in node.input}
    assert {tensor.name for tensor in result.graph.initializer} <= used
    assert len(result.graph.node) == len(proto.graph.node) - 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("g = GlobalAveragePool(x) f = Flatten(g) h = Gemm(f, w1) k = Gemm(f, w2) y = Add(h, k)", "but 2"),
        ("g = GlobalAveragePool(x) f = Flatten(g) y = Concat <axis = 1> (f, c)", "but 0"),
        ("d = Conv(x, w3) g = GlobalAveragePool(d) y = Flatten(g)", "nothing below it"),
    ],
)
def test_features_nobody_can_name(body: str, message: str) -> None:
    weights = {"w1": (3, 5), "w2": (3, 5), "w3": (5, 3, 1, 1), "c": (1, 2)}
    used = {key: value for key, value in weights.items() if key in body}
    with pytest.raises(InvalidInput, match=f"^features: .*{message}"):
        embedding(network(body, **used, **({"batch": 1} if "Concat" in body else {})))
