"""From the file that was given to the one that is written: each change is one that its outputs do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters import import_graph as graph
from exporters.import_opset import modern_ir, raised
from exporters.import_read import Foreign, default_opset, printable
from exporters.import_task import INTERPRETED, Meaning
from runtime.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with a file.

    order: positions of the outputs as they will come. freeze: batch to fix, None to leave it.
    opset: the one asked for, None for what is needed. keep: why the file's own opset stays, "" where it need not.
    """

    order: tuple[int, ...]
    meaning: Meaning
    freeze: int | None
    opset: int | None
    keep: str = ""


def rewrite(given: Foreign, plan: Plan) -> tuple[Any, tuple[str, ...]]:
    """The model to write, as a new onnx.ModelProto, and what was done to it.

    Raises InvalidInput where it cannot be brought to the opset that was asked for.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(given.proto)
    done = []
    if count := graph.load_external(proto, given.path.parent):
        done.append(f"tensors read from {', '.join(given.data)}: {count}")
    graph.name_free_dimensions(proto.graph)
    if count := graph.drop_weight_inputs(proto.graph):
        done.append(f"weights that were inputs too and are no longer: {count}")
    if not proto.graph.name:
        proto.graph.name = given.path.stem  # the one thing the standard asks for that onnxruntime does not
    if domains := graph.name_domains(proto):
        done.append(f"opset 1 of {', '.join(domains)} is named")
    modern_ir(proto)
    proto, said = (proto, f"kept at opset {given.opset}: {plan.keep}") if plan.keep else raised(proto, plan.opset)
    if plan.opset is not None and default_opset(proto) != plan.opset:
        reason = said.partition(": ")[2]
        raise InvalidInput(f"{given.path}: cannot be brought to opset {plan.opset}: {reason}: leave --opset out")
    modern_ir(proto)
    done += [said] if said else []
    if (dtype := given.input.dtype) != np.float32:
        name = graph.cast_input(proto, int(onnx.helper.np_dtype_to_tensor_dtype(dtype)))
        exact = ", exact to 2^24" if dtype.kind in "iu" and dtype.itemsize > 2 else ""
        done.append(f"input {printable(name)} takes float32 and casts it to {dtype}{exact}")
    done += _outputs(given, proto, plan)
    if plan.freeze is not None:
        graph.fix_batch(proto.graph, plan.freeze)
        done.append(f"frozen to batch {plan.freeze}")
    return proto, tuple(done)


def as_planned(outputs: Sequence[npt.NDArray[Any]], plan: Plan) -> list[npt.NDArray[Any]]:
    """The original file's outputs in the order, form and type that the written one is to give them."""
    first, *others = (outputs[index] for index in plan.order)
    if plan.meaning.task in INTERPRETED:
        first = first.astype(np.float32)
    if (shape := plan.meaning.shape) is not None:
        first = first.reshape([extent or first.shape[axis] for axis, extent in enumerate(shape)])
    return [first, *others]


def _outputs(given: Foreign, proto: Any, plan: Plan) -> list[str]:
    done, first = [], given.outputs[plan.order[0]]
    if plan.order[0] != 0:
        graph.output_first(proto.graph, first.name)
        done.append(f"output {printable(first.name)} comes first")
    if plan.meaning.task in INTERPRETED and first.dtype != np.float32:
        graph.cast_output(proto)
        done.append(f"the first output is cast from {first.dtype} to float32")
    if plan.meaning.shape is not None:
        graph.reshape_output(proto, plan.meaning.shape)
        done.append("the first output is reshaped to (N, classes)")
    return done
