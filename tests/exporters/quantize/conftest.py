"""A small network in a file."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from exporters.artifact import stamp
from runtime.metadata import Labels, Metadata
from tests.exporters.quantize.networks import RULE, mobile


@pytest.fixture
def mobile_file(tmp_path: Path, metadata: Metadata) -> Path:
    proto = mobile()
    labels = Labels(names=tuple("abcdefghij"))
    stamp(proto, replace(metadata, preprocess=RULE, labels=labels, explain_layer="head.act"))
    path = tmp_path / "mobile.onnx"
    onnx.save(proto, path)
    return path
