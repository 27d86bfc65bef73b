"""The folder of one training run: settings, log, checkpoints, progress picture.

args.json            the settings; --resume raises an error if they differ
metrics.jsonl        one JSON line per epoch
log.txt              the same as a table
progress.png         the same as curves
checkpoint.pth.tar   after the last finished epoch, or where one was interrupted: everything needed to resume
best.pth.tar         the epoch with the best validation score
queries.json         queries of a black box so far, those of an epoch that failed included
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

from common import files
from models.registry import load_checkpoint

# Settings that change nothing in the result, or only where it is computed.
NOT_COMPARED = {"resume", "workers", "config", "device", "outdir", "data_dir"}


class RunDirectory:
    """Opens `outdir` for a new run, or with `resume` to resume the one in it.

    `checkpoint` is the state to resume from (None for a new run); `history` the records of the epochs done; `queries`
    what was spent before. As a context it holds `outdir`, which one run at a time may write to. Raises ValueError if
    another one does, if there is a run and `resume` is not set, or if it was started with other settings.
    """

    def __init__(self, outdir: Path, args: dict, resume: bool) -> None:
        self.path = Path(outdir)
        self._held = files.HeldFolder(self.path, "--outdir", "name another folder")
        try:
            self._open(args, resume)
        except BaseException:
            self._held.release()
            raise

    def _open(self, args: dict, resume: bool) -> None:
        """Read the run that is to be resumed, and write the settings."""
        self.args = {name: value for name, value in plain(args).items() if name not in {"resume", "config"}}
        self.checkpoint: dict | None = None
        self.history: list[dict] = []
        if self._file("checkpoint.pth.tar").is_file():
            if not resume:
                raise ValueError(
                    f"--outdir {self.path}: holds a run already; resume it with --resume, or name another folder"
                )
            self._check_settings()
            self.checkpoint = load_checkpoint(self._file("checkpoint.pth.tar"))
            if self.checkpoint["epoch"]:
                self.history = self._read_history()[: self.checkpoint["epoch"]]
        counted = self._file("queries.json")
        noted = files.read_json(counted)["queries"] if resume and counted.is_file() else 0
        self.queries: int = max([noted, *(row.get("queries", 0) for row in self.history)])
        files.write_json(self._file("args.json"), self.args)

    def note_queries(self, count: int) -> None:
        """Write how many queries are spent, for when the run is resumed: those of an unfinished epoch count too."""
        files.write_json(self._file("queries.json"), {"queries": count})

    def record(self, record: dict, checkpoint: dict, best: bool) -> None:
        """Write one finished epoch. The checkpoint comes last: a run killed in between repeats the epoch."""
        self.history.append(record)
        files.write_text(self._file("metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in self.history))
        files.write_text(self._file("log.txt"), _table(self.history))
        _plot(self.history, self._file("progress.png"), checkpoint.get("info", {}).get("synthetic", False))
        for name in ("best", "checkpoint") if best else ("checkpoint",):
            self.keep(checkpoint, name)

    def keep(self, checkpoint: dict, name: str = "checkpoint") -> None:
        """Write a checkpoint alone, as that of an epoch which was interrupted."""
        content = io.BytesIO()  # torch says little about a disk that is full
        torch.save(checkpoint, content)
        files.write_bytes(self._file(f"{name}.pth.tar"), content.getbuffer())

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.release()

    def _file(self, name: str) -> Path:
        return self.path / name

    def _read_history(self) -> list[dict]:
        path = self._file("metrics.jsonl")
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        except (OSError, ValueError) as error:
            raise ValueError(f"--resume {self.path}: {path.name} is missing or damaged ({error})") from None

    def _check_settings(self) -> None:
        before = files.read_json(self._file("args.json"))
        names = sorted((before.keys() | self.args.keys()) - NOT_COMPARED)
        changed = [name for name in names if before.get(name) != self.args.get(name)]
        if changed:
            what = ", ".join(f"--{name} {before.get(name)} (now {self.args.get(name)})" for name in changed)
            raise ValueError(f"--resume {self.path}: was started with {what}; use the same or another --outdir")


def plain(args: dict) -> dict:
    """Settings as plain Python types (paths become text), so that any tool can read them back."""
    return json.loads(json.dumps(args, default=str))


def _table(history: list[dict]) -> str:
    columns = list(history[0])
    lines = ["\t".join(columns)]
    for row in history:
        lines.append("\t".join(f"{row[c]:.6g}" if isinstance(row[c], float) else str(row[c]) for c in columns))
    return "\n".join(lines) + "\n"


def _plot(history: list[dict], path: Path, synthetic: bool) -> None:
    """Loss, validation curves and learning rate against the epoch."""
    from matplotlib.figure import Figure

    curves = [name for name in history[0] if name not in {"epoch", "seconds"}]
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(3.2 * len(curves), 2.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        axis.plot(epochs, [row[name] for row in history], marker="." if len(history) < 20 else None)
        axis.set(title=name, xlabel="epoch")
    if synthetic:
        figure.suptitle("SYNTHETIC phantom data", fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=80, metadata={"Software": None})
