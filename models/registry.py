"""The registry (architecture name → constructor) and the way from a checkpoint back to its model."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from common import files
from models.autoencoders import AutoencodedDenoiser, Autoencoder, Pair
from models.classifiers import classifier
from models.denoisers import DnCNN, NAFNet, NAFNet4
from models.device import prepare
from models.diffusion import DiffusionDenoiser, read_diffusers
from models.foreign import is_onnx
from models.functions import is_function
from models.imported import ImportedDenoiser, read_imported
from models.libraries import classifier_of_library
from models.onnx_files import metadata
from models.programs import metadata_of
from models.published import PUBLISHED, CifarDecoder, CifarEncoder, MemNet, as_ours, cifar_classifier
from models.reading import kind_of_file, read_tensors
from models.restoration import DRUNet, restoration_as_ours
from models.weights import read_weights


def autoencoded(denoiser: dict[str, Any], autoencoder: dict[str, Any]) -> AutoencodedDenoiser:
    """AE-DS from the descriptions `{arch, arch_kwargs}` of its two parts."""
    first, second = (build(part["arch"], **part["arch_kwargs"]) for part in (denoiser, autoencoder))
    return AutoencodedDenoiser(first, cast(Autoencoder | Pair, second))


def pair(encoder: dict[str, Any], decoder: dict[str, Any]) -> Pair:
    """An autoencoder from the descriptions of its halves."""
    halves = (build(half["arch"], **half["arch_kwargs"]) for half in (encoder, decoder))
    return Pair(*halves)


Architectures = dict[str, Callable[..., nn.Module]]  # name → constructor
DENOISERS: Architectures = {
    "nafnet4": NAFNet4,
    "nafnet": NAFNet,
    "dncnn": DnCNN,
    "memnet": MemNet,
}
DEFAULT_DENOISER = "nafnet4"  # of new ones; why: results/benchmarks/denoisers.md
# Denoisers of other projects, which are not trained anew.
ELSEWHERE: Architectures = {"diffusion": DiffusionDenoiser, "drunet": DRUNet, "imported": ImportedDenoiser}
# Everything that may stand before the classifier: images and a noise level → images.
FRONTS: Architectures = DENOISERS | ELSEWHERE | {"autoencoder": Autoencoder, "ae_ds": autoencoded}
HALVES: dict[str, Architectures] = {
    "encoder": {"cifar_encoder_192_24": CifarEncoder},
    "decoder": {"cifar_decoder_192_24": CifarDecoder},
}
OURS: Architectures = FRONTS | HALVES["encoder"] | HALVES["decoder"] | {"pair": pair, "cifar_resnet": cifar_classifier}


def names(kind: str) -> list[str]:
    """The architectures of a kind that can be built by name alone, including the published names, but without the
    classifiers of torchvision."""
    ours = {"denoiser": list(DENOISERS), "classifier": ["resnet18"]}[kind]
    return list(dict.fromkeys([*ours, *(name for name in PUBLISHED if kind_of(name) == kind)]))


def kind_of(arch: str) -> str:
    """`denoiser` (anything from images to images), `encoder`, `decoder`, or `classifier`. A name that is not ours is a
    classifier of torchvision."""
    arch, _ = _ours(arch)
    for half, architectures in HALVES.items():
        if arch in architectures:
            return half
    return "denoiser" if arch in FRONTS else "classifier"


def build(arch: str, **arch_kwargs) -> nn.Module:
    """A new network. A published name (`models.published`) stands for its arguments, unless others are given. NAME is a
    classifier of torchvision in our variant for small images; `torchvision/NAME`, `timm/NAME` and `monai/NAME` are
    those of the libraries as they are. Raises ValueError if the name is unknown or its constructor does not take an
    argument."""
    arch, published = _ours(arch)
    arch_kwargs = {**published, **arch_kwargs}
    try:
        if arch in OURS:
            return OURS[arch](**arch_kwargs)
        return classifier_of_library(arch, **arch_kwargs) if "/" in arch else classifier(arch, **arch_kwargs)
    except TypeError as error:
        raise ValueError(f"--arch {arch}: {error}") from error


def _ours(arch: str) -> tuple[str, dict[str, Any]]:
    """Our name for an architecture of a published repository, and the arguments that the published name stands for."""
    if arch in OURS or arch not in PUBLISHED:
        return arch, {}
    return PUBLISHED[arch][:2]


def load_checkpoint(path: Path | str) -> dict:
    """Read a checkpoint (plain types only), and as if they were ours: a published one, the weights of a DRUNet, a
    folder of diffusers, a denoiser `package.module:name`. Raises FileNotFoundError or ValueError that names it."""
    if Path(path).is_dir():
        return read_diffusers(Path(path))
    if is_function(path):
        return read_imported(str(path))
    checkpoint = restoration_as_ours(as_ours(read_weights("", Path(path))))
    if not {"arch", "arch_kwargs", "state_dict"} <= set(checkpoint):
        raise ValueError(f"{path}: not a checkpoint of this project (no arch, arch_kwargs and state_dict in it)")
    return checkpoint


TRAINING_ONLY = ("optimizer", "scheduler", "rng")


def export_checkpoint(path: Path | str, outfile: Path) -> None:
    """Write a copy of a checkpoint without training state. Matrices (weights of convolutions and linear layers) become
    bfloat16; vectors (biases, norms and their statistics) do not change. Raises what `load_checkpoint` does, and
    ValueError if the file would overwrite itself. The same checkpoint gives the same bytes."""
    if outfile.exists() and outfile.samefile(path):
        raise ValueError(f"--outfile {outfile}: is the model itself")
    checkpoint = {name: value for name, value in load_checkpoint(path).items() if name not in TRAINING_ONLY}
    checkpoint["state_dict"] = {
        name: tensor.to(torch.bfloat16) if name.endswith("weight") and tensor.ndim > 1 else tensor
        for name, tensor in checkpoint["state_dict"].items()
    }
    # Through a buffer: given a path, torch writes its (temporary, random) name into the file.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    files.write_bytes(outfile, content.getbuffer())


def load_model(
    path: Path | str, kind: str, device: torch.device | str = "cpu", scale: str | None = None
) -> tuple[nn.Module, dict]:
    """Rebuild the model that a checkpoint holds, in eval mode on `device`; also return the checkpoint. `scale` is that
    of the images of a denoiser from elsewhere (`diffusion`, `imported`; None: its own).

    Raises FileNotFoundError, or ValueError if the file is damaged, holds another kind of model, or does not fit.
    """
    if kind != "denoiser" and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    checkpoint = load_checkpoint(path)
    arch = checkpoint["arch"]
    if scale is not None:
        if arch not in ("diffusion", "imported"):
            raise ValueError(
                f"--denoiser_scale {scale}: only for a diffusion model or package.module:name; {path} is none"
            )
        checkpoint["arch_kwargs"] = {**checkpoint["arch_kwargs"], "scale": scale}
    if kind_of(arch) != kind and not (arch == "autoencoder" and kind in HALVES):
        held, needed = (f"an {name}" if name == "encoder" else f"a {name}" for name in (kind_of(arch), kind))
        raise ValueError(f"{path}: holds {held} ({arch}), but {needed} is needed here")
    model = build(arch, **checkpoint["arch_kwargs"])
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError:
        if kind == "classifier" and not {"0.mean", "0.std"} <= set(checkpoint["state_dict"]):
            raise ValueError(
                f"{path}: holds no normalisation (0.mean, 0.std); a classifier must be Sequential(Normalize, net), "
                "so that noise and radii are on the [0, 1] scale of its images"
            ) from None
        raise ValueError(f"{path}: its weights do not fit the architecture {arch} that it names") from None
    return prepare(model, device).eval(), checkpoint


def origin(path: Path | str) -> tuple[str, str] | None:
    """The data set that a checkpoint (or an ONNX file made from it) was trained on, and the digest of its manifest;
    None if the file does not store them, as published ones do not."""
    try:
        checkpoint = _described_in(path)
    except (ValueError, FileNotFoundError):  # e.g. a function; the code that loads it says what is wrong
        return None
    dataset = checkpoint.get("dataset")
    digest = checkpoint.get("manifest") or (checkpoint.get("args") or {}).get("manifest")
    return (dataset, digest) if isinstance(dataset, str) and isinstance(digest, str) else None


def _described_in(path: Path | str) -> dict[str, Any]:
    """What a file of ours says of itself."""
    if is_onnx(path):
        return metadata("", Path(path))
    return metadata_of(Path(path)) if kind_of_file(path) == "program" else read_tensors(path, mmap=True)


def origins(paths: Iterable[Path | str | None]) -> dict[str, tuple[str, str]]:
    """`origin` of each file that stores it, for `datasets.get_dataset`."""
    found = {str(path): origin(path) for path in paths if path is not None}
    return {path: each for path, each in found.items() if each is not None}


def takes(described: dict[str, Any]) -> tuple[int | None, int | None]:
    """(channels, image size) of the images that a network before the classifier takes; None stands for any."""
    kwargs = described["arch_kwargs"]
    if described["arch"] == "ae_ds":
        return takes(kwargs["autoencoder"])
    if described["arch"] in ("pair", *HALVES["encoder"], *HALVES["decoder"]):
        return 3, 32
    return kwargs.get("channels"), kwargs.get("image_size")
