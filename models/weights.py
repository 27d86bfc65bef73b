"""Files of weights alone, `{name: tensor}` as people save them, and the network of a library that they belong to."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.classifiers import classifier
from models.libraries import Shapes, installed, library_network, nearest, shapes, size_of_library, split
from models.reading import kind_of_file, read_tensors

State = dict[str, Tensor]
# Parts of a name that say: an average over training, or another network in it, not the one that was trained.
AVERAGED = re.compile(r"(^|[._])(ema|averaged|avg|swa|teacher|momentum)([._]|$)")
# Tensors beside a network's own that change no answer: of losses, auxiliary heads, metrics, profilers, normalisation.
BESIDE = re.compile(
    r"(^|\.)(total_ops|total_params|n_averaged|num_batches_tracked|mean|std)$|(^|[._])(criterion|loss\w*|metrics?|"
    r"(train|val|test)_acc\w*|aux\w*|AuxLogits|normali[sz]e\w*)(\.|$)"
)
DEPTH = 3  # of dictionaries in dictionaries


@dataclasses.dataclass(frozen=True)
class Found:
    """Tensors of a file that may be a network's: `entry` is where in the file they lie (`state_dict`), `prefix` what
    stands before each name (`module.`), `count` how many of the network's names they have."""

    entry: str
    prefix: str
    count: int
    state: State

    @property
    def name(self) -> str:
        return f"{self.entry}:{self.prefix}".strip(":.") or "the whole file"

    @property
    def averaged(self) -> bool:
        return bool(AVERAGED.search(f"{self.entry}.{self.prefix}"))


def read_weights(flag: str, path: Path) -> dict[str, Any]:
    """The content of a file of weights, plain types and tensors. Raises FileNotFoundError or ValueError."""
    if kind_of_file(path) == "safetensors":
        safetensors = installed("safetensors.torch", f"{flag} {path}".strip())
        try:
            return safetensors.load_file(path)
        except Exception as error:  # it has kinds of its own
            raise ValueError(f"{flag} {path}: not a readable safetensors file ({error})".strip()) from None
    return read_tensors(path)


def entries(content: Mapping[Any, Any], where: str = "", depth: int = DEPTH) -> Iterator[tuple[str, State]]:
    """The dictionaries of named tensors in the content of a file, with where they lie."""
    own = {name: each for name, each in content.items() if isinstance(name, str) and isinstance(each, Tensor)}
    if own:
        yield where, own
    for name, each in content.items():
        if isinstance(each, Mapping) and depth:
            yield from entries(each, f"{where}.{name}".strip("."), depth - 1)


def found_in(content: Mapping[str, Any], names: Shapes) -> list[Found]:
    """Where a file holds tensors by the names of a network, behind which prefix, the most complete first."""
    found = []
    for entry, state in entries(content):
        counts: Counter[str] = Counter()
        for key in state:
            parts = key.split(".")
            for cut in range(len(parts)):
                if ".".join(parts[cut:]) in names:
                    counts["".join(f"{part}." for part in parts[:cut])] += 1
        for prefix, count in counts.items():
            own = {key.removeprefix(prefix): each for key, each in state.items() if key.startswith(prefix)}
            found.append(Found(entry, prefix, count, own))
    return sorted(found, key=lambda each: (-each.count, each.averaged, len(each.prefix)))


def choose(flag: str, path: Path, found: list[Found], wanted: str | None) -> tuple[Found, list[str]]:
    """The tensors to use of those `found_in` a file, and the names of other complete copies: the one that --weights
    names, else the one that is no average. Raises ValueError if that leaves several."""
    complete = [each for each in found if each.count == found[0].count]
    names = ", ".join(each.name for each in complete)
    if wanted is not None:
        left = [each for each in found if wanted.strip(".:") in (each.name, each.entry, each.prefix.strip("."))][:1]
        if not left:
            raise ValueError(f"--weights {wanted}: {path} holds {names}")
    else:
        left = [each for each in complete if not each.averaged] or complete[:1]
    if len(left) > 1:
        raise ValueError(f"{flag} {path}: holds several sets of weights; choose one with --weights: {names}")
    return left[0], [each.name for each in complete if each is not left[0]]


def network_of(
    flag: str, path: Path, content: dict[str, Any], known: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any], str]:
    """The network `known["arch"]` with the weights of a file; what the file says of it (`channels`, `image_size`,
    `mean`, `std`, `outputs`); and in words where it found the weights. Raises ValueError."""
    arch = known.get("arch") or arch_in(content)
    if arch is None:
        raise ValueError(
            f"{flag} {path}: holds weights alone; give --arch: NAME of torchvision, timm/NAME or monai/NAME; "
            f"{_whose(content, None)}"
        )
    size = known.get("image_size")
    of_any = shapes(arch)
    found = found_in(content, of_any)
    if not found:
        raise ValueError(f"{flag} {path}: holds no weights by the names of --arch {arch}; {_whose(content, arch)}")
    chosen, others = choose(flag, path, found, known.get("weights"))
    beside = dict(entries(content))[chosen.entry]
    told = {**described(content), **normalisation_in(beside), **shape_of(chosen.state, arch)}
    if size_of_library(arch) is not None:
        told["image_size"] = size_in(chosen.state) or size or size_of_library(arch)
    net = _filled(flag, path, arch, chosen.state, told, size, content)
    words = f"{arch}, weights in {chosen.name}" + (f" (also there: {', '.join(others)})" if others else "")
    return net, told, words


def _filled(
    flag: str, path: Path, arch: str, state: State, told: dict[str, Any], size: int | None, content: dict[str, Any]
) -> nn.Module:
    """The network of these weights. Raises ValueError, which names the nearest architectures, if they do not fit."""
    classes, channels, own_size = told.pop("num_outputs"), told["channels"], told.get("image_size")
    candidates = [lambda: library_network(arch, classes, channels, own_size)]
    if split(arch)[0] == "torchvision" and size is not None and size <= 128:  # those of ours: a smaller first layer
        candidates.append(lambda: classifier(split(arch)[1], classes, size, channels).get_submodule("1"))
    problem = ""
    for build in candidates:
        net = build()
        wrong = misfits(state, {name: tensor.shape for name, tensor in net.state_dict().items()})
        if not wrong:
            own = net.state_dict()
            net.load_state_dict({name: state.get(name, own[name]) for name in own})
            return net
        problem = problem or wrong
    raise ValueError(f"{flag} {path}: is not of --arch {arch} ({problem}); {_whose(content, arch)}")


def misfits(state: State, names: Shapes) -> str:
    """What keeps tensors from being those of a network, in words; empty if they are. A count of batches may be missing,
    and what is BESIDE a network may be there."""
    missing = [name for name in names if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in names and not BESIDE.search(name)]
    other = [name for name in names if name in state and state[name].shape != names[name]]
    if missing:
        return f"{len(missing)} of its {len(names)} tensors are missing: {missing[0]} …"
    if extra:
        return f"{len(extra)} tensors have no place in it: {extra[0]} …"
    if other:
        return f"{other[0]} is {list(state[other[0]].shape)}, not {list(names[other[0]])}"
    return ""


def shape_of(state: State, arch: str) -> dict[str, Any]:
    """`num_outputs` and `channels` of a network by its weights: they are the sides of tensors that differ between two
    networks of the same architecture with other numbers of classes and channels."""
    one, two = shapes(arch, 7, 3), shapes(arch, 11, 1)
    found: dict[str, Any] = {"channels": 3}
    for name, shape in one.items():
        for side, (a, b) in enumerate(zip(shape, two[name], strict=True)):
            if name in state and state[name].dim() == len(shape) and a != b:
                if (a, b) == (7, 11):
                    found["num_outputs"] = state[name].shape[side]
                elif (a, b) == (3, 1):
                    found["channels"] = state[name].shape[side]
    found.setdefault("num_outputs", 1000)
    return found


def size_in(state: State) -> int | None:
    """The input size by the position embedding of a ViT: patches per side times their side; None if there is none."""
    positions = next((each for name, each in state.items() if re.search(r"pos(ition)?_embed(ding)?s?$", name)), None)
    patches = next(
        (each for name, each in state.items() if re.search(r"(patch_embed\.proj|conv_proj)\.weight$", name)), None
    )
    if positions is None or patches is None or positions.dim() != 3:
        return None
    for others in range(6):  # tokens of the class, of registers
        side = math.isqrt(max(0, positions.shape[1] - others))
        if side and side**2 == positions.shape[1] - others:
            return side * patches.shape[-1]
    return None


def normalisation_in(state: State) -> dict[str, list[float]]:
    """`mean` and `std` if a file holds them beside the network, as `normalize.mean` say."""
    found = {}
    for flag in ("mean", "std"):
        names = [name for name in state if re.search(rf"(^|\.){flag}$", name) and state[name].numel() in (1, 3)]
        if len(names) == 1:
            found[flag] = state[names[0]].float().flatten().tolist()
    return found if len(found) == 2 else {}


def described(content: Mapping[str, Any]) -> dict[str, Any]:
    """`outputs`, the names of the outputs in order, if a file holds them under a usual name."""
    for name in ("classes", "class_names", "class_to_idx", "idx_to_class", "id2label", "labels"):
        held = content.get(name)
        if isinstance(held, Mapping) and held:
            pairs = held.items() if name != "class_to_idx" else [(number, label) for label, number in held.items()]
            if all(str(number).isdecimal() for number, _ in pairs):
                return {"outputs": [str(label) for _, label in sorted(pairs, key=lambda pair: int(pair[0]))]}
        elif isinstance(held, (list, tuple)) and held and all(isinstance(each, str) for each in held):
            return {"outputs": list(held)}
    return {}


def arch_in(content: Mapping[str, Any]) -> str | None:
    """The architecture that a file names, of torchvision or of timm, if one has the tensors that it holds."""
    for name in ("arch", "architecture", "model_name"):
        told = content.get(name)
        if isinstance(told, str):
            for arch in (told, f"timm/{told}"):
                try:
                    own = shapes(arch)
                except ValueError:
                    continue
                found = found_in(content, own)
                if found and found[0].count == len(own):
                    return arch
    return None


def is_weights(content: Mapping[str, Any]) -> bool:
    """Whether the content of a file holds named tensors."""
    return any(True for _ in entries(content))


def _whose(content: dict[str, Any], arch: str | None) -> str:
    """The three nearest architectures, in words."""
    states = [_without_prefix(state) for _, state in entries(content)]
    near = ", ".join(f"{name} ({share:.0%})" for name, share in nearest(states, arch))
    return f"the nearest architectures, by tensors that agree: {near}"


def _without_prefix(state: State) -> State:
    """Tensors without what their names have in common, and without the usual prefixes."""
    while True:
        firsts = Counter(name.partition(".")[0] for name in state if "." in name)
        first, count = firsts.most_common(1)[0] if firsts else ("", 0)
        usual = first in ("module", "model", "net", "network", "_orig_mod", "backbone", "1")
        if not first or not (count == len(state) or (usual and count > len(state) / 2)):
            return state
        state = {name.partition(".")[2]: each for name, each in state.items() if name.startswith(f"{first}.")}
