"""The engine: it certifies many images at once; their draws share forward passes of one constant shape."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from smoothing.noise import Noise
from smoothing.rules import Certificate, Course, Rule

BaseClassifier = Callable[[Tensor], Tensor]


@torch.inference_mode()
def count_votes(
    base_classifier: BaseClassifier, inputs: Tensor, num_classes: int, owners: Tensor | None = None, num_owners: int = 1
) -> np.ndarray:
    """Votes `[num_owners, num_classes]` of one forward pass. `owners` `[B]` names the owner of each of the first rows
    (None: all rows belong to owner 0); rows beyond them are padding.

    Raises FloatingPointError if a score is NaN or +inf: its argmax would silently be some class.
    """
    scores = base_classifier(inputs)
    if scores.ndim != 2 or scores.shape[1] != num_classes:
        raise ValueError(f"the base classifier must give scores [B, {num_classes}], got {list(scores.shape)}")
    senseless = (scores.isnan() | scores.isposinf()).any(dim=1)
    votes = scores.argmax(dim=1).masked_fill(senseless, num_classes)
    if owners is not None:
        votes = votes[: len(owners)] + owners * (num_classes + 1)
    counted = torch.bincount(votes, minlength=num_owners * (num_classes + 1))
    counts = counted.view(num_owners, num_classes + 1).cpu().numpy()
    if counts[:, num_classes].any():
        raise FloatingPointError("the base classifier's scores are NaN or infinite: check its weights, or use --no-amp")
    return counts[:, :num_classes]


@torch.inference_mode()
def fastest_batch(
    base_classifier: BaseClassifier, shape: Sequence[int], device: torch.device, sizes: Sequence[int] = (32, 64, 128)
) -> int:
    """The first of `sizes` (ascending) whose time per image `[C, H, W]` = `shape` is not beaten by the next one, by
    trial. Few images waste the threads of a CPU, many waste its caches; the best size depends on the network."""
    best, fastest = sizes[0], float("inf")
    for size in sizes:
        images = torch.zeros((size, *shape), device=device).contiguous(memory_format=torch.channels_last)
        seconds = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            base_classifier(images)
            seconds = min(seconds, time.perf_counter() - began)
        if seconds / size > fastest:
            break
        best, fastest = size, seconds / size
    return best


@dataclasses.dataclass(eq=False)
class _Image:
    """The state of one image: how many of its draws are counted, and the votes since the last look."""

    index: int
    noise: Noise
    course: Course
    votes: np.ndarray
    taken: int = 0
    seconds: float = 0.0

    @property
    def wants(self) -> int:
        """Draws until the next look."""
        return self.course.wants - int(self.votes.sum())


def coins(noise: Noise) -> np.random.BitGenerator:
    """Random bits that, like the noise, depend on the image and the seed."""
    key = f"coins {noise.seed} {noise.sigma!r} {noise.index}"
    return np.random.PCG64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big"))


def certify_images(
    base_classifier: BaseClassifier,
    num_classes: int,
    images: Iterable[tuple[int, Noise]],
    rule: Rule,
    n0: int,
    batch_size: int,
) -> Iterator[tuple[int, Certificate]]:
    """Certify `images`, (index, its noise), and yield (index, certificate) as soon as each is done.

    `rule` (see `smoothing.rules`) says how many draws an image gets, including a pilot of at most `n0`. Every forward
    pass has `batch_size` rows: an image takes as many as it needs, the next images take the rest, and zeros fill up the
    last pass. So memory depends only on `batch_size`, and votes only on the draws of the image itself.
    """
    waiting = iter(images)
    active: list[_Image] = []
    batch: Tensor | None = None
    while True:
        # ---- whose draws go into this pass ----
        shares: list[tuple[_Image, int]] = []
        room = batch_size
        for position in range(batch_size):
            if position == len(active):
                following = next(waiting, None)
                if following is None:
                    break
                index, noise = following
                votes = np.zeros(num_classes, dtype=np.int64)
                active.append(_Image(index, noise, rule.begin(n0, coins(noise)), votes))
            share = min(room, active[position].wants)
            shares.append((active[position], share))
            room -= share
            if room == 0:
                break
        if not shares:
            return

        # ---- one forward pass ----
        began = time.perf_counter()
        if batch is None:
            noise = shares[0][0].noise
            batch = torch.zeros((batch_size, *noise.shape), device=noise.device).contiguous(
                memory_format=torch.channels_last
            )
        start = 0
        for image, share in shares:
            image.noise.noisy(image.taken, share, out=batch[start : start + share])
            start += share
        batch[start:] = 0
        owners = torch.repeat_interleave(
            torch.arange(len(shares), device=batch.device),
            torch.tensor([share for _, share in shares], device=batch.device),
        )
        counts = count_votes(base_classifier, batch, num_classes, owners, len(shares))
        per_draw = (time.perf_counter() - began) / start

        # ---- what each image makes of it ----
        for (image, share), votes in zip(shares, counts, strict=True):
            image.taken += share
            image.seconds += share * per_draw
            image.votes += votes
            if image.wants > 0:
                continue
            certificate, image.votes = image.course.look(image.votes), np.zeros_like(image.votes)
            if certificate is not None:
                active.remove(image)
                yield image.index, dataclasses.replace(certificate, seconds=image.seconds)
