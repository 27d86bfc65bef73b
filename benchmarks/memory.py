"""The peak memory of a part of a program."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")  # writing 5 sets the peak of the resident memory back to what it is (proc(5))


def reset_peak(device: torch.device) -> None:
    """Let `peak` count from now on: the most that the process ever took may have been taken before. What it frees and
    keeps (`models.device.keep_freed_memory`) counts on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            CLEAR.write_text("5")


def peak(device: torch.device) -> float | None:
    """The most memory in MiB since `reset_peak`: allocated on the GPU; on Linux resident in all, which holds what was
    there before; elsewhere None."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not os.access(CLEAR, os.W_OK):
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
