"""What `--classifier` may name, one recogniser for each kind, and the classifier that it becomes.

A checkpoint of ours, an ONNX file and a function on NumPy arrays go the way of `models.black_box`. All others become a
white box, as long as gradients pass: files of weights, modules by import path, exported programs, folders of Hugging
Face (`models.adapted`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import black_box
from models.adapted import adapted, in_order, layers_before
from models.foreign import is_foreign, is_onnx, must_agree, must_be_told
from models.functions import is_function
from models.hugging_face import load_folder
from models.modules import OnTensors, may_want_tensors, named_object, wants_tensors
from models.programs import load_program, load_torchscript
from models.published import as_ours
from models.reading import kind_of_file, must_be_a_file
from models.weights import is_weights, network_of, read_weights

FLAG = "--classifier"
NEEDED = ("dataset", "image_size", "channels")
# What --classifier's flags say beside the input and the scores; a checkpoint of ours knows it all.
DESCRIBING = ("arch", "weights", "mean", "std", "bgr", "outputs")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of somebody else's: what kind it is, in words; what its file says of it (`told`); whether --scores says
    what it returns (`returns`) or, for networks that always return logits, what the classifier reveals; and the digest
    of its `weights`, if these lie in no file that is named."""

    net: nn.Module
    kind: str
    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    returns: bool = True
    weights: str | None = None


def load_classifier(
    spec: Path | str, device: torch.device | str = "cpu", scores: str = "logits", **described: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier that `--classifier` names, in eval mode, and its description: `dataset`, `image_size`, `info` on
    the data set if the file stores it, `arch_kwargs` with `channels` and `num_classes`, `kind` in words, and for
    weights that no file of ours holds their digest, `weights_sha256`.

    What the file does not say comes from `described`: `dataset` with its `classes` (and `aliases` of these),
    `image_size`, `channels`, `output`, and those of DESCRIBING; `outputs` are the names of the outputs, or numbers.
    Raises FileNotFoundError or ValueError.
    """
    network = recognised(spec, device, described)
    if network is None:
        return _ours_or_black_box(spec, device, scores, described)
    known = known_of(spec, network, {name: value for name, value in described.items() if value is not None})
    classifier, words = adapted(network.net, f"{FLAG} {spec}", device, known, scores, network.returns)
    made = {
        "dataset": known["dataset"],
        "image_size": known["image_size"],
        "info": known.get("info"),
        "arch_kwargs": {"channels": known["channels"], "num_classes": len(known["classes"])},
        "kind": f"{network.kind}: {words}; {in_words(known)}",
        "weights_sha256": network.weights,
        "outputs": known.get("outputs"),
    }
    return classifier, made


def known_of(spec: Path | str, network: Network, given: dict[str, Any]) -> dict[str, Any]:
    """What is known of a network by its file and by the flags that are `given`. Raises ValueError if these contradict
    each other, or leave something open."""
    if network.kind.partition(" ")[0] != "weights":
        _must_be_weights(spec, given)
    if "axes" in given:
        raise ValueError(f"--axes {given['axes']}: is for ONNX files; a network takes [B, C, H, W]")
    must_agree(FLAG, spec, network.told, {name: given.get(name) for name in ("image_size", "channels")})
    told = network.told
    if {"mean", "std"} & set(given):  # the two belong together
        told = {name: value for name, value in told.items() if name not in ("mean", "std")}
    if told.get("info") and "classes" in given:  # they are put into the order of the data that is named
        told = {"outputs": told["info"]["classes"], **told, "info": None}
    known = {**told, **given}
    if not network.returns and "mean" not in known and "std" not in known:
        raise ValueError(
            f"{FLAG} {spec}: does not say how its images are normalised; give --mean and --std: numbers for images in "
            "[0, 1], or imagenet, half, none"
        )
    must_be_told(FLAG, spec, known, NEEDED)
    return {**known, "classes": known.get("classes") or _classes(known)}


def _classes(known: dict[str, Any]) -> list[str]:
    """The classes of a classifier whose data set the command line does not name: those that its file describes, else
    their numbers."""
    if known.get("info"):
        return list(known["info"]["classes"])
    must_be_told(FLAG, "", known, ("num_classes",))
    return [str(label) for label in range(known["num_classes"])]


def recognised(spec: Path | str, device: torch.device | str, described: Mapping[str, Any]) -> Network | None:
    """What `--classifier` names, if it is neither a checkpoint of ours nor an ONNX file nor a function on arrays."""
    path, known = Path(spec), {name: value for name, value in described.items() if value is not None}
    if is_onnx(path) or path.suffix == ".py":
        return None
    if path.is_dir():
        net, told, words = load_folder(FLAG, path, known)
        return Network(net, f"a folder of Hugging Face, {words}", told, returns=False)
    if path.is_file():
        must_be_a_file(f"{FLAG} {spec}", path)
        kind = kind_of_file(path)
        if kind == "torchscript":
            return Network(load_torchscript(FLAG, path, device), "a TorchScript file")
        if kind == "program":
            net, told = load_program(FLAG, path, device)
            return Network(net, "a program of torch.export", told)
        return _weights(path, known)
    return _named(str(spec), known) if is_function(spec) else None


def _weights(path: Path, known: dict[str, Any]) -> Network | None:
    content = read_weights(FLAG, path)
    ours = {"arch", "arch_kwargs", "state_dict"} <= set(as_ours(content))
    if ours or not (is_weights(content) or known.get("arch")):
        return None
    net, told, words = network_of(FLAG, path, content, known)
    return Network(net, f"weights of {words}", told, returns=False)


def _named(spec: str, known: dict[str, Any]) -> Network | None:
    found = named_object(FLAG, spec)
    if isinstance(found, nn.Module):
        return Network(found, "a module", weights=digest_of(found))
    if not callable(found):
        return None
    on_tensors = may_want_tensors(found)
    if on_tensors is None:
        must_be_told(FLAG, spec, known, NEEDED)
        on_tensors = wants_tensors(FLAG, spec, found, known["channels"], known["image_size"])
    return Network(OnTensors(found), "a callable on tensors") if on_tensors else None


def _ours_or_black_box(
    spec: Path | str, device: torch.device | str, scores: str, described: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """A checkpoint of ours, or a black box behind the normalisation and the order of classes that the flags give."""
    used = {name: value for name, value in described.items() if name not in DESCRIBING}
    classifier, made = black_box.load_classifier(spec, device, scores, **used)
    given = [name for name in DESCRIBING if described.get(name)]
    if not is_foreign(spec):
        if given:
            flag = "classes" if given[0] == "outputs" else given[0]
            raise ValueError(f"--{flag}: {spec} is a checkpoint of ours, which says all this itself; leave it out")
        return classifier, made
    _must_be_weights(spec, given)
    assert isinstance(classifier, black_box.QueriedClassifier)
    known = {**described, **made["arch_kwargs"], "image_size": made["image_size"], "dataset": made["dataset"]}
    if given:
        known["classes"] = known.get("classes") or _classes({**known, "info": made["info"]})
        classifier = in_order(classifier, known, [layer.to(device) for layer in layers_before(known)])
    kind = "an ONNX file" if is_onnx(spec) else "a function of a batch of arrays"
    words = f"{kind} (black box): {classifier.scores}; {in_words(known)}"
    return classifier, {**made, "kind": words, "outputs": described.get("outputs")}


def _must_be_weights(spec: Path | str, given: Iterable[str]) -> None:
    for name in ("arch", "weights"):
        if name in given:
            raise ValueError(f"--{name}: only for a file of weights, and {spec} is none")


def in_words(known: Mapping[str, Any]) -> str:
    """The images that a classifier takes, in words."""
    size, channels, mean = known.get("image_size"), known.get("channels"), known.get("mean")
    shape = f"{size} px, {channels} channel(s)" if size else f"{channels} channel(s)"
    numbers = "none" if mean is None else " / ".join(dict.fromkeys(map(_short, (mean, known.get("std") or mean))))
    return f"{shape}, normalisation {numbers}" + (", BGR" if known.get("bgr") else "")


def _short(values: Any) -> str:
    return " ".join(each if isinstance(each, str) else f"{each:.4g}" for each in values)


def digest_of(net: nn.Module) -> str:
    """SHA-256 of the tensors of a network, by name: what no fingerprint of a file covers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        held = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {held.dtype} {list(held.shape)}".encode())
        digest.update(held.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
