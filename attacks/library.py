"""The classification attacks of adv-lib (Rony and Ben Ayed) by name, behind one call.

Surprises are handled here. Images outside [0, 1] raise an error, and so does a targeted call of an untargeted attack
(adv-lib would return the clean images). Early stops that depend on the other images of the batch are off. Attacks that
draw random numbers or drop images run image by image (`alone`), so that no result depends on the batch. Nothing needs
CUDA. Where an attack fails, most return the clean image; here the last attempt is returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attacks.budget import check_inputs, per_image


@dataclasses.dataclass(frozen=True)
class Entry:
    """How an attack of adv-lib is called.

    `functions` maps each norm to the function's name, the first norm is the default; `norm`, `eps` and `steps` name its
    arguments for these (None: it has none); `fixed` holds what is always passed; `classes` is how many it needs.
    """

    functions: dict[str, str]
    steps: str
    default_steps: int
    norm: str | None = None
    eps: str | None = None
    alone: bool = False
    targeted: bool = True
    classes: int = 2
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)


def _same(function: str, *norms: str) -> dict[str, str]:
    return dict.fromkeys(norms, function)


NORMS = {"Linf": float("inf"), "L2": 2, "L1": 1, "L0": 0}
LIBRARY = {
    "APGD": Entry(_same("apgd", "Linf", "L2"), "n_iter", 100, "norm", "eps", alone=True),
    "APGD_T": Entry(_same("apgd_targeted", "Linf", "L2"), "n_iter", 100, "norm", "eps", alone=True, targeted=False),
    "ADVLIB_PGD": Entry(_same("pgd_linf", "Linf"), "steps", 40, eps="ε", alone=True),
    "ADVLIB_DDN": Entry(_same("ddn", "L2"), "steps", 100, alone=True),
    "FAB": Entry(_same("fab", "Linf", "L2", "L1"), "n_iter", 100, "norm", targeted=False),
    "FMN": Entry(_same("fmn", "Linf", "L2", "L1"), "steps", 100, "norm"),  # its L0 fails where no pixel must change
    "ALMA": Entry(_same("alma", "L2", "L1"), "num_steps", 1000, classes=3),
    "CW": Entry(
        {"L2": "carlini_wagner_l2", "Linf": "carlini_wagner_linf"},
        "max_iterations",
        1000,
        alone=True,
        fixed={"abort_early": False},
    ),
    "DEEPFOOL": Entry(
        _same("df", "L2", "Linf"), "steps", 100, "norm", alone=True, targeted=False, fixed={"return_unsuccessful": True}
    ),
    "SUPERDEEPFOOL": Entry(_same("sdf", "L2"), "steps", 100, alone=True, targeted=False),
    "TR": Entry(  # its plain steps of 0.001 would not leave the neighbourhood of the image
        _same("tr", "L2", "Linf"), "iter", 100, "p", alone=True, targeted=False, fixed={"eps": 0.02}
    ),
    "PDGD": Entry(_same("pdgd", "L2"), "num_steps", 500),
    "PDPGD": Entry(_same("pdpgd", "L2", "Linf", "L1"), "num_steps", 500, "norm"),
    "SIGMA_ZERO": Entry(_same("sigma_zero", "L0"), "num_steps", 1000, targeted=False),
    "FGA": Entry(_same("fga", "L0"), "max_iter", 1000, alone=True),
    "VFGA": Entry(_same("vfga", "L0"), "max_iter", 1000, alone=True),
    "STR": Entry(_same("str_attack", "L2"), "max_iterations", 2000, fixed={"retrain": False}),
    "PERC_AL": Entry(_same("perc_al", "CIEDE2000"), "max_iterations", 1000, alone=True),
}


def library_attack(
    name: str,
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    norm: str | None = None,
    eps: float | Tensor | None = None,
    steps: int | None = None,
    generators: Sequence[torch.Generator] | None = None,
    targeted: bool = False,
) -> Tensor:
    """Run the attack that LIBRARY calls `name`; arguments as in `attacks.pgd.pgd`, None for the defaults.

    Raises ValueError if adv-lib is missing, inputs leave [0, 1], or the attack cannot do what is asked.
    """
    entry = LIBRARY[name]
    norm = norm or next(iter(entry.functions))
    check_inputs(inputs, eps)
    _must_be_able(name, norm, eps, inputs.shape[1], targeted)
    with torch.no_grad():
        answers = model(inputs)
    classes, todo = answers.shape[1], (answers.argmax(dim=1) == labels) != targeted
    if classes < entry.classes:
        raise ValueError(f"{name} needs {entry.classes} classes, the model has {classes}")
    arguments = {entry.steps: steps or entry.default_steps, "targeted": targeted, **entry.fixed}
    arguments |= _peculiar(name, norm, eps, classes)
    function = _imported(entry.functions[norm])
    if not entry.alone:
        return _called(function, model, inputs, labels, todo, arguments)
    one_by_one = []
    for i in range(len(inputs)):
        one = {key: value[i : i + 1] if isinstance(value, Tensor) else value for key, value in arguments.items()}
        seed = 0 if generators is None else int(torch.randint(2**62, (), generator=generators[i]))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            mine = slice(i, i + 1)
            one_by_one.append(_called(function, model, inputs[mine], labels[mine], todo[mine], one))
    return torch.cat(one_by_one)


def _must_be_able(name: str, norm: str, eps: float | Tensor | None, channels: int, targeted: bool) -> None:
    """Raises ValueError if the attack cannot do what is asked."""
    entry = LIBRARY[name]
    if norm not in entry.functions:
        raise ValueError(f"{name} knows the norm {' and '.join(entry.functions)}, not {norm}")
    if targeted and not entry.targeted:
        raise ValueError(f"{name} cannot be targeted")
    if (eps is None) != (entry.eps is None):
        raise ValueError(f"{name} needs eps" if eps is None else f"{name} minimises the norm and takes no eps")
    if name == "PERC_AL" and channels != 3:
        raise ValueError("PERC_AL measures colours and needs RGB images")


def _peculiar(name: str, norm: str, eps: float | Tensor | None, classes: int) -> dict[str, Any]:
    """The arguments of one attack that others lack, or call by another name."""
    entry = LIBRARY[name]
    arguments: dict[str, Any] = {}
    if entry.norm:
        arguments[entry.norm] = NORMS[norm]
    elif name == "ALMA":
        arguments["distance"] = norm.lower()
    if entry.eps:
        arguments[entry.eps] = eps
    if name.startswith("APGD") and classes < (4 if name == "APGD_T" else 3):
        arguments["loss_function"] = "ce"  # their ratio of logits is not defined for so few
    if name == "PERC_AL":
        arguments["num_classes"] = classes
    return arguments


def _called(
    function: Callable, model: Callable, inputs: Tensor, labels: Tensor, todo: Tensor, arguments: dict[str, Any]
) -> Tensor:
    """Call adv-lib. An image that should be attacked and comes back unchanged is replaced by the last attempt."""
    tried = inputs  # the last images that the attack asked about, of the whole batch

    def watched(x: Tensor) -> Tensor:
        nonlocal tried
        if x.shape == inputs.shape:
            tried = x.detach().clone()
        return model(x)

    with torch.enable_grad():
        # Copies: some ask for gradients of the very tensors they are given.
        found = function(watched, inputs.detach().clone(), labels.clone(), **arguments).detach()
    untouched = (~found.isfinite() | (found == inputs)).flatten(1).all(dim=1)
    found = torch.where(per_image(untouched & todo, inputs).bool(), tried, found)
    # Rounding errors of atanh, and of x + δ - x, can leave [0, 1] by a little.
    return torch.where(found.isfinite(), found, inputs).clamp(0, 1)


def _imported(name: str) -> Callable:
    try:
        import adv_lib.attacks
    except ImportError as error:
        raise ValueError(
            f"adv-lib has this attack, but cannot be imported ({error}); run ./test.sh, which installs it, or "
            "pip install adv-lib"
        ) from None
    return getattr(adv_lib.attacks, name)
