"""Outputs that are computed only when they are asked for.

onnxruntime computes every node for every run, whichever outputs are fetched. Behind an If whose condition is an input
with the default False the nodes are there and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import InvalidInput
from runtime.gradients.graph import Graph

if TYPE_CHECKING:
    import onnx


def on_request(model: onnx.ModelProto, outputs: Sequence[str], *, switch: str = "explain") -> onnx.ModelProto:
    """A new model that computes these of its outputs only where the bool input ``switch`` is True.

    The input is a scalar and may be left out; the outputs are then empty: no rows, the other extents as they are.
    Everything that these outputs alone need moves behind the switch.

    Raises InvalidInput for a name that is no output, or a switch that is a tensor of the model already.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph = Graph(model)
    if missing := [name for name in outputs if name not in graph.outputs]:
        raise InvalidInput(f"the model has no output {missing[0]!r}: it has {', '.join(graph.outputs)}")
    if switch in graph:
        raise InvalidInput(f"the model has a tensor {switch!r} already: give the switch another name")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if made.ir_version < 4:
        raise InvalidInput("inputs with a default need IR version 4: export the model again")
    wanted = [value for value in made.graph.output if value.name in outputs]
    shared = _needed(made.graph, [value.name for value in made.graph.output if value.name not in outputs])
    outer = [node for node in made.graph.node if shared.intersection(node.output)]
    inner = [node for node in made.graph.node if not shared.intersection(node.output)]
    yes, no = [onnx.NodeProto.FromString(node.SerializeToString()) for node in inner], []
    results: dict[str, list[Any]] = {"yes": [], "no": []}
    for value in wanted:
        kind, dims = value.type.tensor_type.elem_type, [_extent(dim) for dim in value.type.tensor_type.shape.dim]
        # The If gives the output its name; what computes it, within the branch or before, takes another.
        _rename([*yes, *outer], value.name, f"{value.name}::computed")
        yes.append(helper.make_node("Identity", [f"{value.name}::computed"], [f"{value.name}::made"]))
        nothing = np.zeros([0, *(extent if isinstance(extent, int) else 0 for extent in dims[1:])])
        empty = numpy_helper.from_array(nothing.astype(helper.tensor_dtype_to_np_dtype(kind)))
        no.append(helper.make_node("Constant", [], [f"{value.name}::empty"], value=empty))
        results["yes"].append(helper.make_tensor_value_info(f"{value.name}::made", kind, dims))
        results["no"].append(helper.make_tensor_value_info(f"{value.name}::empty", kind, [0, *nothing.shape[1:]]))
    del made.graph.node[:]
    made.graph.node.extend(outer)
    branches = {
        "then_branch": helper.make_graph(yes, "yes", [], results["yes"]),
        "else_branch": helper.make_graph(no, "no", [], results["no"]),
    }
    made.graph.node.append(helper.make_node("If", [switch], [value.name for value in wanted], name=switch, **branches))
    for value in wanted:
        value.type.tensor_type.shape.dim[0].ClearField("dim_value")
        value.type.tensor_type.shape.dim[0].dim_param = f"{switch}_batch"
    made.graph.input.append(helper.make_tensor_value_info(switch, onnx.TensorProto.BOOL, []))
    made.graph.initializer.append(numpy_helper.from_array(np.array(False), switch))
    return made


def _needed(graph: Any, outputs: Sequence[str]) -> set[str]:
    """The tensors that these outputs are computed from, themselves included."""
    maker = {name: node for node in graph.node for name in node.output}
    needed, stack = set(outputs), list(outputs)
    while stack:
        node = maker.get(stack.pop())
        new = [name for name in node.input if name and name not in needed] if node is not None else []
        needed.update(new)
        stack += new
    return needed


def _rename(nodes: list[Any], old: str, new: str) -> None:
    for node in nodes:
        for entries in (node.input, node.output):
            entries[:] = [new if entry == old else entry for entry in entries]


def _extent(dim: Any) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
