"""What a saved Keras model may consist of: layers, and nothing that runs code or opens other files.

A saved model names its classes and functions by module. Keras refuses the dangerous ones it knows of,
more with each release; this list says what is allowed instead, whatever release is installed.
"""

from __future__ import annotations

import codecs
import dis
import marshal
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

from exporters.weights_file import TRUST
from runtime.errors import InvalidWeights

_MODULES = frozenset(
    "activations constraints dtype_policies engine initializers layers losses metrics mixed_precision models ops "
    "optimizers quantizers regularizers".split()
)
"""Under keras and keras.src: what describes a network, not what loads, saves, downloads or configures."""

_REFUSED = {
    "Lambda": "whose code would run when loaded",
    "TFSMLayer": "which loads another model from a path",
    "TorchModuleWrapper": "which unpickles a PyTorch module",
    "JaxLayer": "which calls a function",
    "FlaxLayer": "which calls a function",
    "StringLookup": "which opens a file",
    "IntegerLookup": "which opens a file",
    "TextVectorization": "which opens a file",
}
_BEGINNINGS = ("RESUME", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR")  # since Python 3.11
_PLAIN = frozenset("__keras_tensor__ __tensor__ __numpy__ __bytes__ __ellipsis__ __slice__ __tuple__".split())


def check_model(config: Any, *, where: str) -> None:
    """Check the configuration of a model as it was read from its file; nothing of Keras is involved.

    Raises InvalidWeights naming what would run code.
    """
    reason = unsafe(config)
    if reason:
        raise InvalidWeights(f"{where}: refused, it holds {reason}: give a model of plain layers, {TRUST}")


def check_code(config: Any, *, where: str) -> None:
    """Check that this Python can read the functions compiled into a trusted model: of another, it might crash on them.

    Raises InvalidWeights.
    """
    for text in _compiled(config):
        try:
            data = codecs.decode(text.encode(), "base64")
            known = _readable(marshal.loads(data), data)  # noqa: S302 - the user said --trust
        except (ValueError, TypeError, EOFError, AttributeError):
            known = False
        if not known:
            here = ".".join(map(str, sys.version_info[:2]))
            raise InvalidWeights(
                f"{where}: holds a lambda compiled by another Python than {here}: export with that one"
            )


def _readable(code: CodeType, data: bytes) -> bool:
    """Whether all instructions are ones that this Python's compiler writes, in this function and those inside it.

    data: what the code was read from. What Python took for its own shortcuts reads back as something else.
    """
    names = [dis.opname[byte] for byte in code.co_code[::2]]
    return (
        code.co_code in data
        and names[0] in _BEGINNINGS
        and not any(name.startswith("<") for name in names)
        and all(_readable(inner, data) for inner in code.co_consts if isinstance(inner, CodeType))
    )


def _compiled(config: Any) -> Iterator[str]:
    """The marshalled code of every lambda in a configuration, in base64."""
    if isinstance(config, dict):
        found = config.get("code")
        if config.get("class_name") == "Lambda" and isinstance(config.get("config"), dict):  # of Keras 1 and 2
            function = config["config"].get("function")
            found = function[0] if isinstance(function, list) and function else None
        if isinstance(found, str):
            yield found
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _compiled(value)


def unsafe(config: Any) -> str | None:
    """The first thing in a model's configuration that is not allowed, and why; None when all of it is."""
    if isinstance(config, list):
        return next(filter(None, map(unsafe, config)), None)
    if not isinstance(config, dict):
        return None
    own = _unsafe_object(config) if "class_name" in config else None
    return own or next(filter(None, map(unsafe, config.values())), None)


def _unsafe_object(config: dict[str, Any]) -> str | None:
    name, module = config["class_name"], config.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return f"an object without a name ({str(name)[:40]!r})"
    if name in _PLAIN:
        return None
    if name in _REFUSED:
        return f"a {name} layer, {_REFUSED[name]}"
    if name.startswith("_"):
        return f"a {name.strip('_')}, whose code would run when loaded"
    if ">" in name or ">" in str(config.get("registered_name")):
        return f"the custom object {name!r}, whose code is not in the file"
    # Classes begin with a capital letter; what does not is a function.
    if module is not None and not _allowed(module, function=name == "function" or not name[:1].isupper()):
        return f"the object {module}.{name}, which is no layer"
    return None


def _allowed(module: str, *, function: bool) -> bool:
    if module == "builtins":  # how Keras writes its own activations and losses
        return function
    parts = module.split(".")
    if parts[0] not in ("keras", "tf_keras"):
        return False
    rest = parts[2:] if parts[1:2] == ["src"] else parts[1:]
    if function:
        return rest[:1] == ["activations"]
    return not rest or rest[0] in _MODULES
