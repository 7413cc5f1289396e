"""Whole Keras models from their files: .keras and .h5, of Keras 3 by Keras itself, of Keras 1 and 2 rebuilt here."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

from exporters.hub import first_line
from exporters.keras_config import check_code, check_model
from exporters.keras_legacy import build
from exporters.keras_legacy_weights import assign, assign_in_order
from exporters.weights_file import kind_of
from runtime.errors import InvalidWeights

Kind = Literal["keras", "hdf5"]


def brings_its_own_network(path: Path) -> bool:
    """Whether the file or folder holds a whole model, architecture included, and not weights alone.

    Raises WeightsUnavailable or InvalidWeights for a file that is none.
    """
    kind = kind_of(path)
    return kind in ("keras", "savedmodel") or (kind == "hdf5" and _holds_model(path))


def load_whole(path: Path, kind: Kind, *, trust: bool) -> Any:
    """A saved model, architecture included, whose configuration has been checked unless the user trusts it.

    Raises InvalidWeights; errors of damaged files pass through.
    """
    config, version = _read(path, kind)
    if trust:
        check_code(config, where=str(path))
    else:
        check_model(config, where=str(path))
    if version >= 3:
        return _load(path, trust=trust)
    model, layers = build(config, trust=trust, where=str(path))
    import h5py

    if kind == "hdf5":
        with h5py.File(path, "r") as file:
            assign(layers, file["model_weights"], where=str(path))
        return model
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member, h5py.File(member, "r") as file:
        assign_in_order(layers, file, where=str(path))
    return model


def _read(path: Path, kind: Kind) -> tuple[Any, int]:
    """The model's configuration, parsed as JSON, and the major version of the Keras that wrote it."""
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            others = sorted(set(archive.namelist()) - _MEMBERS)
            if others:  # Keras would unpack them
                raise InvalidWeights(f"{path}: refused, it holds {others[0]}: an image classifier has no such assets")
            text, metadata = archive.read("config.json"), json.loads(archive.read("metadata.json"))
        version = metadata.get("keras_version")
    else:
        import h5py

        with h5py.File(path, "r") as file:
            text, version = file.attrs["model_config"], file.attrs.get("keras_version", "1")
            backend = _text(file.attrs.get("backend", "tensorflow"))
        if backend == "theano":
            raise InvalidWeights(
                f"{path}: written by Keras on Theano, whose convolutions are mirrored: convert it first"
            )
    config = json.loads(text)
    if isinstance(config, dict):
        config.pop("compile_config", None)  # the losses of training, which are not built for an export
    major = _text(version).partition(".")[0]
    return config, int(major) if major.isdigit() else 3


_MEMBERS = frozenset(("metadata.json", "config.json", "model.weights.h5", "model.weights.npz"))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _holds_model(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "model_config" in file.attrs
    except OSError as error:
        raise InvalidWeights(f"{path}: damaged or cut short ({first_line(error)})") from error


def _load(path: Path, *, trust: bool) -> Any:
    import keras

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = keras.models.load_model(path, compile=False, safe_mode=not trust)
    # Where an old file lacks the layers inside a container, Keras leaves them untrained and only warns.
    skipped = [warning.message for warning in told if str(warning.message).startswith("Skipping")]
    if skipped:
        raise InvalidWeights(f"{path}: incomplete: {first_line(Warning(skipped[0]))}")
    return model
