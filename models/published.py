"""The architectures of the published checkpoints (microsoft/denoised-smoothing, damon-demon/Black-Box-Defense) that are
not ours already, with the layers and the names of the weights that their files have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.normalize import Normalize, per_channel

CIFAR_MEAN, CIFAR_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


class MemNet(nn.Module):
    """MemNet (Tai et al. 2017) as published with denoised smoothing: three memory blocks of six residual blocks, 64
    channels; 1,436,678 parameters on RGB. Adds what it finds to the image; the noise level is not used."""

    def __init__(self, channels: int = 3, width: int = 64, memory_blocks: int = 3, residual_blocks: int = 6) -> None:
        super().__init__()
        self.feature_extractor = _bn_relu_conv(channels, width)
        self.reconstructor = _bn_relu_conv(width, channels)
        self.dense_memory = nn.ModuleList(
            _MemoryBlock(width, residual_blocks, earlier + 1) for earlier in range(memory_blocks)
        )

    def forward(self, x: Tensor, noise_sd: float | Tensor | None = None) -> Tensor:
        memories = [self.feature_extractor(x)]
        for block in self.dense_memory:
            memories.append(block(memories))
        return x + self.reconstructor(memories[-1])


class _MemoryBlock(nn.Module):
    """Residual blocks one after another; a 1×1 gate chooses from all their results and all earlier memories."""

    def __init__(self, width: int, residual_blocks: int, memories: int) -> None:
        super().__init__()
        self.recursive_unit = nn.ModuleList(_ResidualBlock(width) for _ in range(residual_blocks))
        self.gate_unit = _bn_relu_conv((residual_blocks + memories) * width, width, kernel=1)

    def forward(self, memories: list[Tensor]) -> Tensor:
        x, recent = memories[-1], []
        for unit in self.recursive_unit:
            x = unit(x)
            recent.append(x)
        return self.gate_unit(torch.cat(recent + memories, dim=1))


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.relu_conv1, self.relu_conv2 = _bn_relu_conv(width, width), _bn_relu_conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.relu_conv2(self.relu_conv1(x))


def _bn_relu_conv(channels: int, width: int, kernel: int = 3) -> nn.Sequential:
    parts = {
        "bn": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(),
        "conv": nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
    }
    unit = nn.Sequential()
    for name, part in parts.items():
        unit.add_module(name, part)
    return unit


# ---- encoder and decoder of ZO-AE-DS on CIFAR-10 ---------------------------------------------------------------------

# (channels in, out, kernel, stride, padding) of each layer: 32×32×3 → 8×8 → 4×4 → 2×2 → 192 numbers
_AE_192_24 = [(3, 24, 4, 4, 0), (24, 48, 3, 3, 2), (48, 96, 4, 2, 1), (96, 192, 2, 2, 0)]


class CifarEncoder(nn.Module):
    """`cifar_encoder_192_24`: `[B, 3, 32, 32]` → `[B, 192, 1, 1]`; 159,336 parameters, keys `encoder.N.*`."""

    latent_shape = (192, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        for narrow, wide, kernel, stride, padding in _AE_192_24:
            self.encoder.extend([nn.Conv2d(narrow, wide, kernel, stride, padding), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class CifarDecoder(nn.Module):
    """`cifar_decoder_192_24`, the encoder mirrored, a sigmoid at the end; 159,147 parameters, keys `decoder.N.*`."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential()
        for narrow, wide, kernel, stride, padding in reversed(_AE_192_24):
            self.decoder.extend([nn.ConvTranspose2d(wide, narrow, kernel, stride, padding), nn.ReLU()])
        self.decoder[-1] = nn.Sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z)


# ---- the CIFAR-10 classifier -----------------------------------------------------------------------------------------


class CifarResNet(nn.Module):
    """ResNet for 32 px (He et al. 2016, section 4.2) with 1×1 convolutions on its shortcuts: depth 20 has 272,474
    parameters, depth 110 has 1,730,714."""

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks, width = (depth - 2) // 6, 16
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        for layer, wide in enumerate((16, 32, 64), 1):
            stage = [_BasicBlock(width, wide, 1 if layer == 1 else 2)]
            stage += [_BasicBlock(wide, wide, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{layer}", nn.Sequential(*stage))
            width = wide
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


class _BasicBlock(nn.Module):
    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide)
        self.downsample = None
        if stride != 1 or narrow != wide:
            self.downsample = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def cifar_classifier(
    depth: int,
    num_classes: int = 10,
    channels: int = 3,
    image_size: int = 32,
    mean: Sequence[float] = CIFAR_MEAN,
    std: Sequence[float] = CIFAR_STD,
) -> nn.Sequential:
    """`Sequential(Normalize, net)`, by default with CIFAR-10's mean and standard deviation; of any image size."""
    if channels != 3:
        raise ValueError(f"the published CIFAR-10 classifiers take 3 channels, not {channels}")
    return nn.Sequential(Normalize(per_channel(mean, 3), per_channel(std, 3)), CifarResNet(depth, num_classes))


# Published name → our architecture and its arguments, and what the files do not say.
RGB: dict[str, Any] = {"channels": 3}
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "cifar_dncnn": ("dncnn", RGB, 32),
    "imagenet_dncnn": ("dncnn", RGB, 224),
    "cifar_dncnn_wide": ("dncnn", RGB | {"width": 128}, 32),
    "memnet": ("memnet", RGB, 32),
    "imagenet_memnet": ("memnet", RGB, 224),
    "cifar_encoder_192_24": ("cifar_encoder_192_24", {}, 32),
    "cifar_decoder_192_24": ("cifar_decoder_192_24", {}, 32),
    "cifar_resnet20": ("cifar_resnet", RGB | {"depth": 20, "num_classes": 10}, 32),
    "cifar_resnet110": ("cifar_resnet", RGB | {"depth": 110, "num_classes": 10}, 32),
}


def as_ours(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A published checkpoint, `{epoch, arch, state_dict, optimizer}`, with what ours hold besides: `arch_kwargs`,
    `image_size`, `dataset`. `module.` (nn.DataParallel) is dropped from the names of weights, and a classifier's
    normalisation, which its files leave out, is added. Anything else is returned as it is."""
    if "arch_kwargs" in checkpoint or checkpoint.get("arch") not in PUBLISHED or "state_dict" not in checkpoint:
        return checkpoint
    arch, kwargs, image_size = PUBLISHED[checkpoint["arch"]]
    state = {name.replace("module.", ""): value for name, value in checkpoint["state_dict"].items()}
    if arch == "cifar_resnet":
        state = Normalize(CIFAR_MEAN, CIFAR_STD).state_dict(prefix="0.") | state
    known = {"arch": arch, "arch_kwargs": kwargs, "image_size": image_size, "dataset": "CIFAR-10"}
    return {**checkpoint, **known, "state_dict": state}
