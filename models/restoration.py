"""DRUNet (Zhang et al. 2021, "Plug-and-play image restoration with deep denoiser prior") with the names of weights that
the files of KAIR, DPIR and deepinv have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WRAPPERS = ("params_ema", "params", "state_dict", "model")  # under which restoration networks are saved


class DRUNet(nn.Module):
    """A U-Net of residual blocks without bias. An additional plane holds the noise level, on the [0, 1] scale. It
    predicts the image itself. Sides that are no multiples of 8 are padded by repetition to those of 16, and cropped.

    `widths`: channels at each of the four scales; `blocks`: residual blocks per scale.
    """

    def __init__(self, channels: int = 3, widths: Sequence[int] = (64, 128, 256, 512), blocks: int = 4) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.m_head = nn.Conv2d(channels + 1, first, 3, padding=1, bias=False)
        self.m_down1, self.m_down2, self.m_down3 = (
            nn.Sequential(*_blocks(narrow, blocks), nn.Conv2d(narrow, wide, 2, stride=2, bias=False))
            for narrow, wide in ((first, second), (second, third), (third, fourth))
        )
        self.m_body = nn.Sequential(*_blocks(fourth, blocks))
        self.m_up3, self.m_up2, self.m_up1 = (
            nn.Sequential(nn.ConvTranspose2d(wide, narrow, 2, stride=2, bias=False), *_blocks(narrow, blocks))
            for narrow, wide in ((third, fourth), (second, third), (first, second))
        )
        self.m_tail = nn.Conv2d(first, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, noise_sd: float | Tensor | None) -> Tensor:
        if noise_sd is None:
            raise ValueError("a DRUNet is conditioned on the noise level: noise_sd is needed")
        height, width = x.shape[-2:]
        fits = height % 8 == 0 and width % 8 == 0
        padded = x if fits else F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
        level = torch.as_tensor(noise_sd, dtype=x.dtype, device=x.device).expand(x.shape[0]).view(-1, 1, 1, 1)
        one = self.m_head(torch.cat([padded, level.expand(-1, 1, *padded.shape[-2:])], dim=1))
        two = self.m_down1(one)
        three = self.m_down2(two)
        four = self.m_down3(three)
        y = self.m_up3(self.m_body(four) + four)
        y = self.m_up1(self.m_up2(y + three) + two)
        return self.m_tail(y + one)[..., :height, :width]


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.res = nn.Sequential(next(convolutions), nn.ReLU(inplace=True), next(convolutions))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res(x)


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [_Block(width) for _ in range(count)]


def restoration_as_ours(content: dict[str, Any]) -> dict[str, Any]:
    """A file of a DRUNet's weights, alone or under a usual key, as a checkpoint of ours; anything else as it is."""
    for state in (content, *(content.get(name) for name in WRAPPERS)):
        if isinstance(state, Mapping) and {"m_head.weight", "m_body.0.res.0.weight", "m_tail.weight"} <= set(state):
            state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
            scales = ("m_head", "m_down1.{}", "m_down2.{}", "m_down3.{}")
            blocks = len({name.split(".")[1] for name in state if name.startswith("m_body.")})
            widths = [state[f"{scale.format(blocks)}.weight"].shape[0] for scale in scales]
            kwargs = {"channels": state["m_tail.weight"].shape[0], "widths": widths, "blocks": blocks}
            return {"arch": "drunet", "arch_kwargs": kwargs, "state_dict": dict(state)}
    return content
