"""Weights stored as int8 and computed with in float: what is left where no integer kernel is faster.

A quarter of the size at the float network's time: Cast and Mul of constants are done once, when the file is loaded.
DequantizeLinear is not, since integer kernels are made of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.quantize.grids import weight_grid
from exporters.quantize.network import Network


def stored_as_integers(network: Network) -> Any:
    """The float network with each layer's weights as int8 and one scale per output."""
    from onnx import TensorProto, helper, numpy_helper

    proto, unpacking = network.proto(), []
    for node in proto.graph.node:
        if not network.weighted(node):
            continue
        output, shape, axis = node.output[0], network.weights[node.input[1]].shape, network.output_axis(node)
        integers, scales = weight_grid(network.matrix(node).reshape(shape[axis], -1), bits=8)
        integers = integers.reshape(shape[::-1]).T if axis else integers.reshape(shape)
        steps = scales.reshape([-1 if place == axis else 1 for place in range(len(shape))])
        names = [f"{output}::weight", f"{output}::weight::scale"]
        arrays = np.ascontiguousarray(integers), steps
        proto.graph.initializer.extend(map(numpy_helper.from_array, arrays, names))
        cast, weight = f"{names[0]}::cast", f"{names[0]}::float"
        unpacking.append(helper.make_node("Cast", names[:1], [cast], name=cast, to=TensorProto.FLOAT))
        unpacking.append(helper.make_node("Mul", [cast, names[1]], [weight], name=weight))
        node.input[1] = weight
    nodes = [*unpacking, *proto.graph.node]
    read = {name for node in nodes for name in node.input}
    kept = [item for item in proto.graph.initializer if item.name in read]
    graph = helper.make_graph(nodes, proto.graph.name, proto.graph.input, proto.graph.output, kept)
    return helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
