"""What the votes of a real network depend on: the draw, and nothing of how it is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core import Smooth
from models import Pipeline, frozen
from models.device import prepare
from models.registry import build
from smoothing.noise import Noise

SIGMA, IMAGES, DRAWS = 0.5, 3, 32


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (IMAGES, 3, 8, 8), generator=generator)
    return list(nn.functional.interpolate(coarse.float(), size=64, mode="bilinear").round() / 255)


class Balanced(nn.Module):
    """`base` with logits of mean 0 and standard deviation 1 over `x`: each class is the answer now and then."""

    def __init__(self, base: nn.Module, x: torch.Tensor) -> None:
        super().__init__()
        self.base, self.amp = base, base.amp
        with torch.inference_mode():
            logits = base(x)
        self.mean, self.sd = logits.mean(0), logits.std(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.base(x) - self.mean) / self.sd


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "bfloat16"])
def base_classifier(request, images) -> nn.Module:
    """A frozen ResNet-18 behind a frozen NAFNet, of random weights that leave no layer out."""
    torch.manual_seed(0)
    nets = build("resnet18", num_classes=4, image_size=64), build("nafnet", channels=3, width=8)
    for parameter in (p for net in nets for p in net.parameters() if p.ndim < 2 or not p.any()):
        nn.init.normal_(parameter, std=0.3)
    classifier, denoiser = (frozen(prepare(net, "cpu")) for net in nets)
    return Balanced(Pipeline(classifier, denoiser, "none", 64, 3, 4).at(SIGMA, amp=request.param), inputs(images))


def inputs(images: list[torch.Tensor]) -> torch.Tensor:
    """DRAWS noisy inputs of each image, one after the other."""
    return torch.cat([Noise(x, SIGMA, 0, i, "exact").noisy(0, DRAWS) for i, x in enumerate(images)])


@torch.inference_mode()
def logits_of(base: nn.Module, x: torch.Tensor, batch: int) -> torch.Tensor:
    """In passes of one shape, as the engine makes them: zeros fill up the last."""
    found = []
    for part in x.split(batch):
        padded = torch.zeros(batch, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
        padded[: len(part)] = part
        found.append(base(padded)[: len(part)])
    return torch.cat(found)


def test_votes_depend_neither_on_company_nor_on_place(base_classifier, images):
    """In a pass of one shape a row's logits are the same to the last bit, wherever it stands and whoever is beside."""
    x = inputs(images)
    expected = logits_of(base_classifier, x, 64)
    assert len(torch.unique(expected.argmax(1))) == 4
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    assert torch.equal(logits_of(base_classifier, x[order], 64), expected[order])
    alone = logits_of(base_classifier, x[DRAWS : DRAWS + 10], 64)
    assert torch.equal(alone, expected[DRAWS : DRAWS + 10])


@pytest.mark.parametrize(("batch", "threads"), [(64, 2), (32, 1), (100, 1), (128, 2)])
def test_votes_hardly_depend_on_the_shape_of_a_pass_or_on_threads(base_classifier, images, batch, threads):
    """Other shapes and threads may choose other kernels, which add up in another order. On the machines where this was
    measured the logits were the same to the last bit; what is asked here is the same vote wherever the two best classes
    are further apart than rounding can bring them."""
    x = inputs(images)
    expected, before = logits_of(base_classifier, x, 64), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = logits_of(base_classifier, x, batch)
    finally:
        torch.set_num_threads(before)
    rounding = 0.05 if base_classifier.amp else 1e-4  # the logits' standard deviation is 1
    assert (found - expected).abs().max() < rounding
    best, second = expected.topk(2).values.T
    clear = best - second > 2 * rounding
    assert clear.float().mean() > 0.8
    assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])


def test_certificates_of_a_network_depend_neither_on_company_nor_on_order(base_classifier, images):
    """Through the engine: each image alone, and all together in another order."""
    smoothed = Smooth(base_classifier, 4, SIGMA, noise="exact")

    def certify(chosen: list[int]) -> dict:
        return dict(smoothed.certify_images([(i, images[i]) for i in chosen], 16, 48, 0.05, 32))

    together = certify([2, 0, 1])
    assert together == {i: certify([i])[i] for i in range(IMAGES)}
