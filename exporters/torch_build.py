"""PyTorch networks without their weights: from torchvision, timm, or a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from exporters.source import Recipe, import_builder
from exporters.torch_library import check_timm, check_torchvision
from exporters.user_code import accepted
from runtime.errors import InvalidInput

AUXILIARY: dict[str, tuple[str, ...]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""torchvision's networks with classifiers that help training alone, and how the names of their weights begin."""


def build(recipe: Recipe) -> Any:
    """The torch.nn.Module that the recipe's builder gives, for as many classes as it has labels, on the CPU.

    Raises UnknownName for a builder nobody knows, InvalidInput for one that fails or gives no network.
    """
    library, _, name = recipe.builder.partition(":")
    classes = {} if recipe.classes is None else {"num_classes": recipe.classes}
    if library == "torchvision":
        import torchvision

        check_torchvision(name)
        # As torchvision itself builds these two for its weights: they scale their input once more. Without the
        # weights' initialisation, which takes a minute and is overwritten.
        special = {"aux_logits": False, "transform_input": True, "init_weights": False} if name in AUXILIARY else {}
        return torchvision.models.get_model(name, weights=None, **special, **classes)
    if library == "timm":
        import timm

        check_timm(name)
        channels = recipe.preprocess.channels if recipe.preprocess else (recipe.input_shape or (3,))[0]
        options = classes if channels == 3 else {**classes, "in_chans": channels}
        return timm.create_model(name, pretrained=False, **options)
    factory = import_builder(recipe.builder)
    return as_module(_made(factory, recipe.classes), what=f"builder {recipe.builder!r} returns")


def _made(factory: Callable[..., Any], classes: int | None) -> Any:
    import torch

    if isinstance(inspect.unwrap(factory), torch.nn.Module):
        raise InvalidInput("the builder is a network, not a function that makes one: write def build(): return it")
    return factory(**accepted(factory, {}, classes=classes))


def as_module(value: Any, *, what: str) -> Any:
    """A network of floating-point weights on the CPU, out of the wrappings that training puts around it.

    Raises InvalidInput where ``value`` is none; ``what`` begins the message.
    """
    import torch

    for wrapping in ("_orig_mod", "module"):  # torch.compile; torch.nn.DataParallel
        inner = getattr(value, wrapping, None)
        if type(value).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel") and inner is not None:
            value = inner
    if isinstance(value, torch.jit.ScriptModule):
        raise InvalidInput(f"{what} TorchScript: let it return the module before torch.jit")
    if isinstance(value, torch.nn.Module):
        return value.to(device="cpu", dtype=torch.float32)
    if any(base.__module__.partition(".")[0] in ("keras", "tf_keras") for base in type(value).__mro__):
        raise InvalidInput(f"{what} a keras model: use --source keras")
    raise InvalidInput(f"{what} {type(value).__name__}, not a torch.nn.Module")
