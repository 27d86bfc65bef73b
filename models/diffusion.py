"""A diffusion model as a denoiser in one step (Carlini et al. 2023, "(Certified!!) adversarial robustness for free!"):
the `UNet2DModel` and the scheduler of a folder of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import files
from models.libraries import installed
from models.outputs import last_line, tensor_in

PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Flags of the scheduler's configuration that say what the steps are; the others are about sampling.
SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")


class DiffusionDenoiser(nn.Module):
    """Noisy images x + n, n ~ N(0, σ²I), in [0, 1] → the model's estimate of x.

    The model knows images z0 at the steps t of a chain, `z_t = √ᾱ_t z0 + √(1 - ᾱ_t) ε`. With `scale` symmetric,
    z0 = 2x - 1 lies in [-1, 1], and √ᾱ_t (2(x + n) - 1) is such a z_t if (1 - ᾱ_t) / ᾱ_t = (2σ)²; with `scale` unit,
    z0 = x and the right side is σ². Of the steps of the chain the one is taken whose noise √((1 - ᾱ_t) / ᾱ_t) is
    nearest. From what the model predicts (`prediction_type` of the scheduler) follows z0, clipped to its scale if the
    scheduler does so.

    `unet`, `scheduler`: their configurations. `channels`: of images, those of the model.
    """

    ratios: Tensor  # [T] √((1 - ᾱ_t) / ᾱ_t)

    def __init__(
        self, unet: dict[str, Any], scheduler: dict[str, Any], channels: int, scale: str = "symmetric"
    ) -> None:
        super().__init__()
        diffusers = installed("diffusers", "this denoiser, a diffusion model,")
        self.unet: nn.Module = _for_any_batch(diffusers.UNet2DModel.from_config(unet))
        steps = diffusers.DDPMScheduler(**{name: scheduler[name] for name in SCHEDULE if name in scheduler})
        kept = steps.alphas_cumprod.double()
        self.register_buffer("ratios", ((1 - kept) / kept.clamp(min=1e-12)).sqrt().float(), persistent=False)
        self.predicts = scheduler.get("prediction_type", "epsilon")
        self.clip = scheduler.get("clip_sample_range", 1.0) if scheduler.get("clip_sample", True) else None
        self.channels, self.scale, self.centred = channels, scale, bool(unet.get("center_input_sample"))
        self.multiple = 2 ** (len(unet["block_out_channels"]) - 1)

    def step_of(self, noise_sd: Tensor) -> Tensor:
        """The step t `[B]` of noise levels `[B]` on the [0, 1] scale."""
        wanted = noise_sd.float() * (2 if self.scale == "symmetric" else 1)
        return (self.ratios[None] - wanted[:, None]).abs().argmin(dim=1)

    def forward(self, x: Tensor, noise_sd: float | Tensor | None) -> Tensor:
        if noise_sd is None:
            raise ValueError("a diffusion model must be told the noise level: noise_sd is needed")
        level = torch.as_tensor(noise_sd, dtype=torch.float32, device=x.device).expand(x.shape[0])
        t = self.step_of(level)
        ratio = self.ratios[t].view(-1, 1, 1, 1)
        kept = 1 / (1 + ratio**2)  # ᾱ_t
        z = kept.sqrt() * (2 * x - 1 if self.scale == "symmetric" else x)
        clean = self._clean(z, self._predicted(z, t), kept.sqrt(), ratio * kept.sqrt())
        if self.clip is not None:
            low, high = (-self.clip, self.clip) if self.scale == "symmetric" else (0.0, self.clip)
            clean = clean.clamp(low, high)
        return (clean + 1) / 2 if self.scale == "symmetric" else clean

    def _predicted(self, z: Tensor, t: Tensor) -> Tensor:
        """What the model predicts for z `[B, C, H, W]`, whose sides are padded by reflection to those that it takes."""
        height, width = z.shape[-2:]
        pad = (0, -width % self.multiple, 0, -height % self.multiple)
        z = F.pad(z, pad, mode="reflect") if any(pad) else z
        z = (z + 1) / 2 if self.centred and self.scale == "symmetric" else z  # it applies 2z - 1 itself
        output = self.unet(z, t, return_dict=False)
        return tensor_in(output)[:, : self.channels, :height, :width]  # behind them lies a variance, if it has one

    def _clean(self, z: Tensor, predicted: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
        """z0 from z_t: `kept` is √ᾱ_t, `noise` √(1 - ᾱ_t)."""
        if self.predicts == "sample":
            return predicted
        if self.predicts == "v_prediction":
            return kept * z - noise * predicted
        return (z - noise * predicted) / kept


class _Doubled(nn.Module):
    """Nearest neighbours, then a convolution: what diffusers' `Upsample2D` computes in a `UNet2DModel`. That one looks
    at the number of images (for the sake of old versions of PyTorch), and could be exported for up to 63 only."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden_states: Tensor, output_size: Any = None, *others: Any, **more: Any) -> Tensor:
        return self.conv(F.interpolate(hidden_states, scale_factor=2.0, mode="nearest"))


def _for_any_batch(unet: nn.Module) -> nn.Module:
    """`unet` with `_Doubled` in place of each plain `Upsample2D`, of the same parameters under the same names."""
    for parent in list(unet.modules()):
        for name, child in parent.named_children():
            is_plain = type(child).__name__ == "Upsample2D" and child.name == "conv" and child.interpolate
            if is_plain and child.norm is None and child.use_conv and not child.use_conv_transpose:
                setattr(parent, name, _Doubled(child.conv))
    return unet


def read_diffusers(folder: Path) -> dict[str, Any]:
    """A folder of diffusers as a checkpoint of ours: `arch`, `arch_kwargs`, `state_dict`, `image_size`. Raises
    FileNotFoundError, or ValueError if it holds another kind of model."""
    _must_be_of_images(folder)
    home = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    unet = _configuration(home / "config.json")
    _must_be_a_denoiser(folder, unet)
    scheduler = _configuration(_scheduler_file(folder, home))
    _must_be_a_chain(folder, scheduler)
    centred = bool(unet.get("center_input_sample"))
    kwargs = {
        "unet": {name: value for name, value in unet.items() if not name.startswith("_")},
        "scheduler": {name: value for name, value in scheduler.items() if not name.startswith("_")},
        "channels": unet.get("in_channels", 3),
        "scale": "unit" if centred else "symmetric",
    }
    state = {f"unet.{name}": tensor for name, tensor in _weights(home).items()}
    side = unet.get("sample_size")
    known = {"image_size": side} if isinstance(side, int) else {}
    return {"arch": "diffusion", "arch_kwargs": kwargs, "state_dict": state, **known}


def _weights(home: Path) -> dict[str, Tensor]:
    """The weights of the model in a folder, read by diffusers, which knows the names of all its versions."""
    diffusers = installed("diffusers", f"--pretrained_denoiser {home}")
    diffusers.utils.logging.set_verbosity_error()
    try:
        model, report = diffusers.UNet2DModel.from_pretrained(home, local_files_only=True, output_loading_info=True)
    except Exception as error:  # whatever diffusers raises
        raise ValueError(f"{home}: cannot be loaded by diffusers: {last_line(error)}") from None
    if report["missing_keys"]:
        raise ValueError(f"{home}: holds no weights for {report['missing_keys'][0]} …")
    return model.state_dict()


def _configuration(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing; a diffusion model comes with its configuration")
    return files.read_json(path)


def _scheduler_file(folder: Path, home: Path) -> Path:
    """Where the scheduler's configuration lies: beside the model, or in a folder of its own."""
    places = [folder / "scheduler", home, home.parent / "scheduler"]
    found = [place / "scheduler_config.json" for place in places]
    return next((path for path in found if path.is_file()), found[0])


def _must_be_of_images(folder: Path) -> None:
    """Raises ValueError for a pipeline whose model works on latents, or is told texts."""
    index = folder / "model_index.json"
    parts = files.read_json(index) if index.is_file() else {}
    for part, words in (("vae", "works on latents, not on images"), ("text_encoder", "is told a text")):
        if parts.get(part) not in (None, [None, None]):
            raise ValueError(
                f"{folder}: {parts.get('_class_name')} {words}; a denoiser is an unconditional UNet2DModel"
            )


def _must_be_a_denoiser(folder: Path, unet: dict[str, Any]) -> None:
    name, channels = unet.get("_class_name", "no model of diffusers"), unet.get("in_channels", 3)
    if name != "UNet2DModel":
        raise ValueError(f"{folder}: holds {name}, but a denoiser is an unconditional UNet2DModel")
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise ValueError(f"{folder}: is told a class; a denoiser is an unconditional UNet2DModel")
    if channels not in (1, 3) or unet.get("out_channels", 3) not in (channels, 2 * channels):
        raise ValueError(
            f"{folder}: maps {channels} channels to {unet.get('out_channels', 3)}; a denoiser maps images of 1 or 3 "
            "channels to such images (4 are those of a latent)"
        )


def _must_be_a_chain(folder: Path, scheduler: dict[str, Any]) -> None:
    if "beta_schedule" not in scheduler and "trained_betas" not in scheduler:
        raise ValueError(
            f"{folder}: its scheduler {scheduler.get('_class_name')} has no beta_schedule; it must be one of DDPM or "
            "DDIM"
        )
    if scheduler.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise ValueError(
            f"{folder}: prediction_type {scheduler['prediction_type']} is none of {', '.join(PREDICTIONS)}"
        )
