"""What other people's classifiers return, taken apart: tensors, tuples, dictionaries and model outputs → logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# The names under which dictionaries hold the scores, the likeliest first.
NAMES = (
    "logits",
    "logit",
    "out",
    "output",
    "outputs",
    "pred",
    "preds",
    "prediction",
    "scores",
    "probs",
    "probabilities",
)
# How the last operation of a graph of gradients is called, and what the scores then are. VIEWS change no value.
LAST = {"SoftmaxBackward0": "probabilities", "SigmoidBackward0": "sigmoids"}
VIEWS = ("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "Alias", "ToCopy")
EDGE = 1e-7  # probabilities are kept this far from 0 and 1 before their logarithm is taken


class Answers(nn.Module):
    """`net` with logits `[B, K]` of whatever it returns. `returns` says what its scores are: `logits`; `probabilities`,
    which become their logarithms; or `sigmoids`, probabilities of each class by itself, which become the numbers under
    the sigmoid. One score per image, z, is the logit of the second of two classes: (0, z).
    """

    def __init__(self, net: nn.Module, returns: str = "logits") -> None:
        super().__init__()
        self.net, self.returns = net, returns

    def forward(self, x: Tensor) -> Tensor:
        scores = scores_of(self.net(x), x.shape[0]).float()
        if self.returns == "sigmoids" or (self.returns == "probabilities" and scores.shape[1] == 1):
            scores = scores.clamp(EDGE, 1 - EDGE).logit()
        elif self.returns == "probabilities":
            scores = scores.clamp(min=1e-12).log()
        return torch.cat([torch.zeros_like(scores), scores], dim=1) if scores.shape[1] == 1 else scores


class NoSuchPart(ValueError):
    """A network does not return the part that was named."""


class Part(nn.Module):
    """`net` with the part of its output that is called `name`: the key of a dictionary, or an attribute."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Any:
        output = self.net(x)
        if isinstance(output, Mapping) and self.name in output:
            return output[self.name]
        if not isinstance(output, (Mapping, Tensor)) and hasattr(output, self.name):
            return getattr(output, self.name)
        held = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise NoSuchPart(f"returned {type(output).__name__}{held}; --output {self.name} is no part of it")


class Chosen(nn.Module):
    """Columns `[B, K]` → `[B, len(order)]` in this order: the outputs of the classes of a data set."""

    order: Tensor

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, self.order]


def scores_of(output: Any, images: int) -> Tensor:
    """The scores `[images, K]` in what a network returned for a batch. Raises ValueError if there are none."""
    scores = tensor_in(output)
    while scores.dim() > 2 and scores.shape[-1] == 1:
        scores = scores.squeeze(-1)
    scores = scores.unsqueeze(1) if scores.dim() == 1 else scores
    if scores.dim() != 2 or scores.shape[0] != images:
        raise ValueError(
            f"returned shape {list(scores.shape)} for {images} image(s), but a classifier returns one row of scores "
            f"for each image: [{images}, number of classes]"
        )
    return scores


def tensor_in(output: Any) -> Tensor:
    """The tensor that a network means by its output: itself, `.logits`, the entry of a dictionary with a usual name or
    its only tensor, or the first tensor of a tuple. Raises ValueError if there is none."""
    if isinstance(output, Tensor):
        return output
    named = getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    if isinstance(output, Mapping):
        return _entry_of(output)
    for each in output if isinstance(output, (tuple, list)) else ():
        if isinstance(each, (Tensor, Mapping)) or hasattr(each, "logits"):
            return tensor_in(each)
    raise ValueError(f"returned {type(output).__name__}, not a tensor of scores")


def _entry_of(output: Mapping[Any, Any]) -> Tensor:
    tensors = {str(name).lower(): each for name, each in output.items() if isinstance(each, Tensor)}
    usual = [tensors[name] for name in NAMES if name in tensors]
    if usual:
        return usual[0]
    if len(tensors) != 1:
        raise ValueError(f"returned a dictionary of {', '.join(map(str, output)) or 'nothing'}, without logits")
    return next(iter(tensors.values()))


def nature(scores: Tensor) -> str:
    """What scores `[B, K]` are, by the operation that made them: `probabilities` behind a softmax, `sigmoids`, else
    `logits`. Also probabilities if each of several rows is positive and sums to one."""
    node = scores.grad_fn
    while node is not None and node.name().startswith(VIEWS):
        node = node.next_functions[0][0]
    if node is not None and node.name() in LAST:
        return LAST[node.name()]
    sums = scores.detach().float().sum(dim=1)
    is_simplex = scores.shape[1] > 1 and scores.min() >= 0 and (sums - 1).abs().max() < 1e-4
    return "probabilities" if is_simplex else "logits"


def probes(channels: int, height: int, width: int) -> Tensor:
    """Two images `[2, C, H, W]` in [0, 1], always the same ones: noise, and noise around grey."""
    noise = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    return torch.stack([noise[0], 0.3 + 0.2 * noise[1]])


def last_line(error: BaseException) -> str:
    """The last line of an error, which says what happened."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()[:200]}" if lines else type(error).__name__
