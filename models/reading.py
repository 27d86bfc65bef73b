"""Reading files of tensors without running what they hold."""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import pathlib
import pickle
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from common import files

# What people's checkpoints hold beside tensors: settings, paths, numbers of NumPy. Reading these runs no code.
_NUMPY = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(1).__reduce__()[0]}
PLAIN_TYPES: list[Any] = [argparse.Namespace, np.ndarray, np.dtype]
PLAIN_TYPES += [(pathlib.PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")]
PLAIN_TYPES += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
PLAIN_TYPES += [
    (each, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name, each in _NUMPY.items()
]
PLAIN_TYPES += [  # Lightning's dictionary of settings, as an ordinary one
    (collections.OrderedDict, f"{package}.utilities.{module}.AttributeDict")
    for package in ("lightning.fabric", "lightning_fabric", "lightning.pytorch", "pytorch_lightning")
    for module in ("data", "parsing")
]


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
        with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN_TYPES):
            warnings.simplefilter("ignore")  # about kinds of files that the next lines refuse
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except PermissionError:
        raise
    except pickle.UnpicklingError:
        raise ValueError(f"{path}: {_why_unread(path)}") from None
    except Exception as error:  # the bytes of some other file, read as a pickle, may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a checkpoint of this project ({reason[:120]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a checkpoint of this project (no dictionary in it)")
    return content


def kind_of_file(path: Path | str) -> str:
    """What a file is by its content: `torchscript`, `program` (of torch.export), `safetensors`, or `tensors` for what
    `read_tensors` may read and anything else."""
    path = Path(path)
    if not path.is_file():
        return "tensors"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        parts = {name.split("/", 1)[-1] for name in names}
        if "constants.pkl" in parts and any(part.startswith("code/") for part in parts):
            return "torchscript"
        return "program" if parts & {"archive_format", "serialized_exported_program.json"} else "tensors"
    with path.open("rb") as stream:
        start = stream.read(9)
    is_header = len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return "safetensors" if is_header else "tensors"


def digest_of_folder(folder: Path) -> str:
    """SHA-256 of the configurations and weights in a folder, with their names."""
    kinds = {".json", ".safetensors", ".bin", ".pt", ".pth"}
    found = sorted(each for each in folder.rglob("*") if each.suffix in kinds and each.is_file())
    lines = [f"{each.relative_to(folder).as_posix()} {files.sha256(each)}" for each in found]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _why_unread(path: Path) -> str:
    """Why a file is not read that is none of plain types, and the two lines that make one of it."""
    known = {each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in PLAIN_TYPES}
    tensors = re.compile(
        r"torch\.(?!nn\.)|collections\.OrderedDict|_codecs\.|(__builtin__|builtins)\.(set|bytearray|complex)$"
    )
    unsafe = [name for name in _named_types(path) if name not in known and not tensors.match(name)]
    if not unsafe:
        return "not a checkpoint of this project (damaged, or holds more than plain types)"
    copy = path.with_name(f"{path.name.split('.')[0]}_weights.pth")
    is_module = any(name.startswith("torch.nn.modules.") for name in unsafe)
    held = f"a whole module was pickled ({unsafe[0]})" if is_module else f"holds {', '.join(unsafe[:3])}"
    weights = "content.state_dict()" if is_module else "content['state_dict']"
    return (
        f"not a checkpoint: {held}; reading it would run code, so it is never read here. Where it was made, convert it "
        f"by two lines: content = torch.load('{path}', weights_only=False); torch.save({weights}, '{copy}')"
    )


def _named_types(path: Path) -> list[str]:
    """The types and functions that a pickle names, outermost first, found without running it; those before the damage
    of a damaged file."""
    found: dict[str, None] = {}
    with contextlib.suppress(Exception):  # of a file that is no pickle
        stream: IO[bytes] = path.open("rb")
        pickles = 4  # of the format before archives: three short ones come before the content
        if zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            stream = archive.open(next(name for name in archive.namelist() if name.endswith("data.pkl")))
            pickles = 1
        with stream:
            for _ in range(pickles):
                for opcode, argument, _ in pickletools.genops(stream):
                    if opcode.name == "GLOBAL":
                        found[str(argument).replace(" ", ".")] = None
    return list(found)
