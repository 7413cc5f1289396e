"""Weights of PyTorch networks: from the hubs of torchvision and timm, or from a file, without running any code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from exporters import hub as hubs
from exporters.source import Recipe, describe_mismatch
from exporters.torch_build import AUXILIARY
from exporters.weights_file import TRUST, kind_of
from runtime.errors import InvalidWeights, WeightsUnavailable
from runtime.files import sha256

_WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "net_state_dict")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema", "ema_model")
_DEEPEST = 4
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # DataParallel, torch.compile, Lightning modules
_TIMM_FILE = "model.safetensors"
_PLAIN = "save model.state_dict() with torch.save, or as .safetensors, in the environment that the file comes from"
_CODE_IN_IT = f"{_PLAIN}, {TRUST}"


def fill(model: Any, recipe: Recipe) -> str | None:
    """Load the recipe's weights into ``model``; the SHA-256 of their file, None for untrained ones.

    Raises WeightsUnavailable, or InvalidWeights when they do not fit or reading them would run code.
    """
    weights = recipe.weights
    if weights.kind == "none":
        return None
    path = weights.path if weights.path is not None else _fetch(recipe)
    _load(model, _read(path, trust=recipe.trust), path=path, recipe=recipe)
    return sha256(path)


# ---- the hubs


def _fetch(recipe: Recipe) -> Path:
    library, _, name = recipe.builder.partition(":")
    hub = recipe.weights.hub
    if library not in ("torchvision", "timm") or hub is None:
        raise WeightsUnavailable(f"{recipe.builder} has no published weights: use --weights FILE or --weights none")
    with hubs.reaching(f"the {hub} weights of {recipe.builder}"):
        return _fetch_torchvision(name, hub) if library == "torchvision" else _fetch_timm(hub)


def _fetch_torchvision(name: str, hub: str) -> Path:
    """The file in torch's cache. Its name holds the beginning of its SHA-256, torchvision's own convention."""
    import torch
    import torchvision

    url = torchvision.models.get_model_weights(name)[hub].url
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    named = re.search(r"-([0-9a-f]{8,})\.", path.name)
    digest = named.group(1) if named else ""
    if path.exists():
        _check_cached(path, digest)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writes beside it, compares the digest, then renames.
        torch.hub.download_url_to_file(url, str(path), digest or None, progress=False)
    return path


def _fetch_timm(hub: str) -> Path:
    """The file in the hub's cache, a link to what is named by the SHA-256 of its content."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(hub, _TIMM_FILE)
    if isinstance(cached, str):
        _check_cached(Path(cached).resolve(), _linked_digest(Path(cached)))
        return Path(cached)
    hubs.refuse_offline()
    # One question first: hf_hub_download alone tries for minutes to reach a hub that is not there.
    huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(hub, _TIMM_FILE), timeout=hubs.TIMEOUT)
    path = Path(huggingface_hub.hf_hub_download(hub, _TIMM_FILE))
    if not sha256(path).startswith(_linked_digest(path)):  # the hub's own download looks at the size alone
        path.resolve().unlink()
        raise ValueError("the SHA-256 of what arrived is not the hub's")
    return path


def _linked_digest(path: Path) -> str:
    """The SHA-256 that a file in the hub's cache is stored under; "" where links are not supported."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else ""


def _check_cached(path: Path, digest: str) -> None:
    if not sha256(path).startswith(digest):
        raise WeightsUnavailable(f"{path}: damaged in the cache (its SHA-256 is not {digest[:16]}): delete it")


# ---- files


def whole(path: Path, recipe: Recipe) -> Any:
    """The network that a file holds, architecture included: a pickle of a torch.nn.Module that the user trusts.

    Raises InvalidWeights where it holds none, or the recipe does not trust it.
    """
    content = _read(path, trust=recipe.trust)
    found = content if _is_module(content) else _inside(content, path)
    if not _is_module(found):
        raise InvalidWeights(f"{path}: holds weights alone, no network: give the network's name or FILE.py:FUNCTION")
    return found


def refuse_script(path: Path) -> InvalidWeights:
    """The refusal of a TorchScript archive."""
    return InvalidWeights(f"{path}: refused, a TorchScript archive holds code: {_CODE_IN_IT}")


def _read(path: Path, *, trust: bool) -> Any:
    """What a .safetensors file or a torch checkpoint holds."""
    import pickle

    import torch

    kind = kind_of(path)
    if kind in ("keras", "hdf5"):
        raise InvalidWeights(f"{path}: a Keras file: use --source keras")
    if kind == "torchscript":
        raise refuse_script(path)
    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        with path.open("rb") as file:  # by its content: torch goes by the name of a path
            return torch.load(file, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        if trust:
            raise InvalidWeights(f"{path}: not a readable checkpoint ({hubs.first_line(error)})") from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it holds {named.group(1)}, and reading that" if named else "it is no plain state dict: reading it"
        raise InvalidWeights(f"{path}: refused, {what} could run code: {_CODE_IN_IT}") from error
    except (AttributeError, ImportError) as error:
        raise InvalidWeights(
            f"{path}: was saved with code that is not here ({hubs.first_line(error)}): {_PLAIN}"
        ) from error
    except Exception as error:
        raise InvalidWeights(f"{path}: not a readable checkpoint ({hubs.first_line(error)})") from error


def _inside(content: Any, path: Path) -> Any:
    """The state dict, or with trust the network, inside the wrappings that training scripts use.

    Raises InvalidWeights where there is none, or two that could be meant.
    """
    for _ in range(_DEEPEST):  # a dictionary can hold itself
        if _is_module(content) or not isinstance(content, dict) or _is_state(content):
            break
        held = {key: value for key, value in content.items() if isinstance(value, dict) or _is_module(value)}
        plain = [key for key in _WRAPPINGS if key in held]
        averaged = [key for key in _AVERAGED if key in held]  # weights averaged over training: only where alone
        if len(plain or averaged) > 1:
            names = ", ".join(plain or averaged)
            raise InvalidWeights(f"{path}: holds several networks ({names}): save one of them alone")
        if not plain and not averaged:
            break
        content = held[(plain or averaged)[0]]
    if not _is_module(content) and not _is_state(content):
        raise InvalidWeights(f"{path}: holds no state dict: save model.state_dict()")
    return content


def _is_state(content: Any) -> bool:
    import torch

    return isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )


def _is_module(content: Any) -> bool:
    import torch

    return isinstance(content, torch.nn.Module)


def _state(content: Any, path: Path, names: set[str]) -> dict[str, Any]:
    """Weights by the names that the network has for them: without what training puts before or beside them."""
    found = _inside(content, path)
    state = dict(found.state_dict()) if _is_module(found) else dict(found)
    for _ in _PREFIXES:
        prefix = next((each for each in _PREFIXES if state and all(key.startswith(each) for key in state)), None)
        if prefix is None or names & set(state):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    for prefix in _PREFIXES:  # the network of a Lightning module among the weights of its loss or metrics
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not names & set(state) and names <= set(part):
            return part
    return state


def _load(model: Any, content: Any, *, path: Path, recipe: Recipe) -> None:
    labels = f" with {len(recipe.labels.names)} labels" if recipe.labels else ""
    fits = f"do not fit {recipe.name}{labels}"
    # Counters of training steps: absent from old checkpoints and without effect on the output.
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    state = _state(content, path, set(own))
    state = {key: value for key, value in state.items() if key in own or not key.endswith("num_batches_tracked")}
    unused = AUXILIARY.get(recipe.builder.removeprefix("torchvision:"), ())
    state = {key: value for key, value in state.items() if key in own or not key.startswith(unused)}
    mismatch = describe_mismatch(
        {key: tuple(value.shape) for key, value in own.items()},
        {key: tuple(value.shape) for key, value in state.items()},
    )
    if mismatch:
        hint = "; Keras' names need --source keras" if any("/" in key for key in state) else ""
        raise InvalidWeights(f"{path.name}: the weights {fits}: {mismatch}{hint}")
    # torch would turn integers of a quantized network into floats without a word, scales lost.
    odd = [key for key, value in state.items() if value.is_floating_point() != own[key].is_floating_point()]
    if odd:
        raise InvalidWeights(f"{path.name}: {odd[0]} is {state[odd[0]].dtype}: give the weights before quantization")
    model.load_state_dict(state, strict=False)
