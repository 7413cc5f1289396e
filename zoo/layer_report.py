"""A layer table as people read it: numbers with units, a total, and what separable convolutions save."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.terminal import print_table

if TYPE_CHECKING:
    from zoo.layers import LayerTable
    from zoo.separable import Separable


def print_layers(title: str, size: int | None, table: LayerTable) -> None:
    """On stdout. size: bytes of the file, None where there is none to speak of."""
    shown = [layer for layer in table.layers if layer.kind != "plumbing" or layer.parameters or layer.macs is None]
    rows = [
        (
            clean(layer.name),
            layer.operator,
            layer.detail,
            _shape(layer.output_shape),
            human(layer.parameters) if layer.parameters else "",
            "unknown" if layer.macs is None else human(layer.macs) if layer.macs else "",
        )
        for layer in shown
    ]
    total = human(table.macs) if table.complete else f"at least {human(table.macs)}"
    columns = ("layer", "operator", "detail", "output", "parameters", "MACs")
    rows.append(("total", "", "", "", human(table.parameters), total))
    print_table(title, columns, rows, right={"output", "parameters", "MACs"})
    for line in _remarks(size, table, len(table.layers) - len(shown)):
        print(line)
    if table.separable:
        _print_separable(table.separable)


def _remarks(size: int | None, table: LayerTable, hidden: int) -> Iterator[str]:
    inputs = ", ".join(f"{clean(name)} {_shape(shape)}" for name, shape in table.inputs.items())
    yield f"for {inputs}; a MAC is one multiplication with its addition, two FLOPs"
    yield f"{table.parameters:,} parameters stored" + (f", {size:,} bytes on disk" if size is not None else "")
    if hidden:
        yield f"not listed: nodes that only move or convert numbers ({hidden}; --json has them)"
    if table.unread:
        yield f"{table.unread:,} stored numbers that no layer reads are not counted"
    if table.problem:
        yield f"onnx cannot work out the shapes: {clean(table.problem)[:300]}"
    if not table.complete:
        unknown = [layer for layer in table.layers if layer.macs is None]
        names = ", ".join(f"{clean(layer.name)} ({layer.operator})" for layer in unknown[:3])
        yield f"incomplete: the MACs of {len(unknown)} layers are unknown: {names}{', ...' if len(unknown) > 3 else ''}"
    if None in table.inputs.values():
        yield "an input has free axes: for a picture, give --input-size HxW"


def _print_separable(separable: Separable) -> None:
    rows = [
        (
            f"{clean(pair.depthwise)} + {clean(pair.pointwise)}",
            "x".join(map(str, pair.kernel)),
            f"{pair.channels_in} -> {pair.channels_out}",
            *(human(number) for number in (pair.parameters, pair.standard_parameters, pair.macs, pair.standard_macs)),
            f"{pair.ratio:.3f}",
        )
        for pair in separable.pairs
    ]
    print()
    if rows:
        numbers = (separable.parameters, separable.standard_parameters, separable.macs, separable.standard_macs)
        ratio = separable.parameters / separable.standard_parameters
        rows.append(("total", "", "", *(human(number) for number in numbers), f"{ratio:.3f}"))
        columns = (
            "depthwise + pointwise",
            "kernel",
            "channels",
            "parameters",
            "standard",
            "MACs",
            "standard MACs",
            "ratio",
        )
        title = "depthwise-separable convolutions beside the standard ones they stand for (without biases)"
        print_table(title, columns, rows, right={*columns[2:]})
        print("ratio: of the parameters, and of the MACs in each row; 1/N + 1/K² for K x K to N channels")
        if separable.network_macs is not None and separable.standard_network_macs is not None:
            whole, standard = human(separable.network_macs), human(separable.standard_network_macs)
            print(f"if all separable convolutions were standard ones: {standard} MACs instead of {whole}")
    if separable.alone:
        print(f"{separable.alone} depthwise convolutions have no pointwise one behind them that makes such a pair")


def human(number: int | None) -> str:
    """Three or four digits and a unit: 864, 28.8 k, 3.54 M, 300.8 M."""
    if number is None:
        return "unknown"
    value, units = float(number), ["", " k", " M", " G", " T"]
    while round(value, 1) >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f}" if units[0] == "" else f"{value:.{2 if round(value, 2) < 10 else 1}f}{units[0]}"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "unknown" if shape is None else "x".join(map(str, shape)) or "one number"


def clean(text: str) -> str:
    """A name from a foreign file, without terminal escapes."""
    return "".join(char if char.isprintable() else "?" for char in text)
