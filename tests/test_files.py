"""Files on disk: whole or not there, named when the system refuses, written by one run at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import files

ROOT = Path(__file__).resolve().parents[1]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusing(code: int):
    """A function of the system that fails."""

    def fails(*_: object, **__: object):
        raise OSError(code, os.strerror(code))

    return fails


@pytest.fixture
def full(tmp_path, monkeypatch):
    """`full()`: from now on the disk takes nothing, as the functions of the system report it."""

    def fill() -> None:
        monkeypatch.setattr(files, "_free", lambda path: 0)
        monkeypatch.setattr(files.os, "posix_fallocate", refusing(errno.ENOSPC))

    return fill


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path, full):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    full()
    with pytest.raises(OSError, match=r"the disk is full \(5.0 kB needed, 0 bytes are free\)") as found:
        files.write_bytes(path, bytes(5000))
    assert found.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", lambda path: Image.new("L", (300, 300)).save(path, compress_level=0)),
        ("a.npy", lambda path: np.save(path, np.ones(10_000))),
        ("a.pth.tar", lambda path: torch.save(torch.ones(10_000), path)),
        ("a.txt", lambda path: path.write_bytes(bytes(100_000))),
    ],
)
def test_what_libraries_say_of_a_disk_becomes_one_message(name, write, tmp_path):
    """`ulimit -f` stands for the disk: both make writing fail in the middle."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        with pytest.MonkeyPatch.context() as patched, pytest.raises(OSError) as found:
            patched.setattr(files, "_free", lambda path: 0)
            with files.replacing(tmp_path / name) as temporary:
                write(temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert found.value.filename == str(tmp_path / name)
    assert names_in(tmp_path) == []


def test_errors_name_the_file_that_is_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.txt").mkdir()
    for path, named, why in (
        ("file/a.txt", "file", "is a file, where a folder is needed"),
        ("file/b/a.txt", "file", "is a file, where a folder is needed"),
        ("folder.txt", "folder.txt", "is a folder, where a file is needed"),
    ):
        with pytest.raises(OSError) as found:
            files.write_text(tmp_path / path, "…")
        assert (found.value.filename, found.value.strerror) == (str(tmp_path / named), why)
    with pytest.raises(OSError) as found, files.replacing(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", "another")
    assert found.value.filename == "another"


def test_whether_a_file_can_be_written_is_known_before(tmp_path, monkeypatch):
    files.check_writable(None)
    files.check_writable(tmp_path / "new" / "a.json")
    assert names_in(tmp_path / "new") == []
    with pytest.raises(ValueError, match=f"--predictions {tmp_path}: is a folder"):
        files.check_writable(tmp_path, "--predictions")
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refusing(errno.EROFS))
    with pytest.raises(OSError) as found:
        files.check_writable(tmp_path / "a.json")
    assert (found.value.filename, found.value.errno) == (str(tmp_path / "a.json"), errno.EROFS)


def test_of_a_line_that_does_not_fit_nothing_stays(tmp_path, monkeypatch):
    """Else what another line appends would be glued to its half."""
    path = tmp_path / "a.tsv"
    table = files.Table(path, ["number"], {})
    table.append(1)
    before, resource = path.read_bytes(), pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as found:
            table.append("123456789")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert found.value.filename == str(path)
    assert path.read_bytes() == before
    table.append(0)
    table.close(order=int)
    assert path.read_text().split() == ["number", "0", "1"]


def test_leftovers_of_killed_runs_go_and_those_of_others_stay(tmp_path):
    old, young, foreign = (tmp_path / name for name in (".a.abcdefg1.tmp.npy", ".b.abcdefg2.tmp", ".c.tmp"))
    for each in (old, young, foreign):
        each.write_text("")
    for each in (old, foreign):
        os.utime(each, (time.time() - 2 * files.DAY,) * 2)
    with files.replacing(tmp_path / "new.txt") as temporary:
        temporary.write_text("…")
        os.utime(temporary, (0, 0))  # the clock was set
        files._remove_leftovers.cache_clear()
        files.write_text(tmp_path / "other.txt", "…")  # as another run would
    assert names_in(tmp_path) == [".b.abcdefg2.tmp", ".c.tmp", "new.txt", "other.txt"]


def test_a_folder_is_held_by_one_run(tmp_path):
    folder = tmp_path / "new"
    with files.HeldFolder(folder, "--outdir", "name another"):
        with pytest.raises(
            ValueError, match=f"--outdir {folder}: another run is writing to it; wait .* or name another"
        ):
            files.HeldFolder(folder, "--outdir", "name another")
        (folder / "a").write_text("")
    with files.HeldFolder(folder, "--outdir", "name another"):
        (folder / "a").unlink()
    assert not folder.exists()  # empty, so that nobody takes it for a run


def test_a_killed_run_holds_nothing(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from common import files\n"
        "held = files.HeldFolder(Path(sys.argv[1]), '', ''); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT)
    assert done.returncode == -9
    with files.HeldFolder(tmp_path, "", ""):
        assert names_in(tmp_path) == []
