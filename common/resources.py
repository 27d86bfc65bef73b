"""What the machine gives: main memory (refusal in place of the kernel's kill, less at a time where it is too small) and
cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

if sys.platform != "win32":
    import resource

Found = TypeVar("Found")

# What libraries say when an allocation fails, on the CPU (the last is oneDNN's) and on a GPU.
SIGNS = re.compile(
    "defaultcpuallocator|out of memory|allocate memory|alloc_failed|bad_alloc|could not create a primitive(?! desc)",
    re.IGNORECASE,
)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error means that there is too little memory, of the CPU or of a GPU; also that of a black box, which
    is the cause of the one that reports it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's, of a GPU
        return True
    if SIGNS.search(str(error)):
        return True
    return error.__cause__ is not None and is_exhausted(error.__cause__)


def fitting(size: int, compute: Callable[[int], Found]) -> tuple[Found, int]:
    """`compute(size)`, or where memory is too small for that, with half of `size`, a quarter, …; and the size that did.
    For results that do not depend on it. Raises what `compute` raises."""
    while True:
        with Exhausted() as failed:
            return compute(size), size
        size = failed.halved(size)


def too_large(asked: int, batch: int) -> str:
    """What a script says that goes on with fewer images at a time."""
    return f"--batch {asked}: needs more memory than there is; goes on with {batch}, which changes no result"


class Exhausted:
    """A block that may fail for want of memory. The error is kept without its frames: they hold what the block made."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> Exhausted:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not is_exhausted(error):
            return False
        self.error = error.with_traceback(None)
        return True

    def halved(self, size: int) -> int:
        """The next size to try, with the memory of the last given back. Raises the error itself if there is none."""
        if size <= 1 and self.error is not None:
            raise self.error
        give_back()
        return size // 2


def available_memory() -> int | None:
    """The bytes that this process may still take: of the machine and of its control group. None where that is unknown.
    What the kernel only caches counts as free."""
    found = [value for value in (_of_machine(), *_of_groups()) if value is not None]
    return max(0, min(found)) if found else None


SPARE = 2**26  # bytes
_limits: list[int] = []  # that this process has set


def refuse_what_is_not_there() -> None:
    """Let allocations beyond the memory that is free fail, with an error that can be reported. Linux would grant them,
    and kill the process without a word as it uses them.

    At least half of the machine's memory stays allowed: other programs may end. Does nothing on other systems, or where
    there is a limit already.
    """
    free, held = available_memory(), _fields(Path("/proc/self/status")).get("VmData")
    total = _fields(Path("/proc/meminfo")).get("MemTotal")
    if free is not None and held is not None and total is not None and _limit() == -1:
        _set_limit(held + max(free, total // 2))


def give_back() -> None:
    """Let glibc return the memory that is free in its heap to the system. The addresses stay with the heap, so that a
    limit of ours (`refuse_what_is_not_there`) moves a little: other allocators, such as that of compiled code, need
    some."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if platform.libc_ver()[0] == "glibc" else None
    if trim is not None:
        trim(0)
    if _limit() in _limits:
        _set_limit(_limit() + SPARE)


def _limit() -> int:
    """The limit of this process's data in bytes, -1 for none; -2 where there are no limits to set."""
    return -2 if sys.platform == "win32" else resource.getrlimit(resource.RLIMIT_DATA)[0]


def _set_limit(size: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError, ValueError):  # above what is allowed
            resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))
            _limits.append(size)


def cores() -> int:
    """The cores that this process may use: of the machine, by its affinity, and by the quota of its control group."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in (Path("/sys/fs/cgroup", _group()), Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError, ValueError):  # no such group, or no quota ("max")
            quota, period = map(int, (folder / "cpu.max").read_text(encoding="ascii").split())
            there = min(there, max(1, quota // period))
    return there


def amount(size: int) -> str:
    """`12.3 MB`."""
    power = min(5, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}" if power else f"{size} bytes"


def _of_machine() -> int | None:
    return _fields(Path("/proc/meminfo")).get("MemAvailable")


def _of_groups() -> list[int | None]:
    """What the control groups of this process leave, of Linux's second version and its first."""
    return [
        _left(folder, *names)
        for folder, names in (
            (Path("/sys/fs/cgroup", _group()), ("memory.max", "memory.current", "file")),
            (Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "file")),
            (
                Path("/sys/fs/cgroup/memory"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
            ),
        )
    ]


def _left(folder: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        most, now = ((folder / name).read_text(encoding="ascii").strip() for name in (limit, used))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        kept = dict(line.split() for line in lines).get(cached, "0")
        return int(most) - int(now) + int(kept)
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return None


def _group() -> str:
    """The control group of this process, without its first `/`."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")


def _fields(path: Path) -> dict[str, int]:
    """`Name: 12 kB` → 12288, of a file of the kernel; {} where there is none."""
    try:
        words = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return {}
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in words if len(row) == 3 and row[2] == "kB"}
