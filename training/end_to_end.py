"""End-to-end training of what stands in front of a frozen network: the loss of a step, its validation, its queries."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from models import BlackBox, autocast
from models.autoencoders import AutoencodedDenoiser
from training import flags, losses
from training.front import run_front
from training.noise import add_noise, noise_range
from training.run_directory import RunDirectory
from training.tasks import Task
from training.zeroth_order import ESTIMATORS, gradient, grey, guided, important, in_batches, surrogate_loss


class EndToEnd:
    """`loss(images, labels)`, `validate(loader)` and, of zeroth order, what queries may be spent (`reserve`).

    `front` is trained, `network` is the frozen classifier (or reconstructor) behind it, `surrogates` take its place in
    training where there are some. `args` are those of `main_ds.py`, complete but for what `count_queries` sets.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        task: Task,
        front: nn.Module,
        network: nn.Module,
        surrogates: Sequence[nn.Module],
        device: torch.device,
    ) -> None:
        self.args, self.task, self.front, self.network, self.surrogates = args, task, front, network, surrogates
        self.device, self.noise_sd = device, noise_range(args.noise_sd)
        self.zeroth_order = args.optimization_method == "ZO"
        self.rounded = args.zo_precision == "bfloat16"
        self.queried = self.zeroth_order or bool(surrogates)  # in training, or in validation alone
        self.box = BlackBox(network, amp=not self.zeroth_order or self.rounded)
        self.pool = args.batch * (args.zo_pool or 1)  # images of which a step chooses `args.batch`
        self.copies = 2 if args.consistency else 1  # noisy ones of an image
        self.score = "val_unanimous" if args.consistency else task.score

    # ---- queries: of a step, of an epoch, and whether they can be paid for ----

    def count_queries(self, channels: int, size: int, training: int, validation: int) -> None:
        """Set the defaults of --q and --zo_batch, and --epochs where --query_budget does not pay for all of them;
        `training` and `validation` are numbers of images. Raises what `flags.check_queries` and `flags.fit_epochs` do.
        """
        self.validation = validation * self.task.queries
        if not self.zeroth_order:
            return
        dimension = size**2 * (1 if self.args.zo_grey else channels)
        if isinstance(self.front, AutoencodedDenoiser):
            dimension = math.prod(self.front.autoencoder.latent_shape)
        self.estimated = flags.check_queries(self.args, dimension, size, training, self.device)
        torch.backends.cudnn.allow_tf32 = self.args.zo_precision == "tf32"
        first, (steps, rest) = min(self.pool, training), divmod(training, self.pool)
        epoch = steps * self._step(self.pool) + self._step(rest) + self.validation
        flags.fit_epochs(self.args, self._step(first) + self.validation + self.box.due, epoch)

    def _step(self, images: int) -> int:
        """The queries of a step that is given so many images."""
        losses_first = images * (self.task.stability + (self.pool > self.args.batch))
        return losses_first + min(images, self.args.batch) * self.estimated

    def reserve(self, images: int, run: RunDirectory) -> bool:
        """Whether --query_budget pays for a step on so many images and the validation after it; if so, `run` notes it:
        should this process be killed, the budget holds."""
        if not self.zeroth_order:
            return True
        spent = self.box.queries + self.box.due + self._step(images) + self.validation
        if self.args.query_budget is not None and spent > self.args.query_budget:
            return False
        run.note_queries(spent)
        return True

    # ---- the loss ----

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """`[B]`: of each image under fresh noise, weighted where a step chooses its images from a pool."""
        clean = self.task.measure(images)
        noisy, sd = add_noise(self._copied(clean), self.noise_sd)
        model = self._model()
        target = self._target(model, images, labels, clean)
        weights: float | Tensor = 1.0
        if self.pool > self.args.batch:
            chosen, weights = self._chosen(noisy, sd, target)
            clean, noisy, sd, target = (of_pool[chosen] for of_pool in (clean, noisy, sd, target))
        denoised, z, decode = run_front(self.front, noisy, sd)
        loss = (self._by_queries if self.zeroth_order else self._by_gradients)(model, decode, z, target)
        if self.args.mse_weight:
            loss = loss + self.args.mse_weight * losses.reconstruction(denoised, self._copied(clean))
        return weights * loss

    def _model(self) -> nn.Module:
        """The network, or the surrogate of this step."""
        if not self.surrogates:
            return self.network
        return self.surrogates[int(torch.randint(len(self.surrogates), ()))]

    def _target(self, model: nn.Module, images: Tensor, labels: Tensor, clean: Tensor) -> Tensor:
        """What the answer to a noisy image should be: the answer to the clean one, or the truth."""
        if not self.task.stability:
            return self.task.truth(images, labels)
        with torch.no_grad():
            return self.box.query(clean) if self.zeroth_order else model(clean)

    def _by_gradients(self, model: nn.Module, decode: Callable, z: Tensor, target: Tensor) -> Tensor:
        """By backpropagation; with --consistency plus the disagreement between two noisy copies."""
        output = model(decode(z))
        loss = self.task.loss(output, self._copied(target))
        if self.args.consistency:
            pairs = output.unflatten(0, (self.copies, -1))
            loss = loss + losses.consistency(pairs, self.args.consistency).repeat(self.copies)
        return loss

    def _by_queries(self, model: nn.Module, decode: Callable, z: Tensor, target: Tensor) -> Tensor:
        """By an estimate of the gradient at z; `guided` ones take a surrogate's for their first direction."""
        estimator = ESTIMATORS.get(self.args.zo_method) or guided(
            lambda z: gradient(lambda z: self.task.loss(model(decode(z)), target), z)
        )
        estimator = grey(estimator) if self.args.zo_grey else estimator
        asked = self._asked(decode, target)
        return surrogate_loss(z, asked, estimator, self.args.mu, self.args.q, self.args.zo_batch)

    def _chosen(self, noisy: Tensor, sd: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(indices, weights) of the images of a pool that a step estimates gradients for."""
        with torch.no_grad():
            _, z, decode = run_front(self.front, noisy, sd)
        points = z.float().unsqueeze(1)
        each = in_batches(self._asked(decode, target), self.args.zo_batch)(points).squeeze(1)
        return important(each, min(self.args.batch, len(noisy)))

    def _asked(self, decode: Callable, target: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`loss(points z, which image each belongs to)` by queries alone."""

        def loss(points: Tensor, sample: Tensor) -> Tensor:
            with autocast(self.device, self.rounded):
                return self.task.loss(self.box.query(decode(points)), target[sample])

        return loss

    def _copied(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.copies)

    # ---- validation ----

    def validate(self, loader: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """What is logged of an epoch; with the queries that are spent so far."""
        answer = self.box.query if self.queried else self.network

        def defended(x: Tensor, sd: Tensor) -> Tensor:
            return answer(self.front(x, sd))

        found = self.task.validate(defended, answer, loader, self.device, self.noise_sd)
        return found | ({"queries": self.box.queries} if self.queried else {})
