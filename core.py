"""Randomized smoothing (Cohen, Rosenfeld, Kolter 2019): `Smooth.certify`, `Smooth.predict` and the fast
`Smooth.certify_images`.

This module knows tensors and a callable, nothing of data, files or flags:

    >>> smoothed = Smooth(base_classifier, num_classes=4, sigma=0.25)
    >>> prediction, radius = smoothed.certify(x, n0=100, n=10_000, alpha=0.001, batch_size=100)

Images, noise and L2 radius are on the [0, 1] pixel scale. The parts are in `smoothing/`.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.stats import binomtest, norm
from torch import Tensor

from smoothing.bounds import lower_confidence_bound
from smoothing.engine import certify_images, count_votes
from smoothing.modes import must_be_in_eval_mode
from smoothing.noise import KINDS, Noise, slack
from smoothing.rules import (
    ABSTAIN,
    GROUP_RULES,
    Certificate,
    FixedDraws,
    PlannedDraws,
    Question,
    Rule,
    SequentialDraws,
)
from smoothing.transforms import Changed, Family, must_be_additive


class Smooth:
    """The smoothed classifier `g(x) = argmax_c P[f(x + n) = c]`, `n ~ N(0, sigma² I)`, of a base classifier f.

    Args:
        base_classifier: f, any callable that maps images `[B, C, H, W]` to scores `[B, num_classes]`. Networks in it
            must be in eval mode.
        num_classes: K.
        sigma: standard deviation of the noise, > 0.
        seed: the noise of draw j on image `index` depends only on (seed, sigma, index, j), not on `batch_size` or on
            the images certified before. A certificate holds with probability 1 - alpha for an image that was fixed
            before the seed was known; someone who knows the seed can choose an image whose draws happen to agree. So by
            default the operating system gives a secret seed; it is kept in `seed`.
        noise: `float` as published, or `exact`: then the certificate also holds in floating point. With `exact`, images
            must hold 8-bit values, and the certified classifier is f behind a rounding to 8 bits (`smoothing.noise`).
        transform: a family of changes T (`smoothing.transforms.FAMILIES`, or a `Family` of your own). The smoothed
            classifier is then the class that `f(T_c(x))` gives most often for `c ~ N(0, sigma² I)`. Sigma and radii are
            in the family's parameters: g answers the same on `T_δ(x)` for every `‖δ‖₂ < R`.

    Raises ValueError if an argument is invalid, or a family not additive. All methods raise FloatingPointError if f
    returns NaN, and ValueError if f is, or visibly holds, a network in train mode (`smoothing.modes`): its votes would
    depend on each other.
    """

    ABSTAIN = ABSTAIN

    def __init__(
        self,
        base_classifier: Callable[[Tensor], Tensor],
        num_classes: int,
        sigma: float,
        seed: int | None = None,
        noise: str = "float",
        transform: Family | None = None,
    ) -> None:
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma must be > 0, got {sigma}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        if noise not in KINDS:
            raise ValueError(f"noise must be one of {', '.join(KINDS)}, got {noise!r}")
        if transform is not None and noise == "exact":
            raise ValueError(
                f"exact noise lies on the 8-bit grid of pixels, as the parameters of {transform.name} do not; "
                "use noise='float'"
            )
        self.base_classifier = base_classifier
        self.num_classes = num_classes
        self.sigma = sigma
        self.seed = secrets.randbits(63) if seed is None else seed
        self.noise = noise
        self.transform = transform
        self._unnumbered = itertools.count(1)
        self._checked: set[tuple[int, ...]] = set()  # shapes for which the family was found to be additive

    # ---- as published: one image, n draws --------------------------------------------------------------------------

    def certify(
        self, x: Tensor, n0: int, n: int, alpha: float, batch_size: int, index: int | None = None
    ) -> tuple[int, float]:
        """CERTIFY of Cohen et al. 2019: with probability at least 1 - alpha over the draws, g answers the returned
        class everywhere within the returned L2 radius of x; or (ABSTAIN, 0.0).

        Args:
            x: image `[C, H, W]` in [0, 1], on the device where f lives.
            n0: draws that choose the class.
            n: fresh draws that bound its probability.
            alpha: failure probability.
            batch_size: draws per call of f.
            index: number of the image; the same index gives the same draws. By default every call takes new draws.
        """
        self._check(n0, n, alpha, batch_size)
        noise = self._noise(x, index)
        # draw n0 samples of f(x + n) and guess the top class
        counts_selection = self._sample_under_noise(noise, 0, n0, batch_size)
        c_hat_a = int(counts_selection.argmax())
        # draw n fresh samples and bound the probability of that class from below
        counts_estimation = self._sample_under_noise(noise, n0, n, batch_size)
        n_a = int(counts_estimation[c_hat_a])
        p_a_bar = lower_confidence_bound(n_a, n, alpha) - slack(self.noise, self.sigma, x.numel())
        if p_a_bar > 0.5:
            return c_hat_a, self.sigma * float(norm.ppf(p_a_bar))
        return Smooth.ABSTAIN, 0.0

    def predict(self, x: Tensor, n: int, alpha: float, batch_size: int, index: int | None = None) -> int:
        """PREDICT of Cohen et al. 2019: the class g(x) with probability at least 1 - alpha of being right, or ABSTAIN.

        Arguments as in `certify`.
        """
        self._check(1, n, alpha, batch_size)
        return decide(self._sample_under_noise(self._noise(x, index), 0, n, batch_size), alpha)

    def sample(self, x: Tensor, n: int, batch_size: int, index: int | None = None) -> np.ndarray:
        """SAMPLEUNDERNOISE of Cohen et al. 2019: int `[K]` votes of f(x + n) over n draws, those of `predict`."""
        self._check(1, n, 0.5, batch_size)
        return self._sample_under_noise(self._noise(x, index), 0, n, batch_size)

    def _check(self, n0: int, n: int, alpha: float, batch_size: int) -> None:
        if n0 < 1:
            raise ValueError(f"n0 must be at least 1, got {n0}")
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1, got {n} and {batch_size}")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        must_be_in_eval_mode(self.base_classifier)

    def _sample_under_noise(self, noise: Noise, first: int, num: int, batch_size: int) -> np.ndarray:
        """Votes of f(x + n) over the draws first … first + num - 1: int `[K]`."""
        counts = np.zeros(self.num_classes, dtype=np.int64)
        for start in range(first, first + num, batch_size):
            batch = noise.noisy(start, min(batch_size, first + num - start))
            counts += count_votes(self.base_classifier, batch, self.num_classes)[0]
        return counts

    def _noise(self, x: Tensor, index: int | None) -> Noise:
        if x.ndim != 3:
            raise ValueError(f"x must be one image [C, H, W], got shape {list(x.shape)}")
        if index is None:
            index = -next(self._unnumbered)  # below zero: no index that is given is likely to be the same
        if self.transform is None:
            return Noise(x, self.sigma, self.seed, index, self.noise)
        if tuple(x.shape) not in self._checked:
            must_be_additive(self.transform, tuple(x.shape))
            self._checked.add(tuple(x.shape))
        return Changed(x, self.transform, self.sigma, self.seed, index)

    def _noises(self, images: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[int, Noise]]:
        shape = None
        for index, x in images:
            shape = shape or x.shape
            if x.shape != shape:
                raise ValueError(f"image {index}: has shape {list(x.shape)}, those before it {list(shape)}")
            yield index, self._noise(x, index)

    # ---- the same guarantee from fewer draws, for many images ------------------------------------------------------

    def certify_images(
        self,
        images: Iterable[tuple[int, Tensor]],
        n0: int,
        n: int,
        alpha: float,
        batch_size: int,
        radii: Sequence[float] | None = None,
        radius_tol: float | None = None,
        groups: Sequence[Sequence[int]] = (),
        group_rule: str = "vote",
    ) -> Iterator[tuple[int, Certificate]]:
        """Certify (index, image `[C, H, W]`) pairs, several in one forward pass. Yields (index, certificate) as soon as
        each is done, roughly in the order of `images`. All images must have the same shape.

        Args:
            n0: as in `certify`; with `radii` a pilot whose first draws all agree is shorter.
            alpha, batch_size: as in `certify`.
            n: draws per image after the pilot, at most.
            radii: stop the draws for an image as soon as each of these radii (ascending, L2 on the pixel scale) is
                proved or improbable (`SequentialDraws`).
            radius_tol: instead, plan the number of draws so that the radius is about `radius_tol · sigma` below that of
                n draws (`PlannedDraws`). With neither, all n draws are taken, and class and radius are those of
                `certify` (with `groups`: except for a class outside the group that won).
            groups: a partition of the classes, such as (tumours, healthy). Every certificate then also holds the group,
                and the radius within which no perturbation moves the answer out of it.
            group_rule: how the group is decided. `vote`: by the summed votes of each group; the class is certified only
                if it belongs to the group that won, and only within the group radius. `class`: the group of the class
                g(x).

        Each certificate holds with probability at least 1 - alpha, its group's likewise, both with 1 - 2 alpha. With
        `radii` or `radius_tol` the class is proved by the margin bound (`smoothing.rules.margin_successes`), which is
        never below that of `certify`.
        """
        self._check(n0, n, alpha, batch_size)
        if radii is not None and radius_tol is not None:
            raise ValueError("give radii or radius_tol, not both")
        stream = self._noises(images)
        first = next(stream, None)
        if first is None:
            return
        parts = tuple(tuple(members) for members in groups)
        if parts and sorted(itertools.chain(*parts)) != list(range(self.num_classes)):
            raise ValueError(f"groups must hold each of the classes 0 to {self.num_classes - 1} once, got {parts}")
        if group_rule not in GROUP_RULES:
            raise ValueError(f"group_rule must be one of {', '.join(GROUP_RULES)}, got {group_rule!r}")
        lowered = slack(self.noise, self.sigma, first[1].shape.numel())
        question = Question(self.sigma, alpha, parts, group_rule, lowered)
        rule: Rule
        if radii is not None:
            rule = SequentialDraws(question, n, radii)
        elif radius_tol is not None:
            rule = PlannedDraws(question, n, radius_tol)
        else:
            rule = FixedDraws(question, n)
        everything = itertools.chain([first], stream)
        yield from certify_images(self.base_classifier, self.num_classes, everything, rule, n0, batch_size)


def decide(counts: np.ndarray, alpha: float) -> int:
    """The second half of PREDICT: the class with most votes, correct with probability at least 1 - alpha, or ABSTAIN if
    it does not lead significantly. `counts` `[K]` can also be the summed votes of groups of classes."""
    c_hat_b, c_hat_a = np.argsort(counts, kind="stable")[-2:].tolist()
    n_a, n_b = int(counts[c_hat_a]), int(counts[c_hat_b])
    if binomtest(n_a, n_a + n_b, p=0.5).pvalue > alpha:
        return ABSTAIN
    return c_hat_a


def draws_to_decide(alpha: float) -> int:
    """How many votes it takes for `decide` not to abstain even if all of them agree: the least n for which the
    two-sided p-value, 2^(1 - n), is at most alpha."""
    return next(n for n in itertools.count(1) if 2.0 ** (1 - n) <= alpha)
