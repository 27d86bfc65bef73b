"""Networks that may only be queried: answers come back, gradients and weights do not.

Three kinds stand behind the flags `--classifier` and `--reconstructor`: a checkpoint of ours, and what is foreign
(`models.foreign`), an ONNX file or any Python function.
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
from models.registry import load_model

SCORES = ("logits", "probabilities", "labels")


class BlackBox:
    """`query(images [B, C, H, W] in [0, 1]) → answers [B, …]` of any callable, in float32 and without gradients;
    `queries` counts the images, each once, however often a failing query is repeated. Not under autocast, unless with
    `amp`: in half precision, differences of neighbouring losses drown."""

    def __init__(self, classify: Callable[[Tensor], Tensor], amp: bool = False) -> None:
        self._classify, self._amp, self.queries = classify, amp, 0

    def query(self, images: Tensor) -> Tensor:
        """Logits, or reconstructions, as float32."""
        self.queries += len(images)
        kept = contextlib.nullcontext() if self._amp else torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), kept:
            return self._classify(images.float()).float()


class QueriedClassifier(Queried):
    """A foreign `function(images float32 [B, C, H, W]) → scores` (NumPy arrays) that answers with logits `[B, K]`, so
    that it fits wherever a classifier stands and no gradient is asked for.

    `scores` says what comes back: `logits`; `probabilities`, of which the logarithm is taken (a softmax gives them
    back); `labels` `[B]` (`logits_of`). The cross-entropy is then 0 or about 10, ten times the 0/1 error, and a
    zeroth-order estimate is one of its smoothed version's gradient: it needs a large μ, so that some directions change
    the label (`training.flags.STEPS`).

    Raises what `Queried` does, and ValueError if scores are not what was said.
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
    """What stands for labels `[B]`: 0 for the label, -10 for the others. `[B, K]`."""
    return 10.0 * nn.functional.one_hot(labels.long(), num_classes).float() - 10.0


def local_function(model: nn.Module, device: torch.device | str, scores: str) -> Function:
    """A network of ours as if it were somebody else's: images → `scores`, no gradients."""
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
    the data set where it tells, and `arch_kwargs` with `channels` and `num_classes`.

    Checkpoints and ONNX files that `export_classifier` wrote know these; for others they come from `described`
    (`dataset`, `image_size`, `channels`, `num_classes`). A checkpoint that is to answer with other `scores` than logits
    gives no more than those, and no gradients. Raises FileNotFoundError or ValueError.
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
    """The classifiers of `--surrogates`, frozen, for the one that is described by `made`. Raises ValueError if one
    takes other images, or knows other classes."""
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
    """SHA-256 of the classifier's file; of a Python function its name and the digest of its module's file, which is
    less than what it may depend on."""
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
