"""torchvision and timm by their own configuration. Only ``torch`` and its neighbours ``torch_*`` import these."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from exporters.libraries import LibraryModel
from runtime.errors import InvalidInput, MissingDependency, UnknownName
from runtime.metadata import Labels, Preprocess

_ONE_SIZE = ("vision_transformer", "maxvit")
"""Modules of torchvision whose networks hold weights or windows for each place of the picture."""

_EMBEDDINGS = ("_clip", "clip_", "_mci", "mclip", "_pe_core", "vitamin")
"""In names of timm: trained to match pictures with texts. What they give are embeddings, not classes."""

_FINE_TUNED = ("in1k", "in12k", "in21k", "in22k")
"""In names of such weights that were given a classifier afterwards."""

_CLASSES_OF_IMAGENET = 1000


# ---- torchvision


def check_torchvision(name: str) -> None:
    """Raises UnknownName with the nearest names, InvalidInput for a network that is no classifier of pictures."""
    models = _import("torchvision").models
    known = models.list_models(module=models)
    if name in known:
        return
    if name in models.list_models():
        builder = models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
        raise InvalidInput(f"torchvision:{name} ({builder.partition('.')[0]}) is no float classifier of pictures")
    raise UnknownName(f"torchvision has no model {name!r}{_nearest(name, known)}")


def torchvision_preset(name: str, hub: str) -> Any:
    """torchvision's own transform for the weights called ``hub``, a new one that may be changed. Raises UnknownName."""
    return _torchvision_weights(name, hub).transforms()


def describe_torchvision(name: str, hub: str | None) -> LibraryModel:
    """The network called ``name`` with the weights called ``hub``, or with torchvision's default ones."""
    check_torchvision(name)
    models = _import("torchvision").models
    weights = _torchvision_weights(name, hub or models.get_model_weights(name).DEFAULT.name)
    preset = weights.transforms()
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    module = models.get_model_builder(name).__module__.rpartition(".")[2]
    return LibraryModel(
        framework="torch",
        preprocess=_rule((crop, crop), resize, preset.interpolation.value, preset.mean, preset.std),
        classes=_CLASSES_OF_IMAGENET,
        labels=None,
        label_set="imagenet",
        hub=weights.name,
        license=weights.meta.get("license", "BSD-3-Clause"),
        paper=None,
        fixed_size=module in _ONE_SIZE,
    )


def _torchvision_weights(name: str, hub: str) -> Any:
    known = _import("torchvision").models.get_model_weights(name)
    if hub not in known.__members__:
        raise UnknownName(f"torchvision:{name} has no weights {hub!r}: it has {', '.join(known.__members__)}")
    return known[hub]


# ---- timm


def check_timm(name: str) -> None:
    """Raises UnknownName, with the nearest names, for what timm cannot build by itself."""
    timm = _import("timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or ":" in name or "/" in name:
        raise UnknownName(f"timm has no model {name!r}{_nearest(architecture, timm.list_models())}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        has = ", ".join(tags[:5]) or "none"
        raise UnknownName(f"timm:{architecture} has no weights {tag!r}: it has {has}") from error


def timm_config(name: str, *, otherwise: str | None = None) -> Any:
    """timm's PretrainedCfg for "NAME.TAG", or for a name alone that of its default weights.

    otherwise: the name to go by where ``name`` is none of timm's: a hub may hold weights under another.
    Raises UnknownName.
    """
    try:
        check_timm(name)
    except UnknownName:
        if otherwise is None:
            raise
        return timm_config(otherwise)
    return _import("timm").get_pretrained_cfg(name, allow_unregistered=False)


def describe_timm(name: str, hub: str | None) -> LibraryModel:
    """The network called ``name``, "ARCHITECTURE" or "ARCHITECTURE.TAG"."""
    config = timm_config(hub.partition("/")[2] if hub else name)
    full = f"{config.architecture}.{config.tag}" if config.tag else name
    embeds = any(part in full for part in _EMBEDDINGS) and not any(part in full for part in _FINE_TUNED)
    if not config.num_classes or embeds:
        raise InvalidInput(f"timm:{full} has no classifier: it gives features, not scores of classes")
    channels, height, width = config.input_size
    resize: int | tuple[int, int] = (int(height / config.crop_pct), int(width / config.crop_pct))
    if config.crop_mode == "center" and height == width:
        resize = int(height / config.crop_pct)
    elif config.crop_mode != "squash":
        raise InvalidInput(f"timm:{full}: its preprocessing ({config.crop_mode}, {height}x{width}) has no form here")
    if config.crop_pct > 1:
        raise InvalidInput(f"timm:{full}: its preprocessing pads pictures (crop_pct {config.crop_pct})")
    labels = _timm_labels(config.num_classes)
    return LibraryModel(
        framework="torch",
        preprocess=_rule((height, width), resize, config.interpolation, config.mean, config.std, channels=channels),
        classes=config.num_classes,
        labels=labels,
        label_set="imagenet" if config.num_classes == _CLASSES_OF_IMAGENET else None,
        hub=config.hf_hub_id,
        license=None if config.license == "unknown" else config.license,
        paper=_paper(config.paper_ids),
        fixed_size=bool(config.fixed_input_size),
    )


@lru_cache
def _timm_labels(classes: int) -> Labels | None:
    """The larger sets of ImageNet, by their number of classes as timm tells them apart."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None or classes == _CLASSES_OF_IMAGENET:
        return None
    info = ImageNetInfo(subset)
    return Labels(tuple(info.label_descriptions()), tuple(info.label_names()))


def _paper(ids: Any) -> str | None:
    return ids if ids is None or isinstance(ids, str) else ", ".join(ids)


# ---- both


def _rule(
    size: tuple[int, int],
    resize: int | tuple[int, int],
    interpolation: str,
    mean: Any,
    std: Any,
    *,
    channels: int = 3,
) -> Preprocess:
    """Mean and std of pixels scaled to 0..1, as both libraries give them."""
    return Preprocess(
        size=size,
        resize=resize,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        color="L" if channels == 1 else "RGB",
        interpolation=interpolation,  # type: ignore[arg-type]
        scale=1 / 255,
    )


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.6) or [each for each in known if name in each][:3]
    return f": did you mean {', '.join(near)}?" if near else ""


def _import(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingDependency(f'{library} cannot be imported ({error}): pip install "edgezoo[torch]"') from error
