"""ResNet-20 for CIFAR-10, as a user would bring it: ``zoo export benchmarks/resnet20.py:resnet20 --weights FILE``.

He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2, with parameter-free shortcuts (option A).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions beside a shortcut that halves the picture and pads the channels where the width grows."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, height, width) to (n, outputs, height / stride, width / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.added:
            half = self.added // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return F.relu(out + x)


class ResNet(nn.Module):
    """Three stages of blocks, 16, 32 and 64 channels wide."""

    def __init__(self, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for number in (1, 2, 3):
            before, width = widths[number - 1], widths[number]
            first = Block(before, width, 1 if number == 1 else 2)
            stage = nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))
            self.add_module(f"layer{number}", stage)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 32, 32) to (n, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for number in (1, 2, 3):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(x.mean(dim=(2, 3)))


def resnet20(num_classes: int = 10) -> nn.Module:
    """20 layers with weights, 0.27 million parameters."""
    return ResNet(3, num_classes)
