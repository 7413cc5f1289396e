"""Importing must cost nothing, so each case runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = {"torch", "torchvision", "timm", "tensorflow", "keras", "tf2onnx", "onnxscript", "rich"}
HEAVY = {*FRAMEWORKS, "onnx", "onnxruntime", "numpy", "PIL"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules in memory after the code ran in a new process."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("package", ["runtime", "zoo", "exporters"])
def test_import_loads_nothing_heavy(package: str) -> None:
    assert not loaded_by(f"import {package}") & HEAVY


def test_runtime_needs_three_packages_only() -> None:
    loaded = loaded_by("import runtime; runtime.load, runtime.Preprocess, runtime.Classification")
    assert not loaded & {*FRAMEWORKS, "onnx", "onnxruntime"}
    assert {"numpy", "PIL"} <= loaded


def test_listing_the_zoo_imports_no_framework() -> None:
    code = "from zoo.cli import main; main(['list', '--json']); main(['show', 'mobilenet'])"
    assert not loaded_by(code) & (FRAMEWORKS - {"rich"} | {"onnx", "onnxruntime"})


def test_public_names_are_all_there() -> None:
    import runtime
    import zoo

    for name in runtime.PUBLIC:
        assert getattr(zoo, name) is getattr(runtime, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = zoo.nothing
