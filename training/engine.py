"""The epoch loop: one for every script. What is trained and how the loss is made are injected."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.device import autocast
from training.optim import build_optimizer, build_scheduler
from training.run_directory import RunDirectory

# (images [B, C, H, W], labels [B]), both on the device → loss per sample [B]
LossFunction = Callable[[Tensor, Tensor], Tensor]


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
    affordable: Callable[[int], bool] = lambda images: True,
) -> dict:
    """Train `model` for `args.epochs` epochs and return the record of the best one.

    `loss_fn` holds everything that is not trained; `validate` returns the numbers to log, of which `score` (higher is
    better) chooses `best.pth.tar`; `describe` is what a checkpoint needs to rebuild the model (arch, arch_kwargs,
    dataset, image_size). Before a step whose number of images is not `affordable` the epoch ends and is the last one.
    A run that is continued through `run.checkpoint` gives the numbers of an uninterrupted one: optimiser, scheduler and
    random state are restored. Raises FloatingPointError on a loss that is not finite, ValueError if the checkpoint to
    go on from is of another model, or no epoch is affordable.
    """
    optimizer = build_optimizer((p for p in model.parameters() if p.requires_grad), args, len(train_loader))
    scheduler = build_scheduler(optimizer, args, len(train_loader))
    start, best = 0, -math.inf
    if run.checkpoint is not None:
        try:
            model.load_state_dict(run.checkpoint["state_dict"])
            optimizer.load_state_dict(run.checkpoint["optimizer"])
            scheduler.load_state_dict(run.checkpoint["scheduler"])
            set_rng_state(run.checkpoint["rng"])
            start, best = run.checkpoint["epoch"], run.checkpoint["best_metric"]
        except (RuntimeError, KeyError, ValueError):
            raise ValueError(f"--resume {run.path}: its checkpoint.pth.tar is of another run or model") from None

    epochs = tqdm(range(start, args.epochs), desc=str(run.path), initial=start, total=args.epochs, disable=None)
    for epoch in epochs:
        if not affordable(min(train_loader.batch_size, len(train_loader.dataset))):
            break
        began = time.perf_counter()
        lr = scheduler.get_last_lr()[0]
        train_loss = train_one_epoch(model, loss_fn, train_loader, optimizer, scheduler, device, args.amp, epoch + 1,
                                     affordable)  # fmt: skip
        model.eval()
        with torch.inference_mode(), autocast(device, args.amp):
            metrics = validate()
        record = {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss, **metrics}
        record["seconds"] = round(time.perf_counter() - began, 2)
        is_best = metrics[score] >= best  # among equals the later epoch: it has trained longer
        best = max(best, metrics[score])
        checkpoint = {
            **describe,
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": epoch + 1,
            "best_metric": best,
            "rng": get_rng_state(),
            "args": run.args,
        }
        run.record(record, checkpoint, is_best)
        epochs.set_postfix({"loss": f"{train_loss:.4g}", score: f"{metrics[score]:.4g}", "best": f"{best:.4g}"})
    if not run.history:
        raise ValueError(f"{run.path}: the budget is spent, and no epoch was finished; --query_budget must be larger")
    return max(reversed(run.history), key=lambda row: row[score])


def train_one_epoch(
    model: nn.Module,
    loss_fn: LossFunction,
    loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
    amp: bool,
    epoch: int,
    affordable: Callable[[int], bool] = lambda images: True,
) -> float:
    """One pass over `loader`, or as far as is `affordable`; the mean loss per image. Raises FloatingPointError."""
    model.train()
    total, count = torch.zeros((), device=device), 0
    for step, (images, labels) in enumerate(loader, 1):
        if not affordable(len(images)):
            break
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        with autocast(device, amp):
            loss = loss_fn(images, labels).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} in epoch {epoch}, step {step}; try a lower --lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach() * len(images)
        count += len(images)
    return (total / count).item()


def get_rng_state() -> dict:
    """The state of torch's generators: all that is random in training is drawn from them."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state: dict) -> None:
    """Put `get_rng_state()` back; the GPUs' part only where there are as many of them."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
