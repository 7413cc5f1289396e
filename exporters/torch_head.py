"""Where a PyTorch network ends: one row of logits per picture, or a clear no. Its features are found here too.

Parity, int8 and gradients are measured on logits, and the runtime takes the softmax or sigmoid itself. So one at
the end comes off, and that it came off exactly is checked with numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from exporters.hub import first_line
from runtime.errors import InvalidInput, UserError

Ending = Literal["softmax", "log_softmax", "sigmoid"]

ENDINGS: dict[str, Ending] = {
    "softmax": "softmax", "_softmax": "softmax", "log_softmax": "log_softmax", "_log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
}  # fmt: skip
"""aten operators that turn logits into something else, in place or not."""

_MODULES = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}
_VIEWS = frozenset("view _unsafe_view reshape flatten squeeze unsqueeze alias detach clone contiguous _to_copy".split())


@dataclass(frozen=True, slots=True)
class Network:
    """A torch network that answers with logits.

    model: torch.nn.Module, (N, C, H, W) -> (N, outputs).
    features: (N, C, H, W) -> (N, dimensions), what its last layer with weights takes in.
    ending: what stood behind the logits and was taken off.
    layers: names of its modules, or of those it had before it became a graph.
    batch: pictures per run it was frozen to, None for any number.
    prefix: what is before the names of the user's own modules.
    """

    model: Any
    features: Callable[[Any], Any]
    outputs: int
    ending: Ending | None
    layers: frozenset[str]
    batch: int | None = None
    prefix: str = ""


def as_network(model: Any, example: Any, *, where: str) -> Network:
    """A torch.nn.Module in evaluation mode as a network of logits. example: (2, C, H, W) float32.

    Raises InvalidInput when it does not run on the example, does not give one row of scores per picture, or ends
    in what is not logits and cannot be undone.
    """
    import torch

    seen = _observe(model, example, where)
    check_scores(seen.scores, example, where)
    if seen.nested:
        model = _picking(model)
    ending = seen.ending
    if ending is None:
        refuse_probabilities(seen.scores, where)
    elif seen.last is not None:
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is seen.last:
                model.set_submodule(name, torch.nn.Identity())
        check_undone(seen.scores, _run(model, example, where), ending, where)
    elif ending == "log_softmax":
        ending = None  # as good as logits: its softmax is theirs
    else:
        raise InvalidInput(f"{where}: ends in a {ending} inside its forward: let it return what goes into that")
    return Network(
        model,
        lambda batch: _features(model, seen.layer, batch, where),
        int(seen.scores.shape[1]),
        ending,
        frozenset(name for name, _ in model.named_modules()),
        prefix="network." if seen.nested else "",
    )


def pick(value: Any, is_tensor: Callable[[Any], bool], where: str) -> Any:
    """The scores among what a network returns: the only tensor, or the one named "logits" or "out"."""
    if is_tensor(value):
        return value
    named = _tensors(value, is_tensor)
    chosen = [named[name] for name in ("logits", "out") if name in named][:1] or list(named.values())
    if len(chosen) != 1:
        names = f" ({', '.join(list(named)[:5])})" if named else ""
        raise InvalidInput(f"{where}: gives {len(named)} tensors{names}: let it return the logits alone")
    return chosen[0]


def check_scores(scores: Any, example: Any, where: str) -> None:
    """Raises InvalidInput unless ``scores`` is (N, outputs) in floating point for an example of N pictures."""
    if scores.ndim != 2 or len(scores) != len(example) or not scores.is_floating_point():
        raise InvalidInput(
            f"{where}: gives {list(scores.shape)} for {len(example)} pictures, not one row of scores per picture: "
            "only classifiers can be exported, and they return (N, classes)"
        )


def refuse_probabilities(scores: Any, where: str) -> None:
    """Raises InvalidInput where rows are not negative and sum to one, by no operator that could be taken off."""
    if scores.shape[1] > 1 and bool((scores >= 0).all()) and bool(((scores.sum(dim=1) - 1).abs() < 1e-5).all()):
        raise InvalidInput(f"{where}: gives probabilities, and how it makes them cannot be told: let it return logits")


def check_undone(before: Any, after: Any, ending: Ending, where: str) -> None:
    """Raises InvalidInput unless ``before`` is what ``ending`` makes of ``after`` over the classes."""
    import torch

    again = torch.sigmoid(after) if ending == "sigmoid" else getattr(torch, ending)(after, dim=1)
    if before.shape != again.shape or not torch.allclose(before, again, rtol=1e-5, atol=1e-6, equal_nan=True):
        raise InvalidInput(f"{where}: taking off its {ending} changes its answers: let it return logits")


def averaged(value: Any, *, channels_last: bool, where: str) -> Any:
    """(N, D) as it is, a map of (N, C, H, W) or (N, H, W, C) averaged over H and W. Raises InvalidInput for others."""
    if value.ndim == 4:
        return value.mean(dim=(1, 2) if channels_last else (2, 3))
    if value.ndim != 2:
        raise InvalidInput(f"{where}: its last layer takes {list(value.shape)}: no one row of features per picture")
    return value


# ---- by observation


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of one run.

    nested: whether the scores were among other things. ending: what made them of logits; last: the module of
    torch's own that did. layer: the last leaf module with a matrix of weights.
    """

    scores: Any
    nested: bool
    ending: Ending | None
    last: Any
    layer: Any


def _observe(model: Any, example: Any, where: str) -> _Seen:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    made: dict[int, str] = {}  # an id may be taken again, by what was made later

    class Operators(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            name = function.overloadpacket.__name__
            if isinstance(result, torch.Tensor):
                made[id(result)] = made.get(id(args[0]), "") if name in _VIEWS else name
            return result

    ran: list[tuple[Any, Any]] = []
    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [leaf.register_forward_hook(lambda leaf, _, output: ran.append((leaf, id(output)))) for leaf in leaves]
    try:
        with torch.inference_mode(), Operators():
            given = _run(model, example, where)
            scores = pick(given, _is_tensor, where)
        last = ran[-1][0] if ran and ran[-1][1] == id(scores) and ran[-1][0] is not model else None
        ending = ENDINGS.get(made.get(id(scores), "").rstrip("_"))
    finally:
        for hook in hooks:
            hook.remove()
    if ending is None or type(last).__name__ != _MODULES[ending]:
        last = None  # or a module of the user's own that ends in a softmax
    elif sum(leaf is last for leaf, _ in ran) > 1:
        raise InvalidInput(f"{where}: its last {type(last).__name__} is used elsewhere too: leave it out at the end")
    layers = [leaf for leaf, _ in ran if any(weight.ndim > 1 for weight in leaf.parameters())]
    return _Seen(scores, given is not scores, ending, last, layers[-1] if layers else None)


def _run(model: Any, example: Any, where: str) -> Any:
    import torch

    try:
        with torch.inference_mode():
            return model(example)
    except UserError:
        raise
    except Exception as error:
        shape = "x".join(map(str, example.shape))
        raise InvalidInput(f"{where}: does not run on an input of {shape} ({first_line(error)})") from error


def _features(model: Any, layer: Any, batch: Any, where: str) -> Any:
    import torch

    if layer is None:
        raise InvalidInput(f"{where}: has no layer with weights: no features")
    taken: list[Any] = []

    def hook(_: Any, args: Any, kwargs: Any) -> None:
        taken.append(args[0] if args else next(iter(kwargs.values())))

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.inference_mode():
            model(batch)
    finally:
        handle.remove()
    return averaged(taken[-1], channels_last=isinstance(layer, torch.nn.Linear), where=where)


def _picking(model: Any) -> Any:
    import torch

    class Scores(torch.nn.Module):  # type: ignore[misc]
        """The network with one tensor as its answer."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, batch: Any) -> Any:
            return pick(self.network(batch), _is_tensor, "")

    return Scores().eval()


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensors(value: Any, is_tensor: Callable[[Any], bool], name: str = "") -> dict[str, Any]:
    """Every tensor in nested tuples, lists, dictionaries and dataclasses, by its place."""
    if is_tensor(value):
        return {name: value}
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
    elif is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", range(len(value)))
        parts = {str(key): part for key, part in zip(names, value, strict=True)}
    else:
        return {}
    found: dict[str, Any] = {}
    for key, part in parts.items():
        found |= _tensors(part, is_tensor, f"{name}.{key}" if name else key)
    return found
