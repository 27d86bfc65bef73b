"""Reading files of tensors without running what they hold."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch


def must_be_a_file(called: str, path: Path) -> None:
    """Raises FileNotFoundError or ValueError if what is `called` so is missing, empty, or stands for another file."""
    if re.match(r"\w{2,}:/", str(path)):  # one letter is a drive of Windows
        raise ValueError(f"{called}: is a web address; download the file, or ask the service in a Python function")
    if path.is_dir():
        raise ValueError(f"{called}: is a folder; name the file in it")
    if not path.is_file():
        hint = "; a Python function is named package.module:function" if ":" in str(path) else ""
        raise FileNotFoundError(f"{called}: no such file{hint}")
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise ValueError(f"{called}: is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{called}: is only a pointer of Git LFS; fetch the file with git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{called}: is a web page, not the file; download it again")


def read_tensors(path: Path | str, mmap: bool = False) -> dict:
    """The dictionary that `torch.save` wrote to `path`, tensors on the CPU, plain types only; with `mmap` tensors are
    read when they are used.

    Raises FileNotFoundError, or ValueError that names the file if it is damaged or holds anything but plain types (a
    pickled module would run code when it is read).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except PermissionError:
        raise
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not a checkpoint of this project (damaged, or holds more than plain types)"
        ) from None
    except Exception as error:  # the bytes of some other file, read as a pickle, may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a checkpoint of this project ({reason[:120]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a checkpoint of this project (no dictionary in it)")
    return content
