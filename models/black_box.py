"""Black-box networks: they can only be queried, and reveal neither gradients nor weights.

The flags `--classifier` and `--reconstructor` accept three kinds: a checkpoint of ours (a white box), an ONNX file, and
a Python function (black boxes, `models.foreign`). How they are queried: `models.queries`.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import steady
from models.answers import misfit, scores_wanted
from models.foreign import foreign, is_foreign, must_agree, must_be_told, must_exist
from models.inference import frozen
from models.onnx_files import write_onnx
from models.queries import RETRIES, Function, Queried
from models.registry import load_model


class BlackBox:
    """`query(images [B, C, H, W] in [0, 1]) → answers [B, …]` of any callable, in float32 and without gradients.
    `queries` counts the images, those included by which a foreign function is checked first; an image counts once,
    however often a failing query is repeated. Autocast is off unless `amp` is True: half precision would drown the
    differences of neighbouring losses."""

    def __init__(self, classify: Callable[[Tensor], Tensor], amp: bool = False) -> None:
        self._classify, self._amp, self.queries = classify, amp, 0

    @property
    def due(self) -> int:
        """Images that the first query will cost beside its own (`models.queries.Queried`)."""
        return self._classify.due if isinstance(self._classify, Queried) else 0

    def query(self, images: Tensor) -> Tensor:
        """Logits, or reconstructions, as float32."""
        self.queries += len(images) + self.due
        kept = contextlib.nullcontext() if self._amp else torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), kept:
            return self._classify(images.float()).float()


class QueriedClassifier(Queried):
    """A foreign `function(images float32 [B, C, H, W]) → scores` as a module that returns logits `[B, K]`, to be used
    wherever a classifier is used without gradients.

    `scores` says what the function returns: `logits`; `probabilities`, which become their logarithms (a softmax
    restores them); or `labels` `[B]`, which become `logits_of` them. Of two classes it may return one value per image:
    that of class 1. With labels the cross-entropy is 0 or about 10, ten times the 0/1 error. A zeroth-order estimate is
    then the gradient of its smoothed version and needs a large μ, so that some directions change the label
    (`training.flags.STEPS`). `classes` are the names of the classes, if they are known: an answer with these names is
    put into their order.

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
        output: str | None = None,
        checked: bool = False,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(function, f"--classifier {spec}", retries, sleep, output, checked)
        self.num_classes, self.scores, self.classes = num_classes, scores, tuple(classes)

    def answer(self, x: Tensor) -> Tensor:
        return self._logits(self._scores(x))

    def check(self, x: Tensor) -> None:
        """What `Queried` checks, and whether `scores` says what the function returns. Services round probabilities, so
        that small ones say nothing about their differences."""
        answers: list[Tensor] = []
        low = math.log(1e-4) if self.scores == "probabilities" else -math.inf

        def ask(images: Tensor) -> Tensor:
            answers.append(self._scores(images))
            return self._logits(answers[-1]).clamp(min=low)

        steady.check(ask, x, self.name)
        if self.scores != "logits":
            return
        found = torch.cat(answers)
        if found.ndim == 1 and found.min() >= 0 and found.max() <= 1:
            raise ValueError(
                f"{self.name}: returned one value per image, all of them between 0 and 1: if they are probabilities or "
                "labels, say so with --scores; if they are logits, return two per image, 0 and the logit"
            )
        if found.ndim == 1 and found.min() >= 0:
            warnings.warn(f"{self.name}: returned no value below 0, so that no image is of class 0", stacklevel=2)
        if found.ndim == 2 and found.min() >= 0 and (found.sum(dim=1) - 1).abs().max() < 1e-3:
            warnings.warn(f"{self.name}: seems to return probabilities; give --scores probabilities", stacklevel=2)

    def _logits(self, found: Tensor) -> Tensor:
        """Logits `[B, K]` from what the function returns. Raises ValueError if it is not of the kind of `scores`."""
        if self.scores == "labels":
            if not (found.min() >= 0 and found.max() < self.num_classes):
                raise ValueError(f"{self.name}: returned a label outside 0 … {self.num_classes - 1}")
            if (found != found.round()).any():
                raise ValueError(f"{self.name}: returned labels that are no whole numbers")
            return logits_of(found, self.num_classes)
        if self.scores == "logits":
            return found if found.ndim == 2 else torch.stack([torch.zeros_like(found), found], dim=1)
        found = found if found.ndim == 2 else torch.stack([1 - found, found], dim=1)
        if not (found.min() >= 0 and (found.sum(dim=1) - 1).abs().max() < 1e-2):
            raise ValueError(f"{self.name}: returned scores that are no probabilities; try --scores logits")
        return found.clamp(min=1e-12).log()

    def _scores(self, x: Tensor) -> Tensor:
        """What the function returns: float32 `[B, K]` or, one value per image, `[B]`. Raises ValueError if its shape is
        neither."""
        wanted = scores_wanted(self.scores, len(x), self.num_classes, self.classes, self.output)
        found, form = self.ask(x, wanted), wanted.forms[0]
        if found.shape not in wanted.forms:
            raise ValueError(
                f"{self.name}: returned shape {list(found.shape)}, but {self.scores} have shape {list(form)}"
                f"{misfit(tuple(found.shape), wanted)}"
            )
        return found.float().view(form if found.numel() == math.prod(form) else len(x))


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
        must_exist("--classifier", spec, described)
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
            model = QueriedClassifier(function, str(spec), known["num_classes"], scores, 0, checked=True).eval()
        return model, made
    network = foreign("--classifier", spec, described.get("axes"))
    must_agree("--classifier", spec, network.known, described)
    known = {**network.known, **{name: value for name, value in described.items() if value is not None}}
    must_be_told("--classifier", spec, known, ("dataset", "image_size", "channels", "num_classes"))
    classes, output = (known.get("info") or known).get("classes", ()), known.get("output")
    function, sure = network.bind(
        known["channels"],
        known["image_size"],
        lambda count: scores_wanted(scores, count, known["num_classes"], classes, output),
    )
    if sure and scores == "logits":
        warnings.warn(f"--classifier {spec}: its answers are probabilities, and are taken as such", stacklevel=2)
        scores = "probabilities"
    made = {
        "dataset": known["dataset"],
        "image_size": known["image_size"],
        "info": known.get("info"),
        "arch_kwargs": {"channels": known["channels"], "num_classes": known["num_classes"]},
    }
    classifier = QueriedClassifier(
        function, str(spec), known["num_classes"], scores, network.retries, output=output, classes=classes
    )
    return classifier.eval(), made


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


def export_classifier(checkpoint: Path, path: Path) -> None:
    """Write the classifier of a checkpoint as ONNX, images `[B, C, H, W]` in [0, 1] → logits, with what
    `load_classifier` must know. Raises what `load_model` and `models.onnx_files.write_onnx` do."""
    model, made = load_model(checkpoint, "classifier")
    kwargs = made["arch_kwargs"]
    known = {name: made.get(name) for name in ("dataset", "image_size", "info", "manifest")}
    write_onnx(model, known | {name: kwargs[name] for name in ("channels", "num_classes")}, path)
