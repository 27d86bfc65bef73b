"""Pipelines: a denoiser and the frozen classifier behind it as one base classifier."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.device import autocast, prepare
from models.fronts import load_front
from models.inference import frozen
from models.kinds import load_classifier
from models.registry import origins


class DenoisedClassifier(nn.Module):
    """DS base classifier `x ↦ f(D(x))` (Salman et al. 2020) at one noise level: `[B, C, H, W]` → logits.

    `noise_sd` is the noise level that the denoiser is told; set it to the sigma that is certified.
    """

    def __init__(self, denoiser: nn.Module, classifier: nn.Module, noise_sd: float) -> None:
        super().__init__()
        self.denoiser, self.classifier, self.noise_sd = denoiser, classifier, noise_sd

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.denoiser(x, self.noise_sd))


class Autocast(nn.Module):
    """`base` in bfloat16 if `amp` is True; its scores are float32 either way."""

    def __init__(self, base: nn.Module, amp: bool) -> None:
        super().__init__()
        self.base, self.amp = base, amp

    def forward(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.amp):
            return self.base(x).float()


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The loaded parts of a pipeline and the images that it takes. `dataset` is the data set that the classifier was
    trained on, `info` its description if the checkpoint stores it (`catalogue.DatasetInfo.plain`, else None). `origins`
    maps each file to its training data (name, digest of the manifest), if the file stores that. `kind` says in words
    what a classifier of somebody else's was recognised as, `weights_sha256` is the digest of its weights if these lie
    in no file that the command line names, and `outputs` are the names of its outputs, if they were told."""

    classifier: nn.Module
    denoiser: nn.Module | None
    dataset: str
    image_size: int
    channels: int
    num_classes: int
    info: dict[str, Any] | None = None
    origins: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    kind: str | None = None
    weights_sha256: str | None = None
    outputs: Sequence[str] | None = None

    def at(self, noise_sd: float, amp: bool = False, compiled: bool = False) -> nn.Module:
        """The base classifier at one noise level: images `[B, C, H, W]` in [0, 1] → float32 logits `[B, K]`. `compiled`
        uses torch.compile, for batches of one shape. Raises ValueError if there is no C++ compiler, which that needs.
        """
        if compiled and shutil.which(os.environ.get("CXX", "g++")) is None:
            raise ValueError("--compile: needs a C++ compiler (g++, or the one that CXX names), and there is none")
        base: nn.Module = self.classifier
        if self.denoiser is not None:
            base = DenoisedClassifier(self.denoiser, base, noise_sd)
        base = Autocast(base, amp)
        return cast(nn.Module, torch.compile(base, dynamic=False)) if compiled else base


def load_pipeline(
    classifier: Path | str,
    denoiser: Path | None,
    device: torch.device | str = "cpu",
    encoder: Path | None = None,
    decoder: Path | None = None,
    scale: str | None = None,
    freeze: bool = True,
    **described: Any,
) -> Pipeline:
    """Load the parts, frozen (`models.inference`) unless `freeze` is False. `classifier` and `described` are as in
    `load_classifier`, the others as in `load_front`.

    Raises FileNotFoundError, or ValueError if a checkpoint is damaged or holds another kind of model, or if the parts
    do not fit each other, for example because they were trained on different splits of the data set.
    """
    trained = origins((classifier, denoiser, encoder, decoder))
    splits: dict[str, tuple[str, str]] = {}
    for path, (dataset, digest) in trained.items():
        first, same = splits.setdefault(dataset, (path, digest))
        if digest != same:
            raise ValueError(
                f"{path}: was trained on another split of {dataset} than {first}, and may have seen its test images"
            )
    f, made = load_classifier(classifier, device, **described)
    kwargs = made["arch_kwargs"]
    d = None
    if denoiser is not None:
        d, _ = load_front(kwargs["channels"], made["image_size"], device, denoiser, encoder, decoder, scale=scale)
        d = prepare(d, device)
        d = frozen(d) if freeze else d.eval()
    elif scale is not None:
        raise ValueError("--denoiser_scale: there is no denoiser; give --pretrained_denoiser")
    elif encoder or decoder:
        raise ValueError("--pretrained_encoder and --pretrained_decoder stand behind a --pretrained_denoiser")
    return Pipeline(
        frozen(f) if freeze else f,
        d,
        made["dataset"],
        made["image_size"],
        kwargs["channels"],
        kwargs["num_classes"],
        made.get("info"),
        trained,
        made.get("kind"),
        made.get("weights_sha256"),
        made.get("outputs"),
    )
