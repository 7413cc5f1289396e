"""``zoo layers``: what can be explained, of any file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

Zoo = Callable[..., Any]
Tiny = Callable[..., Path]


def test_the_layers_and_the_default(zoo: Zoo, tiny: Tiny) -> None:
    done = zoo("layers", tiny(explain_layer="conv"), "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)[:2] == [
        {"name": "conv", "operator": "Conv", "shape": [6, 8, 8], "default": True},
        {"name": "relu", "operator": "Relu", "shape": [6, 8, 8], "default": False},
    ]


@pytest.mark.parametrize("stamped", [True, False])
def test_as_a_table(zoo: Zoo, tiny: Tiny, stamped: bool) -> None:
    lines = zoo("layers", tiny(stamped=stamped)).out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells[0] == ["conv", "Conv", "6 x 8 x 8", "default" if stamped else ""]
    assert cells[1] == ["relu", "Relu", "6 x 8 x 8", "" if stamped else "default"]  # the last map of places
    assert [row[3] for row in cells].count("default") == 1


def test_a_file_without_maps(zoo: Zoo, tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "dense.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    done = zoo("layers", path)
    assert done.code == 2
    assert "no layer is a map of places" in done.err
    assert json.loads(zoo("layers", path, "--json").out) == []


def test_no_such_file(zoo: Zoo, tmp_path: Path) -> None:
    done = zoo("layers", tmp_path / "none.onnx")
    assert (done.code, done.err.count("\n")) == (2, 1)
