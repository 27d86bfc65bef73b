"""Where and how a network runs: device, memory layout, number format. One code path for CPU and GPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from pathlib import Path

import torch
from torch import nn

from common import resources


def select_device(name: str, keep_memory: bool = True) -> torch.device:
    """`auto` (CUDA if there is a GPU), `cpu` or `cuda`; under torchrun each process gets its own GPU. On the CPU,
    `keep_memory` makes this process keep the memory that it frees (`keep_freed_memory`), and more memory than there is
    is an error (`resources.refuse_what_is_not_there`). On a GPU this switches TF32 off, because its convolutions round
    to ten bits, and the small differences between neighbouring losses get lost; `--amp` is for speed.

    Raises ValueError for `cuda` without a usable CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no usable CUDA device; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        resources.refuse_what_is_not_there()
        if keep_memory:
            keep_freed_memory()
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if "LOCAL_RANK" in os.environ else torch.device("cuda")


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensor. By default it returns large blocks to the kernel; getting them
    again, page by page, took a fifth of the time of certification. Other C libraries do not change."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no blocks of their own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never shrink


# In the order in which a CPU's kernels prefer them. The names of PyTorch's checks are private, and may be missing.
INSTRUCTION_SETS = {
    "amx": "_is_amx_tile_supported",
    "avx512_bf16": "_is_avx512_bf16_supported",
    "avx512": "_is_avx512_supported",
    "avx2": "_is_avx2_supported",
}


def instruction_set(device: torch.device | str) -> str:
    """The instructions by which a CPU multiplies bfloat16: amx, avx512_bf16 or, without either, avx512, avx2, none.
    Each rounds in its own way and so changes some votes (measured: 0.1 to 0.8%). Also "none" on CUDA, where the name of
    the GPU determines it."""
    if torch.device(device).type == "cuda":
        return "none"
    there = (name for name, check in INSTRUCTION_SETS.items() if getattr(torch.cpu, check, lambda: False)())
    return next(there, "none")


def bf16_is_fast(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 in hardware (on others autocast is slower than float32)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return instruction_set(device) in ("amx", "avx512_bf16")


def resolve_amp(amp: bool | None, device: torch.device | str) -> bool:
    """What `--amp` (True, False, or None for "where it is fast") means on `device`."""
    return bf16_is_fast(device) if amp is None else amp


def autocast(device: torch.device | str, enabled: bool) -> contextlib.AbstractContextManager:
    """bfloat16 autocast on `device`, or nothing. Losses and votes use float32 logits outside of it."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=enabled)


def hardware(device: torch.device | str) -> str:
    """The name of the device, for the settings beside a result."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def prepare(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Move to the device in channels-last layout: faster convolutions on CPU and GPU, same numbers."""
    return model.to(device).to(memory_format=torch.channels_last)
