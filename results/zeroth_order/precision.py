"""How large μ must be for rounded answers, and for labels alone: cosine of estimates to the true gradient, by μ.

    PYTHONPATH=. python results/zeroth_order/precision.py results/zeroth_order/precision.csv  # 7 minutes of a core

The stability loss of 16 validation images at noise 0.25 through the MSE denoiser (DS) and the encoder of 192 numbers
(AE_DS), 192 directions, seed 0; truth is backpropagation in float32. `cosine` is the images' mean, `of_the_batch` that
of all their gradients laid end to end: what a step follows, most of it the few images that the classifier gets wrong.
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from datasets import get_dataset
from models import autocast, frozen, load_classifier, load_front, prepare
from models.black_box import logits_of
from training import losses
from training.front import run_front
from training.noise import add_fixed_noise
from training.zeroth_order import cge, dct, gradient, grey, in_batches, rge_orthogonal

OWN, RUNS = Path("checkpoints/Brain_Tumor_64"), Path("runs/Brain_Tumor_64")
SPACES = {"DS": None, "AE_DS": RUNS / "autoencoder_192/best.pth.tar"}
ESTIMATORS = {"rge_orthogonal": rge_orthogonal, "grey dct": grey(dct), "cge": cge}
SMALL = (0.005, 0.02, 0.05, 0.1, 0.5, 2.0)
LABELS = {"labels": (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)}  # the class alone is told
EVERY = {"float32": SMALL, "bfloat16": SMALL, **LABELS}
CASES = {
    "DS": {"rge_orthogonal": EVERY, "grey dct": LABELS},
    "AE_DS": {"rge_orthogonal": EVERY, "cge": EVERY},
}
IMAGES, Q, NOISE_SD = 16, 192, 0.25


def main() -> None:
    classifier = frozen(load_classifier(OWN / "classifier.pth.tar", "cpu")[0])
    data = get_dataset("Brain_Tumor", "val", 64)
    chosen = torch.linspace(0, len(data) - 1, IMAGES).long().tolist()
    images, everyone = torch.stack([data[i][0] for i in chosen]), torch.arange(IMAGES)
    noisy, sd = add_fixed_noise(images, (NOISE_SD, NOISE_SD), seed=0)

    rows = []
    for space, encoder in SPACES.items():
        front = prepare(load_front(3, 64, "cpu", OWN / "mse.pth.tar", encoder, model_type=space)[0], "cpu").eval()
        with torch.no_grad():
            target = classifier(images)
            _, z, decode = run_front(front, noisy, sd)

        def loss(answers: str, decode: Callable = decode, target: torch.Tensor = target) -> Callable:
            def of(points: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
                with autocast("cpu", answers == "bfloat16"):
                    scores = classifier(decode(points))
                    scores = logits_of(scores.argmax(dim=1), scores.shape[1]) if answers == "labels" else scores
                    return losses.stability(scores, target[sample])

            return of

        exact = loss("float32")
        truth = gradient(functools.partial(exact, sample=everyone), z).flatten(1)
        for name, kinds in CASES[space].items():
            for answers, steps in kinds.items():
                for mu in steps:
                    generator = torch.Generator().manual_seed(0)
                    found = ESTIMATORS[name](in_batches(loss(answers), 64), z, mu, Q, generator, 4)[0].flatten(1)
                    cosine = F.cosine_similarity(found, truth).mean()
                    batch = F.cosine_similarity(found.ravel(), truth.ravel(), dim=0)
                    rows.append((space, name, answers, mu, f"{cosine:.4f}", f"{batch:.4f}"))
                    print(*rows[-1], flush=True)
    with Path(sys.argv[1]).open("w", newline="") as stream:
        csv.writer(stream).writerows([("space", "estimator", "answers", "mu", "cosine", "of_the_batch"), *rows])


if __name__ == "__main__":
    main()
