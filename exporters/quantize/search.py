"""The search: which of a few ways to quantize a network loses the least of it for the time it takes.

Measured, not guessed, on this machine and these pictures: how many layers at the front stay in float (their maps are
large and their channels few, where integer kernels are slow: on many networks that is faster and more accurate),
which error ranges make small, how far channels below a limit are scaled up to it, whether some HardSwish are
rewritten so that theirs can be too, and which nodes return to float because what rounding them costs the result is dear
for the time that it saves.
Where the target is not at hand there are no times, and error alone decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from exporters.quantize.correction import corrections
from exporters.quantize.emit import emit
from exporters.quantize.forms import CAUTIONS, forms, has_limits
from exporters.quantize.fronts import fastest_front
from exporters.quantize.grids import Ranges
from exporters.quantize.journal import Journal
from exporters.quantize.kernels import written
from exporters.quantize.means import float_means
from exporters.quantize.network import Array, Network, add_biases, split_up
from exporters.quantize.observe import Observed, Progress, count, observe
from exporters.quantize.pictures import Pictures, split
from exporters.quantize.profiled import layer_times
from exporters.quantize.reference import Reference
from exporters.quantize.rounding import round_together
from exporters.quantize.scheme import behind, make_scheme, tensors_of
from exporters.quantize.sensitivity import measure_alone, spared_sets
from exporters.quantize.stored import stored_as_integers
from exporters.quantize.targets import Target, at_hand, measured_by
from exporters.quantize.timing import milliseconds
from exporters.quantize.way import NEGLIGIBLE, STORED, Form, Way
from runtime.engines import ENGINES
from runtime.tasks.alike import ALIKE, Alike

_AT_ONCE = 5  # models in one run of the clock, for the memory they take
_FEW = 32  # pictures for the correction: it settles soon
_HEAVY = 1e9  # multiplications; for such a network half as many
_ALONE_ON = 16  # pictures for the error of each tensor alone: it is summed over all logits
_MORE_TIME = (1.04, 1.08)  # of the integer network's, for sensitive nodes in float
_RESCUE_TIME = (1.15, 1.3, 1.5)  # likewise as it is estimated, where accuracy is still amiss
_TIMED, _NOT_TIMED = 8, 1.12  # sets of such nodes, and from which estimated time on there is no need to


class Search:
    """What all the ways have in common."""

    def __init__(
        self,
        proto: Any,
        pictures: Pictures,
        target: Target,
        journal: Journal,
        progress: Progress,
        *,
        alike: Alike | None = ALIKE["classification"],
    ) -> None:
        """alike: what counts for files of the network's task, None where nobody knows."""
        self.proto, self.pictures, self.target = proto, pictures, target
        self.journal, self.progress, self.alike = journal, progress, alike
        add_biases(proto)
        original = Network(proto)
        self.style = target.style
        learned, checked = split(pictures)
        self.seen = observe(original, learned, progress)
        split_up(proto, {name: item.shape for name, item in self.seen.items()})
        self.few = learned.first(_FEW if _multiplications(original, self.seen) < _HEAVY else _FEW // 2)
        self.checked = checked or self.few
        self.wanted = Reference(proto, self.checked, alike)

    def ways(self) -> list[Way]:
        """Everything that was tried, the best first."""
        front = self._front(next(self._forms()))
        found: list[Way] = []
        for form in self._forms(self._caution(front), front):
            self._round(form, front)
            found += [self._way(form, front, ranges, frozenset()) for ranges in get_args(Ranges)]
        best, *_ = found = self._timed(found)
        if best.error > NEGLIGIBLE:
            found += self._finer(best)
        found = self._timed(found)
        if all(way.ratio is not None and way.ratio >= 1 for way in found):
            found = self._timed([*found, self._stored()])
        return found

    def plain(self) -> Way:
        """The fastest way, whatever it loses: what pictures of noise can tell. Takes seconds, not minutes."""
        form = next(self._forms())
        (way,) = self._timed([self._way(form, self._front(form), "whole", frozenset(), corrected=False)])
        return way

    def _front(self, form: Form) -> int:
        """How many layers in front stay in float; ``style`` becomes the faster one."""
        if not at_hand(self.target):
            return 0
        front, self.style = fastest_front(form.network, form.seen, self.style, self._ratios, self.journal)
        return front

    def _caution(self, front: int) -> float:
        """Which of CAUTIONS errs least, on pictures that the network is not equalised on."""
        if not has_limits(Network(self.proto)):
            return CAUTIONS[0]

        def errors() -> dict[str, Array]:
            found = []
            for caution in CAUTIONS:  # one after another, for the memory they take
                form = next(self._forms(caution))
                self._round(form, front)
                found.append(self._way(form, front, "whole", frozenset()).error)
            return {"errors": np.array(found)}

        found = self.journal.remember(f"errors of cautions {CAUTIONS} behind {front}", errors)["errors"]
        return CAUTIONS[int(found.argmin())]

    def _round(self, form: Form, front: int) -> None:
        """Count what the tensors of a form hold, and round its weights."""
        network, chosen = form.network, behind(form.network, front, self.style)
        count(network, form.seen, sorted(tensors_of(network, chosen, self.style)[0]), self.checked, self.progress)
        layers = [node for node in network.nodes if node.output[0] in chosen and network.weighted(node)]
        round_together(network, layers, self.few, self.style.weight_bits, self.progress)

    def _forms(self, caution: float = CAUTIONS[0], front: int = 0) -> Iterator[Form]:
        return forms(self.proto, self.seen, self.style, caution, front)

    def _stored(self) -> Way:
        """Integers for the file's size alone."""
        network = Network(self.proto)
        proto = stored_as_integers(network)
        error = self.wanted.distance(proto)
        return Way(STORED, proto, len(network.nodes), error=error, form=Form(network, self.seen))

    def rescue(self, found: list[Way]) -> Iterator[Way]:
        """Ways with ever more in float than is worth it by ``cost``, as long as they are faster than the float network.

        For where those that were ``found`` lose too much.
        """
        way = next(way for way in found if way.chosen and not way.spared)
        sets = self._spared(way)
        before = max((way.spared for way in found), key=len)
        for share in _RESCUE_TIME:
            within = [spared for time, spared in sets if time <= share]
            if not within or len(within[-1]) <= len(before):
                continue
            assert way.form is not None
            before = within[-1]
            (made,) = self._timed([self._way(way.form, way.front, way.ranges, before)])
            if made.ratio is not None and made.ratio >= 1:
                return
            yield made

    def _finer(self, way: Way) -> Iterator[Way]:
        """A way with what the result is most sensitive to in float."""
        assert way.form is not None
        before: frozenset[str] = frozenset()
        sets = self._slower(way, self._spared(way))
        for share in _MORE_TIME:
            within = [spared for time, spared in sets if time <= share]
            if within and within[-1] != before:
                before = within[-1]
                yield self._way(way.form, way.front, way.ranges, before)

    def _way(self, form: Form, front: int, ranges: Ranges, spared: frozenset[str], *, corrected: bool = True) -> Way:
        chosen = behind(form.network, front, self.style) - spared
        scheme = make_scheme(form.network, form.seen, chosen, ranges, self.style)
        key = f"front {front}, {ranges}, {form.rescaled}, {form.caution}, spared {' '.join(sorted(spared))}"
        mended = (
            self.journal.remember(key, lambda: corrections(form.network, scheme, self.few, self.progress))
            if corrected
            else None
        )
        made = written(form.network, scheme, mended)
        words = [f"{_several(front, 'layer')} in front in float" if front else "all layers", f"{ranges} ranges"]
        words += ["HardSwish rescaled"] if form.rescaled else []
        words += [f"{_several(len(spared), 'sensitive node')} in float"] if spared else []
        return Way(
            name=", ".join(words),
            proto=made,
            float_nodes=len(form.network.nodes) - len(chosen),
            chosen=frozenset(chosen),
            error=self.wanted.distance(made),
            form=form,
            ranges=ranges,
            front=front,
            spared=spared,
            mended=mended,
        )

    def _spared(self, way: Way) -> list[tuple[float, frozenset[str]]]:
        """Sets of nodes to leave in float, and what share of the way's time that would take."""
        assert way.form is not None
        network, few = way.form.network, self.checked.first(_ALONE_ON)  # others, where clipping shows
        scheme = make_scheme(network, way.form.seen, way.chosen, way.ranges, self.style)
        wanted = Reference(self.proto, few, self.alike)
        rounded = emit(network, scheme, way.mended).weights
        means = float_means(network, self.few)
        journal = self.journal.part(way.name)
        errors = measure_alone(network, scheme, rounded, means, few, wanted, journal, self.progress)
        # OpenVINO's profile has no layers of ours: onnxruntime's stands in for it.
        picture, device = next(self.pictures.batches(1)), ENGINES[measured_by(self.target)].device
        before = layer_times(network, self.proto.SerializeToString(), picture, device=device)
        if at_hand(self.target):
            after = layer_times(network, way.proto.SerializeToString(), picture, device=device)
        else:
            after = {name: time / 2 for name, time in before.items()}
        saves = {name: time - after.get(name, 0.0) for name, time in before.items()}
        sizes = {name: float(np.prod(item.shape)) for name, item in way.form.seen.items()}
        return spared_sets(network, way.chosen, errors, saves, sizes, sum(after.values()))

    def _slower(self, way: Way, sets: list[tuple[float, frozenset[str]]]) -> list[tuple[float, frozenset[str]]]:
        """Some of the sets of nodes, with the share of the way's time that they take as it is measured."""
        assert way.form is not None
        sets = [pair for pair in sets if pair[0] < _NOT_TIMED]
        if not sets or not at_hand(self.target):
            return sets
        network, seen = way.form.network, way.form.seen
        some = [sets[index][1] for index in np.unique(np.linspace(0, len(sets) - 1, _TIMED).astype(int))]
        schemes = [make_scheme(network, seen, way.chosen - spared, way.ranges, self.style) for spared in some]
        models = [way.proto, *(written(network, scheme, way.mended) for scheme in schemes)]
        self.progress("timing", 0, 1)
        whole, *times = self._milliseconds([model.SerializeToString() for model in models])
        return [(taken / whole, spared) for taken, spared in zip(times, some, strict=True)]

    def _timed(self, found: list[Way]) -> list[Way]:
        """Every way with its time, all measured in one interleaved run; the best first.

        Ways that differ in their ranges alone are of the same kernels: what the clock says between them is noise.
        """
        if at_hand(self.target):
            self.progress("timing", 0, 1)
            models = [self.proto.SerializeToString(), *(way.proto.SerializeToString() for way in found)]
            whole, *times = self._milliseconds(models)
            shortest: dict[object, float] = {}
            for way, taken in zip(found, times, strict=True):
                shortest[way.kernels] = min(taken, shortest.get(way.kernels, taken))
            found = [replace(way, times=(whole, shortest[way.kernels])) for way in found]
        return sorted(found, key=lambda way: way.cost)

    def _ratios(self, models: Sequence[Callable[[], bytes]]) -> list[float]:
        """The time of each model over the float network's; made when it is its turn, for the memory they take."""
        found: list[float] = []
        for start in range(0, len(models), _AT_ONCE):
            self.progress("timing", start, len(models))
            some = [model() for model in models[start : start + _AT_ONCE]]
            whole, *times = self._milliseconds([self.proto.SerializeToString(), *some])
            found += [taken / whole for taken in times]
        return found

    def _milliseconds(self, models: list[bytes]) -> list[float]:
        picture = next(self.pictures.batches(1))
        return milliseconds(models, picture, engine=self.target.engine, undisturbed=True)


def _several(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _multiplications(network: Network, seen: dict[str, Observed]) -> float:
    """Of the layers with weights, for one picture."""
    layers = [node for node in network.nodes if network.weighted(node)]
    inputs = [network.matrix(node).shape[2] * network.matrix(node).shape[3] for node in layers]
    places = [float(np.prod(seen[node.output[0]].shape)) for node in layers]
    return float(sum(count * place for count, place in zip(inputs, places, strict=True)))
