"""Files that are never half-written, tables that resume after an interruption, and fingerprints of files."""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from common import resources
from common.lines import lines_of, table_line

if sys.platform != "win32":
    import fcntl


FULL = (errno.ENOSPC, errno.EDQUOT)
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)
TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.tmp(\..*)?", re.DOTALL)  # the names that `replacing` gives
DAY = 24 * 60 * 60


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` if the block succeeds, delete it if not.

    So a reader sees either the old file or the complete new one. Missing parent folders are created. Raises OSError
    that names `path` if the disk is full or does not let it be written.
    """
    path = Path(path)
    # The suffix is kept: numpy and matplotlib choose the format (or add an ending) by it. The rest of a long name is
    # cut, so that no file system finds this one too long.
    suffix = path.suffix if len(path.suffix) <= 10 else ""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.absolute())
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:30]}.", suffix=f".tmp{suffix}", dir=path.parent)
    temporary = Path(name)
    _hold(handle)  # while it is held, the file is no leftover
    if sys.platform == "win32":
        os.close(handle)
    try:
        with naming(path):
            yield temporary
            with contextlib.suppress(PermissionError):  # on some file systems nobody may
                temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; these are ordinary ones
            temporary.replace(path)
    finally:
        if sys.platform != "win32":
            os.close(handle)
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let errors of the system in the block name the file that is written, `path`, in place of a folder above it or its
    temporary name, and say of a full disk what is free. An error that names another file keeps it."""
    path = Path(path)
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = getattr(error, "errno", None)
        if code is None and type(error) in (OSError, RuntimeError) and _free(path) == 0:
            code = errno.ENOSPC  # NumPy and PyTorch say less
        if code is None or not _is_for(path, getattr(error, "filename", None)):
            raise
        raise OSError(code, *_told(code, path, getattr(error, "strerror", None))) from error


def _is_for(path: Path, named: object) -> bool:
    """Whether an error about the file `named` is one about writing `path`."""
    if not isinstance(named, str) or Path(named) in (path, *path.parents):
        return True
    beside = Path(named).absolute().parent == path.absolute().parent
    return beside and TEMPORARY.fullmatch(Path(named).name) is not None


def _told(code: int, path: Path, strerror: str | None) -> tuple[str, str]:
    """(what is wrong, with which file)"""
    if code in FULL:
        what = f"{strerror}, " if strerror and strerror.endswith("needed") else ""
        return f"the disk is full ({what}{resources.amount(_free(path) or 0)} are free)", str(path)
    if code in IN_THE_WAY:
        found = next((each for each in (path, *path.parents) if each.exists() and not each.is_dir()), path)
        return "is a file, where a folder is needed", str(found)
    if code == errno.EISDIR:
        return "is a folder, where a file is needed", str(path)
    return strerror or os.strerror(code), str(path)


def _free(path: Path) -> int | None:
    """The bytes that are free where `path` lies or will lie."""
    there = next((each for each in path.absolute().parents if each.is_dir()), None)
    try:
        return None if there is None else shutil.disk_usage(there).free
    except OSError:
        return None


@functools.cache
def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed runs left in a folder, once for each run: those that are older than a day
    and that no run holds."""
    for left in folder.glob(".*.tmp*"):
        if not TEMPORARY.fullmatch(left.name):
            continue
        with contextlib.suppress(OSError), left.open("rb") as stream:
            if left.stat().st_mtime < time.time() - DAY and _hold(stream):
                left.unlink()


def check_writable(path: Path | None, flag: str = "--outfile") -> None:
    """Raises OSError or ValueError that names the file if it cannot be written: to be known before the work, not after
    it."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{flag} {path}: is a folder; name a file")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=f".{path.stem[:30]}.", suffix=".tmp", dir=path.parent):
            pass


def reserve(stream: IO[bytes], size: int) -> None:
    """Let the disk set aside `size` bytes for a new file, so that it is full now or not at all. Raises OSError that
    says what is needed."""
    if not hasattr(os, "posix_fallocate") or size == 0:
        return
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        if error.errno in FULL:  # others: the file system cannot
            raise OSError(error.errno, f"{resources.amount(size)} needed") from None


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write `content` to `path`, completely or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        reserve(stream, len(content))
        stream.write(content)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8) to `path`, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append(stream: io.FileIO, content: bytes, path: Path) -> None:
    """Append all of `content` to the open file at `path`, or nothing of it. Raises OSError that names the file."""
    before, rest = os.fstat(stream.fileno()).st_size, memoryview(content)
    try:
        with naming(path):
            while rest:
                rest = rest[stream.write(rest) or 0 :]
    except BaseException:
        stream.truncate(before)
        raise


class HeldFolder:
    """A folder that one run at a time may write to: this one, from now until `release` or the end of the process,
    however it ends. Nothing is left behind in the folder; if it stays empty, it goes. Without locks (on other systems)
    it holds nothing.

    Raises ValueError, which calls the folder `what`, if another run holds it, and OSError if it cannot be made.
    """

    def __init__(self, folder: Path, what: str, cure: str) -> None:
        self._folder = folder
        self._handle: int | None = None
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if sys.platform != "win32":
            self._handle = os.open(folder, os.O_RDONLY)
        if self._handle is not None and not _hold(self._handle):
            os.close(self._handle)
            self._handle = None
            raise ValueError(f"{what} {folder}: another run is writing to it; wait for its end or {cure}")

    def release(self) -> None:
        """Let others have it."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._folder.rmdir()  # only if it is empty
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> HeldFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def write_json(path: Path | str, content: dict) -> None:
    """Write `content` as indented JSON, completely or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON object. Raises ValueError that names the file if it holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object but {content!r:.50}")
    return content


class Table:
    """A table (`.csv`: separated by commas, else by tabs) that is written line by line and resumes after any
    interruption. Its settings are in `<file>.json`.

    `rows` holds the lines that already exist, as dicts of text, and `before` their settings. Files of older versions
    lack some settings; `assumed` gives their values. Raises ValueError, which calls the file `what`, if the table was
    made with other `settings` (except those in `not_compared`) or columns, has no settings beside it, or if another run
    is writing it at this moment.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        settings: dict,
        not_compared: Collection[str] = (),
        what: str = "--outfile",
        cure: str = "name another file",
        assumed: Mapping[str, object] | None = None,
    ) -> None:
        self.path, self._separator = path, "," if path.suffix == ".csv" else "\t"
        self._settings, self._assumed = json.loads(json.dumps(settings)), assumed or {}
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                settings_path(path).stat()  # raises OSError if this name is too long: nothing is begun then
            # Before anything is read: if two runs begin a table at the same time, one must stop.
            stream, new = _open_locked(path)
        if stream is None:
            raise ValueError(f"{what} {path}: another run is writing it; wait for its end or {cure}")
        self._stream = stream
        try:
            self._open(new, self._line(columns), settings_path(path), not_compared, f"{what} {path}", cure)
        except BaseException:
            self._stream.close()
            raise
        self._stale = self.before != {**self._assumed, **self._settings}

    def _open(self, new: bool, header: str, beside: Path, not_compared: Collection[str], what: str, cure: str) -> None:
        """Begin the table, or read it. A torn last line is cut off; a missing header is written."""
        lines, torn = lines_of(self.path.read_bytes())
        told = read_json(beside) if beside.is_file() else None
        self._inherit(told or {})
        if not (lines or torn) and (new or told is None):
            write_json(beside, self._settings)
            told = self._settings
        if told is None:
            raise ValueError(f"{what}: exists without its settings {beside.name}; {cure}")
        self.before = {**self._assumed, **told}
        changed = differences(self.before, {**self._assumed, **self._settings}, not_compared)
        if changed:
            raise ValueError(f"{what}: was made with {changed}; {cure} or delete it")
        if lines and lines[0] != header.encode():
            found = lines[0].decode(errors="replace").strip()
            raise ValueError(f"{what}: has other columns ({found}); {cure} or delete it")
        if torn:
            self._stream.truncate(self.path.stat().st_size - len(torn))
        if not lines:
            append(self._stream, header.encode(), self.path)
        try:
            text = [line.decode() for line in lines]
            self.rows: list[dict[str, str]] = list(csv.DictReader(text, delimiter=self._separator))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{what}: is damaged ({error}); {cure} or delete it") from None

    def _inherit(self, before: dict) -> None:
        """Take over into the settings what must be kept of the settings `before` ({}: there were none), even if the
        table itself was deleted and is begun again. Does nothing unless a subclass overrides it."""

    def append(self, *values: object) -> None:
        """Write a line. If the process is killed, the line may be torn; the next run then cuts it off."""
        self.renew_settings()
        append(self._stream, self._line(values).encode(), self.path)

    def renew_settings(self) -> None:
        """Replace the settings beside the table by those of this run. Its first `append` does so."""
        if self._stale:
            write_json(settings_path(self.path), self._settings)
            self._stale = False

    def close(self, order: Callable[[str], Any]) -> None:
        """Close the file. If its lines are not in `order` (a sort key), sort them.

        The lock is held until the sorted file has replaced the old one. Otherwise a line that another run appends in
        between would be lost. A run that opened the old file before, and locks it afterwards, finds that it is no
        longer the file at this path (`_open_locked`).
        """
        if sys.platform == "win32":  # there is no lock to hold, and a file that is open cannot be replaced
            self._stream.close()
        try:
            header, *lines = (line.decode() for line in lines_of(self.path.read_bytes())[0])
            in_order = sorted(lines, key=order)
            if lines != in_order:
                write_text(self.path, "".join([header, *in_order]))
        finally:
            self._stream.close()

    def _line(self, values: Sequence[object]) -> str:
        return table_line(values, self._separator)


def _open_locked(path: Path) -> tuple[io.FileIO | None, bool]:
    """`path`, opened for appending and locked, or None if another run holds it; and whether it was created just now.

    A lock belongs to the file, not to its name. Between opening and locking, the run that held the lock may have
    replaced the file by a sorted copy. Lines written to the old file would be lost, so the new one is opened.
    """
    while True:
        new = not path.is_file()
        stream = path.open("ab", buffering=0)
        if not _lock(stream):
            stream.close()
            return None, new
        if path.is_file() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream, new
        stream.close()


def _lock(stream: IO) -> bool:
    """Whether this process now holds the lock on an open table."""
    return _hold(stream)


def _hold(file: IO | int) -> bool:
    """Whether this process now holds the lock on an open file or folder. Without locks it always does."""
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def settings_path(path: Path) -> Path:
    """Where the settings of a table lie."""
    return Path(f"{path}.json")


def differences(before: dict, now: dict, not_compared: Collection[str] = ()) -> str:
    """The compared settings that differ, as text for the user; empty if none do."""
    changed = [key for key in now | before if key not in not_compared and before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key)} (now {now.get(key)})" for key in changed)


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
