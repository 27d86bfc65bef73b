"""How a script runs and how it ends: whatever goes wrong is one line and an exit code, never a traceback.

A script is `get_args_parser()`, `main(args)` and, under its guard, `start(get_args_parser, main)`. It imports `start`
before anything else: from then on an error while its libraries load is one line too.

Exit codes: 0 success, 1 wrong input or whatever else went wrong, 2 wrong command line, 130 interrupted (by Ctrl-C, or
by SIGTERM, which the schedulers of clusters send). `--debug` (or `python -X dev`) shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from common import resources

if TYPE_CHECKING:
    from common.cli import Parser

LONGEST = 400  # characters of a message that was not written for the user
OUTPUT, NAMELESS = "standard output", "a file"


def start(
    get_args_parser: Callable[[], Parser], main: Callable[[argparse.Namespace], None], argv: Sequence[str] | None = None
) -> None:
    """Parse, run `main`, and turn what goes wrong into one line and an exit code.

    `main` reports bad input by raising ValueError, OSError or FloatingPointError with a message for the user; anything
    else is called an internal error. What is printed may hold signs that the terminal's encoding lacks: they become
    question marks.
    """
    replace_signs()
    prog, args = Path(sys.argv[0]).name, argparse.Namespace()
    debug = sys.flags.dev_mode or "--debug" in (sys.argv[1:] if argv is None else argv)
    resumes = False
    try:
        parser = get_args_parser()
        prog, resumes = parser.prog, parser.resumes
        args = parser.parse_args(argv)
        debug = vars(args).pop("debug", False) or debug  # no setting of the result
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
        with warnings_in_one_line(prog):
            call(main, args)
        flush_output()
    except SystemExit:  # --help, or a wrong command line
        leave_if_output_is_lost(prog)
        raise
    except KeyboardInterrupt:
        leave(130, f"\n{prog}: interrupted{'; the same command (training: with --resume) resumes' * resumes}")
    except Exception as error:
        if debug:
            raise
        leave(1, f"{prog}: {what_went_wrong(error, args)}")


def call(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """`main(args)`. Where a user's function ends the program in the middle, that is an error."""
    try:
        main(args)
    except SystemExit as error:
        raise RuntimeError(f"something called exit({error.code or ''})") from error


def replace_signs() -> None:
    """Let both streams print a question mark for what their encoding lacks, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def warnings_in_one_line(prog: str) -> Iterator[None]:
    """A library's warning as one line for the user, without the line of source that it comes from."""

    with warnings.catch_warnings():
        if not sys.flags.dev_mode:
            warnings.showwarning = functools.partial(_show_warning, prog)
        yield


def _show_warning(prog: str, message: Warning | str, *_: object) -> None:
    say(f"{prog}: warning: {in_one_line(str(message))}")


# ---- what is said ----------------------------------------------------------------------------------------------------


def what_went_wrong(error: BaseException, args: argparse.Namespace | None = None) -> str:
    """`error: …` or `internal error: …` in one line. `args` are the flags, for an error that one of them cures."""
    text = message_of(error)
    if resources.is_exhausted(error):
        return f"error: {out_of_memory(error, args)}"
    if is_of_worker(error, text, args):
        return f"error: --workers: a process that loads images failed ({text[:LONGEST]}); use --workers 0"
    if isinstance(error, ImportError):
        return f"error: a package is missing or broken: {text[:LONGEST]}; install what requirements.txt lists"
    if text and isinstance(error, (ValueError, OSError, FloatingPointError)):
        return f"error: {text}"
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"internal error: {told[:LONGEST]}; run again with --debug to see where"


def is_of_worker(error: BaseException, text: str, args: argparse.Namespace | None) -> bool:
    """Whether an error, with this message, is one of the processes that --workers starts, or of what they share."""
    if isinstance(error, OSError) and text.startswith(NAMELESS):  # semaphores are files without a name
        return bool(getattr(args, "workers", 0))
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("DataLoader worker", "shared memory", "</torch_")
    )


def message_of(error: BaseException) -> str:
    """The message of an error in one line; of one that a worker process raised, the message without its traceback."""
    if isinstance(error, OSError) and error.strerror is not None:
        name = error.filename
        if name is None:
            name = OUTPUT if _is_of_output(error) else NAMELESS
        return in_one_line(f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {error.strerror}")
    text = str(error)
    if "Traceback (most recent call last)" in text:
        last = re.split(r"\n(?=\S)", text.strip())[-1]
        text = re.sub(r"^[\w.]+(Error|Exception|Interrupt): ", "", last)
    return in_one_line(text)


def out_of_memory(error: BaseException, args: argparse.Namespace | None) -> str:
    """What to do about memory that is not there; of a black box with its own words."""
    free = resources.available_memory()
    state = "out of memory" + ("" if free is None else f" ({resources.amount(free)} of main memory are free)")
    held = [(flag, getattr(args, flag, None)) for flag in ("batch", "zo_batch", "image_size")]
    cures = [f"--{flag} {max(1, value // 2)} in place of {value}" for flag, value in held if value]
    of_box = isinstance(error, OSError)
    return f"{message_of(error) if of_box else state}; try {' or '.join(cures) or 'fewer programs at a time'}"


def in_one_line(text: str) -> str:
    """`text` without line breaks of any kind, and without signs that steer a terminal."""
    joined = re.sub(r"\s*[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*", " ", text.strip())
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "?", joined)


def say(line: str) -> None:
    """Print a line to standard error; if that is full or closed, there is nobody to tell."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def leave(code: int, line: str) -> None:
    """Say it, and end with this exit code."""
    with contextlib.suppress(OSError):
        flush_output()
    say(line)
    raise SystemExit(code)


# ---- standard output -------------------------------------------------------------------------------------------------


def flush_output() -> None:
    """Write what is waiting to be printed, so that the system's refusal is an error here and not as the interpreter
    ends. Raises OSError; what was waiting is then lost."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor, as those of tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, OUTPUT) from error


def leave_if_output_is_lost(prog: str) -> None:
    """End with exit code 1 if standard output takes nothing."""
    try:
        flush_output()
    except OSError as error:
        leave(1, f"{prog}: {what_went_wrong(error)}")


def _is_of_output(error: OSError) -> bool:
    """Whether an error without a file's name is that of standard output: then it happens again."""
    try:
        print()
        flush_output()
    except OSError as again:
        return again.errno == error.errno
    return False


# ---- before `start`: while the libraries load ------------------------------------------------------------------------


def _guard() -> None:
    """Let errors outside of `start` be one line too; give closed standard streams a place, lest the next file that is
    opened gets the number of one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))
    replace_signs()
    if not (sys.flags.dev_mode or "--debug" in sys.argv):
        logging.lastResort = _Aside(logging.WARNING)
        sys.excepthook = _last_word
        sys.unraisablehook = lambda found: None  # as an object is deleted: it stops nothing
        threading.excepthook = lambda found: _aside(found.exc_value or found.exc_type())


def _last_word(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    prog = Path(sys.argv[0]).name
    if isinstance(error, KeyboardInterrupt):
        say(f"\n{prog}: interrupted")
        os._exit(130)
    say(f"{prog}: {what_went_wrong(error)}")


class _Aside(logging.Handler):
    """What a library logs as a warning, as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{Path(sys.argv[0]).name}: warning: {in_one_line(record.getMessage())}")


def _aside(error: BaseException) -> None:
    """An error in a thread of a library, which stops nothing."""
    if not isinstance(error, (KeyboardInterrupt, SystemExit, BrokenPipeError)):
        say(f"{Path(sys.argv[0]).name}: warning: {type(error).__name__}: {message_of(error)[:LONGEST]}")


@functools.cache
def _is_started() -> bool:
    """Whether a script of this project was started, rather than imported by a test or another program."""
    root = Path(__file__).resolve().parents[1]
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file is not None and Path(file).resolve().parent in (root, root / "attacks", root / "benchmarks")


if _is_started():
    _guard()
