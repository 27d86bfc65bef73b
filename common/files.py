"""Files that are never half-written, tables that resume after an interruption, and fingerprints of files."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from common.lines import lines_of, table_line

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` if the block succeeds, delete it if not.

    So a reader sees either the old file or the complete new one. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: numpy and matplotlib choose the format (or add an ending) by it. The rest of a long name is
    # cut, so that no file system finds this one too long.
    suffix = path.suffix if len(path.suffix) <= 10 else ""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:30]}.", suffix=f".tmp{suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; these are ordinary ones
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8) to `path`, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
            self._stream.write(header)
            self._stream.flush()
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
        self._stream.write(self._line(values))
        self._stream.flush()

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


def _open_locked(path: Path) -> tuple[IO[str] | None, bool]:
    """`path`, opened for appending and locked, or None if another run holds it; and whether it was created just now.

    A lock belongs to the file, not to its name. Between opening and locking, the run that held the lock may have
    replaced the file by a sorted copy. Lines written to the old file would be lost, so the new one is opened.
    """
    while True:
        new = not path.is_file()
        stream = path.open("a", encoding="utf-8", newline="")
        if not _lock(stream):
            stream.close()
            return None, new
        if path.is_file() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream, new
        stream.close()


def _lock(stream: IO) -> bool:
    """Whether this process now holds the lock on the open file. Without locks it always does."""
    try:
        if sys.platform != "win32":
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
