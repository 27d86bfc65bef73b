"""What the machine gives: too little memory is an error and not the end, and less at a time helps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import resources

ROOT = Path(__file__).resolve().parents[1]


def test_amounts():
    sizes = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 12_345_678: "12.3 MB", 3 * 10**12: "3.0 TB"}
    assert {size: resources.amount(size) for size in sizes} == sizes


def test_exhausted_memory_is_known_by_what_libraries_say():
    with pytest.raises(RuntimeError) as found:
        torch.zeros(10**15)
    assert resources.is_exhausted(found.value)
    assert resources.is_exhausted(MemoryError())
    assert resources.is_exhausted(RuntimeError("could not create a primitive"))  # of oneDNN
    assert not resources.is_exhausted(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert resources.is_exhausted(torch.OutOfMemoryError("…"))
    outer = ConnectionError("a query failed")
    outer.__cause__ = MemoryError()
    assert resources.is_exhausted(outer)  # of a black box
    assert not resources.is_exhausted(RuntimeError("another"))


def test_less_at_a_time_until_it_fits():
    asked = []

    def compute(size: int) -> int:
        asked.append(size)
        if size > 12:
            raise MemoryError
        return -size

    assert resources.fitting(100, compute) == (-12, 12)
    assert asked == [100, 50, 25, 12]
    with pytest.raises(MemoryError):
        resources.fitting(1, lambda size: compute(99))
    with pytest.raises(RuntimeError, match="another"):
        resources.fitting(4, lambda size: exec("raise RuntimeError('another')"))


def test_what_a_failed_attempt_made_is_given_back():
    """Its tensors would otherwise be held by the frames of its error while the next one runs."""

    class Made:
        here = 0

        def __init__(self) -> None:
            Made.here += 1

        def __del__(self) -> None:
            Made.here -= 1

    def compute(size: int) -> int:
        assert Made.here == 0
        made = Made()
        if size > 1:
            raise MemoryError
        return made.here

    assert resources.fitting(8, compute) == (1, 1)


def test_a_limit_makes_the_system_refuse():
    """More than the machine has is refused, where Linux would grant it and kill the process as it is used."""
    if not Path("/proc/meminfo").is_file():
        pytest.skip("needs Linux")
    code = (
        "import resource, numpy as np; from common import resources\n"
        "resources.refuse_what_is_not_there()\n"
        "soft, _ = resource.getrlimit(resource.RLIMIT_DATA)\n"
        "try: np.ones(soft, np.uint8); print('granted')\n"
        "except MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_limits_of_control_groups_count(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 600\nfile 300\n")
    assert resources._left(tmp_path, "memory.max", "memory.current", "file") == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert resources._left(tmp_path, "memory.max", "memory.current", "file") is None
    free = resources.available_memory()
    assert free is None or 0 < free < 2**50


def test_cores_are_those_that_one_may_use():
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= resources.cores() <= allowed
