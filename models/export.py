"""A whole pipeline as one file: denoiser and classifier, images `[B, C, H, W]` in [0, 1] → logits `[B, K]`, any B."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import files
from models.black_box import QueriedClassifier
from models.device import prepare
from models.libraries import installed
from models.onnx_files import write_onnx
from models.outputs import probes
from models.pipelines import DenoisedClassifier, Pipeline
from models.programs import METADATA

SUFFIXES = (".onnx", ".pt2")


def export_pipeline(pipeline: Pipeline, noise_sd: float | None, path: Path) -> None:
    """Write the pipeline, whose denoiser is told `noise_sd` (None: there is none), as ONNX or as a program of
    torch.export, by the suffix of `path`, with what `load_classifier` must know.

    Raises ValueError if it is a black box or has parts that cannot be exported, if packages are missing, or if the file
    answers other than the pipeline.
    """
    if isinstance(pipeline.classifier, QueriedClassifier):
        raise ValueError(f"{pipeline.classifier.name}: is a black box; only networks whose code is known are exported")
    base: nn.Module = pipeline.classifier
    if pipeline.denoiser is not None and noise_sd is not None:
        base = DenoisedClassifier(pipeline.denoiser, base, noise_sd)
    base = prepare(base, "cpu").float().eval().requires_grad_(False)
    shapes = ("image_size", "channels", "num_classes", "dataset", "info")
    known = {name: getattr(pipeline, name) for name in shapes} | {"noise_sd": noise_sd}
    known["manifest"] = next((digest for _, digest in pipeline.origins.values()), None)
    with files.replacing(path) as temporary:
        try:
            (write_onnx if path.suffix == ".onnx" else write_program)(base, known, temporary)
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever the exporters raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"--outfile {path}: a part cannot be exported: {reason[:200]}") from None
        must_answer_alike(base, temporary, path, pipeline)


def write_program(model: nn.Module, known: dict[str, Any], path: Path) -> None:
    """Write a network as a program of torch.export for any batch size, with what is `known` of it."""
    x = probes(known["channels"], known["image_size"], known["image_size"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path, extra_files={f"{METADATA}.json": json.dumps(known)})


def must_answer_alike(model: nn.Module, written: Path, path: Path, pipeline: Pipeline) -> None:
    """Raises ValueError unless a written file answers as the model does, to one image and to five."""
    x = probes(pipeline.channels, pipeline.image_size, pipeline.image_size)
    for images in (x[:1], x[[0, 1, 1, 0, 1]]):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = model(images)
            if path.suffix == ".onnx":
                session = _session(written)
                found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
            else:
                found = torch.export.load(written).module()(images)
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            raise ValueError(f"--outfile {path}: the file would answer other than the pipeline, and is not written")


def _session(path: Path) -> Any:
    """An ONNX file, ready to run. Raises ValueError if onnxruntime is missing."""
    onnxruntime = installed("onnxruntime", f"--outfile {path.suffix}")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
