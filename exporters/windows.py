"""The guard of score maps: every place of a map must be the classifier's answer at its window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.parity import TOLERANCE, relative_error, verify
from exporters.source import FloatArray, Source, random_arrays
from exporters.top import Convolutional
from runtime.engines import open_session
from runtime.errors import InvalidInput, ParityError
from runtime.image import preprocess
from runtime.metadata import Parity, Window
from runtime.model import Model
from runtime.tasks.score_map import whole_windows

CROPS = 8
"""Windows of each larger picture that are cut out and run by the framework: the corners, the middle, others."""


def verify_windows(
    source: Source,
    model: Model,
    scores: Any,
    convolutional: Convolutional,
    pictures: Sequence[Path],
    *,
    kind: str,
    batch: int | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Parity, Window]:
    """Compare the file of a map with its source, at the native size and on larger pictures.

    1. At the native size its one place is what the framework answers, as for every export.
    2. On larger pictures of two shapes, every place is what the classifier's own head answers to that piece of the
       last map. This is exact whatever the layers below do.
    3. Windows are cut out of those pictures and run by the framework. Where no layer pads the map must agree; where
       layers pad it cannot, for a window cut out has zeros around it and in the map it has the picture around it. The
       difference is measured, and goes into the file as ``Window.crop_error``.

    scores: the classifier as it was before ``fully_convolutional`` (a cleaned onnx.ModelProto). kind, batch, tolerance:
    as for ``exporters.parity.verify``.
    Raises ParityError naming the check that failed, and InvalidInput for classes that do not exclude each other.
    """
    if source.task == "multilabel":
        raise InvalidInput("fully convolutional: a map of classes that do not exclude each other is not supported")
    parity = verify(source, model, pictures, kind=kind, output="score-map", batch=batch, tolerance=tolerance)
    window = Window(convolutional.size, convolutional.stride, 0.0)
    trunk, head = _cut(convolutional, scores)
    worst = parity.max_relative_error
    differences, scale = 0.0, 0.0
    for large in _larger(source, model, pictures, window, batch or 2):
        places = _places(large, window)
        try:
            answer = model.run(large)
            maps = trunk.run(None, {"input": large})
        except Exception as error:
            raise ParityError(f"pictures of {large.shape[2:]}: the ONNX file does not run ({error})") from error
        if answer.shape[2:] != places:
            raise ParityError(f"pictures of {large.shape[2:]}: a map of {answer.shape[2:]} places instead of {places}")
        off = relative_error(answer, _by_head(head, maps, convolutional, places))
        if not off <= tolerance:
            raise ParityError(
                f"pictures of {large.shape[2:]}: the map differs from the classifier's head, window by window: "
                f"relative error {off:.1e} above {tolerance:.0e}"
            )
        worst = max(worst, off)
        given, expected = _by_framework(source, answer, large, window)
        differences = max(differences, float(np.abs(given.astype(np.float64) - expected).max()))
        scale = max(scale, float(np.abs(expected).max()))
    apart = differences / scale if scale else float("inf")
    if not convolutional.padding and not apart <= tolerance:
        raise ParityError(
            f"no layer pads, but the map differs from the framework on windows cut out: relative error {apart:.1e} "
            f"above {tolerance:.0e}"
        )
    parity = replace(parity, max_relative_error=float(f"{worst:.1e}"))
    return parity, replace(window, crop_error=float(f"{apart:.1e}"))


def _cut(convolutional: Convolutional, scores: Any) -> tuple[Any, Any]:
    """Sessions: the map's network up to where whole windows are taken, and the classifier's from there on."""
    import onnx_ir as ir

    names = [name for name, _ in convolutional.heads]
    sessions = []
    for proto, inputs, outputs in ((convolutional.proto, ["input"], names), (scores, names, ["logits"])):
        model = ir.from_proto(proto)
        part = ir.convenience.extract(model.graph, inputs, outputs)
        whole = ir.to_proto(ir.Model(part, ir_version=model.ir_version))
        sessions.append(open_session(whole.SerializeToString()))
    return sessions[0], sessions[1]


def _larger(source: Source, model: Model, pictures: Sequence[Path], window: Window, count: int) -> list[FloatArray]:
    """Pictures a few strides larger than a window, wide ones and high ones, as the runtime would take them."""
    (height, width), (down, across) = window.size, window.stride
    # Not whole numbers of strides: what is left over must not count.
    shapes = [(height + down + down // 2, width + 3 * across), (height + 2 * down, width + 2 * across - 1)]
    batches = []
    for first, shape in enumerate(shapes):
        if source.preprocess is None:
            large = random_arrays((source.input_shape[0], *shape), count)
        else:
            rule = replace(model.rule, size=shape, resize=shape)
            chosen = [pictures[(first * count + index) % len(pictures)] for index in range(count)]
            large = np.concatenate([preprocess(path, rule) for path in chosen])
        batches.append(whole_windows(large, window))
    return batches


def _places(large: FloatArray, window: Window) -> tuple[int, int]:
    rows, columns = (
        (have - size) // step + 1 for have, size, step in zip(large.shape[2:], window.size, window.stride, strict=True)
    )
    return rows, columns


def _by_head(head: Any, maps: list[FloatArray], convolutional: Convolutional, places: tuple[int, int]) -> FloatArray:
    """The classifier's head on every piece of the last maps, put together as a map."""
    feeds = [(name, extent, array) for (name, extent), array in zip(convolutional.heads, maps, strict=True)]
    rows = [
        [
            head.run(None, {name: array[:, :, i : i + high, j : j + wide] for name, (high, wide), array in feeds})[0]
            for j in range(places[1])
        ]
        for i in range(places[0])
    ]
    return np.asarray(np.transpose(rows, (2, 3, 0, 1)), dtype=np.float32)


def _by_framework(
    source: Source, answer: FloatArray, large: FloatArray, window: Window
) -> tuple[FloatArray, FloatArray]:
    """What the map and the framework say of windows cut out of the first picture: both (windows, outputs)."""
    (height, width), (down, across) = window.size, window.stride
    rows, columns = answer.shape[2:]
    every = [(i, j) for i in range(rows) for j in range(columns)]
    first = {(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)}
    others = [place for place in every if place not in first]
    extra = np.random.default_rng(0).permutation(len(others))[: max(CROPS - len(first), 0)]
    chosen = sorted(first) + [others[index] for index in extra]
    crops = [large[0, :, i * down : i * down + height, j * across : j * across + width] for i, j in chosen]
    return np.stack([answer[0, :, i, j] for i, j in chosen]), source.forward(np.stack(crops))
