"""The measures against hand-worked values, brute force, and pictures whose geometry can be seen."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import runtime
from runtime.errors import InvalidInput
from runtime.explain import faithfulness
from runtime.explain.faithfulness import Box
from runtime.image import preprocess
from runtime.metadata import Preprocess

RANDOM = np.random.default_rng(5)


# ---- insertion and deletion


def weighted(weights: np.ndarray) -> faithfulness.Probability:
    """A network whose answer is a weighted sum of its pixels: the importance of each is known."""
    return lambda pictures: (pictures[:, 0] * weights).sum(axis=(1, 2))


def test_the_curve_is_that_of_pixels_replaced_one_by_one() -> None:
    weights = RANDOM.random((4, 5)).astype(np.float32)
    whole, nothing = np.ones((1, 1, 4, 5), np.float32), np.zeros((1, 1, 4, 5), np.float32)
    found = faithfulness.curve(weighted(weights), whole, nothing, weights, steps=20)
    wanted = [weights.sum() - np.sort(weights.ravel())[::-1][:count].sum() for count in range(21)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    by_hand = sum((one + other) / 2 / 20 for one, other in itertools.pairwise(wanted))
    assert faithfulness.area(found) == pytest.approx(by_hand, rel=1e-5)
    coarse = faithfulness.curve(weighted(weights), whole, nothing, weights, steps=4)
    np.testing.assert_allclose(coarse, wanted[::5], rtol=1e-5, atol=1e-5)


def test_no_map_deletes_better_than_the_true_importance() -> None:
    weights = RANDOM.random((6, 6)).astype(np.float32)
    whole, nothing = np.ones((1, 1, 6, 6), np.float32), np.zeros((1, 1, 6, 6), np.float32)

    def deleted(values: np.ndarray) -> float:
        return faithfulness.area(faithfulness.curve(weighted(weights), whole, nothing, values, steps=36))

    best, worst = deleted(weights), deleted(-weights)
    others = [deleted(faithfulness.random_map((6, 6), seed=seed)) for seed in range(20)]
    assert best < min(others) < max(others) < worst


@pytest.mark.parametrize("corner", [(0, 0), (0, 8), (8, 0), (8, 8)])
def test_a_network_that_looks_at_one_quadrant(corner: tuple[int, int]) -> None:
    """f: how much of the picture's contrast within the quadrant is left."""
    there = np.zeros((16, 16), np.float32)
    there[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] = 1
    whole = RANDOM.normal(size=(1, 3, 16, 16)).astype(np.float32)
    within = there.astype(bool)
    loud = whole[0][:, within].std()

    def probability(pictures: np.ndarray) -> np.ndarray:
        return np.clip(pictures[:, :, within].std(axis=(1, 2)) / loud, 0, 1)

    right, wrong = there + 1e-3 * RANDOM.random((16, 16)).astype(np.float32), 1 - there
    random = faithfulness.random_map((16, 16))
    areas = [faithfulness.deletion(probability, whole, values) for values in (right, random, wrong)]
    assert areas == sorted(areas)
    assert areas[0] < 0.3  # a quarter of the pixels is everything: 0.25 / 2 if it went in a straight line
    assert areas[2] > 0.8
    areas = [faithfulness.insertion(probability, whole, values) for values in (right, random, wrong)]
    assert areas == sorted(areas, reverse=True)


def test_equal_values_are_in_random_order() -> None:
    flat = np.zeros((8, 8), np.float32)
    order = faithfulness.ranks(flat)
    assert sorted(order) == list(range(64))
    assert abs(np.corrcoef(order, np.arange(64))[0, 1]) < 0.3
    np.testing.assert_array_equal(order, faithfulness.ranks(flat))
    np.testing.assert_array_equal(faithfulness.ranks(np.array([[3.0, 5.0], [4.0, -1.0]], np.float32)), [2, 0, 1, 3])


def test_the_blur_keeps_what_is_even_and_spreads_what_is_not() -> None:
    even = np.full((1, 3, 56, 84), 0.7, np.float32)
    np.testing.assert_allclose(faithfulness.blurred(even), even, rtol=1e-6)
    point = np.zeros((1, 1, 112, 140), np.float32)
    point[0, 0, 50, 60] = 1
    found = faithfulness.blurred(point)[0, 0].astype(np.float64)
    assert found.sum() == pytest.approx(1, rel=1e-5)
    for axis, centre in ((0, 50), (1, 60)):  # sigma is a 28th of 112
        along = found.sum(axis=1 - axis)
        assert (along * (np.arange(len(along)) - centre) ** 2).sum() == pytest.approx(16, rel=1e-3)


def test_a_small_picture_is_blurred_by_three_pixels() -> None:
    point = np.zeros((1, 1, 48, 48), np.float32)
    point[0, 0, 24, 24] = 1
    along = faithfulness.blurred(point)[0, 0].sum(axis=0)
    assert (along * (np.arange(48) - 24) ** 2).sum() == pytest.approx(9, rel=1e-3)


def test_the_centred_map_is_highest_in_the_middle_and_alike_on_both_sides() -> None:
    found = faithfulness.centred_map((7, 9))
    assert np.unravel_index(found.argmax(), found.shape) == (3, 4)
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_probability_is_the_model_s(tiny: Callable[..., Path], layout: str) -> None:
    picture = RANDOM.integers(0, 256, (12, 14, 3), dtype=np.uint8)
    file = tiny()
    rule = Preprocess(size=(8, 8), resize=10, mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255, layout=layout)
    if layout == "NHWC":
        file = tiny(preprocess=rule)
        proto = onnx.load(file)
        proto.graph.node.insert(0, helper.make_node("Transpose", ["input"], ["turned"], perm=[0, 3, 1, 2]))
        proto.graph.node[1].input[0] = "turned"
        for at, extent in enumerate((8, 8, 3), 1):
            proto.graph.input[0].type.tensor_type.shape.dim[at].dim_value = extent
        onnx.save(proto, file)
    with runtime.load(file) as model:
        guess = model.predict(picture).top[0]
        planes = preprocess(picture, model.rule)
        planes = planes if layout == "NCHW" else np.moveaxis(planes, 3, 1)
        found = faithfulness.probability_of(model.subject, guess.index)(np.repeat(planes, 3, axis=0))
    np.testing.assert_allclose(found, [guess.probability] * 3, rtol=1e-5)


# ---- pointing


@pytest.mark.parametrize("size", [(640, 480), (300, 700), (224, 224), (97, 331)])
@pytest.mark.parametrize(
    "rule",
    [
        {"size": (224, 224), "resize": 256},
        {"size": (96, 160), "resize": 161},
        {"size": (100, 200), "resize": (131, 220)},
    ],
)
def test_places_are_taken_back_through_the_preprocessing(size: tuple[int, int], rule: dict[str, object]) -> None:
    """A white square in the original, found in the network's input as the map's highest point."""
    whole = Preprocess(mean=(0.0,), std=(1.0,), color="L", scale=1 / 255, **rule)  # type: ignore[arg-type]
    width, height = size
    for share in ((0.5, 0.5), (0.42, 0.58), (0.6, 0.45)):
        x, y = share[0] * width, share[1] * height
        side = max(3, min(size) // 40)
        picture = np.zeros((height, width), np.uint8)
        picture[int(y) - side : int(y) + side + 1, int(x) - side : int(x) + side + 1] = 255
        seen = preprocess(picture, whole)[0, 0]
        # The middle of the square rather than whichever of its pixels comes first.
        rows, columns = np.nonzero(seen > 0.5)
        place = (rows.mean() + 0.5) / seen.shape[0], (columns.mean() + 0.5) / seen.shape[1]
        found = faithfulness.to_original(place, whole, size)
        step = [resized / own for resized, own in zip(seen.shape[::-1], size, strict=True)]
        assert found == pytest.approx((int(x) + 0.5, int(y) + 0.5), abs=1 + 1 / min(step) / 4)


def test_the_corners_of_the_input_are_those_of_the_crop() -> None:
    rule = Preprocess(size=(224, 224), resize=256, mean=(0.5,) * 3, std=(0.25,) * 3)
    # 512 x 1024 becomes 256 x 512; 16 are cut off at the left, 144 at the top.
    assert faithfulness.to_original((0, 0), rule, (512, 1024)) == pytest.approx((32, 288))
    assert faithfulness.to_original((1, 1), rule, (512, 1024)) == pytest.approx((480, 736))


def test_the_highest_point_is_the_middle_of_its_cell() -> None:
    values = np.zeros((7, 5), np.float32)
    values[2, 4] = 1
    assert faithfulness.highest(values) == pytest.approx((2.5 / 7, 4.5 / 5))
    assert faithfulness.highest(np.ones((7, 5), np.float32)) is None


@pytest.mark.parametrize(
    ("point", "hit"),
    [
        ((50, 40), True), ((100, 80), True), ((115, 60), True), ((115.1, 60), False), ((20, 5), True),
        ((19, 5), False), ((110, 91), True), ((111, 91), False), (None, False), ((300, 300), True),
    ],
)  # fmt: skip
def test_pointing_has_a_tolerance_of_15_pixels(point: tuple[float, float] | None, hit: bool) -> None:
    """From a corner it is a circle: (10, 11) away is 14.9, (11, 11) is 15.6."""
    assert faithfulness.points_at(point, [Box(20, 20, 100, 80), Box(290, 290, 310, 310)]) is hit


# ---- shuffled weights


def test_rank_correlation_by_hand() -> None:
    assert faithfulness.spearman(np.array([1, 2, 3, 4]), np.array([10, 20, 30, 99])) == pytest.approx(1)
    assert faithfulness.spearman(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == pytest.approx(-1)
    # ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)
    assert faithfulness.spearman(np.array([1, 2, 3, 4, 5]), np.array([2, 1, 4, 3, 5])) == pytest.approx(0.8)
    # ranks 1.5 1.5 3 4 and 1 2 3.5 3.5: products of the deviations 4, squares 4.5 both
    assert faithfulness.spearman(np.array([7, 7, 8, 9]), np.array([1, 2, 6, 6])) == pytest.approx(4 / 4.5)
    assert faithfulness.spearman(np.ones(4), np.arange(4)) == 0


def test_rank_correlation_of_many_ties() -> None:
    """Ranks counted one by one: how many are less, and half of the equals."""
    one, other = (RANDOM.integers(0, 6, (5, 8)) for _ in range(2))
    other = other + one

    def counted(values: np.ndarray) -> list[float]:
        flat = values.ravel()
        return [(flat < value).sum() + ((flat == value).sum() - 1) / 2 for value in flat]

    wanted = np.corrcoef(counted(one), counted(other))[0, 1]
    assert faithfulness.spearman(one, other) == pytest.approx(wanted, abs=1e-12)


def test_weights_are_the_same_numbers_in_another_order(tiny_model: onnx.ModelProto) -> None:
    before = tiny_model.SerializeToString()
    made = faithfulness.shuffled(tiny_model)
    assert tiny_model.SerializeToString() == before
    assert made.SerializeToString() == faithfulness.shuffled(tiny_model).SerializeToString()
    assert made.SerializeToString() != faithfulness.shuffled(tiny_model, seed=1).SerializeToString()
    for old, new in zip(tiny_model.graph.initializer, made.graph.initializer, strict=True):
        first, second = numpy_helper.to_array(old), numpy_helper.to_array(new)
        np.testing.assert_array_equal(np.sort(first, axis=None), np.sort(second, axis=None))
        assert first.shape == second.shape
        assert (old.name in ("w", "fw")) == (not np.array_equal(first, second))


def test_a_factor_of_activations_is_no_weight() -> None:
    arrays = {"gamma": np.arange(1, 9, dtype=np.float32), "w": np.arange(24, dtype=np.float32).reshape(8, 3)}
    nodes = [helper.make_node("Mul", ["gamma", "x"], ["g"]), helper.make_node("MatMul", ["g", "w"], ["y"])]
    value = helper.make_tensor_value_info("x", 1, [1, 8])
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [value], [onnx.ValueInfoProto(name="y")], stored)
    made = faithfulness.shuffled(helper.make_model(graph)).graph
    moved = {item.name: (numpy_helper.to_array(item) != arrays[item.name]).any() for item in made.initializer}
    assert moved == {"gamma": False, "w": True}


def test_weights_are_found_behind_what_unpacks_them(tiny_model: onnx.ModelProto) -> None:
    """The integers of a QDQ file, and a matrix in a Constant that is transposed."""
    graph = tiny_model.graph
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    integers = np.round(stored["w"] * 30).astype(np.int8)
    del graph.initializer[:]
    constant = numpy_helper.from_array(stored["fw"].T.copy(), "fwt")
    for name, array in {"wq": integers, "ws": np.float32(1 / 30), "b": stored["b"], "fb": stored["fb"]}.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    nodes = [
        helper.make_node("DequantizeLinear", ["wq", "ws"], ["w"]),
        helper.make_node("Constant", [], ["fwt"], value=constant),
        helper.make_node("Transpose", ["fwt"], ["fw"]),
        *graph.node,
    ]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    onnx.checker.check_model(tiny_model)
    made = faithfulness.shuffled(tiny_model).graph
    found = {item.name: numpy_helper.to_array(item) for item in made.initializer}
    matrix = numpy_helper.to_array(made.node[1].attribute[0].t)
    for old, new in ((integers, found["wq"]), (stored["fw"].T, matrix)):
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
        assert not np.array_equal(old, new)
        np.testing.assert_array_equal(np.sort(old, axis=None), np.sort(new, axis=None))
    assert found["ws"] == np.float32(1 / 30)
    np.testing.assert_array_equal(found["b"], stored["b"])


def test_a_network_without_weights() -> None:
    one = helper.make_tensor_value_info("x", 1, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [one], [one])
    with pytest.raises(InvalidInput, match="no weights"):
        faithfulness.shuffled(helper.make_model(graph))


# ---- over pictures


def test_the_interval_is_that_of_the_mean() -> None:
    values = RANDOM.normal(0.3, 0.2, 200).tolist()
    low, high = faithfulness.interval(values)
    error = 1.96 * np.std(values) / np.sqrt(200)
    assert (low, high) == pytest.approx((np.mean(values) - error, np.mean(values) + error), abs=0.1 * error)
    assert faithfulness.interval([0.4] * 7) == pytest.approx((0.4, 0.4))
    assert faithfulness.interval([0.4]) == pytest.approx((0.4, 0.4))
