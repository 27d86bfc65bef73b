"""Attacks on certified images, at multiples of their radii, judged with fresh noise."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.budget import to_8bit
from attacks.flags import check_votes
from attacks.pgd import pgd
from attacks.randomness import image_generator
from attacks.smoothed import SmoothedModel, grouped
from core import ABSTAIN, Smooth, decide
from evaluation.robustness import differ
from models import Pipeline

Model = Callable[[Tensor], Tensor]  # images [B, C, H, W] in [0, 1] → scores [B, K]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An attacked image at one multiple of the certified radius: the budget `eps`, the L2 length of the perturbation
    (rounded up to six decimals), and the answers for class and group, ABSTAIN (-1) if undecided. If one of them differs
    from what was certified, `again` holds both answers of a second judgement; else None."""

    multiple: float
    eps: float
    l2: float
    answer: int
    group_answer: int
    again: tuple[int, int] | None
    seconds: float


@dataclasses.dataclass
class CertificateAttack:
    """`attack(index, image, certified, claim, radius, multiples)` → an Attempt per multiple.

    The attack is PGD (L2, `steps`, the strongest of `restarts` runs, of which the first starts at the image) on the
    loss of Salman et al. 2019 over `draws` draws, against the certified class or group (`claim`). With `exact` noise
    the certificate is for 8-bit images, so the attacked images have 8 bits too. `certified` is (class, group), ABSTAIN
    if there is no certificate.

    PREDICT judges the result with `n` draws at level `alpha`: the class by plurality, the group by its summed votes or,
    with group rule `class`, as the group of that class. If an answer differs from `certified`, the image is judged once
    more with other draws. `settings` are those of the certificates; each judge uses noise of another seed. Raises
    ValueError if so few draws decide nothing.
    """

    pipeline: Pipeline
    settings: dict
    groups: Sequence[Sequence[int]]
    device: torch.device | str
    steps: int = 20
    draws: int = 32
    restarts: int = 1
    n: int = 1000
    alpha: float = 0.001
    seed: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        check_votes(self.n, self.alpha)
        sigma, size = self.settings["sigma"], self.pipeline.image_size
        base = self.pipeline.at(sigma, self.settings["amp"])
        shape = (self.pipeline.channels, size, size)
        model = SmoothedModel(base, sigma, self.draws, shape, self.device, self.seed, batch=self.batch)
        self._rule = self.settings.get("group_rule", "vote")
        self._models: dict[str, Model] = {
            "class": model,
            "group": grouped(model, self.groups, self._rule),
        }
        self._judges = [
            Smooth(base, self.pipeline.num_classes, sigma, self.settings["seed"] + other, self.settings["noise"])
            for other in (1, 2)
        ]

    def __call__(
        self,
        index: int,
        x: Tensor,
        certified: tuple[int, int],
        claim: str,
        radius: float,
        multiples: Sequence[float],
    ) -> list[Attempt]:
        began = time.perf_counter()
        eps = torch.tensor([multiple * radius for multiple in multiples], dtype=torch.float64)
        goal = certified[1 if claim == "group" else 0]
        inputs, labels = x.repeat(len(eps), 1, 1, 1), torch.full((len(eps),), goal, device=x.device)
        names = [f"{index} {claim} {multiple}" for multiple in multiples]
        attacked = self._strongest(self._models[claim], inputs, labels, eps * (1 - 1e-6), names)
        if self.settings["noise"] == "exact":
            attacked = to_8bit(attacked, inputs, "L2", eps).to(inputs.dtype) / 255
        answers = [self._answers(self._judges[0], image, index) for image in attacked]
        again = [
            self._answers(self._judges[1], image, index) if differ(answer, certified) else None
            for image, answer in zip(attacked, answers, strict=True)
        ]
        lengths = (attacked.double() - inputs.double()).flatten(1).norm(dim=1).tolist()
        seconds = (time.perf_counter() - began) / len(eps)
        return [
            Attempt(multiple, limit, math.ceil(length * 1e6 - 1e-6) / 1e6, *answer, second, seconds)
            for multiple, limit, length, answer, second in zip(
                multiples, eps.tolist(), lengths, answers, again, strict=True
            )
        ]

    def _strongest(self, model: Model, inputs: Tensor, labels: Tensor, eps: Tensor, names: list[str]) -> Tensor:
        best = pgd(model, inputs, labels, eps, "L2", self.steps)
        for run in range(1, self.restarts):
            starts = [image_generator(self.seed, f"{name} {run}") for name in names]
            found = pgd(model, inputs, labels, eps, "L2", self.steps, generators=starts)
            with torch.no_grad():
                gain = F.cross_entropy(model(found), labels, reduction="none") - F.cross_entropy(
                    model(best), labels, reduction="none"
                )
            best = torch.where((gain > 0).view(-1, 1, 1, 1), found, best)
        return best

    def _answers(self, judge: Smooth, image: Tensor, index: int) -> tuple[int, int]:
        counts = judge.sample(image, self.n, self.batch, index)
        answer = decide(counts, self.alpha)
        if not self.groups:
            return answer, ABSTAIN
        if self._rule == "class":
            inside = [group for group, members in enumerate(self.groups) if answer in members]
            return answer, inside[0] if inside else ABSTAIN
        return answer, decide(np.array([counts[list(members)].sum() for members in self.groups]), self.alpha)
