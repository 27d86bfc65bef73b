"""Networks that are no checkpoint of ours: an ONNX file, run by onnxruntime, or any Python function, in which a user
can wrap a web service. What each is, what is known of it, and what must be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import files
from models.answers import Wanted
from models.functions import is_function, module_of, python_function
from models.onnx_files import digest
from models.onnx_network import OnnxNetwork
from models.queries import RETRIES, Function
from models.reading import digest_of_folder, must_be_a_file

TO_CHOOSE = ("output", "axes")  # flags that say how a foreign network is to be used


def is_onnx(spec: Path | str) -> bool:
    return str(spec).lower().endswith(".onnx")


def is_foreign(spec: Path | str) -> bool:
    """Whether a flag names something other than a checkpoint."""
    return is_onnx(spec) or is_function(spec)


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A foreign network. `known`: what it tells of itself. `retries` of a failing query. `bind(channels, image_size,
    wanted)` → (function, whether it is sure to return probabilities), where `wanted(B)` describes the answer to B
    images."""

    known: dict[str, Any]
    retries: int
    bind: Callable[[int, int, Callable[[int], Wanted]], tuple[Function, bool]]


def foreign(flag: str, spec: Path | str, axes: str | None = None) -> Foreign:
    """The network of an ONNX file or of `package.module:function`. Raises FileNotFoundError or ValueError."""
    if is_onnx(spec):
        network = OnnxNetwork(flag, Path(spec))

        def bind(channels: int, size: int, wanted: Callable[[int], Wanted]) -> tuple[Function, bool]:
            bound = network.bind(channels, size, wanted, axes)
            return bound.function, bound.probabilities

        return Foreign(network.known, 0, bind)  # what fails once, fails again
    if axes is not None:
        raise ValueError(f"--axes {axes}: is for ONNX files; a function gets [B, C, H, W] and can transpose it")
    function = python_function(flag, str(spec))
    return Foreign({}, RETRIES, lambda channels, size, wanted: (function, False))


def must_exist(flag: str, spec: Path | str, described: dict[str, Any]) -> None:
    """Raises FileNotFoundError or ValueError if what a flag names can be no checkpoint, or is given flags of a foreign
    network."""
    if Path(spec).suffix == ".py" and Path(spec).is_file():
        raise ValueError(f"{flag} {spec}: name a function in it, {spec}:FUNCTION")
    must_be_a_file(f"{flag} {spec}", Path(spec))
    for name in TO_CHOOSE:
        if described.get(name) is not None:
            raise ValueError(f"--{name} {described[name]}: is not for checkpoints of this project")


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


def fingerprint(spec: Path | str) -> str:
    """SHA-256 of a network's file, or of all files of a folder, or of an ONNX file that keeps its weights in others. Of
    a Python function: its name and the SHA-256 of its module's file, which does not cover everything that the function
    depends on."""
    if Path(spec).is_dir():
        return digest_of_folder(Path(spec))
    if is_onnx(spec):
        return digest("", Path(spec))
    if not is_function(spec):
        return files.sha256(spec)
    source = getattr(module_of("", str(spec)), "__file__", None)
    return f"{spec} {files.sha256(source) if source else ''}".strip()
