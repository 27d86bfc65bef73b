"""Classifiers that may only be queried: scores come back, gradients and weights do not.

Three kinds stand behind the flag `--classifier`: a checkpoint of ours, an ONNX file, and any Python function
(`package.module:function`), in which a user wraps a web service, say.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import files
from models.device import prepare
from models.inference import frozen
from models.registry import load_model

SCORES = ("logits", "probabilities", "labels")
RETRIES = 5  # of a failing query, after 1, 2, 4, 8 and 16 s


class BlackBox:
    """`query(images [B, C, H, W] in [0, 1]) → logits [B, K]` of any callable, in float32 and without gradients;
    `queries` counts the images. Not under autocast, unless with `amp`: in half precision, differences of neighbouring
    losses drown."""

    def __init__(self, classify: Callable[[Tensor], Tensor], amp: bool = False) -> None:
        self._classify, self._amp, self.queries = classify, amp, 0

    def query(self, images: Tensor) -> Tensor:
        """The logits, as float32."""
        self.queries += len(images)
        kept = contextlib.nullcontext() if self._amp else torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), kept:
            return self._classify(images.float()).float()


class QueriedClassifier(nn.Module):
    """A foreign `classify(images float32 [B, C, H, W]) → scores` (NumPy arrays) as a module without parameters that
    answers with logits `[B, K]`, so that it fits wherever a classifier stands and no gradient is asked for.

    `scores` says what comes back: `logits`; `probabilities`, of which the logarithm is taken (a softmax gives them
    back); `labels` `[B]`, which become logits of 0 for the label and -10 for the others. The cross-entropy is then
    0 or about 10, ten times the 0/1 error, and a zeroth-order estimate is one of its smoothed version's gradient: it
    needs a large μ, so that some directions change the label.

    A query that raises is repeated `retries` times, after ever longer pauses; then ConnectionError, an OSError, says
    what went wrong. Raises FloatingPointError if scores are not finite, ValueError if they are not what was said.
    """

    def __init__(
        self, classify: Callable[[np.ndarray], Any], name: str, num_classes: int, scores: str = "logits",
        sleep: Callable[[float], None] = time.sleep, retries: int = RETRIES,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name, self.num_classes, self.scores = name, num_classes, scores
        self._classify, self._sleep, self._retries = classify, sleep, retries

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(f"--classifier {self.name}: gives no gradients; only queries (main_ds.py "
                             "--optimization_method ZO) and what needs neither are possible")  # fmt: skip
        answer = np.asarray(self._ask(x.detach().float().cpu().numpy()))
        if answer.dtype.kind not in "fiub":
            raise ValueError(f"--classifier {self.name}: gave {answer.dtype}, which are no numbers")
        answer = torch.as_tensor(answer, device=x.device)
        return self._logits(answer, len(x))

    def _ask(self, images: np.ndarray) -> Any:
        times = f" {self._retries + 1} times" if self._retries else ""
        for attempt in range(self._retries + 1):
            try:
                return self._classify(images)
            except Exception as error:  # whatever a foreign function raises
                if attempt == self._retries:
                    raise ConnectionError(f"--classifier {self.name}: a query failed{times}: "
                                          f"{type(error).__name__}: {error}") from error  # fmt: skip
                self._sleep(2.0**attempt)
        raise AssertionError

    def _logits(self, answer: Tensor, count: int) -> Tensor:
        shape = [count] if self.scores == "labels" else [count, self.num_classes]
        if list(answer.shape) != shape:
            raise ValueError(f"--classifier {self.name}: gave {list(answer.shape)}, but {self.scores} are {shape}; "
                             f"--scores can be {', '.join(SCORES)}")  # fmt: skip
        if not torch.isfinite(answer).all():
            raise FloatingPointError(f"--classifier {self.name}: gave scores that are not finite")
        if self.scores == "labels":
            if not (answer.min() >= 0 and answer.max() < self.num_classes):
                raise ValueError(f"--classifier {self.name}: gave a label outside 0 … {self.num_classes - 1}")
            return 10.0 * nn.functional.one_hot(answer.long(), self.num_classes).float() - 10.0
        answer = answer.float()
        if self.scores == "logits":
            return answer
        if not (answer.min() >= 0 and (answer.sum(dim=1) - 1).abs().max() < 1e-2):
            raise ValueError(f"--classifier {self.name}: gave scores that are no probabilities; try --scores logits")
        return answer.clamp(min=1e-12).log()


def onnx_classifier(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], dict[str, str]]:
    """(images → first output, metadata) of an ONNX file with one input `[B, C, H, W]`; where B is fixed in it, images
    go through by so many, the last ones with copies in the free places. Raises ValueError if it is not one, or
    onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"--classifier {path}: needs onnxruntime; install it with pip install onnxruntime") from None
    if not path.is_file():
        raise FileNotFoundError(f"--classifier {path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
                 if name in onnxruntime.get_available_providers()]  # fmt: skip
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # onnxruntime has kinds of its own
        raise ValueError(f"--classifier {path}: not a readable ONNX file: {error}") from None
    name, (batch, *_) = session.get_inputs()[0].name, session.get_inputs()[0].shape

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {name: np.ascontiguousarray(images)})[0]

    def run_in_batches(images: np.ndarray) -> np.ndarray:
        filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % batch, axis=0)])
        return np.concatenate([run(part) for part in np.split(filled, len(filled) // batch)])[: len(images)]

    return run_in_batches if isinstance(batch, int) else run, session.get_modelmeta().custom_metadata_map


def local_classifier(model: nn.Module, device: torch.device | str, scores: str) -> Callable[[np.ndarray], np.ndarray]:
    """A network of ours as if it were somebody else's: images → `scores`, no gradients."""
    model = frozen(model)

    @torch.no_grad()
    def classify(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).to(device).to(memory_format=torch.channels_last)
        logits = model(x).float()
        return (logits.argmax(dim=1) if scores == "labels" else logits.softmax(dim=1)).cpu().numpy()

    return classify


def python_classifier(spec: str) -> Callable[[np.ndarray], Any]:
    """The function that `package.module:function` names. Raises ValueError if there is none."""
    module, _, name = spec.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--classifier {spec}: cannot be imported: {error}") from None


def is_foreign(spec: Path | str) -> bool:
    """Whether `--classifier` names something other than a checkpoint."""
    return str(spec).endswith(".onnx") or (":" in str(spec) and not Path(spec).exists())


def load_classifier(
    spec: Path | str, device: torch.device | str = "cpu", scores: str = "logits", **described: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier that `--classifier` names, in eval mode, and its description: `dataset`, `image_size`, `info` on
    the data set where it tells, and `arch_kwargs` with `channels` and `num_classes`.

    Checkpoints and ONNX files that `export_classifier` wrote know these; for others they come from `described`
    (`dataset`, `image_size`, `channels`, `num_classes`). A checkpoint that is to answer with other `scores` than logits
    gives no more than those, and no gradients. Raises FileNotFoundError or ValueError.
    """
    known: dict[str, Any] = {}
    if not is_foreign(spec):
        model, made = load_model(spec, "classifier", device)
        if "image_size" not in made:
            raise ValueError(f"--classifier {spec}: does not say its image_size; not written by train_classifier.py")
        known = {"image_size": made["image_size"], **made["arch_kwargs"]}
        _agree(spec, known, described)
        if scores != "logits":
            classify = local_classifier(model, device, scores)
            model = QueriedClassifier(classify, str(spec), known["num_classes"], scores, retries=0).eval()
        return model, made
    retries = RETRIES
    if str(spec).endswith(".onnx"):
        classify, metadata = onnx_classifier(Path(spec))
        retries = 0  # it is no service: what fails once, fails again
        known = json.loads(metadata.get("denoised_smoothing", "{}"))
    else:
        classify = python_classifier(str(spec))
    _agree(spec, known, described)
    known = {**known, **{name: value for name, value in described.items() if value is not None}}
    missing = [name for name in ("dataset", "image_size", "channels", "num_classes") if name not in known]
    if missing:
        raise ValueError(f"--classifier {spec}: does not say its {', '.join(missing)}; give them as flags")
    made = {"dataset": known["dataset"], "image_size": known["image_size"], "info": known.get("info"),
            "arch_kwargs": {"channels": known["channels"], "num_classes": known["num_classes"]}}  # fmt: skip
    return QueriedClassifier(classify, str(spec), known["num_classes"], scores, retries=retries).eval(), made


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
        surrogates.append(frozen(surrogate))
    return surrogates


def _agree(spec: Path | str, known: dict[str, Any], described: dict[str, Any]) -> None:
    for name in ("image_size", "channels", "num_classes"):
        if described.get(name) not in (None, known.get(name, described.get(name))):
            raise ValueError(f"--classifier {spec}: is made for {name} {known[name]}, not {described[name]}")


def fingerprint(spec: Path | str) -> str:
    """SHA-256 of the classifier's file; of a Python function its name and the digest of its module's file, which is
    less than what it may depend on."""
    if not is_foreign(spec) or Path(spec).is_file():
        return files.sha256(spec)
    module = sys.modules.get(str(spec).partition(":")[0])
    source = getattr(module, "__file__", None)
    return f"{spec} {files.sha256(source) if source else ''}".strip()


def export_classifier(checkpoint: Path, path: Path) -> None:
    """Write the classifier of a checkpoint as ONNX, images `[B, C, H, W]` in [0, 1] → logits, any batch size; what
    `load_classifier` must know goes into its metadata. Raises ValueError if the packages that write it are missing."""
    try:
        import onnx
        import onnxscript  # noqa: F401 — what torch.onnx.export writes with
    except ImportError as error:
        raise ValueError(f"--outfile {path}: needs {error.name}; pip install onnx onnxscript") from None

    model, made = load_model(checkpoint, "classifier")
    kwargs = made["arch_kwargs"]
    example = torch.rand(2, kwargs["channels"], made["image_size"], made["image_size"])
    program = torch.onnx.export(
        prepare(model, "cpu").float(), (example,), input_names=["images"], output_names=["scores"], dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    proto = program.model_proto
    known = {"dataset": made["dataset"], "image_size": made["image_size"], "channels": kwargs["channels"],
             "num_classes": kwargs["num_classes"], "info": made.get("info")}  # fmt: skip
    onnx.helper.set_model_props(proto, {"denoised_smoothing": json.dumps(known)})
    with files.replacing(path) as temporary:
        onnx.save(proto, temporary)
