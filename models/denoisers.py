"""Denoisers: noisy images `[B, C, H, W]` → denoised images of the same shape.

All share `forward(x, noise_sd)`, where `noise_sd` is the standard deviation of the noise in x on the [0, 1] pixel
scale: a float or one per image `[B]`. Networks that are not conditioned on it ignore it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer` with its weights and biases at zero. A residual network that ends in it starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class DnCNN(nn.Module):
    """DnCNN (Zhang et al. 2017) as published with denoised smoothing (Salman et al. 2020): predicts the noise.

    Conv+ReLU, `depth - 2` × (Conv, BN, ReLU), Conv; x minus the result. Keys `dncnn.N.*`; with 17 layers of 64 channels
    558,400 parameters on RGB. Two details of the published code differ: the batch-norm momentum is 0.1 as in PyTorch
    (theirs, 0.95, keeps little but the statistics of the last batch), and the layers hold no state that changes what is
    loaded.
    """

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, eps=1e-4)]
            layers += [nn.ReLU(inplace=True)]
        last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        layers.append(last)
        self.dncnn = nn.Sequential(*layers)
        for module in self.dncnn:
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
        zeroed(last)  # starts as the identity

    def forward(self, x: Tensor, noise_sd: float | Tensor | None = None) -> Tensor:
        return x - self.dncnn(x)


class NAFNet(nn.Module):
    """NAFNet (Chen et al. 2022), made fast for small images: it works on pixel-unshuffled input (patches of `unshuffle`
    by `unshuffle` pixels). An additional plane holds the noise level, so that one network serves every sigma.

    `encoder[i]`, `middle` and `decoder[i]` count the blocks per resolution; the width doubles at each. If `attention`
    is False, only the middle blocks, which are the deepest, look at the whole image. The network predicts the residual:
    the result is x plus the last layer, which starts at zero. Sides are padded by reflection to multiples of
    `unshuffle * 2**len(encoder)`, and cropped again.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        encoder: Sequence[int] = (1, 1, 2),
        middle: int = 2,
        decoder: Sequence[int] = (1, 1, 1),
        unshuffle: int = 2,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.unshuffle, self.multiple = unshuffle, unshuffle * 2 ** len(encoder)
        patch = unshuffle**2 * channels
        self.intro = nn.Conv2d(patch + 1, width, 3, padding=1)
        self.encoders, self.downs, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        for blocks in encoder:
            self.encoders.append(nn.Sequential(*(NAFBlock(width, attention) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle = nn.Sequential(*(NAFBlock(width) for _ in range(middle)))
        for blocks in decoder:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(width, attention) for _ in range(blocks))))
        self.outro = zeroed(nn.Conv2d(width, patch, 3, padding=1))

    def forward(self, x: Tensor, noise_sd: float | Tensor | None) -> Tensor:
        if noise_sd is None:
            raise ValueError("a NAFNet is conditioned on the noise level: noise_sd is needed")
        height, width = x.shape[-2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        padded = F.pad(x, pad, mode="reflect") if any(pad) else x
        h = F.pixel_unshuffle(padded, self.unshuffle)
        level = torch.as_tensor(noise_sd, dtype=h.dtype, device=h.device).expand(h.shape[0]).view(-1, 1, 1, 1)
        h = self.intro(torch.cat([h, level.expand(-1, 1, *h.shape[-2:])], dim=1))
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            h = blocks(h)
            skips.append(h)
            h = down(h)
        h = self.middle(h)
        for up, blocks in zip(self.ups, self.decoders, strict=True):
            h = blocks(up(h) + skips.pop())
        residual = F.pixel_shuffle(self.outro(h), self.unshuffle)[..., :height, :width]
        return x + residual


class NAFNet4(NAFNet):
    """NAFNet on patches of 4×4 pixels: more than twice as fast as on 2×2, and as good for equal training time
    (results/benchmarks/denoisers.md).

    A depth-wise convolution, a norm or a gate reads and writes each value for almost no arithmetic, so memory limits
    its speed. On 4×4 patches (FFDNet, Zhang et al. 2018, takes 2×2) the largest maps have a quarter of the pixels and
    1.5 times the channels. Channel attention must see a whole map before the next layer can start, so only the middle
    blocks have it. The width must be at least `16 * channels`, the numbers of a patch, because the last layer computes
    all the noise of a patch from it (48 channels for RGB; with 32 a third of the noise stays).
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 48,
        encoder: Sequence[int] = (1, 1),
        middle: int = 2,
        decoder: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__(channels, width, encoder, middle, decoder, unshuffle=4, attention=False)


class NAFBlock(nn.Module):
    """Two residual halves without an activation function: depth-wise convolution with a gate and channel attention,
    then a gated 1×1 network (Chen et al. 2022, figure 4). The norm is GroupNorm(1): same idea as their LayerNorm2d,
    and a fused kernel."""

    def __init__(self, width: int, attention: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.expand1 = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = nn.Conv2d(width, width, 1) if attention else None
        self.project1 = nn.Conv2d(width, width, 1)
        self.expand2 = nn.Conv2d(width, 2 * width, 1)
        self.project2 = nn.Conv2d(width, width, 1)
        self.scale1 = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.scale2 = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = _gate(self.depthwise(self.expand1(self.norm1(x))))
        if self.attention is not None:
            h = h * self.attention(h.mean(dim=(2, 3), keepdim=True))
        x = x + _scaled(self.project1, self.scale1, h)
        h = _gate(self.expand2(self.norm2(x)))
        return x + _scaled(self.project2, self.scale2, h)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


def _scaled(projection: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """`projection(x) * scale`. The scale is applied to the weights, which are far fewer than the values of x."""
    bias = None if projection.bias is None else projection.bias * scale.view(-1)
    return F.conv2d(x, projection.weight * scale.view(-1, 1, 1, 1), bias)
