"""The hand-read protobuf against ONNX's own; what it refuses is tested through open_session in test_engines.py."""

from __future__ import annotations

from typing import Any

import onnx

from runtime import onnxfile


def test_the_table_of_fields_is_onnx_own() -> None:
    """Every path in onnx.proto from a model to a tensor's external data is followed."""

    def reaches(message: Any, seen: frozenset[str] = frozenset()) -> bool:
        inner = [field.message_type for field in message.fields if field.message_type is not None]
        return message.name == "TensorProto" or any(
            reaches(item, seen | {message.name}) for item in inner if item.name not in seen
        )

    def compare(message: Any, table: dict[int, Any], seen: frozenset[str]) -> None:
        if message.name in seen or message.name == "TensorProto":
            return
        # Training graphs are never run: onnxruntime does not look at them.
        nested = {
            field.number: field.message_type
            for field in message.fields
            if field.message_type is not None and field.name != "training_info" and reaches(field.message_type)
        }
        assert nested.keys() == {number for number, inner in table.items() if isinstance(inner, dict)}, message.name
        for number, inner in nested.items():
            compare(inner, table[number], seen | {message.name})

    compare(onnx.ModelProto.DESCRIPTOR, onnxfile._MODEL, frozenset())
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number in onnxfile._TENSOR
    assert onnxfile._MODEL[onnx.ModelProto.DESCRIPTOR.fields_by_name["opset_import"].number] == "opset_import"
