"""A network run piece by piece gives what it gives in one piece, and runs nothing twice."""

from typing import Any

import numpy as np
import pytest

from exporters.quantize import relay as module
from exporters.quantize.emit import dequantized, emit
from exporters.quantize.network import Network, cut
from exporters.quantize.observe import observe, run
from exporters.quantize.relay import Relay
from exporters.quantize.scheme import Style, candidates, make_scheme
from tests.exporters.quantize.networks import mobile, pictures, silent


def reached(relay: Relay, proto: Any, name: str, hold: list[str]) -> np.ndarray:
    return np.concatenate([values[name] for values in relay.run(relay.part(proto, [name, *hold]), [name], hold=hold)])


@pytest.mark.parametrize("rounded", [False, True])
def test_piece_by_piece_is_the_whole(rounded: bool) -> None:
    network, photos = Network(mobile(1)), pictures(10)
    proto, names = network.proto(), [node.output[0] for node in network.nodes if network.weighted(node)]
    held = names
    if rounded:
        style = Style()
        scheme = make_scheme(network, observe(network, photos, silent), candidates(network, style), "whole", style)
        proto = emit(network, scheme).proto
        made = {name for node in proto.graph.node for name in node.output}
        names = [name for name in map(dequantized, scheme.grids) if name in made and not name.startswith("input")]
        held = [next(node.input[0] for node in proto.graph.node if name in node.output) for name in names]
    batches = list(run(cut(proto, names), names, photos))
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in names}
    relay = Relay(photos)
    for name, hold in zip(names, held, strict=True):
        got = reached(relay, proto, name, [hold])
        assert got.shape == whole[name].shape
        np.testing.assert_allclose(got, whole[name], rtol=1e-4, atol=1e-4 * np.abs(whole[name]).max())


def test_what_is_held_is_gone_on_from_and_what_nothing_needs_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(mobile(1))
    proto, layers = network.proto(), [node.output[0] for node in network.nodes if network.weighted(node)]
    photos = pictures(6)
    relay = Relay(photos)
    first = reached(relay, proto, layers[1], [layers[1]])
    sizes = {len(relay.part(proto, [name]).graph.node) for name in layers[2:4]}
    assert max(sizes) < len(network.nodes) / 2, "what lies before is not run again"
    np.testing.assert_array_equal(reached(relay, proto, layers[1], []), first)
    later = reached(relay, proto, layers[-2], [layers[-2]])
    relay.forget(proto, network.outputs)
    assert [item.name for item in relay.part(proto, network.outputs).graph.input] == [layers[-2]]
    assert [item.name for item in relay.part(proto, [layers[1]]).graph.input] == [network.input], "it is gone"
    read = []
    monkeypatch.setattr(module.Pictures, "part", lambda *given: read.append(given))
    end = reached(relay, proto, network.outputs[0], [])
    assert not read, "no picture is needed any more"
    assert len(end) == len(later) == 6
