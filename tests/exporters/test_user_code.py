"""Builders of the user's own: found by module and by file; what goes wrong in them is told in one line."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from exporters.source import import_builder
from runtime.errors import InvalidInput, UnknownName


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_by_module() -> None:
    build = import_builder("exporters.architectures.lenet5:build_torch")
    assert list(inspect.signature(build).parameters) == ["num_classes"]


@pytest.mark.parametrize("relative", [False, True])
def test_by_file(relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "mine/net_a.py", "def build(classes, width=3): return classes * width\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    build = import_builder(f"{'mine/net_a.py' if relative else path}:build")
    assert build(4) == 12
    assert build(4, width=2) == 8
    assert list(inspect.signature(build).parameters) == ["classes", "width"]
    assert sys.path == before


def test_a_class_is_a_builder(tmp_path: Path) -> None:
    path = write(tmp_path, "net_b.py", "class Net:\n    def __init__(self, n_classes): self.n = n_classes\n")
    build = import_builder(f"{path}:Net")
    assert build(5).n == 5
    assert list(inspect.signature(build).parameters) == ["n_classes"]


def test_the_last_colon_separates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in C:\\nets\\net.py:build. Where this runs a colon may be part of a name."""
    if sys.platform == "win32":
        pytest.skip("the drive's own colon is in tmp_path there")
    write(tmp_path, "C:net.py", "def build(): return 'drive'\n")
    monkeypatch.chdir(tmp_path)
    assert import_builder("C:net.py:build")() == "drive"


def test_siblings_are_found_while_importing_and_while_building(tmp_path: Path) -> None:
    write(tmp_path, "sibling_x.py", "A = 1\n")
    write(tmp_path, "sibling_y.py", "B = 2\n")
    text = "import sibling_x\ndef build():\n    import sibling_y\n    return sibling_x.A, sibling_y.B\n"
    before = list(sys.path)
    assert import_builder(f"{write(tmp_path, 'net_c.py', text)}:build")() == (1, 2)
    assert sys.path == before


def test_siblings_of_one_file_are_not_those_of_the_next(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, "blocks_z.py", f"NAME = {name!r}\n")
        write(tmp_path / name, "net_d.py", "from blocks_z import NAME\ndef build(): return NAME\n")
    builders = [import_builder(f"{tmp_path / name / 'net_d.py'}:build") for name in ("one", "two", "one")]
    assert [build() for build in builders] == ["one", "two", "one"]


def test_a_file_named_as_a_library(tmp_path: Path) -> None:
    """Neither numpy nor a module of the standard library is replaced by it."""
    import numpy

    for name in ("numpy.py", "statistics.py"):
        assert import_builder(f"{write(tmp_path, name, 'def build(): return 7')}:build")() == 7
    assert sys.modules["numpy"] is numpy
    assert "statistics" not in sys.modules or "build" not in vars(sys.modules["statistics"])


NAMELESS = ["x", "mine/net.py", "C:\\nets\\net.py", "package.module", "package.module:", "net.py:", ":build", "a:b c"]


@pytest.mark.parametrize("builder", NAMELESS)
def test_no_function_is_named(builder: str) -> None:
    with pytest.raises(UnknownName, match=r"names no function: write .*:FUNCTION|Empty module name") as told:
        import_builder(builder)
    assert repr(builder) in str(told.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "net_e.py", "def build_net(): pass\nnumber = 3\n")
    cases = {
        f"{tmp_path / 'none.py'}:build": "no such file: .*none.py",
        f"{path}:build": r"has no 'build' \(it has build_net\)",
        f"{path}:number": "has a int, no function, 'number'",
        "nowhere.module:build": "No module named 'nowhere': give PATH/TO/FILE.py:FUNCTION",
        "exporters.nowhere:build": "No module named 'exporters.nowhere'",
        "exporters.source:build": "exporters.source has no 'build'",
        f"{write(tmp_path, 'net.txt', '')}:build": "is no Python file",
    }
    for builder, message in cases.items():
        with pytest.raises(UnknownName, match=message) as told:
            import_builder(builder)
        assert "\n" not in str(told.value)


BROKEN = {
    "syntax": ("x = 1\ndef build(:\n", 2, "SyntaxError"),
    "import": ("\n\nimport not_installed_here\n", 3, "ModuleNotFoundError: No module named 'not_installed_here'"),
    "value": ("import math\ndef f():\n    math.sqrt(-1)\nf()\n", 3, "ValueError"),
    "leaves": ("import argparse\nargparse.ArgumentParser().parse_args(['--no'])\n", 2, "SystemExit: 2"),
    "many lines": ("raise RuntimeError('one\\ntwo')\n", 1, "RuntimeError: one two"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_cannot_be_imported(kind: str, tmp_path: Path) -> None:
    text, line, message = BROKEN[kind]
    path = write(tmp_path, "net_f.py", text)
    before = list(sys.path)
    with pytest.raises(InvalidInput) as told:
        import_builder(f"{path}:build")
    assert f"net_f.py, line {line}: {message}" in str(told.value)
    assert "\n" not in str(told.value)
    assert sys.path == before
    assert "net_f" not in sys.modules


def test_a_function_that_fails(tmp_path: Path) -> None:
    write(tmp_path, "deep_g.py", "def fail():\n    raise ValueError('too deep')\n")
    path = write(tmp_path, "net_g.py", "import deep_g\ndef build(width):\n    deep_g.fail()\n")
    build = import_builder(f"{path}:build")
    with pytest.raises(InvalidInput, match=r"net_g.py:build': .*deep_g.py, line 2: ValueError: too deep"):
        build(1)
    with pytest.raises(InvalidInput, match=r"the call: TypeError: build\(\) missing 1 required .* 'width'"):
        build()
