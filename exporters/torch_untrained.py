"""Untrained PyTorch networks that answer as trained ones do: each layer does something, and pictures matter.

Libraries begin with biases of 0 and normalisations that change nothing. Such a network exports to another graph than
a trained one, for what does nothing is folded away; its activations explode or fade with depth, and a comparison of
its answers shows little. So its normalisations get the scale of what reaches them, as training would give them.
Their means are left small: centred layers, one behind the other, turn rounding errors into noise.
"""

from __future__ import annotations

from typing import Any

from exporters.source import GAIN, LEAST_POWER, UNSETTLED


def enliven(model: Any, pictures: Any, seed: int) -> None:
    """Change ``model``, which is in evaluation mode, in place. pictures: a tensor of its input, a few suffice."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(UNSETTLED * torch.rand(tensor.shape, generator=generator))
        hooks = [
            module.register_forward_pre_hook(_scale)
            for module in model.modules()
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_var is not None
        ]
        if hooks:
            model(pictures)
    for hook in hooks:
        hook.remove()


def _scale(module: Any, inputs: tuple[Any, ...]) -> None:
    """The power of what comes in, per channel, becomes the variance; the mean keeps its size relative to it."""
    given = inputs[0]
    power = given.square().mean(dim=[axis for axis in range(given.ndim) if axis != 1])
    power = power.clamp_min(LEAST_POWER * power.mean())
    module.running_var.copy_(power / GAIN**2)
    module.running_mean.mul_(power.sqrt())
