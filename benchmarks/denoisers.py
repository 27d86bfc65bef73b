"""Compare the denoisers that were tried for the default in one run: parameters, operations, time per image.

    python -m benchmarks.denoisers --outfile results/benchmarks/denoisers/time_64.json

Each network is timed as certification runs it (frozen, channels-last), in bfloat16 and in float32, and in training
(forward and backward, 32 images). In each round every network is timed once; the fastest time counts, and ratios are to
the first network. What they learn in equal time: results/benchmarks/denoisers.md.
"""

from __future__ import annotations

from common.script import start

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.passes import milliseconds
from common import cli, files
from models import autocast, bf16_is_fast, frozen, hardware, load_model, prepare, select_device
from models.denoisers import NAFBlock, NAFNet, NAFNet4, zeroed

SIGMA = 0.5
TRAINED = 32  # images of a training step


class Dense(nn.Module):
    """A residual block of two 3×3 convolutions with a ReLU between them, which starts as the identity. It has no norm
    (Lim et al. 2017, EDSR) or a batch norm, which is folded into the convolution for inference."""

    def __init__(self, width: int, norm: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.norm(self.conv1(x)), inplace=True))


class GatedDense(nn.Module):
    """Half a NAFNet block with one 3×3 convolution in place of its 1×1 and depth-wise ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.mix = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.project = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.mix(self.norm(x)).chunk(2, dim=1)
        return x + self.project(a * b)


class ConvNeXt(nn.Module):
    """Depth-wise 5×5, norm, 1×1, ReLU, 1×1 (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.expand, self.project = nn.Conv2d(width, 2 * width, 1), zeroed(nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.expand(self.norm(self.depthwise(x))), inplace=True))


def of_blocks(block: Callable[[int], nn.Module], **kwargs) -> NAFNet:
    """A `NAFNet4` with these arguments, of other blocks."""
    net = NAFNet4(**kwargs)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NAFBlock):
                setattr(parent, name, block(child.project1.out_channels))
    return net


two_resolutions: dict[str, Any] = {"encoder": (1,), "decoder": (1,)}
of_patches = functools.partial(NAFNet, width=48, encoder=(1, 1), middle=2, decoder=(1, 1), unshuffle=4)
CANDIDATES: dict[str, Callable[[], nn.Module]] = {
    "nafnet": NAFNet,
    "nafnet4": NAFNet4,
    "attention everywhere": of_patches,
    "attention everywhere, width 64": functools.partial(of_patches, width=64),
    "middle 4": functools.partial(NAFNet4, middle=4),
    "width 64": functools.partial(NAFNet4, width=64),
    "width 64, two resolutions, middle 3": functools.partial(NAFNet4, width=64, middle=3, **two_resolutions),
    "width 32, four resolutions": functools.partial(NAFNet4, width=32, encoder=(1, 1, 1), decoder=(1, 1, 1)),
    "dense": functools.partial(of_blocks, Dense, middle=1),
    "dense, width 64, two resolutions": functools.partial(of_blocks, Dense, width=64, middle=1, **two_resolutions),
    "dense with batch norm, width 64, two resolutions": functools.partial(
        of_blocks, functools.partial(Dense, norm=True), width=64, middle=1, **two_resolutions
    ),
    "dense, one resolution (DnCNN on 4×4)": functools.partial(
        of_blocks, Dense, width=64, middle=3, encoder=(), decoder=()
    ),
    "gated dense, two resolutions": functools.partial(of_blocks, GatedDense, middle=1, **two_resolutions),
    "ConvNeXt, width 64": functools.partial(of_blocks, ConvNeXt, width=64, encoder=(2, 2), decoder=(2, 2)),
}


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--candidates",
        choices=CANDIDATES,
        nargs="+",
        default=list(CANDIDATES),
        metavar="NAME",
        help=f"networks to compare, out of: {'; '.join(CANDIDATES)} (default: all)",
    )
    parser.add_argument("--classifier", type=Path, help="checkpoint; also time each denoiser in front of it")
    parser.add_argument("--image_size", type=cli.positive_int, default=64, help="input size in pixels")
    parser.add_argument("--batch", type=cli.positive_int, default=128, help="images per forward pass")
    parser.add_argument(
        "--rounds", type=cli.positive_int, default=5, help="rounds; in each, every network is timed once"
    )
    parser.add_argument(
        "--seconds",
        type=cli.positive_float,
        default=0.2,
        help="seconds per timing, at least three passes; the fastest counts",
    )
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file to write")
    parser.add_common_flags()
    return parser


def passes(
    build: Callable[[], nn.Module], classifier: Callable[[Tensor], Tensor] | None, images: Tensor
) -> dict[str, Callable[[], object]]:
    """What is timed of a network, by name: the network alone, with a `classifier` behind it, and in training."""
    kept, trained = frozen(prepare(build(), images.device)), prepare(build(), images.device).train()

    @torch.inference_mode()
    def forward(amp: bool, behind: Callable[[Tensor], Tensor]) -> float:
        with autocast(images.device, amp):
            return behind(kept(images, SIGMA)).flatten()[0].item()

    def step() -> None:
        few = images[:TRAINED]
        with autocast(images.device, bf16_is_fast(images.device)):
            loss = (trained(few, SIGMA) - few).square().mean()
        loss.backward()
        trained.zero_grad(set_to_none=True)

    timed: dict[str, Callable[[], object]] = {
        "bfloat16": functools.partial(forward, True, nn.Identity()),
        "float32": functools.partial(forward, False, nn.Identity()),
        "training": step,
    }
    if classifier is not None:
        timed |= {
            "bfloat16, pipeline": functools.partial(forward, True, classifier),
            "float32, pipeline": functools.partial(forward, False, classifier),
        }
    return timed


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    torch.manual_seed(args.seed)
    images = torch.rand(args.batch, 3, args.image_size, args.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    classifier = args.classifier and frozen(load_model(args.classifier, "classifier", device)[0])
    rows = []
    for name in args.candidates:
        net = CANDIDATES[name]().eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            net(images[:1].cpu(), SIGMA)
        parameters = sum(p.numel() for p in net.parameters())
        rows.append({"name": name, "parameters": parameters, "MFLOP": counter.get_total_flops() / 1e6})
    timed = {name: passes(CANDIDATES[name], classifier, images) for name in args.candidates}
    for _ in tqdm(range(args.rounds), desc="rounds", disable=None):
        for row in rows:
            for what, run in timed[row["name"]].items():
                count = min(TRAINED, args.batch) if what == "training" else args.batch
                taken = milliseconds(run, args.seconds) / count
                row[f"{what} (ms)"] = min(row.get(f"{what} (ms)", float("inf")), taken)
    for row in rows:
        row |= {f"{what}, times as fast": rows[0][f"{what} (ms)"] / row[f"{what} (ms)"] for what in timed[row["name"]]}
    print(tabulate(rows, headers="keys", floatfmt=".3g"))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    found = {"settings": settings, "hardware": hardware(device), "torch": torch.__version__, "rows": rows}
    files.write_json(args.outfile, found)
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
