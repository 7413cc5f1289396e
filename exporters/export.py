"""The road, top to bottom: build, convert, clean, verify, stamp, write."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters import EXPORTERS
from exporters.artifact import staged, stamp, write
from exporters.opset import OPSETS, to_opset
from exporters.parity import verify
from exporters.passes import clean, explain_layer
from exporters.pixels import as_stated, pixel_rule
from exporters.source import Recipe, Source, random_arrays, sample_files
from exporters.top import embedding, fully_convolutional
from exporters.windows import verify_windows
from runtime.errors import InvalidInput, ParityError, UnknownName
from runtime.image import preprocess
from runtime.memory import give_back
from runtime.metadata import Layout, Metadata, Preprocess, Provenance, Window
from runtime.model import Model

STEPS = ("build", "convert", "clean", "verify", "write")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was verified and written. input_shape: as the file states it, "N" where any size is taken."""

    path: Path
    metadata: Metadata
    bytes: int
    input_shape: tuple[int | str, ...]


def export(
    recipe: Recipe,
    framework: str,
    output: Path,
    *,
    opset: int = 18,
    batch: int | None = None,
    pixels: Layout | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Export ``recipe`` with ``framework`` ("torch" or "keras") to ``output``.

    batch: pictures per run to freeze the file to; None leaves it free.
    pixels: layout of a uint8 input that takes pictures as they are; None for one of normalised float32.
    on_step: called with each of STEPS as it begins.

    Raises ParityError when the file disagrees with its source, ExportFailed when a framework's
    exporter fails, and UserError kinds for unusable input; in every case no file appears.
    """
    if framework not in EXPORTERS:
        raise UnknownName(f"unknown source {framework!r}: choose from {', '.join(EXPORTERS)}")
    if opset not in OPSETS:
        raise InvalidInput(f"opset {opset} is not supported: choose {OPSETS.start} to {OPSETS.stop - 1}")
    if batch is not None and batch < 1:
        raise InvalidInput(f"batch must be at least 1, not {batch}")
    with staged(output) as draft:
        on_step("build")
        source = _loader(framework)(recipe)
        rule = source.preprocess
        if pixels is not None:
            rule = pixel_rule(rule, pixels, mapped=recipe.output == "score-map")
        on_step("convert")
        native = min(max(opset, source.opsets.start), source.opsets.stop - 1)
        raw = [source.convert(native, batch)]
        gc.collect()  # what a converter leaves in circles, gigabytes for a large network
        give_back()
        on_step("clean")
        # Popped, not held: one copy less of networks of gigabytes.
        scores = to_opset(clean(raw.pop(), opset=native, batch=batch, layout=source.layout), opset)
        sliding = fully_convolutional(scores) if recipe.output == "score-map" else None
        proto = sliding.proto if sliding else embedding(scores) if recipe.output == "features" else scores
        layer = explain_layer(scores) if recipe.output == "scores" else None
        # What the comparison finds is put in after it.
        window = Window(sliding.size, sliding.stride, crop_error=0.0) if sliding else None
        proto = as_stated(proto, source.preprocess, rule)
        stamp(proto, _describe(recipe, source, rule, opset, layer, window=window))
        write(proto, draft)
        on_step("verify")
        pictures, kind = sample_files(recipe.samples), f"{recipe.samples} (exporters/samples)"
        with Model(draft) as model:
            if sliding:
                parity, window = verify_windows(source, model, scores, sliding, pictures, kind=kind, batch=batch)
            else:
                parity = verify(source, model, pictures, kind=kind, output=recipe.output, batch=batch)
            answer = model.run(_first_batch(source, model, pictures))
        on_step("write")
        metadata = _describe(recipe, source, rule, opset, layer, parity=parity, window=window)
        stamp(proto, metadata)
        write(proto, draft)
        with Model(draft) as model:  # the very bytes that will be renamed
            if model.metadata != metadata or not np.array_equal(
                model.run(_first_batch(source, model, pictures)), answer
            ):
                raise ParityError("the written file does not read back as it was verified")
        size = sum(path.stat().st_size for path in draft.parent.iterdir())
    channels, *sides = source.input_shape
    free = recipe.output == "score-map"
    shape = (*sides, channels) if pixels == "NHWC" else (channels, *(("H", "W") if free else sides))
    return Exported(output, metadata, size, (batch or "N", *shape))


def _loader(framework: str) -> Callable[[Recipe], Source]:
    module, _, function = EXPORTERS[framework].partition(":")
    loader: Callable[[Recipe], Source] = getattr(import_module(module), function)
    return loader


def _first_batch(source: Source, model: Model, pictures: list[Path]) -> npt.NDArray[Any]:
    count = model.batch_size or 1
    if source.preprocess is None:
        return random_arrays(source.input_shape, count)
    return np.concatenate([preprocess(path, model.rule) for path in pictures[:1] * count])


def _describe(
    recipe: Recipe, source: Source, rule: Preprocess | None, opset: int, layer: str | None, **found: object
) -> Metadata:
    weights = recipe.weights
    return Metadata(
        name=recipe.name,
        task=source.task if recipe.output == "scores" else recipe.output,
        preprocess=rule,
        labels=None if recipe.output == "features" else source.labels,
        provenance=Provenance(
            framework=source.framework,
            framework_version=source.framework_version,
            exporter=source.exporter,
            edgezoo_version=version("edgezoo"),
            builder=source.builder,
            opset=opset,
            weights=weights.kind,
            weights_file=weights.path.name if weights.path else weights.hub if weights.kind == "imagenet" else None,
            weights_sha256=source.weights_sha256,
            seed=weights.seed if weights.kind == "none" else None,
            license=recipe.license,
            paper=recipe.paper,
        ),
        explain_layer=layer,
        **found,  # type: ignore[arg-type]
    )
