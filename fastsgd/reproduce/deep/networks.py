"""Owns the networks of the deep rows: a small residual network and a small dense one, with their layers' names."""

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions with batch norm and a shortcut; its output is what its last ReLU gives."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out))
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(c_in, c_out, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.shortcut(x) + self.body(x))


class Residual(nn.Module):
    """A residual network for images [B, channels, h, w]: `width` channels at first, four times that at the end."""

    layers = {"relu": "stem", "block1": "block 1", "block2": "block 2",  # noqa: RUF012
              "block3": "block 3", "pool": "pooled"}

    def __init__(self, width: int, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.block1 = Block(width, width, 1)
        self.block2 = Block(width, 2 * width, 2)
        self.block3 = Block(2 * width, 4 * width, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        return self.head(self.pool(self.block3(self.block2(self.block1(x)))).flatten(1))


class Growth(nn.Module):
    """Batch norm, ReLU and a convolution whose output is put beside its input."""

    def __init__(self, c_in, growth):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, growth, 3, 1, 1, bias=False))

    def forward(self, x):
        return torch.cat([x, self.body(x)], dim=1)


class Dense(nn.Module):
    """A dense network: three blocks of `depth` layers that each add `width` channels, halved in between."""

    layers = {"relu1": "transition 1", "relu2": "transition 2", "relu3": "last", "pool": "pooled"}  # noqa: RUF012

    def __init__(self, width, channels=1, classes=10, depth=3):
        super().__init__()
        self.conv, c = nn.Conv2d(channels, 2 * width, 3, 1, 1, bias=False), 2 * width
        for k in (1, 2, 3):
            self.add_module(f"block{k}", nn.Sequential(*(Growth(c + i * width, width) for i in range(depth))))
            c += depth * width
            self.add_module(f"norm{k}", nn.BatchNorm2d(c))
            self.add_module(f"relu{k}", nn.ReLU())
            if k < 3:
                self.add_module(f"halve{k}", nn.Sequential(nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)))
                c //= 2
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(c, classes)

    def forward(self, x):
        x = self.conv(x)
        x = self.halve1(self.relu1(self.norm1(self.block1(x))))
        x = self.halve2(self.relu2(self.norm2(self.block2(x))))
        return self.head(self.pool(self.relu3(self.norm3(self.block3(x)))).flatten(1))
