"""Somebody else's network as a classifier of ours: what it takes and returns is found by asking it, normalisation goes
in front of it, and its outputs are put into the order of the data set's classes."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import steady
from models.black_box import QueriedClassifier, local_function
from models.device import prepare
from models.inference import folded
from models.normalize import Normalize, SwapColours, per_channel, statistics
from models.outputs import Answers, Chosen, NoSuchPart, Part, last_line, nature, probes, scores_of, tensor_in
from models.small_maps import with_small_maps

SIDES = (224, 32, 64, 96, 128, 256, 299, 384, 48, 28)  # asked in this order, where a network refuses the size given


class WhiteBox(nn.Sequential):
    """Images `[B, C, H, W]` in [0, 1] → logits `[B, K]`, differentiable: normalisation, the network's `Answers`, and
    the choice of its outputs. `shape` is that of an image."""

    def __init__(self, layers: Sequence[nn.Module], shape: tuple[int, int, int]) -> None:
        super().__init__(*layers)
        self.shape = shape

    def freeze(self) -> nn.Module:
        """Itself without gradients for its parameters, and made faster (`models.inference`) if that changes no answer:
        nothing is known of its code."""
        self.eval().requires_grad_(False)
        with contextlib.suppress(Exception):  # whatever happens when foreign code is copied and traced
            fast = WhiteBox([self._faster(layer) for layer in self], self.shape)
            held = next(itertools.chain(self.parameters(), self.buffers()))
            x = probes(*self.shape).to(held.device)
            with torch.no_grad():
                expected, found = self(x), fast(x)
            if torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
                return fast.eval()
        return self

    @staticmethod
    def _faster(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, Answers):
            return layer
        return Answers(with_small_maps(folded(copy.deepcopy(layer.net))), layer.returns)


class PreparedBlackBox(QueriedClassifier):
    """A black box with layers before it and behind it, such as a normalisation and an order of classes."""

    def __init__(self, box: QueriedClassifier, before: nn.Module, behind: nn.Module, num_classes: int) -> None:
        nn.Module.__init__(self)
        self.box, self.before, self.behind = box, before, behind
        self.name, self.scores, self.num_classes = box.name, box.scores, num_classes

    @property
    def due(self) -> int:
        return self.box.due

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.box(self.before(x)))


@dataclasses.dataclass(frozen=True)
class Findings:
    """What asking a network showed: the number of scores per image, what they are (`outputs.nature`), whether gradients
    pass, whether it takes one image at a time only."""

    outputs: int
    returns: str
    gradients: bool
    alone: bool = False


class OneByOne(nn.Module):
    """`net`, which takes batches of one image only, for any number of images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([scores_of(self.net(each), 1) for each in x.split(1)])


def adapted(
    net: nn.Module, name: str, device: torch.device | str, known: Mapping[str, Any], scores: str, told: bool
) -> tuple[nn.Module, str]:
    """The classifier that `net` is behind the normalisation that is `known`, and what was found of it in words.

    `scores` is that of --scores. If `told`, it says what `net` returns; else it says what the classifier reveals, as
    for checkpoints of ours. Without gradients, or with scores other than logits to reveal, it is a black box. Raises
    ValueError if `net` is no classifier of images of this size, or its classes are not those of the data set.
    """
    net = prepare(net, device).eval()
    net = Part(net, known["output"]) if known.get("output") else net
    before = layers_before(known)
    shape = (known["channels"], known["image_size"], known["image_size"])
    if told and scores == "labels":
        return _labelled(nn.Sequential(*before, net).to(device), name, device, known), "labels"
    asked = nn.Sequential(*before, net).to(device)
    found = examine(asked, name, shape, device)
    if found.alone:
        net, asked = OneByOne(net), nn.Sequential(*before, OneByOne(net))
    returns = "probabilities" if told and scores == "probabilities" and found.returns == "logits" else found.returns
    order = order_of(name, max(found.outputs, 2), known)
    layers = [*before, Answers(net, returns), *([Chosen(order)] if order else [])]
    classifier: nn.Module = WhiteBox(layers, shape).to(device).eval()
    words = f"{found.outputs} {returns}" + (", one image at a time" if found.alone else "")
    if not found.gradients:
        return as_black_box(classifier, name, device, known), f"{words}, no gradients"
    if not told and scores != "logits":
        function = local_function(classifier, device, scores)
        return QueriedClassifier(
            function, *_of(name, known), scores, 0, checked=True
        ).eval(), f"{words}, reveals {scores}"
    return classifier, f"{words}, gradients"


def layers_before(known: Mapping[str, Any]) -> list[nn.Module]:
    """What stands before a network, by `bgr`, `mean` and `std`. Raises ValueError if the numbers are not those of its
    channels."""
    layers: list[nn.Module] = [SwapColours()] if known.get("bgr") else []
    mean, std = known.get("mean"), known.get("std")
    if mean is None and std is None:
        return layers
    if mean is None:
        raise ValueError("--std: give --mean too")
    means, stds = statistics(mean, std)
    for flag, values in (("mean", means), ("std", stds)):
        if len(values) not in (1, known["channels"]):
            raise ValueError(f"--{flag}: {len(values)} values, but images have {known['channels']} channel(s)")
    is_needed = any(means) or any(value != 1 for value in stds)
    normalize = Normalize(per_channel(means, known["channels"]), per_channel(stds, known["channels"]))
    return [*layers, normalize] if is_needed else layers


def examine(net: nn.Module, name: str, shape: tuple[int, int, int], device: torch.device | str) -> Findings:
    """Ask `net` about two images, twice and among others (as `models.steady` does with a black box). Raises ValueError
    if its answers are random or depend on the other images of a batch (warns, if they hardly do), or if it cannot take
    such images or is no classifier; and FloatingPointError if its answers are NaN."""
    x = probes(*shape).to(device)
    alone, answer = _asked(net, name, x)
    with torch.no_grad():
        again = _scores(net, x, alone)
        among = _scores(net, torch.cat([1 - x, x]), alone)[len(x) :]
    if not answer.is_floating_point():
        raise ValueError(f"{name}: returned whole numbers; if they are labels, give --scores labels")
    if not answer.isfinite().all():
        raise FloatingPointError(f"{name}: returned numbers that are not finite")
    returns, answer = nature(answer), answer.detach()
    for other, when, cause in (
        (again, "when it is asked about the same images again", "something in it stays random, as dropout that is on"),
        (among, "when other images are in the batch", "a batch norm keeps no statistics, or is in train mode"),
    ):
        found = steady.difference(_leads(answer), _leads(other))
        said = f"{name}: answers differently {when}, although it is in evaluation mode; the usual reason: {cause}"
        if found > steady.TOLERATED:
            raise ValueError(f"{said}; an attack or a certificate needs one answer per image")
        if found > steady.ROUNDING:
            warnings.warn(f"{said}; by {found:.1%} of what decides an answer: some votes may change", stacklevel=2)
    return Findings(answer.shape[1], returns, _passes_gradients(net, x[:1]), alone)


def _leads(scores: Tensor) -> Tensor:
    """Scores by which `steady.difference` measures: of one output z, those of two classes."""
    return torch.cat([torch.zeros_like(scores), scores], dim=1) if scores.shape[1] == 1 else scores


def _asked(net: nn.Module, name: str, x: Tensor) -> tuple[bool, Tensor]:
    """Whether `net` takes one image at a time only, and its scores for x `[2, C, H, W]`, with their graph."""
    x = x.clone().requires_grad_()
    for alone in (False, True):
        try:
            with torch.enable_grad():
                output = [net(each) for each in x.split(1)] if alone else net(x)
        except NoSuchPart as error:
            raise ValueError(f"{name}: {error}") from None
        except Exception as error:  # whatever a foreign network raises
            reason = last_line(error)
            continue
        try:
            return alone, torch.cat([scores_of(each, 1) for each in output]) if alone else scores_of(output, len(x))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    size, channels = x.shape[-1], x.shape[1]
    fitting = _what_it_takes(net, channels, size)
    raise ValueError(f"{name}: cannot take images of {size} px with {channels} channel(s){fitting}: {reason}")


def _scores(net: nn.Module, x: Tensor, alone: bool) -> Tensor:
    return torch.cat([scores_of(net(each), 1) for each in x.split(1)]) if alone else scores_of(net(x), len(x))


def _what_it_takes(net: nn.Module, channels: int, size: int) -> str:
    """The first kind of image that a network takes, as the flags that say so; empty if none is found."""
    kinds = [(4 - channels, size), *((channels, side) for side in SIDES), *((4 - channels, side) for side in SIDES)]
    for planes, side in kinds:
        with contextlib.suppress(Exception), torch.no_grad():
            device = next((each.device for each in (*net.parameters(), *net.buffers())), torch.device("cpu"))
            scores_of(net(probes(planes, side, side)[:1].to(device)), 1)
            flags = [f"--channels {planes}"] * (planes != channels) + [f"--image_size {side}"] * (side != size)
            return f"; it takes those of {' '.join(flags)}"
    return ""


def _passes_gradients(net: nn.Module, x: Tensor) -> bool:
    """Whether autograd gets through; where it only warns that it does not know the way, it does not."""
    x = x.clone().requires_grad_()
    with contextlib.suppress(Exception), torch.enable_grad(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        (grad,) = torch.autograd.grad(scores_of(net(x), 1).float().sum(), x, allow_unused=True)
        return grad is not None and not any(
            "autograd kernel was not registered" in str(each.message) for each in warned
        )
    return False


def order_of(name: str, count: int, known: Mapping[str, Any]) -> list[int] | None:
    """Which of `count` outputs is each class of the data set, by `outputs`: the names of all, or the numbers of those
    that are the classes. None if it is output k for class k. Raises ValueError."""
    classes, outputs = known["classes"], known.get("outputs")
    if outputs is None:
        if count != len(classes):
            raise ValueError(
                f"{name}: has {count} classes, but {known['dataset']} has {len(classes)} ({', '.join(classes)}); if "
                "some of its outputs are these, give their numbers, counted from 0, in this order: --classes"
            )
        return None
    if all(each.isdecimal() for each in outputs) and set(outputs) != set(classes):
        order = [int(each) for each in outputs]
        if len(order) != len(classes) or len(set(order)) < len(order) or max(order) >= count:
            raise ValueError(
                f"--classes {' '.join(outputs)}: must be {len(classes)} different numbers from 0 to {count - 1}, one "
                f"for each of {', '.join(classes)}"
            )
    else:
        order = _by_name(name, count, outputs, classes, known)
    return None if order == list(range(count)) else order


def _by_name(
    name: str, count: int, outputs: Sequence[str], classes: Sequence[str], known: Mapping[str, Any]
) -> list[int]:
    aliases = {plain(other): plain(own) for other, own in (known.get("aliases") or {}).items()}
    held = [aliases.get(plain(each), plain(each)) for each in outputs]
    if len(outputs) != count or sorted(held) != sorted(map(plain, classes)):
        raise ValueError(
            f"{name}: its {count} outputs are called {', '.join(outputs)}, but the classes of {known['dataset']} are "
            f"{', '.join(classes)}; give --classes with these names, or the numbers of the outputs, in the right order"
        )
    return [held.index(plain(each)) for each in classes]


def plain(label: str) -> str:
    """The name of a class without what people write in different ways."""
    return re.sub(r"[\W_]+", "", label.casefold())


def as_black_box(
    classifier: nn.Module, name: str, device: torch.device | str, known: Mapping[str, Any]
) -> QueriedClassifier:
    """A classifier that passes no gradients, to be queried for its logits."""

    @torch.no_grad()
    def function(images: np.ndarray) -> np.ndarray:
        return classifier(torch.from_numpy(images).to(device)).float().cpu().numpy()

    return QueriedClassifier(function, *_of(name, known), "logits", 0, checked=True).eval()


def _labelled(net: nn.Module, name: str, device: torch.device | str, known: Mapping[str, Any]) -> QueriedClassifier:
    """A network that returns labels `[B]`, to be queried for them."""

    @torch.no_grad()
    def function(images: np.ndarray) -> np.ndarray:
        return tensor_in(net(torch.from_numpy(images).to(device))).cpu().numpy()

    box = QueriedClassifier(function, *_of(name, known), "labels", retries=0)
    return in_order(box, known).eval()


def in_order(box: QueriedClassifier, known: Mapping[str, Any], before: Sequence[nn.Module] = ()) -> QueriedClassifier:
    """A black box behind these layers, and its outputs in the order of the data set's classes."""
    order = order_of(box.name, len(known["classes"]), known) if known.get("classes") else None
    if order is None and not before:
        return box
    behind = nn.Identity() if order is None else Chosen(order)
    return PreparedBlackBox(box, nn.Sequential(*before), behind, box.num_classes).eval()


def _of(name: str, known: Mapping[str, Any]) -> tuple[str, int]:
    """The name without its flag, and the number of classes, as a black box wants them."""
    return name.partition(" ")[2], len(known["classes"])
