"""Networks: the registry (name → constructor), checkpoint → model, the pipelines built from them, and how they run."""

from models.black_box import (
    BlackBox,
    QueriedClassifier,
    export_classifier,
    load_surrogates,
)
from models.device import autocast, bf16_is_fast, hardware, instruction_set, prepare, resolve_amp, select_device
from models.foreign import fingerprint, is_foreign
from models.fronts import load_front
from models.inference import folded, frozen
from models.kinds import load_classifier
from models.pipelines import DenoisedClassifier, Pipeline, load_pipeline
from models.queries import Queried
from models.registry import (
    DEFAULT_DENOISER,
    build,
    export_checkpoint,
    kind_of,
    load_checkpoint,
    load_model,
    names,
    origins,
    takes,
)

__all__ = [
    "DEFAULT_DENOISER",
    "BlackBox",
    "DenoisedClassifier",
    "Pipeline",
    "Queried",
    "QueriedClassifier",
    "autocast",
    "bf16_is_fast",
    "build",
    "export_checkpoint",
    "export_classifier",
    "fingerprint",
    "folded",
    "frozen",
    "hardware",
    "instruction_set",
    "is_foreign",
    "kind_of",
    "load_checkpoint",
    "load_classifier",
    "load_front",
    "load_model",
    "load_pipeline",
    "load_surrogates",
    "names",
    "origins",
    "prepare",
    "resolve_amp",
    "select_device",
    "takes",
]
