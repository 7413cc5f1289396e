"""Files of edgezoo's as ones that take pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

import runtime
from exporters.artifact import stamp
from exporters.pixels import pixel_rule, with_pixels
from runtime.metadata import Layout


def as_pixels(file: Path, output: Path, layout: Layout = "NHWC") -> Path:
    """The file with a uint8 input, as ``output``."""
    with runtime.load(file) as model:
        told, rule = model.metadata, model.rule
    assert told is not None
    proto = with_pixels(onnx.load(file), rule, layout)
    stamp(proto, replace(told, preprocess=pixel_rule(rule, layout)))
    onnx.save(proto, output)
    return output
