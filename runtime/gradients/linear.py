"""Rules of matrix products."""

from __future__ import annotations

from runtime.gradients.builder import Builder, Tensor
from runtime.gradients.elementwise import Grads, node_input, node_output
from runtime.gradients.graph import Node
from runtime.gradients.integers import weights


def matmul(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = a b: g b^T and a^T g; a vector is a matrix of one row, or of one column."""
    left, right, y = node_input(node, b), weights(node, 1, b), node_output(node, b)
    g = b.expand(g, y)
    rows = b.reshape(left, (1, *left.shape)) if left.rank == 1 else left
    columns = b.reshape(right, (*right.shape, 1)) if right.rank == 1 else right
    if right.rank == 1:
        g = b.reshape(g, (*g.shape, 1))
    if left.rank == 1:
        g = b.reshape(g, (*g.shape[:-1], 1, g.shape[-1]))
    first = second = None
    if node.wants(0):
        first = g @ _turned(columns, b)
        first = b.reshape(_summed(first, 2, b), left.shape) if left.rank == 1 else first
    if node.wants(1):
        second = _turned(rows, b) @ g
        second = b.reshape(_summed(second, 2, b), right.shape) if right.rank == 1 else second
    return [first, second]


def _summed(x: Tensor, rank: int, b: Builder) -> Tensor:
    """Over the axes of the batch, which a vector does not have."""
    return b.sum(x, range(x.rank - rank)) if x.rank > rank else x


def _turned(x: Tensor, b: Builder) -> Tensor:
    return b.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


def gemm(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = alpha a' b' + beta c, where a' may be a transposed; the weights are shared, their transposition is a flag."""
    left, right = node_input(node, b), weights(node, 1, b)
    turned_left, turned_right = int(node.get("transA", 0)), int(node.get("transB", 0))
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    g = b.expand(g, node_output(node, b))

    def product(x: Tensor, y: Tensor, turn_x: int, turn_y: int, shape: tuple[int | str | None, ...]) -> Tensor:
        zeros = [] if b.opset >= 11 else [b.constant(0, g.dtype)]
        made: Tensor = b.add("Gemm", x, y, *zeros, shape=shape, alpha=alpha, transA=turn_x, transB=turn_y)
        return made

    first = second = third = None
    if node.wants(0):
        operands = (right, g, turned_right, 1) if turned_left else (g, right, 0, 1 - turned_right)
        first = product(*operands, left.shape)
    if node.wants(1):
        operands = (g, left, 1, turned_left) if turned_right else (left, g, 1 - turned_left, 0)
        second = product(*operands, right.shape)
    if node.wants(2):
        third = g * beta
    return [first, second, third]


def einsum(node: Node, b: Builder, g: Tensor) -> Grads:
    """Each operand's gradient is the product of g and the other operands, summed to the operand's own letters."""
    terms, _, result = node.get("equation", "").replace(" ", "").partition("->")
    letters = terms.split(",")
    if not result or "." in terms or any(len(set(term)) != len(term) for term in letters):
        raise node.unsupported("its equation names no result, leaves axes out, or takes a diagonal")
    operands = [node_input(node, b, index) for index in range(len(letters))]
    g, grads = b.expand(g, node_output(node, b)), list[Tensor | None]()
    for index, (term, x) in enumerate(zip(letters, operands, strict=True)):
        others = [*letters[:index], *letters[index + 1 :]]
        # Letters that only this operand has were summed: the gradient is the same along them.
        own = [letter for letter in term if letter in result or letter in "".join(others)]
        equation = f"{','.join([result, *others])}->{''.join(own)}"
        shape = tuple(x.shape[term.index(letter)] for letter in own)
        rest = operands[:index] + operands[index + 1 :]
        grad = b.add("Einsum", g, *rest, shape=shape, equation=equation) if node.wants(index) else None
        ones = tuple(extent if letter in own else 1 for letter, extent in zip(term, x.shape, strict=True))
        grads.append(b.reshape(grad, ones) if grad else None)
    return grads
