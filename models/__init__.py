"""Networks: the registry (name → constructor), checkpoint → model, the pipelines built from them, and how they run."""

from models.device import autocast, bf16_is_fast, hardware, prepare, resolve_amp, select_device
from models.pipelines import DenoisedClassifier, Pipeline, load_pipeline
from models.registry import build, kind_of, load_checkpoint, load_model, names

__all__ = [
    "DenoisedClassifier",
    "Pipeline",
    "autocast",
    "bf16_is_fast",
    "build",
    "hardware",
    "kind_of",
    "load_checkpoint",
    "load_model",
    "load_pipeline",
    "names",
    "prepare",
    "resolve_amp",
    "select_device",
]
