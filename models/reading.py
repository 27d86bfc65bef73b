"""Reading files of tensors without running what they hold."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch


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
