"""Black-box networks: they can only be queried, and reveal neither gradients nor weights.

The flags `--classifier` and `--reconstructor` accept three kinds: a checkpoint of ours (a white box), an ONNX file, and
a Python function (black boxes, `models.foreign`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import files
from models.foreign import RETRIES, Function, Queried, foreign, is_foreign, must_agree, must_be_told, write_onnx
from models.inference import frozen
from models.reading import digest_of_folder
from models.registry import load_model

SCORES = ("logits", "probabilities", "labels")


class BlackBox:
    """`query(images [B, C, H, W] in [0, 1]) → answers [B, …]` of any callable, in float32 and without gradients.
    `queries` counts the images; an image counts once, however often a failing query is repeated. Autocast is off unless
    `amp` is True: half precision would drown the differences of neighbouring losses."""

    def __init__(self, classify: Callable[[Tensor], Tensor], amp: bool = False) -> None:
        self._classify, self._amp, self.queries = classify, amp, 0

    def query(self, images: Tensor) -> Tensor:
        """Logits, or reconstructions, as float32."""
        self.queries += len(images)
        kept = contextlib.nullcontext() if self._amp else torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), kept:
            return self._classify(images.float()).float()


class QueriedClassifier(Queried):
    """A foreign `function(images float32 [B, C, H, W]) → scores` (NumPy arrays) as a module that returns logits `[B,
    K]`, to be used wherever a classifier is used without gradients.

    `scores` says what the function returns: `logits`; `probabilities`, which become their logarithms (a softmax
    restores them); or `labels` `[B]`, which become `logits_of` them. With labels the cross-entropy is 0 or about 10,
    ten times the 0/1 error. A zeroth-order estimate is then the gradient of its smoothed version and needs a large μ,
    so that some directions change the label (`training.flags.STEPS`).

    Raises what `Queried` does, and ValueError if the scores are not of the given kind.
    """

    def __init__(
        self,
        function: Function,
        spec: str,
        num_classes: int,
        scores: str = "logits",
        retries: int = RETRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(function, f"--classifier {spec}", retries, sleep)
        self.num_classes, self.scores = num_classes, scores

    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x)
        shape = [len(x)] if self.scores == "labels" else [len(x), self.num_classes]
        if list(answer.shape) != shape:
            raise ValueError(
                f"{self.name}: returned shape {list(answer.shape)}, but {self.scores} have shape {shape}; "
                f"--scores can be {', '.join(SCORES)}"
            )
        if self.scores == "labels":
            if not (answer.min() >= 0 and answer.max() < self.num_classes):
                raise ValueError(f"{self.name}: returned a label outside 0 … {self.num_classes - 1}")
            return logits_of(answer, self.num_classes)
        answer = answer.float()
        if self.scores == "logits":
            return answer
        if not (answer.min() >= 0 and (answer.sum(dim=1) - 1).abs().max() < 1e-2):
            raise ValueError(f"{self.name}: returned scores that are no probabilities; try --scores logits")
        return answer.clamp(min=1e-12).log()


def logits_of(labels: Tensor, num_classes: int) -> Tensor:
    """Logits `[B, K]` that stand for labels `[B]`: 0 for the label, -10 for the other classes."""
    return 10.0 * nn.functional.one_hot(labels.long(), num_classes).float() - 10.0


def local_function(model: nn.Module, device: torch.device | str, scores: str) -> Function:
    """One of our networks as a foreign function: images → `scores`, without gradients."""
    model = frozen(model)

    @torch.no_grad()
    def classify(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).to(device).to(memory_format=torch.channels_last)
        logits = model(x).float()
        return (logits.argmax(dim=1) if scores == "labels" else logits.softmax(dim=1)).cpu().numpy()

    return classify


def load_classifier(
    spec: Path | str, device: torch.device | str = "cpu", scores: str = "logits", **described: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier that `--classifier` names, in eval mode, and its description: `dataset`, `image_size`, `info` on
    the data set if the file stores it, and `arch_kwargs` with `channels` and `num_classes`.

    Our checkpoints and the ONNX files of `export_classifier` store these; for others they come from `described`
    (`dataset`, `image_size`, `channels`, `num_classes`). A checkpoint with other `scores` than logits becomes a black
    box: it reveals these scores and no gradients. Raises FileNotFoundError or ValueError.
    """
    if not is_foreign(spec):
        model, made = load_model(spec, "classifier", device)
        own = {name: made[name] for name in ("dataset", "image_size") if made.get(name) is not None}
        known = {"channels": 3, **own, **made["arch_kwargs"]}  # 3 as in `models.classifiers.classifier`
        must_agree("--classifier", spec, known, described)
        known = {**described, **known}
        must_be_told("--classifier", spec, known, ("dataset", "image_size"))
        made |= {name: known[name] for name in ("dataset", "image_size")}
        made["arch_kwargs"] = {**made["arch_kwargs"], "channels": known["channels"]}
        if scores != "logits":
            function = local_function(model, device, scores)
            model = QueriedClassifier(function, str(spec), known["num_classes"], scores, retries=0).eval()
        return model, made
    function, known, retries = foreign("--classifier", spec)
    must_agree("--classifier", spec, known, described)
    known = {**known, **{name: value for name, value in described.items() if value is not None}}
    must_be_told("--classifier", spec, known, ("dataset", "image_size", "channels", "num_classes"))
    made = {
        "dataset": known["dataset"],
        "image_size": known["image_size"],
        "info": known.get("info"),
        "arch_kwargs": {"channels": known["channels"], "num_classes": known["num_classes"]},
    }
    return QueriedClassifier(function, str(spec), known["num_classes"], scores, retries).eval(), made


def load_surrogates(paths: Sequence[Path], made: dict[str, Any], device: torch.device | str = "cpu") -> list[nn.Module]:
    """The classifiers of `--surrogates`, frozen; `made` describes the classifier that they replace. Raises ValueError
    if one has another input size, other channels or other classes."""
    surrogates = []
    wanted = {**made["arch_kwargs"], "image_size": made["image_size"]}
    for path in paths:
        surrogate, other = load_model(path, "classifier", device)
        held = {**other["arch_kwargs"], "image_size": other.get("image_size")}
        for name in ("image_size", "channels", "num_classes"):
            if held[name] != wanted[name]:
                raise ValueError(f"--surrogates {path}: has {name} {held[name]}, but the classifier {wanted[name]}")
        told, own = ((each.get("info") or {}).get("classes") for each in (made, other))
        if told and own and list(told) != list(own):
            raise ValueError(f"--surrogates {path}: has classes {', '.join(own)}; the classifier has {', '.join(told)}")
        surrogates.append(frozen(surrogate))
    return surrogates


def fingerprint(spec: Path | str) -> str:
    """SHA-256 of the classifier's file, or of the files of its folder. Of a Python function: its name and the SHA-256
    of its module's file, which does not cover everything that the function depends on."""
    if Path(spec).is_dir():
        return digest_of_folder(Path(spec))
    if not is_foreign(spec) or Path(spec).is_file():
        return files.sha256(spec)
    module = sys.modules.get(str(spec).partition(":")[0])
    source = getattr(module, "__file__", None)
    return f"{spec} {files.sha256(source) if source else ''}".strip()


def export_classifier(checkpoint: Path, path: Path) -> None:
    """Write the classifier of a checkpoint as ONNX, images `[B, C, H, W]` in [0, 1] → logits, with what
    `load_classifier` must know. Raises what `load_model` and `models.foreign.write_onnx` do."""
    model, made = load_model(checkpoint, "classifier")
    kwargs = made["arch_kwargs"]
    known = {name: made.get(name) for name in ("dataset", "image_size", "info", "manifest")}
    write_onnx(model, known | {name: kwargs[name] for name in ("channels", "num_classes")}, path)
