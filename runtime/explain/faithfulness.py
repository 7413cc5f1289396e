"""How far a map tells the truth about the network: what counts in the picture, and whether the weights matter at all.

x: the network's input as planes, (1, channels, height, width). m: a map of it, (height, width). f: the probability of
the class that m explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput
from runtime.explain.explanation import resized

if TYPE_CHECKING:
    from runtime.explain.subject import Subject
    from runtime.metadata import Preprocess

Floats: TypeAlias = npt.NDArray[np.float32]
Probability: TypeAlias = "Callable[[Floats], Floats]"
"""(n, channels, height, width) to the class's probability in each, (n,)."""

STEPS = 32
UNCHANGED = 0.5
"""Rank correlation with the map of shuffled weights above which a map is of the picture. Maps of one picture agree
somewhat for the picture's own sake: what is black, or even, counts little with any weights. Measured on LeNet-5, digits
white on black: up to 0.25 for CAMs, 0.27 for gradients, 0.49 for occlusion. Above it are maps of the strokes whatever
the weights: integrated gradients with 0.56, gradient x input with 0.99 where black is the network's 0."""
TOLERANCE = 15
"""Pixels of the original picture beside a box that still count as within; Zhang et al. 2016."""

_BATCH = 8  # small enough that activations stay in the processor's cache
_BLUR, _LEAST_BLUR = 28, 3  # the shorter side over the blur's sigma, 8 px of 224; sigma in pixels
_DRAWS = 2000
_WEIGHTED = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1), "ConvInteger": (1,), "MatMulInteger": (0, 1),
    "QLinearConv": (3,), "QLinearMatMul": (0, 3), "QGemm": (0, 3),
}  # fmt: skip
"""Operators with weights -> which of their inputs may be."""
_PASSING = ("DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")


class Box(NamedTuple):
    """Pixels of the upright original picture, from its top left corner; the edges belong to the box."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


def probability_of(subject: Subject, index: int) -> Probability:
    """f, for planes whatever the file's layout."""

    def probability(whole: Floats) -> Floats:
        turned = whole if subject.rule.layout == "NCHW" else np.moveaxis(whole, 1, 3)
        scores = subject.scores(np.ascontiguousarray(turned, dtype=np.float32))
        return np.asarray(subject.classes.probabilities(scores)[:, index])

    return probability


# ---- insertion and deletion


def deletion(probability: Probability, whole: Floats, values: Floats, *, steps: int = STEPS) -> float:
    """Area under f(x with its most important pixels replaced by x's mean colour) over the share of pixels, 0 to 1.

    Low is good: without what the map shows, the class is gone. Petsiuk et al., "RISE: Randomized Input Sampling for
    Explanation of Black-box Models", 2018; there the colour is the network's own zero, which for most is the mean of
    its training set. That of the picture is the same for every network, however its preprocessing is written down.
    """
    grey = np.broadcast_to(whole.mean(axis=(2, 3), keepdims=True), whole.shape)
    return area(curve(probability, whole, np.asarray(grey), values, steps=steps))


def insertion(probability: Probability, whole: Floats, values: Floats, *, steps: int = STEPS) -> float:
    """Area under f(blurred x with the most important pixels put back) over the share of pixels, 0 to 1.

    High is good. Petsiuk et al. 2018: onto a blurred picture, for pixels on grey draw edges of their own. sigma: a 28th
    of the shorter side, 3 px at least. Their 5 px of 224 leave mobilenet_v2 0.15 of probability (20 photos), 8 px
    0.005; 1 px leaves LeNet-5 0.96 (200 digits), 3 px 0.22, and one colour all over 0.15.
    """
    return area(curve(probability, blurred(whole), whole, values, steps=steps))


def curve(probability: Probability, start: Floats, end: Floats, values: Floats, *, steps: int = STEPS) -> Floats:
    """f with the k most important pixels taken from ``end``, the others from ``start``; k: steps + 1 even numbers."""
    rank = ranks(values).reshape(values.shape)
    counts = np.round(np.linspace(0, values.size, steps + 1))
    found = []
    for first in range(0, len(counts), _BATCH):
        chosen = rank[None] < counts[first : first + _BATCH, None, None]
        found.append(probability(np.where(chosen[:, None], end, start)))
    return np.concatenate(found)


def area(curve: Floats) -> float:
    """The mean height of straight lines between points at even distances: for 0 to 1, the area under them."""
    return float((curve[:-1] + curve[1:]).mean(dtype=np.float64) / 2)


def ranks(values: Floats, *, seed: int = 0) -> npt.NDArray[np.intp]:
    """0 for the most important pixel, and so on, (pixels,). Equal ones in random order: a flat map is a random one."""
    flat = values.ravel()
    order = np.lexsort((np.random.default_rng(seed).random(flat.size), -flat))
    found = np.empty_like(order)
    found[order] = np.arange(flat.size)
    return found


def blurred(whole: Floats) -> Floats:
    """The convolution with a Gaussian, whose weights beyond the border go to the pixels within."""
    height, width = whole.shape[2:]
    sigma = max(min(height, width) / _BLUR, _LEAST_BLUR)
    down, across = (_gaussian(np.subtract.outer(np.arange(n), np.arange(n)), sigma) for n in (height, width))
    down, across = down / down.sum(axis=1, keepdims=True), across / across.sum(axis=1, keepdims=True)
    return np.asarray(down @ whole @ across.T, np.float32)


# ---- maps that know nothing of the network: what a method must beat


def random_map(size: Sequence[int], *, cells: int | None = None, seed: int = 0) -> Floats:
    """Uniform noise, pixel by pixel, or of cells x cells values interpolated as a layer's map is."""
    random = np.random.default_rng(seed)
    if cells is None:
        return random.random(tuple(size), dtype=np.float32)
    return resized(random.random((cells, cells), dtype=np.float32), tuple(size))


def centred_map(size: Sequence[int]) -> Floats:
    """A Gaussian around the centre, a quarter of each side wide: people put things into the middle."""
    rows, columns = (_gaussian(np.arange(n) - (n - 1) / 2, n / 4) for n in size)
    return np.outer(rows, columns).astype(np.float32)


# ---- pointing


def highest(values: Floats) -> tuple[float, float] | None:
    """The centre of the highest value's cell as shares of the sides, (down, across); None where all are equal."""
    if np.ptp(values) == 0:
        return None
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return (float(row) + 0.5) / values.shape[0], (float(column) + 0.5) / values.shape[1]


def to_original(place: tuple[float, float], rule: Preprocess, size: tuple[int, int]) -> tuple[float, float]:
    """A place in the network's input, as shares (down, across), in pixels (x, y) of the picture it was made from.

    size: (width, height) of that picture, upright. Undoes the crop, then the resize, of ``runtime.image.preprocess``.
    """
    width, height = size
    if isinstance(rule.resize, int):
        other = int(rule.resize * max(size) / min(size))
        across, down = (rule.resize, other) if width <= height else (other, rule.resize)
    else:
        down, across = rule.resize
    top, left = round((down - rule.size[0]) / 2), round((across - rule.size[1]) / 2)
    x, y = left + place[1] * rule.size[1], top + place[0] * rule.size[0]
    return x * width / across, y * height / down


def points_at(point: tuple[float, float] | None, boxes: Sequence[Box], *, tolerance: float = TOLERANCE) -> bool:
    """Whether the map's highest point is within a box of its class, or not more than ``tolerance`` pixels away.

    The share of pictures where it is: Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016. A map
    without a highest point points at nothing.
    """
    if point is None:
        return False
    x, y = point
    return any(
        np.hypot(max(box.xmin - x, 0, x - box.xmax), max(box.ymin - y, 0, y - box.ymax)) <= tolerance for box in boxes
    )


# ---- shuffled weights


def spearman(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Rank correlation, -1 to 1: Pearson's of the ranks, equal values sharing the mean of theirs.

    0 where one of them is the same everywhere: it ranks nothing.
    """
    first, second = (rank - rank.mean() for rank in (_mean_ranks(one), _mean_ranks(other)))
    length = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / length) if length else 0.0


def shuffled(proto: Any, *, seed: int = 0) -> Any:
    """A new model whose weights are the same numbers in another order, tensor by tensor; the biases stay.

    For the check of Adebayo et al., "Sanity Checks for Saliency Maps", 2018: a map that does not change with the
    weights shows the picture, not the network. Permuted rather than drawn anew, so that a layer keeps its scale; in a
    QDQ file these are the integers.

    Raises InvalidInput where no weights are found.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    maker = {name: node for node in made.graph.node for name in node.output}
    stored = {item.name: item for item in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "Constant":
            stored |= {name: item.t for name in node.output for item in node.attribute if item.name == "value"}
    found: dict[str, Any] = {}
    for node in made.graph.node:
        for at in _WEIGHTED.get(node.op_type, ()):
            name = node.input[at] if at < len(node.input) else ""
            while name not in stored and name in maker and _passes(maker[name], maker):
                name = maker[name].input[0]
            if name in stored:
                found[name] = stored[name]
    if not found:
        raise InvalidInput("no weights of a convolution or a matrix to shuffle")
    random = np.random.default_rng(seed)
    for item in found.values():
        values = onnx.numpy_helper.to_array(item)
        mixed = random.permutation(values.ravel()).reshape(values.shape)
        item.CopyFrom(onnx.numpy_helper.from_array(mixed, item.name))
    return made


def _passes(node: Any, maker: dict[str, Any]) -> bool:
    """Whether a node gives its first input in another form; a Mul does where that was cast: by its scale."""
    cast = node.op_type == "Mul" and node.input[0] in maker and maker[node.input[0]].op_type == "Cast"
    return cast or node.op_type in _PASSING


# ---- over pictures


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """Where the mean of 95 of 100 samples of as many pictures lies, drawn from these: Efron's bootstrap, 1979."""
    some = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(len(some), size=(_DRAWS, len(some)))
    low, high = np.percentile(some[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _gaussian(distance: npt.NDArray[Any], sigma: float) -> npt.NDArray[np.float64]:
    return np.exp(-(distance.astype(np.float64) ** 2) / (2 * sigma**2))


def _mean_ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """From 0, equal values sharing the mean of their ranks."""
    _, which, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[which.ravel()], np.float64)
