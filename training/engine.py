"""The epoch loop of all training scripts. Model, loss and validation are arguments."""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from common import resources
from models.device import autocast
from training.optim import build_optimizer, build_scheduler
from training.run_directory import RunDirectory

# (images [B, C, H, W], labels [B]), both on the device → loss per sample [B]
LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass
class Epoch:
    """The state of an unfinished epoch: `steps` done, the sum of their losses, the number of `images`; torch's random
    state `before` the epoch, which determines the order of its images, and `after` the last step; the `buffers`
    (statistics of batch norm) at that time. `whole` is False while a step changes weights."""

    before: dict
    after: dict
    buffers: list[Tensor]
    loss: Tensor
    steps: int = 0
    images: int = 0
    whole: bool = True
    lr: float | None = None  # at its beginning

    @classmethod
    def of(cls, model: nn.Module) -> Epoch:
        """One that has not begun."""
        state = get_rng_state()
        return cls(state, state, copies(model.buffers()), torch.zeros(()))


def fit(
    model: nn.Module,
    loss_fn: LossFunction,
    validate: Callable[[], dict[str, float]],
    score: str,
    train_loader: DataLoader,
    run: RunDirectory,
    args: argparse.Namespace,
    device: torch.device,
    describe: dict[str, Any],
    reserve: Callable[[int], bool] = lambda images: True,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> dict:
    """Train `model` for `args.epochs` epochs and return the record of the best one.

    `loss_fn` holds everything that is not trained. `validate` returns the numbers to log; `score` names the one that
    chooses `best.pth.tar` (higher is better). `describe` is what a checkpoint needs to rebuild the model (arch,
    arch_kwargs, dataset, image_size). `reserve` gets the number of images before each step and returns whether the
    budget pays for the step and the validation after it; if not, the epoch ends and is the last one. `augment` changes
    each batch of training images.

    A run that is resumed from `run.checkpoint` gives the same numbers as an uninterrupted run: optimiser, scheduler and
    random state are restored. An interruption within an epoch, or an OSError (a black box that stops answering), keeps
    the finished steps. Raises FloatingPointError if the loss is not finite, ValueError if the checkpoint is of another
    model, the budget does not pay for one epoch, or a batch needs more memory than there is.
    """
    optimizer = build_optimizer((p for p in model.parameters() if p.requires_grad), args, len(train_loader))
    scheduler = build_scheduler(optimizer, args, len(train_loader))
    start, best, epoch = restored(run, model, optimizer, scheduler)

    first_step = min(train_loader.batch_size or 1, len(cast(Sized, train_loader.dataset)))

    def checkpoint(epochs: int) -> dict:
        return {
            **describe,
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": epochs,
            "best_metric": best,
            "rng": get_rng_state(),
            "args": run.args,
        }

    epochs = tqdm(range(start, args.epochs), desc=str(run.path), initial=start, total=args.epochs, disable=None)
    for done in epochs:
        if not reserve(0 if epoch else first_step):
            break
        epoch = epoch or Epoch.of(model)
        began = time.perf_counter()
        epoch.lr = epoch.lr or float(scheduler.get_last_lr()[0])
        try:
            train_loss = train_one_epoch(
                model, loss_fn, train_loader, optimizer, scheduler, device, args.amp, done + 1, epoch, reserve, augment
            )
            model.eval()
            with torch.inference_mode(), autocast(device, args.amp):
                metrics = validate()
        except (KeyboardInterrupt, OSError):
            if epoch.steps and epoch.whole:
                put_back(model.buffers(), epoch.buffers)
                part = {name: getattr(epoch, name) for name in ("before", "after", "loss", "steps", "images", "lr")}
                run.keep({**checkpoint(done), "part": part})
            raise
        record = {"epoch": done + 1, "lr": epoch.lr, "train_loss": train_loss, **metrics}
        epoch = None
        record["seconds"] = round(time.perf_counter() - began, 2)
        is_best = metrics[score] >= best  # among equals the later epoch: it has trained longer
        best = max(best, metrics[score])
        run.record(record, checkpoint(done + 1), is_best)
        epochs.set_postfix({"loss": f"{train_loss:.4g}", score: f"{metrics[score]:.4g}", "best": f"{best:.4g}"})
    if not run.history:
        raise ValueError(f"{run.path}: the query budget was spent before one epoch was finished; raise --query_budget")
    return max(reversed(run.history), key=lambda row: row[score])


def restored(
    run: RunDirectory,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[int, float, Epoch | None]:
    """Restore what the checkpoint of `run` holds, torch's random state too. Gives (epochs done, best score, the epoch
    that was interrupted), of a new run (0, -∞, None). Raises ValueError if it is of another run or model."""
    if run.checkpoint is None:
        return 0, -math.inf, None
    try:
        model.load_state_dict(run.checkpoint["state_dict"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        scheduler.load_state_dict(run.checkpoint["scheduler"])
        for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = lr  # the new scheduler set it to that of the first step
        set_rng_state(run.checkpoint["rng"])
        part = run.checkpoint.get("part")
        epoch = Epoch(**part, buffers=copies(model.buffers())) if part else None
        return run.checkpoint["epoch"], run.checkpoint["best_metric"], epoch
    except (RuntimeError, KeyError, ValueError):
        raise ValueError(f"--resume {run.path}: its checkpoint.pth.tar is of another run or model") from None


def train_one_epoch(
    model: nn.Module,
    loss_fn: LossFunction,
    loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
    amp: bool,
    number: int,
    epoch: Epoch,
    reserve: Callable[[int], bool] = lambda images: True,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """One pass over `loader`, or the rest of it after `epoch.steps` steps, as far as the budget pays for it. Returns
    the mean loss per image and keeps `epoch` up to date. Raises FloatingPointError, and ValueError as `gradients`
    does."""
    model.train()
    if epoch.steps:
        set_rng_state(epoch.before)
    batches = iter(loader)
    if epoch.steps:
        for _ in range(epoch.steps):
            next(batches)
        set_rng_state(epoch.after)
    for images, labels in batches:
        if not reserve(len(images)):
            break
        images = images.to(device, non_blocking=True)
        # Here, not in the loader's processes: what is random in it is drawn from the one generator that is kept.
        images = (images if augment is None else augment(images)).contiguous(memory_format=torch.channels_last)
        labels = labels.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        loss = gradients(loss_fn, images, labels, device, amp, reserve)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} in epoch {number}, step {epoch.steps + 1}; try a lower --lr"
            )
        epoch.whole = False
        optimizer.step()
        scheduler.step()
        epoch.loss = epoch.loss.to(device) + loss.detach() * len(images)
        epoch.steps, epoch.images = epoch.steps + 1, epoch.images + len(images)
        epoch.after, epoch.buffers = get_rng_state(), copies(model.buffers())
        epoch.whole = True
    return (epoch.loss / epoch.images).item()


def gradients(
    loss_fn: LossFunction,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    amp: bool,
    reserve: Callable[[int], bool],
) -> Tensor:
    """The mean loss of a batch, whose gradients are then in the parameters. Raises ValueError that names a batch which
    fits if this one needs more memory than there is; MemoryError if none is found that `reserve` pays for."""

    def loss_of(count: int) -> Tensor:
        if count < len(images) and (count < 2 or not reserve(count)):
            raise MemoryError
        with autocast(device, amp):
            loss = loss_fn(images[:count], labels[:count]).mean()
        loss.backward()
        return loss.detach()

    loss, fits = resources.fitting(len(images), loss_of)
    if fits < len(images):
        raise ValueError(f"--batch {len(images)}: a step needs more memory than there is; --batch {fits} fits")
    return loss


def copies(buffers: Iterable[Tensor]) -> list[Tensor]:
    """What the buffers hold now."""
    return [buffer.detach().clone() for buffer in buffers]


def put_back(buffers: Iterable[Tensor], kept: Iterable[Tensor]) -> None:
    """Let the buffers hold what `copies` kept of them."""
    for buffer, value in zip(buffers, kept, strict=True):
        buffer.copy_(value)


def get_rng_state() -> dict:
    """The state of torch's generators: all that is random in training is drawn from them."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state: dict) -> None:
    """Restore `get_rng_state()`; the state of the GPUs only if there are as many of them."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
