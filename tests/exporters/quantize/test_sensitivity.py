"""What rounding one thing costs, and which nodes pay best in float."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporters.quantize import correction, sensitivity
from exporters.quantize.emit import emit
from exporters.quantize.journal import Journal
from exporters.quantize.means import float_means
from exporters.quantize.network import Network
from exporters.quantize.observe import observe
from exporters.quantize.reference import Reference
from exporters.quantize.scheme import Style, candidates, make_scheme
from exporters.quantize.sensitivity import Alone, measure_alone, spared_sets
from runtime.tasks.alike import ALIKE
from tests.exporters.quantize.networks import mobile, pictures, silent, two_heads

STYLE = Style()


def parts(seed: int = 0) -> tuple[Network, Any, frozenset[str], Any, Any]:
    network = Network(mobile(seed))
    chosen = frozenset(candidates(network, STYLE))
    scheme = make_scheme(network, observe(network, pictures(), silent), chosen, "whole", STYLE)
    wanted = Reference(network.proto(), pictures(), ALIKE["classification"])
    rounded = emit(network, scheme).weights
    return (
        network,
        scheme,
        chosen,
        wanted,
        measure_alone(
            network, scheme, rounded, float_means(network, pictures()), pictures(), wanted, Journal(None, ""), silent
        ),
    )


@pytest.mark.parametrize("seed", range(2))
def test_the_errors_of_the_parts_add_up_to_the_whole_s(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, scheme, chosen, wanted, errors = parts(seed)
    monkeypatch.setattr(correction, "_MOST_GAIN", 1.0)  # of the parts biases alone are mended
    mended = correction.corrections(network, scheme, pictures(), silent)
    whole = wanted.distance(emit(network, scheme, mended).proto)
    # In quadrature, as independent errors do; a network this small is no good statistician.
    assert 0.5 < errors.together(network, chosen) ** 0.5 / whole < 2
    assert set(errors.layers) == {name for name in chosen if network.weighted(network.maker(name))}
    assert all(square >= 0 for square in {**errors.tensors, **errors.layers}.values())
    assert errors.together(network, frozenset()) == 0


def test_float_weights_and_fine_grids_cost_nothing() -> None:
    network, scheme, _, _, errors = parts()
    worst = max(errors.layers, key=errors.layers.__getitem__)
    assert errors.layers[worst] > 0
    exact = emit(network, scheme).weights
    for rounded in exact.values():
        rounded.integers[:] = 0  # all of the layer's weights gone
    few, alike = pictures(8), ALIKE["classification"]
    wanted = Reference(network.proto(), few, alike)
    lost = measure_alone(network, scheme, exact, {}, few, wanted, Journal(None, ""), silent)
    assert all(lost.layers[name] > errors.layers[name] for name in errors.layers)


def test_what_clipping_takes_off_a_mean_is_given_back() -> None:
    network, scheme, _, wanted, errors = parts()
    grid = scheme.grids["stem.act"]
    clipped = replace(scheme, grids={**scheme.grids, "stem.act": replace(grid, scale=grid.scale / 4)})
    how = {}, {}, pictures(), wanted, Journal(None, ""), silent
    mended = measure_alone(network, clipped, *how).tensors["stem.act"]
    part = sensitivity._with_grid(network.proto(), "stem.act", clipped.grids["stem.act"])
    plain = wanted.distance(part) ** 2
    assert errors.tensors["stem.act"] < mended < 0.7 * plain


def test_outputs_are_rounded_too() -> None:
    network = Network(two_heads())
    chosen = candidates(network, STYLE)
    scheme = make_scheme(network, observe(network, pictures(), silent), chosen, "whole", STYLE)
    wanted = Reference(network.proto(), pictures(), None)
    how = pictures(), wanted, Journal(None, ""), silent
    errors = measure_alone(network, scheme, {}, {}, *how).tensors
    scores = Reference(network.proto(), pictures(), ALIKE["classification"])
    alone = measure_alone(network, scheme, {}, {}, *how[:1], scores, *how[2:]).tensors
    assert errors["map"] > 3 * alone["map"] > 0, "its own error counts, and that of what is made of it"


@pytest.mark.parametrize(
    ("tensor", "behind"),
    [("stem.act", {"dw"}), ("dw2.act", {"squeeze", "project"}), ("sum", {"left", "right"}), ("logits", set())],
)
def test_the_layers_behind_a_tensor(tensor: str, behind: set[str]) -> None:
    assert set(sensitivity._layers_behind(Network(mobile()), tensor)) == behind


def test_what_hurts_most_for_its_time_goes_first() -> None:
    network, _, chosen, _, _ = parts()
    tensors = dict.fromkeys(("stem.act", "dw.act", "left.act"), 1e-6) | {"head.act": 1.0}
    errors = Alone(Style(), tensors, {"logits": 1e-6, "left": 1e-3})
    saves = dict.fromkeys(chosen, 0.01)
    (share, first), *rest = spared_sets(network, chosen, errors, saves, {}, 1.0)
    makers_and_readers = {"head", "mean"}
    assert first == makers_and_readers & chosen
    assert share == pytest.approx(1 + 0.01 * len(first))
    for (less, before), (more, after) in zip([(share, first), *rest[:-1]], rest, strict=True):
        assert before < after
        assert less <= more <= 1.6
        assert len(after) <= len(chosen) / 4
    dear = saves | {"head": 10.0}
    assert all("head" not in spared for _, spared in spared_sets(network, chosen, errors, dear, {}, 1.0))
    assert np.isfinite(errors.together(network, chosen))


def test_what_passes_between_integers_and_floats_takes_time_too() -> None:
    network, _, chosen, _, _ = parts()
    errors = Alone(Style(), {"head.act": 1.0}, {})
    saves = dict.fromkeys(chosen, 0.0)
    (alone, spared), *_ = spared_sets(network, chosen, errors, saves, {}, 1.0)
    assert alone == 1
    # Behind the maximum that "head" reads the integers end; in front of the last layer they begin again.
    joints = {"max": 100.0, "head.act": 100.0, "flat": 100.0, "stem.act": 1e9}
    ((share, same),) = spared_sets(network, chosen, errors, saves, joints, 1.0)[:1]
    assert same == spared
    assert 1 < share < 1.1, "what is on integers on either side costs nothing, however large"
