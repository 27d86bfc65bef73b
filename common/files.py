"""Files that are never half-written, tables that resume after an interruption, and fingerprints of files."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` if the block succeeds, delete it if not.

    A reader therefore sees the old file or the whole new one. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: numpy and matplotlib choose the format (or add an ending) by it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; these are ordinary ones
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8) to `path`, wholly or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, content: dict) -> None:
    """Write `content` as indented JSON, wholly or not at all."""
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
    """A table that grows by whole lines (`.csv`: with commas, else with tabs) and goes on after any interruption; what
    it was made with lies beside it in `<file>.json`.

    `rows` holds the lines that were there already, as dicts of text, `before` the settings beside them. What settings
    do not tell is as `assumed` says: files of older versions lack some. Raises ValueError, naming the file as `what`,
    if it was made with other `settings` (those in `not_compared` apart) or columns, has no settings beside it, or
    another run is writing it at this moment.
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
        # Before anything is looked at: of two runs that begin a table at once, one must go.
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
        """Begin the table, or read what is there. A torn last line is cut off; a file that lost even its header gets it
        back."""
        *whole, torn = self.path.read_bytes().split(b"\n")
        lines = [line.decode() for line in whole]
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
        if lines and f"{lines[0]}\n" != header:
            raise ValueError(f"{what}: has other columns ({lines[0]}); {cure} or delete it")
        if torn:
            self._stream.truncate(self.path.stat().st_size - len(torn))
        if not lines:
            self._stream.write(header)
            self._stream.flush()
        self.rows: list[dict[str, str]] = list(csv.DictReader(lines, delimiter=self._separator))

    def _inherit(self, before: dict) -> None:
        """Take into the settings what must outlast those that lay beside the table before ({}: none), even where the
        table itself was deleted and is begun anew. Nothing, unless a subclass knows of something."""

    def append(self, *values: object) -> None:
        """Write a line, all of it or (when killed) a torn one that the next run cuts off."""
        self.renew_settings()
        self._stream.write(self._line(values))
        self._stream.flush()

    def renew_settings(self) -> None:
        """Let the settings beside the table be this run's; the first line that it appends does so."""
        if self._stale:
            write_json(settings_path(self.path), self._settings)
            self._stale = False

    def close(self, order: Callable[[str], Any]) -> None:
        """Close the file and, if lines were finished out of `order` (their key), sort them.

        The lock is held until the sorted file lies in place of the old one: a line that another run appended in between
        would be lost. Who had opened the old file before and locks it after finds that it is no longer the one at this
        path (`_open_locked`).
        """
        if sys.platform == "win32":  # there is no lock to hold, and a file that is open cannot be replaced
            self._stream.close()
        try:
            header, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            in_order = sorted(lines, key=order)
            if lines != in_order:
                write_text(self.path, "".join([header, *in_order]))
        finally:
            self._stream.close()

    def _line(self, values: Sequence[object]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self._separator, lineterminator="\n").writerow(values)
        return text.getvalue()


def _open_locked(path: Path) -> tuple[IO[str] | None, bool]:
    """`path`, opened for appending and locked, or None where another run holds it; and whether it was made just now.

    A lock is on the file, not on its name: between opening and locking, whoever held it may have put a sorted copy in
    its place. What would be written to the old file then, nobody would ever read, so the new one is opened.
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
    """Whether this process is now the only one that holds the open file; where there are no locks it always is."""
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
    """The compared settings that are not the same, as text for the user; empty if there are none."""
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
