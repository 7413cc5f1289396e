"""Programs of torch.export (.pt2), read without running what a hostile one may hold.

``torch.export.load`` unpickles sample inputs and whatever the file marks as pickled, opens compiled libraries,
evaluates size expressions and guards as Python, and calls any function of torch that a node names ("torch.os.system"
among them). So the archive is not given to it: its parts are checked one by one, and a fresh archive is written in
memory of nothing but those, parsed and printed again, so that what was checked is what is read.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.hub import first_line
from exporters.weights_file import TRUST
from runtime.errors import InvalidWeights

_AGAIN = "save it again with torch.export.save of a newer PyTorch"
_GRAPH = "models/model.json"
_PAYLOADS = {"data/weights": "weight_", "data/constants": "tensor_"}

_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)[A-Za-z_]\w*\.[A-Za-z]\w*"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge)"
    r"|torch\.sym_(?:max|min|int|float|not)"
)
"""Tensor operators and arithmetic of sizes; the one aten operator that opens files is none of them."""

_STRINGS = frozenset("none tanh floor trunc constant reflect replicate circular mean sum zeros valid same".split())
"""Options of operators that are words. Any other word could be the name of a file."""

_FUNCTIONS = "Add|Mul|Integer|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|IntTrueDiv|Max|Min|ModularIndexing"
_SIZE = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, [a-z]+=(?:True|False))*\)"
    rf"|(?:{_FUNCTIONS})(?=\()|[su]\d+(?!\d)|\d{{1,15}}(?!\d)|[-+/(), ]|\*(?!\*))+"
)
_NAME, _PATH, _PLAIN = re.compile(r"[A-Za-z_]\w*"), re.compile(r"[\w.\-]+"), re.compile(r"[\w.+<=>\-]{0,200}")
_STACK = re.compile(r"[\w.,;()\[\]@' ]*", re.ASCII)
_BATCHED = ("parameter_name", "buffer_name", "tensor_constant_name", "fqn")
_CODE = ("as_graph", "as_custom_obj", "as_operator", "as_string_to_argument", "custom_obj", "token", "constant_input")


def load(path: Path, *, trust: bool) -> Any:
    """The torch.export.ExportedProgram of a .pt2 file. trust: let torch read the file itself, pickles and all.

    Raises InvalidWeights when it is none, when reading it could run code, or when torch cannot read it.
    """
    import torch

    try:
        archive: Any = str(path) if trust else io.BytesIO(_rewritten(path))
        if trust and path.suffix != ".pt2":
            archive = io.BytesIO(path.read_bytes())  # torch goes by the name of a path
        return torch.export.load(archive)
    except InvalidWeights:
        raise
    except Exception as error:
        raise InvalidWeights(f"{path}: not a readable torch.export program ({first_line(error)}): {_AGAIN}") from error


def _rewritten(path: Path) -> bytes:
    """The archive, made anew of its checked parts. Raises InvalidWeights naming what could run code."""
    parts = _parts(path)
    checked: dict[str, bytes] = {
        "archive_format": b"pt2", "archive_version": parts.get("archive_version", b"0"),
        "byteorder": b"little", ".data/version": b"6\n", "data/sample_inputs/model.pt": b"",
    }  # fmt: skip
    try:
        if parts.get("byteorder", b"little") != b"little" or checked["archive_version"] != b"0":
            raise _Refused("it is of a layout that this version does not know")
        checked[_GRAPH] = json.dumps(_checked_program(json.loads(parts[_GRAPH]))).encode()
        for folder, prefix in _PAYLOADS.items():
            name = f"{folder}/model_{folder.rpartition('/')[2]}_config.json"
            config = _checked_payloads(json.loads(parts[name]), prefix)
            checked[name] = json.dumps(config).encode()
            for entry in config["config"].values():
                checked[f"{folder}/{entry['path_name']}"] = parts[f"{folder}/{entry['path_name']}"]
    except _Refused as error:
        raise InvalidWeights(f"{path}: refused, {error}: {_AGAIN}, {TRUST}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidWeights(f"{path}: not a readable torch.export program ({first_line(error)}): {_AGAIN}") from error
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in checked.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


class _Refused(Exception):
    """What could run code in a program, for the message."""


def _parts(path: Path) -> dict[str, bytes]:
    """The members of the archive by their name below its one folder."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tails = [name.partition("/")[2] for name in names]
        if "serialized_exported_program.json" in names or any(
            tail in ("data/weights/model.pt", "data/constants/model.pt") for tail in tails
        ):
            raise InvalidWeights(
                f"{path}: refused, it is of an older layout that holds pickles, and reading those could run code: "
                f"{_AGAIN}, {TRUST}"
            )
        if _GRAPH not in tails:
            raise InvalidWeights(f"{path}: holds no torch.export program named model (compiled code alone?): {_AGAIN}")
        if len(set(tails)) != len(tails):
            raise InvalidWeights(f"{path}: holds two parts of one name: {_AGAIN}")
        wanted = (_GRAPH, "archive_version", "byteorder")
        return {
            tail: archive.read(name)
            for name, tail in zip(names, tails, strict=True)
            if tail in wanted or tail.rpartition("/")[0] in _PAYLOADS
        }


def _checked_payloads(config: Any, prefix: str) -> Any:
    for entry in config["config"].values():
        name = entry["path_name"]
        if entry.get("use_pickle") is not False or not re.fullmatch(rf"{prefix}\d+", name):
            raise _Refused("it holds pickled tensors or objects, and reading those could run code")
    return _checked(config)


def _checked_program(program: dict[str, Any]) -> Any:
    module = program["graph_module"]
    program |= {"guards_code": []}  # Python, to be executed
    module |= {"metadata": {}, "treespec_namedtuple_fields": {}, "module_call_graph": module["module_call_graph"][:1]}
    for node in module["graph"]["nodes"]:
        if not _OPERATORS.fullmatch(node["target"]):
            raise _Refused(f"it calls {node['target'][:80]!r}, which is no tensor operator of PyTorch's own")
        stack = node["metadata"].get("nn_module_stack", "")
        node["metadata"] = {"nn_module_stack": stack} if stack and _STACK.fullmatch(stack) else {}
        for given in node["inputs"]:
            text = given["arg"].get("as_string")
            if text is not None and text not in _STRINGS:
                raise _Refused(f"it gives {text[:80]!r} to {node['target']}")
            if "as_strings" in given["arg"]:
                raise _Refused(f"it gives words to {node['target']}")
    return _checked(program)


def _checked(value: Any, key: str = "") -> Any:
    """The same JSON on the CPU, every text in it of a form that cannot be code."""
    if isinstance(value, Mapping):
        if key == "device" or key == "as_device":
            return {"type": "cpu", "index": None}
        if any(value.get(name) for name in _CODE) or (key == "custom_obj_values" and value):
            raise _Refused("it holds graphs or objects of its own, not tensors and operators alone")
        pattern = _NAME if key in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values") else _PLAIN
        for name in value:
            if not (pattern.fullmatch(name) or key == "config"):
                raise _Refused(f"it names something {name[:80]!r}")
        return {name: _checked(item, name if isinstance(name, str) else "") for name, item in value.items()}
    if isinstance(value, list):
        return [_checked(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key in ("in_spec", "out_spec"):
        return json.dumps(_checked_tree(json.loads(value)))
    if key == "nn_module_stack":
        return value
    form = {"expr_str": _SIZE, "name": _NAME, "as_name": _NAME, "forward_arg_names": _NAME}.get(key, _PLAIN)
    form = _PATH if key in _BATCHED and value else form
    if not form.fullmatch(value):
        raise _Refused(f"it has {value[:80]!r} where a {key or 'name'} should be")
    return value


def _checked_tree(spec: Any) -> Any:
    """How arguments and results are nested: tuples, lists and dictionaries, which name no class to import."""
    if isinstance(spec, list):
        return [spec[0], _checked_tree(spec[1])]
    kind, context = spec["type"], spec["context"]
    if kind not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
        raise _Refused(f"its arguments or results are of a class of their own ({str(kind)[:80]})")
    if context is not None and not re.fullmatch(r'null|\[(?:"\w+"(?:, ?"\w+")*)?\]', context):
        raise _Refused("its arguments or results are nested in a way of their own")
    return {"type": kind, "context": context, "children_spec": [_checked_tree(part) for part in spec["children_spec"]]}
