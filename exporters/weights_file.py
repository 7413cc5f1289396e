"""What kind of weights file lies there, told by its bytes: a wrong one is refused by name, not by a stack trace."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from runtime.errors import InvalidWeights, WeightsUnavailable

Kind = Literal["torch", "torchscript", "pt2", "safetensors", "keras", "hdf5", "savedmodel"]

TRUST = "or, if you trust the file, add --trust"
"""How every refusal of a file that could run code ends."""


def kind_of(path: Path) -> Kind:
    """The format of a weights file. Nothing of it is loaded.

    Raises WeightsUnavailable when there is no such file, InvalidWeights when it is none or cut short.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel"
        raise WeightsUnavailable(
            f"{path}: is a folder without saved_model.pb: give the weights file itself, or a SavedModel folder"
        )
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise WeightsUnavailable(f"{path}: no such weights file") from error
    except OSError as error:
        raise WeightsUnavailable(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise InvalidWeights(f"{path}: is empty: copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head[8:9] == b"{":  # behind the length of the header
        return "safetensors"
    if head[0] == 0x80 and head[1:2] <= b"\x05":  # a pickle: torch's format before 1.6
        return "torch"
    raise InvalidWeights(f"{path}: not a weights file: give .pth, .pt, .pt2, .safetensors, .keras, .h5 or .weights.h5")


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InvalidWeights(f"{path}: damaged or cut short ({error}): copy or download it again") from error
    if "config.json" in names:
        return "keras"
    # torch.export.save; the second is its layout before PyTorch 2.8.
    if any(
        name.endswith(("/archive_format", "/models/model.json")) or name == "serialized_exported_program.json"
        for name in names
    ):
        return "pt2"
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise InvalidWeights(f"{path}: a zip archive, but no weights file of PyTorch or Keras")
