"""3×3 convolutions of small maps as matrix products, in float32 on the CPU: the usual kernels are made for large maps,
and a ResNet spends most of its time in its deepest layers there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

# Winograd's F(4, 3) with the matrices of Lavin & Gray (2016): four outputs of three taps from six products.
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
FILTER = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])

# Up to which side of its map a convolution is faster so, measured by `python -m benchmarks.small_maps`.
SIDE, WIDE_SIDE, WIDE = 4, 8, 128  # with stride 1 and at least WIDE channels before and behind it, up to WIDE_SIDE


def with_small_maps(model: nn.Module) -> nn.Module:
    """`model` with a `SmallMapConv2d`, of the same parameters, in place of each convolution that can be one."""
    for parent in list(model.modules()):
        for name, conv in parent.named_children():
            if type(conv) is nn.Conv2d and (
                conv.kernel_size == (3, 3)
                and conv.padding == (1, 1)
                and conv.padding_mode == "zeros"
                and conv.stride in ((1, 1), (2, 2))
                and conv.dilation == (1, 1)
                and conv.groups == 1
            ):
                setattr(parent, name, SmallMapConv2d(conv))
    return model


class SmallMapConv2d(nn.Conv2d):
    """`conv` (3×3, zero padding) as matrix products where these are faster. The parameters must be frozen: matrices
    that are computed from them are kept."""

    def __init__(self, conv: nn.Conv2d) -> None:
        stride = conv.stride[0]
        super().__init__(conv.in_channels, conv.out_channels, 3, stride, 1, bias=False, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self._matrices: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.by_products(x) if self.is_faster(x) else super().forward(x)

    def by_products(self, x: Tensor) -> Tensor:
        (images, channels, height, width), stride = x.shape, self.stride[0]
        before, filters, behind = self._matrices.get((height, width)) or self._prepare(height, width)
        # Pixel by pixel, not image by image; what comes out lies in memory like that, so the next one copies nothing.
        lines = before @ x.permute(2, 3, 0, 1).reshape(-1, images * channels)
        lines = torch.bmm(lines.view(len(filters), -1, channels), filters)
        y = (behind @ lines.view(len(before), -1)).view(-(-height // stride), -(-width // stride), images, -1)
        if self.bias is not None:
            y += self.bias
        return y.permute(2, 3, 0, 1)

    def is_faster(self, x: Tensor) -> bool:
        wide = self.stride[0] == 1 and min(self.in_channels, self.out_channels) >= WIDE
        small = min(x.shape[-2:]) >= 2 and max(x.shape[-2:]) <= (WIDE_SIDE if wide else SIDE)
        float32_on_cpu = x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu"
        plain = not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
        return small and float32_on_cpu and plain and x.dim() == 4 and len(x) > 1

    @torch.inference_mode(False)  # tensors of inference mode could not take part in gradients later
    @torch.no_grad()
    def _prepare(self, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        (b1, g1, a1), (b2, g2, a2) = products(height, self.stride[0]), products(width, self.stride[0])
        before = np.einsum("pth,qsw->pqtshw", b1, b2).reshape(-1, height * width)
        filters = np.einsum("px,qy,kcxy->pqck", g1, g2, self.weight.double().numpy(), optimize=True)
        behind = np.einsum("hpt,wqs->hwpqts", a1, a2).reshape(-1, len(before))
        filters = filters.reshape(-1, *filters.shape[2:])
        first, second, third = (torch.tensor(m, dtype=torch.float32) for m in (before, filters, behind))
        self._matrices[height, width] = first, second, third
        return self._matrices[height, width]


def products(size: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How a filter w of three taps passes over a line x of `size` numbers, zeros beside it, with few products: matrices
    B `[P, T, size]`, G `[P, 3]` and A `[O, P, T]` such that y = A ((G w) ⊙ (B x)), P products in each of T tiles of the
    line, O outputs.

    With `stride` 1 it is F(4, 3) on tiles of four outputs; on two numbers three products, for zeros cost nothing. With
    stride 2, where few are to be saved, one for each output and each tap of its that meets a number.
    """
    if stride == 2:
        outputs = np.arange(0, size, 2)
        met = [(i, j, i + j - 1) for i in outputs for j in range(3) if 0 <= i + j - 1 < size]
        output, tap, number = np.array(met).T
        return np.eye(size)[number][:, None], np.eye(3)[tap], np.eye(size)[outputs][:, output][..., None]
    if size == 2:  # w1 (x0 + x1) + (w2 - w1) x1 and w1 (x0 + x1) + (w0 - w1) x0
        lines, taps, sums = ([1, 1], [0, 1], [1, 0]), ([0, 1, 0], [0, -1, 1], [1, -1, 0]), ([1, 1, 0], [1, 0, 1])
        return np.array(lines)[:, None], np.array(taps), np.array(sums)[..., None]
    tiles = -(-size // 4)
    b, a = np.zeros((6, tiles, 4 * tiles + 2)), np.zeros((4 * tiles, 6, tiles))
    for t in range(tiles):
        b[:, t, 4 * t : 4 * t + 6] = INPUT
        a[4 * t : 4 * t + 4, :, t] = OUTPUT
    return b[..., 1 : size + 1], FILTER, a[:size]
