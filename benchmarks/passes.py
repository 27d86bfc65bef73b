"""The cost of one forward pass of a base classifier, with each lever and at the limit of the hardware, and of its
noise."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models import DenoisedClassifier, autocast, folded, frozen
from smoothing.noise import CHUNK, Noise


@dataclasses.dataclass(frozen=True)
class Levers:
    """The ways to make a pass faster. The defaults are the published pass."""

    batch: int
    layout: torch.memory_format = torch.contiguous_format
    amp: bool = False
    fold: bool = False
    small_maps: bool = False
    compiled: bool = False

    def put_on(self, base: nn.Module) -> Callable[[Tensor], Tensor]:
        """A function that runs a copy of `base` with these levers."""

        def faster(net: nn.Module) -> nn.Module:
            net = frozen(net) if self.small_maps else folded(net) if self.fold else net
            return net.to(memory_format=self.layout)

        base = copy.deepcopy(base).eval().requires_grad_(False)
        if isinstance(base, DenoisedClassifier):
            base.denoiser, base.classifier = faster(base.denoiser), faster(base.classifier)
        else:
            base = faster(base)

        def run(x: Tensor) -> Tensor:
            with autocast(x.device, self.amp):
                return base(x).float()

        return torch.compile(run, dynamic=False) if self.compiled else run


def milliseconds(run: Callable[[], object], seconds: float) -> float:
    """The time of the fastest run. One run warms up and compiles; then runs are timed for `seconds`, at least three."""
    run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def milliseconds_per_draw(
    base: Callable[[Tensor], Tensor], shape: Sequence[int], levers: Levers, device: torch.device, seconds: float
) -> float:
    """The time per draw of the fastest pass of `base`, timed for `seconds` on random images `[C, H, W]` = `shape`."""
    x = torch.rand(levers.batch, *shape, device=device).contiguous(memory_format=levers.layout)
    with torch.inference_mode():
        return milliseconds(lambda: base(x).argmax(1).cpu(), seconds) / levers.batch


def time_levers(
    base: nn.Module,
    shape: Sequence[int],
    device: torch.device,
    published: float,
    published_batch: int,
    batch: int,
    amp: bool,
    compiled: bool,
    seconds: float,
) -> list[dict]:
    """Milliseconds per draw of the `published` pass (as measured before), of each lever alone, and of each lever
    together with those before it. On the CPU all rows but the first are measured in a process that keeps its freed
    memory, because that cannot be undone."""
    changes: dict[str, dict[str, Any]] = {
        "channels-last": {"layout": torch.channels_last},
        **({"bfloat16": {"amp": True}} if amp else {}),
        f"batch {batch}": {"batch": batch},
        "batch norms folded": {"fold": True},
    }
    if device.type == "cpu" and not (amp or compiled):
        changes["small maps by matrix products"] = {"small_maps": True}
    if compiled:
        changes["torch.compile"] = {"compiled": True}

    def measure(levers: Levers) -> float:
        return milliseconds_per_draw(levers.put_on(base), shape, levers, device, seconds)

    plain = together = Levers(published_batch)
    rows = [{"lever": "published", "alone": published, "with those before": published}]
    if device.type == "cpu":
        kept = measure(plain)
        rows.append({"lever": "freed memory kept", "alone": kept, "with those before": kept})
    for name, change in changes.items():
        together = dataclasses.replace(together, **change)
        alone = measure(dataclasses.replace(plain, **change))
        rows.append({"lever": name, "alone": alone, "with those before": measure(together)})
    return rows


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, the most that the hardware can do."""
    size = 2048 if device.type == "cpu" else 8192
    a, best = torch.rand(size, size, device=device, dtype=dtype), float("inf")
    for _ in range(10):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def hardware_limit(base: Callable[[Tensor], Tensor], image: Tensor, dtype: torch.dtype) -> dict[str, float]:
    """The operations of `base` for one `image` `[1, C, H, W]`, the peak of the hardware in `dtype`, and the least
    milliseconds that follow from them."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        base(image)
    flops, peak = counter.get_total_flops(), peak_flops(image.device, dtype)
    return {"flops": flops, "peak flop/s": peak, "ms": 1000 * flops / peak}


def time_noise(x: Tensor, sigma: float, seed: int, kind: str, seconds: float) -> float:
    """Nanoseconds per value of noise, drawn and put on an image `x` `[C, H, W]`, at best."""
    noise, starts = Noise(x, sigma, seed, 0, kind), itertools.count(0, CHUNK)
    out = torch.empty((CHUNK, *x.shape), device=x.device, memory_format=torch.channels_last)

    def draw() -> None:
        noise.noisy(next(starts), CHUNK, out)
        out[-1, -1, -1, -1].item()  # waits for a GPU

    return 1e6 * milliseconds(draw, seconds) / out.numel()
