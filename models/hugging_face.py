"""Classifiers in folders of Hugging Face: `config.json`, `model.safetensors`, `preprocessor_config.json`. Only local
files are read, and no code that lies in a folder is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from common import files
from models.libraries import installed
from models.outputs import last_line
from models.weights import network_of, read_weights

RESAMPLINGS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by their numbers in PIL
OURS = "bilinear"  # `imaging.images.RESAMPLING`


def load_folder(flag: str, folder: Path, known: dict[str, Any]) -> tuple[nn.Module, dict[str, Any], str]:
    """The classifier of a folder, of transformers or of timm; what the folder says of it (`channels`, `image_size`,
    `mean`, `std`, `outputs`); and its architecture in words. Raises FileNotFoundError or ValueError."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{flag} {folder}: a folder without config.json is none of Hugging Face")
    config = files.read_json(folder / "config.json")
    if "architecture" in config and "model_type" not in config:
        return _of_timm(flag, folder, config, known)
    return _of_transformers(flag, folder, config)


def _of_timm(
    flag: str, folder: Path, config: dict[str, Any], known: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any], str]:
    path = next(
        (folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()), None
    )
    if path is None:
        raise FileNotFoundError(f"{flag} {folder}: has no model.safetensors")
    settings = config.get("pretrained_cfg", {})
    size = settings.get("input_size", [3, None])[-1]
    asked = {**known, "arch": f"timm/{config['architecture']}", "image_size": known.get("image_size") or size}
    net, told, words = network_of(flag, path, read_weights(flag, path), asked)
    told = {"image_size": size, **told} if size else told
    told |= {name: list(settings[name]) for name in ("mean", "std") if name in settings}
    labels = config.get("label_names") or settings.get("label_names")
    return net, told | ({"outputs": list(labels)} if labels else {}), words


def _of_transformers(flag: str, folder: Path, config: dict[str, Any]) -> tuple[nn.Module, dict[str, Any], str]:
    must_classify(flag, folder, config)
    transformers = installed("transformers", f"{flag} {folder}")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        net, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # whatever transformers raises
        raise ValueError(f"{flag} {folder}: cannot be loaded by transformers: {last_line(error)}") from None
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise ValueError(f"{flag} {folder}: holds no weights for {missing[0]}{' …' * (len(missing) > 1)}")
    settings = net.config
    told: dict[str, Any] = {"channels": getattr(settings, "num_channels", 3)}
    labels = [settings.id2label[number] for number in sorted(settings.id2label)]
    if not all(label == f"LABEL_{number}" for number, label in enumerate(labels)):
        told["outputs"] = labels
    told |= preprocessing(folder)
    side = getattr(settings, "image_size", None)
    told.setdefault("image_size", side[0] if isinstance(side, (list, tuple)) else side)
    own, crops = told.pop("resampling", OURS), told.pop("crops", False)
    other = [f"resamples {own}"] * (own != OURS) + ["crops the centre"] * crops
    words = config["architectures"][0]
    if other:
        words += f" (its preprocessor {' and '.join(other)}; here the whole image is resized, {OURS})"
    return net.float(), {key: each for key, each in told.items() if each is not None}, words


def must_classify(flag: str, folder: Path, config: dict[str, Any]) -> None:
    """Raises ValueError unless a configuration is that of a classifier of images, without code of its own."""
    held = ", ".join(config.get("architectures") or []) or "no architecture"
    if "auto_map" in config:
        raise ValueError(
            f"{flag} {folder}: {held} comes with code of its own (auto_map), which is never run; write a function that "
            "returns the module, and give package.module:function"
        )
    if not held.endswith("ForImageClassification"):
        raise ValueError(f"{flag} {folder}: holds {held}, but a classifier is one of …ForImageClassification")


def preprocessing(folder: Path) -> dict[str, Any]:
    """`image_size`, `mean`, `std`, `resampling` and whether it `crops`, for images in [0, 1], by a folder's
    preprocessor_config.json; {} if there is none."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    settings = files.read_json(path)
    settings = settings.get("image_processor", settings)
    factor = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    offset = 1.0 if settings.get("rescale_offset") and settings.get("do_rescale", True) else 0.0
    mean, std = [0.0], [1.0]
    if settings.get("do_normalize", True) and settings.get("image_mean") is not None:
        mean, std = _listed(settings["image_mean"]), _listed(settings["image_std"])
    found: dict[str, Any] = {
        "mean": [(value + offset) / factor for value in mean],  # (factor x - offset - mean) / std
        "std": [value / factor for value in std],
        "image_size": _side(settings),
    }
    found["crops"] = bool(settings.get("do_center_crop")) or settings.get("crop_pct") is not None
    number = settings.get("resample")
    if isinstance(number, int) and 0 <= number < len(RESAMPLINGS):
        found["resampling"] = RESAMPLINGS[number]
    return {key: each for key, each in found.items() if each is not None}


def _listed(value: Any) -> list[float]:
    return list(value) if isinstance(value, (list, tuple)) else [float(value)]


def _side(settings: dict[str, Any]) -> int | None:
    """The side of the square that the network is given: that of the crop, else that of the resized image."""
    size = settings.get("crop_size") if settings.get("do_center_crop") else None
    size = settings.get("size") if size is None else size
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return size if isinstance(size, int) else None
