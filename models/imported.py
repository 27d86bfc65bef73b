"""A denoiser of somebody else's code: `package.module:name`, an `nn.Module` or a function without arguments that
returns one, with `forward(x)` or `forward(x, noise_sd)`."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from models.modules import arguments, named_object
from models.outputs import tensor_in

FLAG = "--pretrained_denoiser"
LEVEL = re.compile("noise|sigma|std|sd|level")  # in the name of an argument


class ImportedDenoiser(nn.Module):
    """The module that `spec` names. It is told the noise level if its `forward` needs a second argument, or takes one
    whose name says so: on the [0, 1] scale, a number, or in training with different levels one per image `[B]`. With
    `scale` symmetric it takes and returns images in [-1, 1], and is told the level on that scale, twice as much.
    `channels` says what images it was trained on, for those who ask (None: any).

    Raises ValueError if there is no such module.
    """

    def __init__(self, spec: str, scale: str = "unit", channels: int | None = None) -> None:
        super().__init__()
        net = named_object(FLAG, spec)
        if not isinstance(net, nn.Module):
            raise ValueError(
                f"{FLAG} {spec}: is {type(net).__name__}, but a denoiser is an nn.Module, or a function without "
                "arguments that returns one"
            )
        self.net, self.scale = net, scale
        needed, names = arguments(net.forward)
        self.is_told = needed > 1 or (len(names) > 1 and LEVEL.search(names[1]) is not None)

    def forward(self, x: Tensor, noise_sd: float | Tensor | None) -> Tensor:
        symmetric = self.scale == "symmetric"
        given: list[Any] = [2 * x - 1 if symmetric else x]
        if self.is_told:
            level = 0.0 if noise_sd is None else _number_if_equal(noise_sd)
            given.append(2 * level if symmetric else level)
        denoised = _image_in(self.net(*given))
        return (denoised + 1) / 2 if symmetric else denoised


def _number_if_equal(noise_sd: float | Tensor) -> float | Tensor:
    """One number for levels `[B]` that are all the same, for modules that know numbers only."""
    if isinstance(noise_sd, Tensor) and bool((noise_sd == noise_sd.flatten()[0]).all()):
        return float(noise_sd.flatten()[0])
    return noise_sd


def _image_in(output: Any) -> Tensor:
    """The image in what a denoiser returned: `.sample` of diffusers, or what `outputs.tensor_in` finds."""
    sample = getattr(output, "sample", None)
    return sample if isinstance(sample, Tensor) else tensor_in(output)


def read_imported(spec: str) -> dict[str, Any]:
    """What `package.module:name` names as a checkpoint of ours, which rebuilds it from the same code."""
    denoiser = ImportedDenoiser(spec)
    state = {name: tensor.detach().clone() for name, tensor in denoiser.state_dict().items()}
    return {"arch": "imported", "arch_kwargs": {"spec": spec}, "state_dict": state}
