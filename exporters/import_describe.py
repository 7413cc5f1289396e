"""What an imported file says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from exporters.artifact import stamp
from exporters.import_read import Foreign, default_opset, is_large, producer, true_inputs
from exporters.import_task import Meaning
from exporters.passes import explain_layer
from runtime.metadata import Metadata, Parity, Preprocess, Provenance

STAMPED = "stamped by zoo import"
"""Where the word of how an imported file was exported ends."""


def describe(
    given: Foreign,
    proto: Any,
    meaning: Meaning,
    rule: Preprocess | None,
    *,
    name: str | None,
    license: str | None,
    changes: Sequence[str],
    parity: Parity | None = None,
) -> Metadata:
    """The metadata of an imported file; what an earlier edgezoo said of its origin stays.

    proto: the model as it will be written.
    """
    old = given.stamped
    origin = old.provenance if old else None
    exporter = "; ".join((*([origin.exporter] if origin else []), *changes, STAMPED))
    return Metadata(
        name=name or (old.name if old else given.path.stem),
        task=meaning.task,
        preprocess=rule,
        labels=meaning.labels,
        provenance=Provenance(
            framework=origin.framework if origin else "onnx",
            framework_version=origin.framework_version if origin else producer(given.proto),
            exporter=exporter,
            edgezoo_version=version("edgezoo"),
            builder=origin.builder if origin else f"file:{given.path.name}",
            opset=default_opset(proto),
            weights=origin.weights if origin else "file",  # "none", untrained, must not be washed off
            weights_file=origin.weights_file if origin else " + ".join((given.path.name, *given.data)),
            weights_sha256=origin.weights_sha256 if origin else given.sha256,
            seed=origin.seed if origin else None,
            license=license or (origin.license if origin else None),
            paper=origin.paper if origin else None,
        ),
        parity=parity,
        explain_layer=_explain_layer(proto, rule) if meaning.labels is not None else None,
        scores=meaning.scores,
        window=old.window if old and meaning.task == "score-map" else None,
    )


def restamp(given: Foreign, proto: Any, metadata: Metadata) -> None:
    """Stamp, and keep what others wrote into the file's metadata."""
    stamp(proto, metadata)
    for entry in given.proto.metadata_props:
        if not entry.key.startswith(("edgezoo.", "Image.")):
            proto.metadata_props.add(key=entry.key, value=entry.value)


def _explain_layer(proto: Any, rule: Preprocess | None) -> str | None:
    """The last convolutional map, where the shapes can be worked out for pictures of the rule's size."""
    import onnx

    if rule is None or is_large(proto):
        return None
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    del sized.graph.value_info[:]  # they name dimensions that are numbers now
    planes = (rule.channels, *rule.size) if rule.layout == "NCHW" else (*rule.size, rule.channels)
    (value,) = true_inputs(sized.graph)
    for dim, extent in zip(value.type.tensor_type.shape.dim, (1, *planes), strict=True):
        dim.dim_value = dim.dim_value or extent
    try:
        return explain_layer(onnx.shape_inference.infer_shapes(sized, data_prop=True))
    except Exception:  # noqa: BLE001 - inference raises anything on a graph it does not follow; the file runs all the same
        return None
