"""Trained Keras and PyTorch networks become verified, self-describing ONNX files."""

from __future__ import annotations

# framework -> "module:function" taking a Recipe and giving a Source. A row adds a framework.
EXPORTERS = {
    "torch": "exporters.torch:load",
    "keras": "exporters.keras:load",
}
