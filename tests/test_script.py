"""How a script ends: one line and an exit code, whatever goes wrong, before it begins and after it is done too."""

from __future__ import annotations

from common.script import start

import argparse
import io
import os
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from common import cli, script

ROOT = Path(__file__).resolve().parents[1]


def parser() -> cli.Parser:
    made = cli.Parser("test", prog="test.py")
    made.add_argument("--batch", type=cli.positive_int)
    made.add_common_flags()
    return made


def end(capsys, error: BaseException, *argv: str) -> tuple[int, str]:
    """(exit code, what standard error says) of a script that raises `error`."""

    def main(args: argparse.Namespace) -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        start(parser, main, argv)
    return stop.value.code, capsys.readouterr().err.strip()


def in_worker(error: str) -> str:
    """The message of an error that a worker process of torch's DataLoader raised."""
    head = f"Caught {error.partition(':')[0]} in DataLoader worker process 0."
    return f'{head}\nOriginal Traceback (most recent call last):\n  File "x.py", line 3, in f\n    raise\n{error}\n'


BUG = "run again with --debug to see where"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("two\nlines"), 1, "error: two lines"),
        (ValueError("a  b\u2028c\x1b[1m\udcff"), 1, "error: a  b c?[1m?"),
        (FileNotFoundError(2, "No such file or directory", "x.tsv"), 1, "error: x.tsv: No such file or directory"),
        (FileNotFoundError(2, "No such file or directory", b"x.tsv"), 1, "error: x.tsv: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "error: a file: No space left on device"),
        (ConnectionError("gone"), 1, "error: gone"),
        (KeyboardInterrupt(), 130, "interrupted; the same command (training: with --resume) resumes"),
        (KeyError("a bug"), 1, f"internal error: KeyError: 'a bug'; {BUG}"),
        (RecursionError("too deep"), 1, f"internal error: RecursionError: too deep; {BUG}"),
        (SystemExit("theirs"), 1, f"internal error: RuntimeError: something called exit(theirs); {BUG}"),
        (SystemExit(0), 1, f"internal error: RuntimeError: something called exit(); {BUG}"),
        (RuntimeError(), 1, f"internal error: RuntimeError; {BUG}"),
        (ValueError(), 1, f"internal error: ValueError; {BUG}"),
        (zipfile.BadZipFile("no zip"), 1, f"internal error: BadZipFile: no zip; {BUG}"),
        (ModuleNotFoundError("No module named 'x'"), 1, "No module named 'x'; install what requirements.txt lists"),
        (ValueError(in_worker("ValueError: x.png: is damaged")), 1, "error: x.png: is damaged"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error."), 1, "use --workers 0"),
        (RuntimeError("unable to write to file </torch_3_1>: No space"), 1, "use --workers 0"),
    ],
)
def test_whatever_goes_wrong_is_one_line(error, code, said, capsys):
    ended, message = end(capsys, error)
    assert ended == code
    assert "\n" not in message
    assert message.startswith("test.py: ")
    assert message.endswith(said)


def test_memory_names_the_flag_and_a_smaller_size(capsys):
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: no"),
    ):
        code, message = end(capsys, error, "--batch", "64")
        assert code == 1
        assert message.startswith("test.py: error: out of memory")
        assert message.endswith("try --batch 32 in place of 64")


def test_debug_shows_where(capsys):
    def main(args: argparse.Namespace) -> None:
        assert "debug" not in vars(args)  # no setting of a result
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        start(parser, main, ["--debug"])


def test_warnings_of_libraries_are_one_line(capsys):
    with pytest.warns(UserWarning, match="theirs"):  # outside of a script they are what they were
        start(parser, lambda args: None, [])
        warnings.warn("theirs", stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        start(parser, lambda args: warnings.warn("no glyph\nfor ß", stacklevel=1), [])
    assert capsys.readouterr().err == "test.py: warning: no glyph for ß\n"


def test_a_sign_that_the_encoding_lacks_is_a_question_mark(monkeypatch):
    for encoding, shown in (("cp1252", "a ? b ± c\n"), ("ascii", "a ? b ? c\n"), ("utf-8", "a → b ± c\n")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        start(parser, lambda args: print("a → b ± c"), [])
        assert stream.buffer.getvalue().decode(encoding) == shown


def test_output_that_nobody_takes_is_an_error_and_not_silence(monkeypatch, capsys):
    for argv in ([], ["--help"]):
        with monkeypatch.context() as patched, Path("/dev/full").open("w") as full:
            patched.setattr(sys, "stdout", full)
            with pytest.raises(SystemExit) as stop:
                start(parser, lambda args: print("done"), argv)
        assert stop.value.code == 1
        assert capsys.readouterr().err == "test.py: error: standard output: No space left on device\n"


def test_terminating_is_interrupting(capsys):
    with pytest.raises(SystemExit) as stop:
        start(parser, lambda args: os.kill(os.getpid(), signal.SIGTERM), [])
    assert stop.value.code == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("KeyboardInterrupt", 130, "evaluate.py: interrupted"),
        ("ImportError('libcudart.so: no such file')", 1, "broken: libcudart.so: no such file; install what"),
        ("OSError(28, 'No space left on device')", 1, "No space left on device"),
        ("ValueError('odd')", 1, "evaluate.py: error: odd"),
    ],
)
def test_libraries_that_do_not_load_are_one_line(raised, code, said, tmp_path):
    (tmp_path / "numpy.py").write_text(f"raise {raised}\n")
    done = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", "--classifier", "x"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.split("\n")) == 2 + done.stderr.startswith("\n")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    """What the system prints to a closed standard error would otherwise be written into the first file opened."""
    (tmp_path / "numpy.py").write_text("stream = open('first', 'w')\nraise ValueError(stream.fileno())\n")
    command = f"{sys.executable} {ROOT / 'evaluate.py'} --classifier x >&- <&- 2>said"
    subprocess.run(command, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)
    assert int((tmp_path / "said").read_text().rpartition(" ")[2]) > 2


def test_nothing_changes_for_who_imports_a_script():
    assert not script._is_started()
    assert sys.excepthook is not script._last_word
