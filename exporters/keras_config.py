"""What a saved Keras model may consist of: layers, and nothing that runs code or opens other files.

A saved model names its classes and functions by module. Keras refuses the dangerous ones it knows of,
more with each release; this list says what is allowed instead, whatever release is installed.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

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
_PLAIN = frozenset("__keras_tensor__ __tensor__ __numpy__ __bytes__ __ellipsis__ __slice__ __tuple__".split())
_MEMBERS = frozenset(("metadata.json", "config.json", "model.weights.h5", "model.weights.npz"))


def check_model_file(path: Path, kind: Literal["keras", "hdf5"]) -> None:
    """Read the configuration in a .keras or .h5 file as JSON and check it; nothing of Keras is involved.

    Raises InvalidWeights naming what would run code. Errors of damaged files pass through.
    """
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            others = sorted(set(archive.namelist()) - _MEMBERS)
            if others:  # Keras would unpack them
                raise InvalidWeights(f"{path}: refused, it holds {others[0]}: an image classifier has no such assets")
            text = archive.read("config.json")
    else:
        import h5py

        with h5py.File(path, "r") as file:
            text = file.attrs["model_config"]
    config = json.loads(text)
    if isinstance(config, dict):
        config.pop("compile_config", None)  # the losses of training, which are not built for an export
    reason = unsafe(config)
    if reason:
        raise InvalidWeights(f"{path}: refused, it holds {reason}: give a model of plain layers, or weights alone")


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
    if parts[0] != "keras":
        return False
    rest = parts[2:] if parts[1:2] == ["src"] else parts[1:]
    if function:
        return rest[:1] == ["activations"]
    return not rest or rest[0] in _MODULES
