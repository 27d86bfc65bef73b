"""Attacks: one pure function per file, all with the first arguments (model, inputs, labels), and the table of them.

The scripts are `generate.py`, which writes attacked images, and `check_certificates.py`, which attacks certified
images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks.budget import per_image, project
from attacks.ddn import ddn
from attacks.fgsm import fgsm
from attacks.hopskipjump import hopskipjump
from attacks.library import LIBRARY, library_attack
from attacks.pgd import pgd

DEFAULT_EPS = {"Linf": 8 / 255, "L2": 0.5}


@dataclasses.dataclass(frozen=True)
class How:
    """The settings of an attack: `norm`; `eps`, its budget, or None to minimise the norm; `steps`; one random generator
    per image, `generators[i]`; `starts`, images of all classes for attacks that begin at an image of another class."""

    norm: str
    eps: float | None
    steps: int
    generators: Sequence[torch.Generator] | None = None
    starts: Tensor | None = None

    @property
    def budget(self) -> float:
        """`eps`, for an attack that cannot do without. Raises ValueError."""
        if self.eps is None:
            raise ValueError("this attack needs an eps")
        return self.eps


@dataclasses.dataclass(frozen=True)
class Attack:
    """`run(model, inputs, labels, how)` → images, and the properties of the attack.

    `norms`: the norms it supports, the default first. `steps`: the default number of steps; None if it takes no steps.
    `budget`: True if it stays within an eps, False if it minimises the norm. `gradients`: False if labels are enough.
    `alone`: True if it runs image by image, whatever the batch.
    """

    run: Callable[[Callable, Tensor, Tensor, How], Tensor]
    norms: tuple[str, ...]
    steps: int | None
    budget: bool = False
    gradients: bool = True
    alone: bool = False


def _of_library(name: str) -> Attack:
    entry = LIBRARY[name]

    def run(model: Callable, x: Tensor, y: Tensor, how: How) -> Tensor:
        return library_attack(name, model, x, y, how.norm, how.eps if entry.eps else None, how.steps, how.generators)

    return Attack(run, tuple(entry.functions), entry.default_steps, budget=entry.eps is not None, alone=entry.alone)


ATTACKS: dict[str, Attack] = {
    "FGSM": Attack(lambda model, x, y, how: fgsm(model, x, y, how.budget), ("Linf",), None, budget=True),
    "PGD": Attack(
        lambda model, x, y, how: pgd(model, x, y, how.budget, how.norm, how.steps, generators=how.generators),
        ("Linf", "L2"),
        40,
        budget=True,
    ),
    "DDN": Attack(lambda model, x, y, how: ddn(model, x, y, how.steps), ("L2",), 100),
    "HSJ": Attack(
        lambda model, x, y, how: hopskipjump(model, x, y, how.steps, how.generators, how.starts),
        ("L2",),
        20,
        gradients=False,
        alone=True,
    ),
    "QEBA": Attack(
        lambda model, x, y, how: hopskipjump(
            model, x, y, how.steps, how.generators, how.starts, reduction=4, least_reach=0.1
        ),
        ("L2",),
        20,
        gradients=False,
        alone=True,
    ),
    **{name: _of_library(name) for name in LIBRARY},
}


def settle(name: str, norm: str | None, eps: float | None, steps: int | None, max_norm: float | None) -> How:
    """The settings of the attack called `name`; its defaults replace what is None. `eps` is for attacks with a budget.
    `max_norm` is for the others: longer perturbations are shortened to it.

    Raises ValueError that names the flag if the attack is unknown or does not support the norm.
    """
    if name not in ATTACKS:
        raise ValueError(f"--attack {name}: unknown; known are {', '.join(ATTACKS)}")
    attack = ATTACKS[name]
    if norm is not None and norm not in attack.norms:
        raise ValueError(f"--norm {norm}: {name} knows {' and '.join(attack.norms)}")
    norm = norm or attack.norms[0]
    limit = (eps or DEFAULT_EPS[norm]) if attack.budget else max_norm
    if limit is not None and norm not in DEFAULT_EPS:
        raise ValueError(f"--max_norm: there is no budget in {norm}, only in {' and '.join(DEFAULT_EPS)}")
    return How(norm, limit, 1 if attack.steps is None else steps or attack.steps)


def run_attack(name: str, model: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor, how: How) -> Tensor:
    """The attacked images: in [0, 1] and, if there is a limit, within it.

    Raises FloatingPointError if the model's scores or gradients are NaN: the attacked image would be NaN too.
    """
    attacked = ATTACKS[name].run(model, inputs, labels, how).detach()
    if not attacked.isfinite().all():
        raise FloatingPointError(
            f"{name}: the model's scores or gradients are NaN or infinite: check its weights, or use --no-amp"
        )
    if how.eps is not None:
        attacked = inputs + project(inputs, attacked - inputs, per_image(how.eps, inputs), how.norm)
    return attacked.clamp(0, 1)


def labels_only() -> list[str]:
    """The attacks that work on a black box."""
    return [name for name, attack in ATTACKS.items() if not attack.gradients]
