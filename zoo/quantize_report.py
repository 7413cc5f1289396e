"""The page of ``zoo quantize --report``: what was measured, what was tried, and every layer, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo import page

if TYPE_CHECKING:
    from exporters.quantize.layers import Layer
    from exporters.quantize.road import Done


def report(done: Done, layers: Sequence[Layer]) -> str:
    """The page, as HTML."""
    told, measured = done.metadata.quantization, done.measured
    assert told is not None
    pairs = [
        ("scheme", told.scheme),
        ("for", told.target),
        ("how", told.search),
        ("layers on integers", f"{told.integer_nodes} of {told.integer_nodes + told.float_nodes} nodes"),
    ]
    same, apart = measured.said(told.measured_on)
    pairs += [("alike", same)] if same else []
    pairs.append(("apart", f"{apart} (norm of the difference over the norm)"))
    for name, pair in (("top-1", measured.top1), ("top-5", measured.top5)):
        pairs += [(name, f"{pair[0]:.2f} % in float32, {pair[1]:.2f} % now")] if pair else []
    if measured.milliseconds:
        whole, now = measured.milliseconds
        pairs.append(("one picture", f"{whole:.3g} ms in float32, {now:.3g} ms now: {now / whole:.2f} of the time"))
    else:
        pairs.append(("one picture", f"not measured: {told.target} was not at hand"))
    pairs += [("size", f"{done.bytes / 1e6:.2f} MB"), ("machine", told.machine)]
    if told.calibrated_on:
        pairs.append(("calibrated on", f"{told.calibration} {told.calibrated_on}, sha256 {told.calibration_sha256}"))
    pairs.append(("float32 file", f"sha256 {told.float_sha256}"))
    parts = [page.facts(pairs)]
    if done.refused:
        parts.insert(0, page.paragraph(f"Written by force, although {done.refused}.", note=True))
    timed = [(way.ratio, way.error, way.name) for way in done.tried if way.ratio is not None]
    if len(timed) == len(done.tried) > 1:
        error = f"error of the {measured.scores}"
        best = next(index for index, way in enumerate(done.tried) if way is done.way)
        parts += [
            page.heading("What was tried"),
            page.scatter(timed, x="time of one picture, of float32's", y=error, best=best),
            page.table(("way", error, "of float32's time"), [(name, y, x) for x, y, name in timed]),
        ]
    columns = ("layer", "operator", "runs in", "error", "float32 ms", "ms now", "of float32's time")
    rows = [
        (
            layer.name, layer.operator, layer.kind, layer.error, layer.float_ms, layer.smaller_ms,
            layer.smaller_ms / layer.float_ms if layer.float_ms else None,
        )
        for layer in layers
    ]  # fmt: skip
    parts += [
        page.heading("Layer by layer"),
        page.paragraph(
            "The error is that of a layer's result, what comes from the layers before it included: norm of the "
            "difference over the norm. The times are from onnxruntime's profile, an activation with its layer and "
            "conversions with the layer that they are done for. A click on a head sorts."
        ),
        page.table(columns, rows, bars=("error", "ms now")),
    ]
    return page.document(f"{done.metadata.name}, {told.precision}", *parts)
