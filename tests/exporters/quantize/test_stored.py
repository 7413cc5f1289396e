"""Weights stored as int8: a quarter of the size, and onnxruntime's float network once it is loaded."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.quantize.grids import weight_grid
from exporters.quantize.journal import Journal
from exporters.quantize.network import Network, add_biases
from exporters.quantize.search import Search
from exporters.quantize.stored import stored_as_integers
from exporters.quantize.targets import TARGETS, this_machine
from exporters.quantize.way import STORED
from runtime.explain.faithfulness import shuffled
from runtime.explain.layers import layers
from runtime.gradients.graph import Graph
from tests.exporters.graphs import run
from tests.exporters.quantize.networks import mobile, pictures, silent
from tests.exporters.quantize.test_rewrites import optimized
from zoo.layers import count


def turned() -> Any:
    """The small network with its last weights as (inputs, outputs)."""
    model = mobile(2)
    gemm = model.graph.node[-1]
    del gemm.attribute[:]
    weights = next(item for item in model.graph.initializer if item.name == gemm.input[1])
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weights).T), weights.name))
    return model


@pytest.mark.parametrize("model", [mobile(2), turned()], ids=["outputs first", "outputs last"])
def test_it_is_the_network_of_the_rounded_weights(model: Any, tmp_path: Any) -> None:
    network = Network(model)
    made = stored_as_integers(network)
    onnx.checker.check_model(made, full_check=True)
    layers = [node for node in network.nodes if network.weighted(node)]
    kinds = {item.name: item.data_type for item in made.graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) == len(layers)
    assert not {node.input[1] for node in layers} & kinds.keys(), "the float weights are gone"
    for node in layers:
        matrix = network.matrix(node)
        integers, scales = weight_grid(matrix.reshape(matrix.shape[0] * matrix.shape[1], -1), bits=8)
        network.set_matrix(node, (integers * scales[:, None].astype(np.float64)).reshape(matrix.shape))
    feeds = {"input": next(iter(pictures(4).batches(4)))}
    (wanted,), (got,) = run(network.proto(), feeds), run(made, feeds)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    ready = [node.op_type for node in optimized(made, tmp_path).graph.node]
    assert sorted(ready) == sorted(node.op_type for node in optimized(model, tmp_path).graph.node)


def test_its_weights_are_counted_explained_and_shuffled() -> None:
    model = mobile(2)
    made = stored_as_integers(Network(model))
    assert count(made).parameters == count(model).parameters
    assert count(made).unread == 0
    assert [layer.name for layer in layers(Graph(made), None)] == [layer.name for layer in layers(Graph(model), None)]
    mixed = shuffled(made)
    stored = {item.name: numpy_helper.to_array(item) for item in made.graph.initializer}
    moved = {item.name for item in mixed.graph.initializer if (numpy_helper.to_array(item) != stored[item.name]).any()}
    assert moved == {name for name, array in stored.items() if array.dtype == np.int8}


@pytest.mark.parametrize(("shortest", "first"), [(1.0, True), (0.9, False)])
def test_it_is_the_last_resort(shortest: float, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mobile(1)
    add_biases(model)
    search = Search(model, pictures(32), TARGETS[this_machine()], Journal(None, ""), silent)
    monkeypatch.setattr(
        search, "_milliseconds", lambda models: [1.0, *([shortest * 1.05] * (len(models) - 2)), shortest]
    )
    monkeypatch.setattr(search, "_finer", lambda way: iter(()))
    found = search.ways()
    assert (found[0].name == STORED) is first
    assert any(way.name == STORED for way in found) is first
    if first:
        assert not found[0].chosen
