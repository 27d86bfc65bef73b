"""Randomized smoothing (Cohen, Rosenfeld, Kolter 2019): `Smooth.certify` and `Smooth.predict`.

This module knows tensors and a callable, nothing of data, files or flags:

    >>> smoothed = Smooth(base_classifier, num_classes=4, sigma=0.25)
    >>> prediction, radius = smoothed.certify(x, n0=100, n=10_000, alpha=0.001, batch_size=100)

Images and noise are on the [0, 1] pixel scale, and so is the L2 radius.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from scipy.stats import beta, binom, binomtest, norm
from torch import Tensor

CHUNK = 64  # draws per random generator; part of what defines the noise, so never change it


class Smooth:
    """The smoothed classifier `g(x) = argmax_c P[f(x + n) = c]`, `n ~ N(0, sigma² I)`, of a base classifier f.

    Args:
        base_classifier: f, any callable that maps images `[B, C, H, W]` to scores `[B, num_classes]`. An
            `nn.Module` should be in eval mode. A row with a score that is NaN votes for no class.
        num_classes: K.
        sigma: standard deviation of the noise, > 0.
        seed: the noise of draw j on image `index` depends on (seed, sigma, index, j) and on nothing else: not on
            `batch_size`, not on which images were certified before.

    Raises ValueError if `sigma` or `num_classes` makes no sense.
    """

    ABSTAIN = -1

    def __init__(
        self, base_classifier: Callable[[Tensor], Tensor], num_classes: int, sigma: float, seed: int = 0
    ) -> None:
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma must be > 0, got {sigma}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.base_classifier = base_classifier
        self.num_classes = num_classes
        self.sigma = sigma
        self.seed = seed

    def certify(self, x: Tensor, n0: int, n: int, alpha: float, batch_size: int, index: int = 0) -> tuple[int, float]:
        """CERTIFY of Cohen et al. 2019: with probability at least 1 - alpha over the draws, g answers the returned
        class everywhere within the returned L2 radius of x; or (ABSTAIN, 0.0).

        Args:
            x: image `[C, H, W]` in [0, 1], on the device where f lives.
            n0: draws that choose the class.
            n: fresh draws that bound its probability.
            alpha: failure probability.
            batch_size: draws per call of f.
            index: which image this is, for the noise.
        """
        _check(x, n, alpha, batch_size)
        if n0 < 1:
            raise ValueError(f"n0 must be at least 1, got {n0}")
        # draw n0 samples of f(x + n) and guess the top class
        counts_selection = self._sample_under_noise(x, 0, n0, batch_size, index)
        c_hat_a = counts_selection[: self.num_classes].argmax().item()
        # draw n fresh samples and bound the probability of that class from below
        counts_estimation = self._sample_under_noise(x, n0, n, batch_size, index)
        n_a = counts_estimation[c_hat_a].item()
        p_a_bar = lower_confidence_bound(n_a, n, alpha)
        if p_a_bar > 0.5:
            return c_hat_a, self.sigma * float(norm.ppf(p_a_bar))
        return Smooth.ABSTAIN, 0.0

    def predict(self, x: Tensor, n: int, alpha: float, batch_size: int, index: int = 0) -> int:
        """PREDICT of Cohen et al. 2019: the class g(x) with probability at least 1 - alpha of being right, or ABSTAIN.

        Arguments as in `certify`.
        """
        _check(x, n, alpha, batch_size)
        counts = self._sample_under_noise(x, 0, n, batch_size, index)[: self.num_classes]
        (n_a, n_b), (c_hat_a, _) = (values.tolist() for values in counts.topk(2))
        if n_a + n_b == 0 or binomtest(n_a, n_a + n_b, p=0.5).pvalue > alpha:
            return Smooth.ABSTAIN
        return c_hat_a

    @torch.inference_mode()
    def _sample_under_noise(self, x: Tensor, first: int, num: int, batch_size: int, index: int) -> Tensor:
        """Votes of f(x + n) over the draws first … first + num - 1: int64 `[K + 1]`, the last for "no class" (NaN)."""
        counts = torch.zeros(self.num_classes + 1, dtype=torch.int64, device=x.device)
        for noise in self.noise(x, first, num, batch_size, index):
            scores = self.base_classifier(x + noise)
            votes = scores.argmax(dim=1).masked_fill(scores.isnan().any(dim=1), self.num_classes)
            counts += torch.bincount(votes, minlength=self.num_classes + 1)
        return counts.cpu()

    def noise(self, x: Tensor, first: int, num: int, batch_size: int, index: int) -> Iterator[Tensor]:
        """The draws first … first + num - 1 for image `index`, N(0, sigma²), in batches `[<= batch_size, C, H, W]`."""
        drawn: dict[int, Tensor] = {}
        for start in range(first, first + num, batch_size):
            stop = min(start + batch_size, first + num)
            chunks = range(start // CHUNK, (stop - 1) // CHUNK + 1)
            drawn = {c: drawn[c] if c in drawn else self._chunk(x, c, index) for c in chunks}
            flat = torch.cat([drawn[c] for c in chunks]) if len(chunks) > 1 else drawn[chunks[0]]
            offset = start - chunks[0] * CHUNK
            yield flat[offset : offset + stop - start].contiguous(memory_format=torch.channels_last)

    def _chunk(self, x: Tensor, chunk: int, index: int) -> Tensor:
        """CHUNK draws from a generator of their own, so that any draw can be made without those before it."""
        key = f"{self.seed} {self.sigma!r} {index} {chunk}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
        generator = torch.Generator(device=x.device).manual_seed(seed)
        return self.sigma * torch.randn((CHUNK, *x.shape), generator=generator, device=x.device)


def lower_confidence_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper–Pearson bound: P(bound > p) <= alpha for successes ~ Bin(trials, p).

    The quantile `Beta.ppf(alpha; k, n - k + 1)`, 0 for k = 0, moved down if need be until the binomial tail itself
    says `P(X >= k) <= alpha`, so that rounding inside SciPy cannot make it too large.
    """
    if successes == 0:
        return 0.0
    bound = float(beta.ppf(alpha, successes, trials - successes + 1))
    while binom.sf(successes - 1, trials, bound) > alpha:
        bound *= 1 - 1e-12
    return bound


def _check(x: Tensor, n: int, alpha: float, batch_size: int) -> None:
    if x.ndim != 3:
        raise ValueError(f"x must be one image [C, H, W], got shape {list(x.shape)}")
    if n < 1 or batch_size < 1:
        raise ValueError(f"n and batch_size must be at least 1, got {n} and {batch_size}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
