"""The reverse sweep: from a tensor back to others, one rule per node, adding up where paths meet.

A gradient may be smaller than its tensor where it is constant along an axis (behind a mean over a map, say): it is
broadcast only where a rule needs all of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from runtime.errors import NoGradient, UnsupportedOperator
from runtime.gradients.builder import Builder, Tensor
from runtime.gradients.graph import RULES_FILE, Graph, Node, reads
from runtime.gradients.rules import NON_DIFFERENTIABLE, RULES, SEVERAL
from runtime.gradients.shapes import Shape

DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Of the operators in RULES; one of the same name elsewhere may be anything."""


def sweep(graph: Graph, of: str, seed: Tensor, wrt: Sequence[str], builder: Builder) -> dict[str, Tensor]:
    """d(sum(seed * of)) / d(wrt), each of the shape of its tensor or one that broadcasts to it.

    Raises NoGradient where none reaches a tensor and UnsupportedOperator for a node without a rule.
    """
    wanted, builder.sources = _reached(graph, wrt), frozenset(wrt)
    terms: dict[str, list[Tensor]] = defaultdict(list, {of: [seed]})
    stopped: dict[str, str] = {}
    for proto in reversed(_between(graph, of, wanted)):
        grads = [_total(terms, name, builder) for name in proto.output]
        while grads and grads[-1] is None:
            grads.pop()
        if not grads:
            continue
        node = Node(proto, graph, wanted)
        known = proto.domain in DOMAINS
        if known and (reason := NON_DIFFERENTIABLE.get(node.op)):
            stopped[node.where] = reason
            continue
        if not known or (rule := RULES.get(node.op)) is None:
            raise UnsupportedOperator(f"no rule for {node.where}: add a row to RULES in {RULES_FILE}")
        if len(grads) > 1 and node.op not in SEVERAL:
            raise node.unsupported("its second output is used, and only the first is differentiated")
        for name, grad in zip(proto.input, rule(node, builder, *grads), strict=False):
            if grad is not None and name in wanted:
                terms[name].append(unbroadcast(grad, graph.shape(name), builder))
    found = {name: _total(terms, name, builder) for name in wrt}
    if missing := next((name for name, grad in found.items() if grad is None), None):
        raise NoGradient(_why(graph, of, missing, stopped))
    return {name: grad for name, grad in found.items() if grad is not None}


def unbroadcast(grad: Tensor, shape: Shape, builder: Builder) -> Tensor:
    """Sum the axes along which the tensor of this shape was repeated."""
    extra = grad.rank - len(shape)
    repeated = [
        axis for axis, extent in enumerate(grad.shape) if extent != 1 and (axis < extra or shape[axis - extra] == 1)
    ]
    grad = builder.sum(grad, repeated)
    return builder.reshape(grad, grad.shape[extra:]) if extra > 0 else grad


def _total(terms: Mapping[str, list[Tensor]], name: str, builder: Builder) -> Tensor | None:
    """What the readers of a tensor sent back, added up once."""
    if not name or not terms.get(name):
        return None
    total = builder.add_up(terms[name])
    terms[name][:] = [total]
    return total


def _reached(graph: Graph, sources: Collection[str]) -> frozenset[str]:
    """The sources, and every tensor computed from them."""
    seen, stack = set(sources), list(sources)
    while stack:
        for node in graph.readers.get(stack.pop(), ()):
            new = [name for name in node.output if name and name not in seen]
            seen.update(new)
            stack += new
    return frozenset(seen)


def _between(graph: Graph, of: str, wanted: Collection[str]) -> list[Any]:
    """The nodes that lead from the wanted tensors to ``of``, in the order of the graph."""
    needed, stack = {of}, [of]
    while stack:
        node = graph.maker.get(stack.pop())
        new = [name for name in reads(node) if name in wanted and name not in needed] if node is not None else []
        needed.update(new)
        stack += new
    return [
        node
        for node in graph.model.graph.node
        if needed.intersection(node.output) and any(name in wanted for name in reads(node))
    ]


def _why(graph: Graph, of: str, name: str, stopped: Mapping[str, str]) -> str:
    if name not in graph:
        return f"the model has no tensor {name!r}"
    if of not in _reached(graph, [name]):
        return f"{of!r} does not depend on {name!r}: choose a tensor before it"
    blocks = "; ".join(f"{where}: {reason}" for where, reason in stopped.items())
    return f"no gradient leads from {of!r} to {name!r}: {blocks or 'every path ends in a constant'}"
