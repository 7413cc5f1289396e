"""The search: which of a few ways to quantize a network loses the least of it for the time it takes.

Measured, not guessed, on this machine and these pictures: how many layers at the front stay in float (their maps are
large and their channels few, where integer kernels are slow: on many networks that is faster and more accurate),
whether ranges are clipped, whether HardSwish is rescaled per channel, and how many of the layers that the result is
most sensitive to return to float.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from exporters.quantize.bias import corrections
from exporters.quantize.centre import centre
from exporters.quantize.emit import Quantized, emit
from exporters.quantize.equalise import equalise
from exporters.quantize.grids import Ranges
from exporters.quantize.network import Array, Network
from exporters.quantize.observe import Observed, Progress, count, observe, run
from exporters.quantize.pictures import Pictures
from exporters.quantize.scheme import Scheme, candidates, make_scheme, tensors_of
from exporters.quantize.targets import Target
from exporters.quantize.timing import milliseconds

_FRONTS = (0, 1, 2, 3, 5, 6, 8)  # layers with weights that may stay in float before the first integer one
_SMALL_MAP = 20 * 20  # places; where one more multiplication of HardSwish takes next to no time
_FEW = 48  # pictures for the histograms, the bias correction and the error of a way: they settle soon
_RANKED_ON = 24  # pictures for the error without each layer
_SPARED = (2, 5)  # how many of the most sensitive layers return to float


@dataclass(frozen=True, slots=True)
class Way:
    """One way that was tried.

    front: layers with weights that stay in float before the first integer one; spared: others that do, by their
    outputs. error: of the logits, norm over norm, on calibration pictures. milliseconds: of one picture.
    """

    front: int
    ranges: Ranges
    rescaled: bool
    spared: tuple[str, ...]
    error: float
    proto: Any
    integer_nodes: int
    float_nodes: int
    milliseconds: float = 0.0
    float_milliseconds: float = 1.0

    @property
    def ratio(self) -> float:
        """Its time over the float network's."""
        return self.milliseconds / self.float_milliseconds

    @property
    def cost(self) -> float:
        """What the search makes small: twice the time is worth half the error."""
        return self.error * self.milliseconds

    def describe(self) -> str:
        """In a few words."""
        words = [f"{self.front} layers in front in float" if self.front else "all layers", f"{self.ranges} ranges"]
        spared = [f"{len(self.spared)} sensitive layers in float"] if self.spared else []
        return ", ".join([*words, *(["HardSwish rescaled"] if self.rescaled else []), *spared])


@dataclass(frozen=True, slots=True)
class _Form:
    """The network as it is quantized, and what its tensors hold."""

    network: Network
    seen: dict[str, Observed]
    rescaled: bool


def ways(proto: Any, pictures: Pictures, target: Target, progress: Progress) -> list[Way]:
    """Everything that was tried, the best first. proto: the float network, left as it is."""
    original = Network(proto)
    seen = observe(original, pictures, progress)
    picture = next(pictures.batches(1))
    forms = list(_forms(proto, seen))
    front = _fastest_front(proto, forms[0], target, picture, progress)
    few = pictures.first(_FEW)
    wanted = _logits(proto, original.output, few)
    found: list[tuple[_Form, Way, dict[str, Array]]] = []

    def attempt(form: _Form, ranges: Ranges, spared: tuple[str, ...]) -> None:
        chosen = _behind(form.network, front) - set(spared)
        scheme = make_scheme(form.network, form.seen, chosen, ranges)
        shifts = corrections(form.network, scheme, lambda s: _emitted(form, scheme, target, s), few, progress)
        made = _emitted(form, scheme, target, shifts).proto
        error = _distance(_logits(made, original.output, few), wanted)
        floats = len(form.network.nodes) - len(chosen)
        found.append((form, Way(front, ranges, form.rescaled, spared, error, made, len(chosen), floats), shifts))

    for form in forms:
        count(form.network, form.seen, sorted(tensors_of(form.network, _behind(form.network, front))[0]), few, progress)
        for ranges in get_args(Ranges):
            attempt(form, ranges, ())
    found = _timed(proto, found, picture, progress)
    form, best, shifts = found[0]
    ranked = _most_sensitive(form, best, shifts, target, pictures.first(_RANKED_ON), wanted, progress)
    for number in _SPARED:
        if number < len(ranked) // 2:
            attempt(form, best.ranges, tuple(ranked[:number]))
    return [way for _, way, _ in _timed(proto, found, picture, progress)]


def _forms(proto: Any, seen: dict[str, Observed]) -> Iterator[_Form]:
    """The network centred and equalised: as it is, and with HardSwish on small maps rescaled."""
    for rescaled in (False, True):
        network, own = Network(copy.deepcopy(proto)), copy.deepcopy(seen)
        if rescaled and not any(node.op_type == "HardSwish" for node in network.nodes):
            return
        centre(network, own)
        equalise(network, own, rescale=lambda shape: rescaled and _small(shape))  # noqa: B023 - called at once
        yield _Form(network, own, rescaled)


def _small(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] <= _SMALL_MAP


def _behind(network: Network, front: int) -> set[str]:
    """The nodes that can run on integers, from the layer with weights number ``front`` on."""
    able = candidates(network)
    layers = [index for index, node in enumerate(network.nodes) if network.weighted(node)]
    start = layers[min(front, len(layers) - 1)] if front else 0
    return able & {node.output[0] for node in network.nodes[start:]}


def _fastest_front(proto: Any, form: _Form, target: Target, picture: Array, progress: Progress) -> int:
    """How many layers in front stay in float, by time alone."""
    layers = sum(form.network.weighted(node) for node in form.network.nodes)
    tried = [front for front in _FRONTS if front == 0 or front <= layers - 2]
    models = [proto.SerializeToString()]
    for front in tried:
        scheme = make_scheme(form.network, form.seen, _behind(form.network, front), "whole")
        models.append(_emitted(form, scheme, target, {}).proto.SerializeToString())
    progress("timing", 0, 1)
    return tried[int(np.argmin(milliseconds(models, picture)[1:]))]


def _emitted(form: _Form, scheme: Scheme, target: Target, shifts: dict[str, Array]) -> Quantized:
    return emit(form.network, scheme, weight_bits=target.weight_bits, signed=target.signed, shifts=shifts)


def _most_sensitive(
    form: _Form,
    way: Way,
    shifts: dict[str, Array],
    target: Target,
    pictures: Pictures,
    wanted: Array,
    progress: Progress,
) -> list[str]:
    """The layers of a way, first those whose return to float brings the logits nearest to the float network's."""
    chosen, network = _behind(form.network, way.front), form.network
    layers = [node.output[0] for node in network.nodes if node.output[0] in chosen and network.weighted(node)]
    errors = {}
    for done, layer in enumerate(layers):
        progress("sensitivity", done, len(layers))
        scheme = make_scheme(network, form.seen, chosen - {layer}, way.ranges)
        got = _logits(_emitted(form, scheme, target, shifts).proto, network.output, pictures)
        errors[layer] = _distance(got, wanted[: len(got)])
    return sorted(layers, key=errors.__getitem__)


def _timed(
    proto: Any, found: list[tuple[_Form, Way, dict[str, Array]]], picture: Array, progress: Progress
) -> list[tuple[_Form, Way, dict[str, Array]]]:
    """Every way with its time, all measured in one interleaved run; the best first."""
    progress("timing", 0, 1)
    models = [proto.SerializeToString(), *(way.proto.SerializeToString() for _, way, _ in found)]
    float_ms, *times = milliseconds(models, picture)
    progress("timing", 1, 1)
    timed = [
        (form, replace(way, milliseconds=taken, float_milliseconds=float_ms), shifts)
        for (form, way, shifts), taken in zip(found, times, strict=True)
    ]
    return sorted(timed, key=lambda one: one[1].cost)


def _logits(proto: Any, output: str, pictures: Pictures) -> Array:
    return np.concatenate([values[output] for values in run(proto, [output], pictures)]).astype(np.float64)


def _distance(got: Array, wanted: Array) -> float:
    return float(np.linalg.norm(got - wanted) / max(float(np.linalg.norm(wanted)), 1e-12))
