"""The TSV of a certification: write it, resume it after an interruption, merge it from shards.

Its settings are in `<file>.json`. A line is written as soon as its image is done. If a run is killed, even in the
middle of a line, the same command resumes it; no image is lost or certified twice.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import files
from common.lines import lines_of
from evaluation.certificates import ASSUMED, COLUMNS, read_rows, wanted_indices

# Settings that may differ between the run that began a TSV and the run that resumes it, or between shards. Of them
# `grey_as_rgb` depends on the number of images.
NOT_COMPARED = {
    "classifier",
    "denoiser",
    "skip",
    "end",
    "shard",
    "batch",
    "command",
    "hardware",
    "torch",
    "seeds_tried",
    "grey_as_rgb",
}


class CertificateFile(files.Table):
    """Opens `path` for appending. `done` holds the indices of the images that it already has.

    `extra` names the columns to the right of the six standard ones. `seeds_tried` in the settings holds every seed
    under which this file was ever begun, unless its settings were deleted too. Raises ValueError if `path` was made
    with other settings or columns, holds images that this run leaves out, or has no settings beside it. The settings of
    older versions do not name rule and noise; `ASSUMED` does.
    """

    def __init__(self, path: Path, settings: dict, extra: Sequence[str] = ()) -> None:
        super().__init__(path, (*COLUMNS, *extra), settings, NOT_COMPARED, assumed=ASSUMED)
        self.done: set[int] = set(read_rows(path)[0]["idx"].tolist()) if self.rows else set()
        others = self.done - set(wanted_indices(settings))
        if others:
            self._stream.close()
            raise ValueError(
                f"--outfile {path}: holds image {min(others)}, which --skip, --max and --shard leave out; "
                "name another file"
            )
        if any(self.before[key] != settings[key] for key in ("skip", "end")):
            self.renew_settings()  # even if this run finds everything done: `merge` compares what was wanted

    def _inherit(self, before: dict) -> None:
        self._settings |= seeds_tried(before, self._settings)

    def close(self, order: Callable[[str], Any] | None = None) -> None:
        """Close the file and, if images were finished out of order, sort it by index."""
        super().close(order or _index)


def seeds_tried(*runs: dict) -> dict[str, list[int]]:
    """The setting `seeds_tried` of a file that the runs with these settings wrote, the oldest first; {} if none of them
    names a seed."""
    each = (run.get("seeds_tried", [run["seed"]] if "seed" in run else []) for run in runs)
    found = list(dict.fromkeys(itertools.chain.from_iterable(each)))
    return {"seeds_tried": found} if found else {}


def shard_of_launcher() -> tuple[int, int] | None:
    """(rank, world size) as torchrun sets them; None without torchrun. Raises ValueError if only one is set."""
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and size is None:
        return None
    if not (rank and size and rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(f"RANK and WORLD_SIZE are {rank} and {size}: torchrun sets both, 0 <= RANK < WORLD_SIZE")
    return int(rank), int(size)


def shard_path(path: Path, shard: tuple[int, int]) -> Path:
    """`a.tsv`, (0, 3) → `a_shard_0_of_3.tsv`."""
    return path.with_name(f"{path.stem}_shard_{shard[0]}_of_{shard[1]}{path.suffix}")


def merge(paths: Sequence[Path], outfile: Path) -> int:
    """Merge the TSVs of all shards of one run into `outfile`, sorted by index; return the number of images.

    Raises ValueError if a shard is missing, given twice, unfinished, or belongs to a run with other settings.
    """
    if outfile.resolve() in [path.resolve() for path in paths]:
        raise ValueError(f"--outfile {outfile}: is one of the shards")
    beside_outfile = files.settings_path(outfile)
    before = [files.read_json(beside_outfile)] if beside_outfile.is_file() else []
    header, lines = b"", []
    runs: list[dict] = []  # the settings of the shards
    seen: dict[int, Path] = {}
    for path in paths:
        settings = _settings_of_shard(path)
        runs.append(settings)
        if what := files.differences(runs[0], settings, NOT_COMPARED) or _run_differs(runs[0], settings):
            raise ValueError(f"{path}: belongs to another run than {paths[0]}: {what}")
        number = int(settings["shard"].partition("/")[0])
        if number in seen:
            raise ValueError(f"{path}: shard {settings['shard']} is already {seen[number]}")
        seen[number] = path
        _check_finished(path, settings)
        (header, *own), _ = lines_of(path.read_bytes().replace(b"\r\n", b"\n"))
        lines += own
    count = int(runs[0]["shard"].partition("/")[2])
    if missing := [f"{i}/{count}" for i in range(count) if i not in seen]:
        raise ValueError(f"shards are missing: {', '.join(missing)}")
    # Both are whole before either takes its place; where the settings cannot, the old table stays.
    with files.replacing(outfile) as table, files.replacing(beside_outfile) as settings_of_it:
        table.write_bytes(b"".join([header, *sorted(lines, key=lambda line: _index(line.decode()))]))
        files.write_json(settings_of_it, {**runs[0], "shard": None, **seeds_tried(*before, *runs)})
    return len(lines)


def _settings_of_shard(path: Path) -> dict:
    """The settings beside a shard. Raises FileNotFoundError if it or they are missing, ValueError if it is no shard."""
    beside = files.settings_path(path)
    if not (path.is_file() and beside.is_file()):
        raise FileNotFoundError(f"{path if beside.is_file() else beside} is missing")
    settings = {**ASSUMED, **files.read_json(beside)}
    if "/" not in str(settings.get("shard")):
        raise ValueError(f"{path}: is not a shard (its settings name none)")
    return settings


def _check_finished(path: Path, settings: dict) -> None:
    """Raises ValueError unless a shard holds all images that its settings name, and no others."""
    rows, torn = read_rows(path, may_be_empty=True)
    wanted, found = set(wanted_indices(settings)), set(rows["idx"].tolist())
    if torn or wanted - found:
        raise ValueError(f"{path}: is unfinished (idx {min(wanted - found, default='?')}); run its command again")
    if found - wanted:
        raise ValueError(
            f"{path}: also holds images of another run (idx {min(found - wanted)}), which had another --skip or --max; "
            "name another --outfile"
        )


def _run_differs(a: dict, b: dict) -> str:
    """Shards of one run also have the same images, cut into the same number of parts."""
    changed = [f"{key} {a[key]} and {b[key]}" for key in ("skip", "end") if a[key] != b[key]]
    if a["shard"].partition("/")[2] != b["shard"].partition("/")[2]:
        changed.append(f"shard {a['shard']} and {b['shard']}")
    return ", ".join(changed)


def _index(line: str) -> int:
    return int(line.partition("\t")[0])
