"""Measurements: the input of a reconstruction network is an image that was measured incompletely.

Noise, attacks and the denoiser act on the measured image, `[B, C, H, W]`, on the same [0, 1] scale as the image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.answers import NAMES, Wanted
from models.foreign import foreign, is_foreign, must_agree, must_be_told, must_exist
from models.functions import python_function
from models.onnx_files import write_onnx
from models.queries import Queried
from models.registry import load_model

MEASUREMENTS = ("undersampled", "gaussian")
CENTRE = 0.08  # share of the lines around the centre of k-space, all of which are sampled


def sampled_lines(width: int, acceleration: float, seed: int) -> Tensor:
    """Which of the `width` lines of k-space (centre first, as `torch.fft` orders them) are measured: bool `[width]`,
    one in `acceleration`, the low frequencies always and the others at random (as in fastMRI, Zbontar et al. 2018)."""
    wanted, central = round(width / acceleration), max(2, round(CENTRE * width))
    frequency = torch.fft.fftfreq(width).abs()
    chance = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    first = torch.argsort(frequency, stable=True)[:central]
    chance[first] = 2.0
    lines = torch.zeros(width, dtype=torch.bool)
    lines[torch.argsort(chance, descending=True)[: max(wanted, central)]] = True
    return lines


def undersampled(images: Tensor, lines: Tensor) -> Tensor:
    """Zero-filled MRI: `|F⁻¹(M · F(x))|` with the mask M of `lines` over the last axis. `[B, C, H, W]` → the same."""
    spectrum = torch.fft.fft2(images.float()) * lines.to(images.device)
    return torch.fft.ifft2(spectrum).abs()


def gaussian(images: Tensor, matrix: Tensor) -> Tensor:
    """Compressed sensing as in Zhang et al. 2022: `AᵀA x` brought to [0, 1] image by image, for A `[measurements,
    C·H·W]`."""
    flat = images.float().flatten(1)
    back = (flat @ matrix.T) @ matrix
    low, high = back.amin(dim=1, keepdim=True), back.amax(dim=1, keepdim=True)
    return ((back - low) / (high - low).clamp(min=1e-12)).view(images.shape)


def measurement(
    kind: str, channels: int, image_size: int, acceleration: float = 4.0, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """The measurement that `kind` names, the same for the same `seed`: lines of k-space, or a Gaussian matrix, both
    with one number in `acceleration` of those of the image."""
    if kind == "undersampled":
        lines = sampled_lines(image_size, acceleration, seed)
        return lambda images: undersampled(images, lines)
    numbers = channels * image_size**2
    count = max(1, round(numbers / acceleration))
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(count, numbers, generator=generator) / count**0.5
    return lambda images: gaussian(images, matrix.to(images.device))


class Reconstructor(nn.Module):
    """A network from a measured image to the image: a denoiser that is told of no noise."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, measured: Tensor) -> Tensor:
        return self.net(measured, 0.0)


class QueriedReconstructor(Queried):
    """A foreign function from images to images of the same shape. Raises what `Queried` does, and ValueError if what
    comes back has another shape."""

    def answer(self, x: Tensor) -> Tensor:
        found = self.ask(x, Wanted(NAMES["images"], (tuple(x.shape),), output=self.output))
        if found.shape != x.shape:
            raise ValueError(f"{self.name}: gave {list(found.shape)} for {list(x.shape)}")
        return found.float()


def load_reconstructor(
    spec: Path | str, device: torch.device | str = "cpu", seed: int = 0, **described: Any
) -> tuple[nn.Module, Callable[[Tensor], Tensor], dict[str, Any]]:
    """(network, its measurement, description) of the network that `--reconstructor` names. A file of `ds_main.py
    --model reconstructor` stores all of it. For a foreign network (`models.foreign`), `described` gives `dataset`,
    `image_size`, `channels`, the kind of `measurement` and its `acceleration`; `seed` chooses its lines or its matrix.
    The kind may also be a function `package.module:function` from images to measured images, as arrays.

    Raises FileNotFoundError or ValueError.
    """
    if not is_foreign(spec):
        must_exist("--reconstructor", spec, described)
        net, made = load_model(spec, "denoiser", device)
        if "measurement" not in made:
            raise ValueError(
                f"--reconstructor {spec}: holds a denoiser; train one with ds_main.py --model reconstructor"
            )
        known = _known(made)
        must_agree("--reconstructor", spec, known, described)
        return Reconstructor(net).eval(), _measurement(known), made
    found = foreign("--reconstructor", spec, described.get("axes"))
    must_agree("--reconstructor", spec, found.known, described)
    given = {name: value for name, value in described.items() if value is not None}
    known = {"acceleration": 4.0, "seed": seed, **found.known, **given}
    must_be_told("--reconstructor", spec, known, ("dataset", "image_size", "channels", "measurement"))
    channels, size, output = known["channels"], known["image_size"], known.get("output")
    function, _ = found.bind(
        channels, size, lambda count: Wanted(NAMES["images"], ((count, channels, size, size),), output=output)
    )
    network = QueriedReconstructor(function, f"--reconstructor {spec}", found.retries, output=output)
    made = {
        "dataset": known["dataset"],
        "image_size": known["image_size"],
        "arch_kwargs": {"channels": known["channels"]},
        "measurement": {"kind": known["measurement"], "acceleration": known["acceleration"], "seed": known["seed"]},
    }
    return network.eval(), _measurement(known), made


def export_reconstructor(checkpoint: Path, path: Path) -> None:
    """Write the reconstruction network of a checkpoint as ONNX, measured images → images, with what
    `load_reconstructor` must know. Raises what that and `models.onnx_files.write_onnx` do."""
    network, _, made = load_reconstructor(checkpoint)
    write_onnx(network, _known(made) | {name: made.get(name) for name in ("dataset", "manifest")}, path)


def _known(made: dict[str, Any]) -> dict[str, Any]:
    """What the description of a network says of its images and its measurement, by flag."""
    measured = made["measurement"]
    return {
        "image_size": made["image_size"],
        "channels": made["arch_kwargs"]["channels"],
        "measurement": measured["kind"],
        "acceleration": measured["acceleration"],
        "seed": measured["seed"],
    }


def _measurement(known: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    kind, shape = known["measurement"], (known["channels"], known["image_size"])
    if kind in MEASUREMENTS:
        return measurement(kind, *shape, known["acceleration"], known["seed"])
    if not is_foreign(kind):
        raise ValueError(f"--measurement {kind}: must be {', '.join(MEASUREMENTS)} or package.module:function")
    return QueriedReconstructor(python_function("--measurement", kind), f"--measurement {kind}", checked=True)
