"""Networks that come as a graph and no modules: programs of torch.export, and TorchScript by way of them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

from exporters.hub import first_line
from exporters.torch_head import ENDINGS, Ending, Network, averaged, check_scores, check_undone, pick
from exporters.torch_head import refuse_probabilities as refuse
from runtime.errors import InvalidInput, InvalidWeights

_WITH_WEIGHTS = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "einsum")


def from_script(path: Path, example: Any) -> Any:
    """The torch.export.ExportedProgram of a TorchScript archive, whose code is the user's to vouch for.

    Raises InvalidWeights when torch cannot read or convert it.
    """
    import torch
    from torch._export.converter import TS2EPConverter

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of counters of training steps, one line each
            return TS2EPConverter(torch.jit.load(str(path), map_location="cpu").eval(), (example,)).convert()
    except Exception as error:
        raise InvalidWeights(
            f"{path}: the TorchScript archive cannot be converted ({first_line(error)}): save the program of "
            "torch.export.export(model, (example,)) with torch.export.save as .pt2 instead"
        ) from error


def as_network(program: Any, example: Any, *, where: str, frozen: bool = True) -> Network:
    """An ExportedProgram as a network of logits. example: (2, C, H, W) float32.

    frozen: whether sizes in the program are demands, and not only those of the example it was made with.
    Raises InvalidInput when it takes something else or does not end in one row of scores per picture.
    """
    import torch

    batch = _batch_of(program, example, where) if frozen else None
    example = example[:1].expand(batch, *example.shape[1:]).contiguous() if batch else example
    _refuse_training(program, where)
    model = program.module(check_guards=False)
    for module in model.modules():
        module.training = False  # eval() is refused to such modules; their operators hold it themselves
    graph = model.graph
    (end,) = graph.find_nodes(op="output")
    tree = torch.utils._pytree.tree_unflatten(list(_flat(end.args[0])), model._out_spec)
    scores = pick(tree, lambda value: isinstance(value, torch.fx.Node), where)
    _return(model, scores)
    before = _answer(model, example, where)
    check_scores(before, example, where)
    ending: Ending | None = ENDINGS.get(_operator(scores).rstrip("_"))
    if ending is None:
        refuse(before, where)
    else:
        _return(model, scores.args[0])
        check_undone(before, _answer(model, example, where), ending, where)
    features = _below_last_layer(model)

    def run_features(pictures: Any) -> Any:
        if features is None:
            raise InvalidInput(f"{where}: has no layer with weights: no features")
        with torch.inference_mode():
            return averaged(features[0](pictures), channels_last=features[1], where=where)

    stacks = (node.meta.get("nn_module_stack") or {} for node in program.graph.nodes)
    layers = {str(path) for stack in stacks for path, _ in stack.values()} | {name for name, _ in model.named_modules()}
    return Network(model, run_features, int(before.shape[1]), ending, frozenset(layers), batch)


def _batch_of(program: Any, example: Any, where: str) -> int | None:
    """The batch size that the program was frozen to; None for any."""
    import torch

    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise InvalidInput(
            f"{where}: takes {len(signature.user_inputs)} inputs or changes its own state: export a network of one "
            "picture, after model.eval()"
        )
    (value,) = (node.meta["val"] for node in program.graph.nodes if node.name == signature.user_inputs[0])
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32 or value.ndim != 4:
        raise InvalidInput(f"{where}: does not take float32 pictures of (N, channels, height, width)")
    fixed = [size if isinstance(size, int) else None for size in value.shape]
    wanted = list(example.shape)
    if any(size not in (None, want) for size, want in zip(fixed[1:], wanted[1:], strict=True)):
        raise InvalidInput(
            f"{where}: takes {_shape(fixed[1:])} (channels, height, width), the preprocessing gives "
            f"{_shape(wanted[1:])}"
        )
    return fixed[0]


def _refuse_training(program: Any, where: str) -> None:
    """Raises InvalidInput where dropout or batch normalisation was exported as it is in training."""
    for node in program.graph.nodes:
        if _operator(node).rstrip("_") in ("batch_norm", "dropout", "feature_dropout", "alpha_dropout"):
            names = [argument.name for argument in node.target._schema.arguments]
            given = dict(zip(names, node.args, strict=False)) | node.kwargs
            if given.get("training") or given.get("train"):
                raise InvalidInput(f"{where}: was exported in training mode: export it again after model.eval()")


def _shape(sizes: list[int | None]) -> str:
    return "x".join("any" if size is None else str(size) for size in sizes)


def _answer(model: Any, example: Any, where: str) -> Any:
    import torch

    try:
        with torch.inference_mode():
            return model(example)
    except Exception as error:
        raise InvalidInput(f"{where}: does not run on {_shape(list(example.shape))} ({first_line(error)})") from error


def _return(model: Any, node: Any) -> None:
    """Let the graph give that node alone."""
    from torch.fx.graph import CodeGen

    (end,) = model.graph.find_nodes(op="output")
    end.args = (node,)
    model.graph.set_codegen(CodeGen())  # plain arguments and results: no nesting to take apart
    model.graph.eliminate_dead_code()
    model.recompile()


def _below_last_layer(model: Any) -> tuple[Any, bool] | None:
    """The network up to what its last operator with a matrix of weights takes in; whether channels are last there."""
    nodes = [
        node
        for node in model.graph.nodes
        if node.op == "call_function"
        and any(part in _operator(node) for part in _WITH_WEIGHTS)
        and any(_is_matrix(model, part) for part in node.all_input_nodes)
    ]
    if not nodes:
        return None
    below = copy.deepcopy(model)
    (node,) = (other for other in below.graph.nodes if other.name == nodes[-1].name)
    _return(below, next(part for part in node.all_input_nodes if part.op != "get_attr"))
    return below, "conv" not in _operator(nodes[-1])


def _is_matrix(model: Any, node: Any) -> bool:
    """Whether a node is a stored tensor of two or more dimensions, transposed or not."""
    while node.op == "call_function" and _operator(node) in ("t", "transpose", "permute", "numpy_T"):
        node = node.all_input_nodes[0]
    if node.op != "get_attr":
        return False
    owner, _, name = node.target.rpartition(".")
    return bool(getattr(model.get_submodule(owner), name).ndim > 1)


def _operator(node: Any) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet.__name__)


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
