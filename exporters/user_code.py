"""Code of the user's own that builds a network: found by module or by file, imported, called.

What goes wrong in it is the user's to mend, so it is told in one line with the file and the line it is in.
"""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.errors import EdgeZooError, InvalidInput, UnknownName

_CLASSES = ("num_classes", "classes", "n_classes")
"""What a function may call the number of outputs it is asked for."""

_brought: set[str] = set()
"""Modules that the last file by path brought along. The next one may mean others by the same names."""


def find(builder: str) -> Callable[..., Any]:
    """The function or class that "package.module:function" or "path/to/file.py:function" names.

    What it raises when called is told as InvalidInput. Raises UnknownName where there is no such module,
    file or function, InvalidInput where importing it fails.
    """
    place, colon, name = builder.rpartition(":")  # the last one: C:\nets\net.py:build has two
    if not colon or not name.isidentifier():
        raise UnknownName(f"builder {builder!r} names no function: write {builder.rstrip(':')}:FUNCTION")
    path = Path(place) if place.endswith(".py") or "/" in place or "\\" in place else None
    folder = path.resolve().parent if path else None
    with _importable(folder), _blamed(builder):
        module = _import_file(path, builder) if path else _import_module(place, builder)
        found = getattr(module, name, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = get_close_matches(name, own, n=3) or own[:5]
        kind = "has no" if found is None else f"has a {type(found).__name__}, no function,"
        hint = f" (it has {', '.join(near)})" if near else ""
        raise UnknownName(f"builder {builder!r}: {place} {kind} {name!r}{hint}")

    @functools.wraps(found, updated=())  # its signature stays readable; a class has attributes not to copy
    def call(*arguments: Any, **options: Any) -> Any:
        with _importable(folder), _blamed(builder):
            return found(*arguments, **options)

    return call


def accepted(factory: Callable[..., Any], options: dict[str, Any], *, classes: int | None) -> dict[str, Any]:
    """What of ``options`` the factory has parameters for, and the number of classes by its own name for that."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = next((name for name in _CLASSES if name in parameters), _CLASSES[0] if anything else None)
    taken = {name: value for name, value in options.items() if anything or name in parameters}
    return taken | ({named: classes} if named and classes is not None else {})


def _import_module(name: str, builder: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):  # not one that the module itself asks for
            raise UnknownName(f"builder {builder!r}: {error}: give PATH/TO/FILE.py:FUNCTION, or install it") from error
        raise
    except ValueError as error:  # an empty name, or one that begins with a dot
        raise UnknownName(f"builder {builder!r}: {error}") from error


def _import_file(path: Path, builder: str) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"builder {builder!r}: no such file: {path}")
    for name in _brought:
        sys.modules.pop(name, None)
    _brought.clear()
    # Under its own name, which a pickle of its classes asks for, where that is free.
    taken = path.stem in sys.modules or path.stem in sys.stdlib_module_names
    name = f"builder_{path.stem}" if taken else path.stem
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownName(f"builder {builder!r}: {path} is no Python file: its name must end in .py")
    module, before = module_from_spec(spec), set(sys.modules)
    sys.modules[name] = module  # dataclasses and pickles look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        _brought.update(key for key in set(sys.modules) - before if _lies_in(sys.modules[key], path.resolve().parent))
    return module


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(folder)


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """While it lasts, modules beside a file are found as ``python file.py`` finds them."""
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@contextmanager
def _blamed(builder: str) -> Iterator[None]:
    try:
        yield
    except EdgeZooError:
        raise
    except (Exception, SystemExit) as error:  # a script without a main guard parses arguments and leaves
        what = " ".join(str(error).split())[:300]
        raise InvalidInput(
            f"builder {builder!r}: {_place(error)}: {type(error).__name__}{f': {what}' if what else ''}"
        ) from error


def _place(error: BaseException) -> str:
    """File and line of the user's own code that an error comes from: not of the libraries it called."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    libraries = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<"))]
    if not frames:
        return "the call"
    last = (own or frames)[-1]
    return f"{last.filename}, line {last.lineno}"
