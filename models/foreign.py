"""Black boxes: an ONNX file, run by onnxruntime, or any Python function (`package.module:function`), in which a user
can wrap a web service."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import files
from models.device import prepare

RETRIES = 5  # of a failing query, after 1, 2, 4, 8 and 16 s
Function = Callable[[np.ndarray], Any]  # float32 images [B, C, H, W] in [0, 1] → an array of numbers


class Queried(nn.Module):
    """A foreign function as a module without parameters and gradients. `name` is its flag with its value, for messages.

    A query that raises an error is repeated `retries` times, after ever longer pauses; then ConnectionError (an
    OSError) reports the error. Raises FloatingPointError if an answer is not finite, and ValueError if it holds no
    numbers or a gradient is asked for.
    """

    def __init__(
        self, function: Function, name: str, retries: int = RETRIES, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__()
        self.name = name
        self._function, self._retries, self._sleep = function, retries, sleep

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(
                f"{self.name}: a black box gives no gradients; train by queries (main_ds.py --optimization_method ZO) "
                "and use attacks that need labels only"
            )
        answer = self._numbers(self._ask(x.detach().float().cpu().numpy()))
        if not np.isfinite(answer).all():
            raise FloatingPointError(f"{self.name}: returned numbers that are not finite")
        return torch.from_numpy(answer).to(x.device)

    def _ask(self, images: np.ndarray) -> Any:
        times = f" {self._retries + 1} times" if self._retries else ""
        for attempt in range(self._retries + 1):
            try:
                return self._function(images)
            except Exception as error:  # whatever a foreign function raises
                if attempt == self._retries:
                    raise ConnectionError(
                        f"{self.name}: a query failed{times}: {type(error).__name__}: {error}"
                    ) from error
                self._sleep(2.0**attempt)
        raise AssertionError

    def _numbers(self, answer: Any) -> np.ndarray:
        """Float32, or int64 for whole numbers, from any numeric type, byte order and stride."""
        try:
            answer = np.asarray(answer)
        except ValueError:  # rows of unequal length
            raise ValueError(f"{self.name}: returned {type(answer).__name__}, not an array of numbers") from None
        if answer.dtype.kind not in "fiub":
            raise ValueError(f"{self.name}: returned values of type {answer.dtype}, not numbers")
        return np.ascontiguousarray(answer, dtype=np.float32 if answer.dtype.kind == "f" else np.int64)


def is_foreign(spec: Path | str) -> bool:
    """Whether a flag names something other than a checkpoint."""
    return str(spec).endswith(".onnx") or (":" in str(spec) and not Path(spec).exists())


def foreign(flag: str, spec: Path | str) -> tuple[Function, dict[str, Any], int]:
    """(function, metadata of a file that we wrote, number of retries of a failing query) of an ONNX file or of
    `package.module:function`. Raises FileNotFoundError or ValueError."""
    if str(spec).endswith(".onnx"):
        function, metadata = onnx_function(flag, Path(spec))
        return function, json.loads(metadata.get("denoised_smoothing", "{}")), 0  # what fails once, fails again
    return python_function(flag, str(spec)), {}, RETRIES


def onnx_function(flag: str, path: Path) -> tuple[Function, dict[str, str]]:
    """(images → first output, metadata) of an ONNX file with one input `[B, C, H, W]`. If the file fixes B, images run
    in batches of that size, and copies of the last image fill the last batch. Raises ValueError if it is no such file
    or onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{flag} {path}: needs onnxruntime; install it with pip install onnxruntime") from None
    if not path.is_file():
        raise FileNotFoundError(f"{flag} {path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = [
        name
        for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if name in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # onnxruntime has kinds of its own
        raise ValueError(f"{flag} {path}: not a readable ONNX file: {error}") from None
    name, (batch, *_) = session.get_inputs()[0].name, session.get_inputs()[0].shape

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {name: np.ascontiguousarray(images)})[0]

    def run_in_batches(images: np.ndarray) -> np.ndarray:
        filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % batch, axis=0)])
        return np.concatenate([run(part) for part in np.split(filled, len(filled) // batch)])[: len(images)]

    return run_in_batches if isinstance(batch, int) else run, session.get_modelmeta().custom_metadata_map


def python_function(flag: str, spec: str) -> Function:
    """The function that `package.module:function` names, found in the current folder or on Python's path. Raises
    ValueError if there is none."""
    module, _, name = spec.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: a user's module must not take the place of one of ours
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever runs when a foreign module is imported
        raise ValueError(
            f"{flag} {spec}: cannot be imported from the current folder or Python's path: "
            f"{type(error).__name__}: {error}"
        ) from None


def must_be_told(flag: str, spec: Path | str, known: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raises ValueError if one of `names` is missing in what is `known` of a network."""
    missing = [name for name in names if known.get(name) is None]
    if missing:
        flags = dict.fromkeys("--dataset" if name == "num_classes" else f"--{name}" for name in missing)
        raise ValueError(f"{flag} {spec}: does not say its {', '.join(missing)}; give {', '.join(flags)}")


def must_agree(flag: str, spec: Path | str, known: dict[str, Any], described: dict[str, Any]) -> None:
    """Raises ValueError if what is `known` of a network contradicts what the command line says (`described`)."""
    for name in ("image_size", "channels", "num_classes", "measurement", "acceleration"):
        if described.get(name) not in (None, known.get(name, described.get(name))):
            raise ValueError(f"{flag} {spec}: has {name} {known[name]}, not {described[name]}")


def write_onnx(model: nn.Module, known: dict[str, Any], path: Path) -> None:
    """Write a network from images `[B, C, H, W]` in [0, 1] as ONNX for any batch size, with what is `known` of it
    (`channels`, `image_size` and others) as metadata. Raises ValueError if the packages that write it are missing."""
    try:
        import onnx
        import onnxscript  # noqa: F401 — what torch.onnx.export writes with
    except ImportError as error:
        raise ValueError(f"--outfile {path}: needs {error.name}; pip install onnx onnxscript") from None

    program = torch.onnx.export(
        prepare(model, "cpu").float(),
        (torch.rand(2, known["channels"], *[known["image_size"]] * 2),),
        input_names=["images"],
        output_names=["scores"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None  # None is for exporters of old
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"denoised_smoothing": json.dumps(known)})
    with files.replacing(path) as temporary:
        onnx.save(proto, temporary)
