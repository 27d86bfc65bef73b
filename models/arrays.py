"""Arrays of any library as NumPy arrays."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import AsyncIterator, Awaitable, Iterator, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

REFUSED: tuple[tuple[Any, str], ...] = (
    (type(None), "None; does the function lack a return?"),
    ((str, bytes, bytearray), "text or bytes, not numbers; if they hold numbers, decode them (json.loads)"),
    (Awaitable, "a coroutine, as async functions do; let a plain function wait for it (asyncio.run)"),
    ((Iterator, AsyncIterator), "a generator; return a list of its values, or an array"),
    (Set, "a set, whose values have no order"),
)


def said(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}".removesuffix(": ")


def numbers_of(value: Any) -> np.ndarray:
    """The numbers of an array of any library (a tensor on any device, of any type and layout, too), of a type that
    NumPy computes with. Raises ValueError that says what was returned in their place."""
    for kinds, what in REFUSED:
        if isinstance(value, kinds):
            if inspect.iscoroutine(value):
                value.close()  # it will never be awaited
            raise ValueError(f"returned {what}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError("returned an array with masked values, which are no numbers")
    found = _of_tensor(value) if isinstance(value, Tensor) else _of_foreign(value)
    _must_be_in_order(value)
    if found.dtype.kind in "fiub":
        return found
    if found.dtype.kind == "O":
        return _of_objects(found, value)
    if found.dtype.kind == "V" and found.dtype.names is None and found.dtype.itemsize <= 2:  # bfloat16 outside of torch
        return found.astype(np.float32)
    raise ValueError(f"returned values of type {found.dtype}, not numbers")


def _of_objects(found: np.ndarray, value: Any) -> np.ndarray:
    """Numbers of Python in an array of objects."""
    if found.ndim == 0 and not isinstance(value, np.ndarray):
        raise ValueError(f"returned {type(value).__name__}, not an array of numbers")
    odd = [type(each).__name__ for each in found.flat if not isinstance(each, numbers.Real)]
    if odd:
        raise ValueError(f"returned values of type {odd[0]}, not numbers")
    return found.astype(np.int64 if all(isinstance(each, numbers.Integral) for each in found.flat) else np.float64)


def _of_tensor(tensor: Tensor) -> np.ndarray:
    """A torch tensor on any device, of any type and layout, whether or not it requires gradients."""
    if tensor.is_meta:
        raise ValueError("returned a tensor on the device meta, which holds no numbers")
    if tensor.is_nested:
        raise ValueError("returned a nested tensor, not an array of numbers: its rows differ in length")
    try:
        tensor = tensor.detach()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()  # NumPy knows no bfloat16
        return tensor.cpu().resolve_conj().resolve_neg().numpy()
    except Exception as error:  # of a subclass, or of a device that does not answer
        raise ValueError(f"returned {type(tensor).__name__}, whose numbers cannot be read: {said(error)}") from None


def _of_foreign(value: Any) -> np.ndarray:
    """An array of another library, by NumPy's protocol or by DLPack (from a GPU, of which NumPy takes none)."""
    failed: Exception | None = None
    if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        try:
            return np.asarray(value)
        except Exception as error:  # whatever a foreign library raises
            failed = error
    if hasattr(value, "__dlpack__"):
        try:
            return _of_tensor(torch.from_dlpack(value))
        except Exception as error:
            failed = failed or error
    why = said(failed) if failed is not None else "no reason is given"
    raise ValueError(f"returned {type(value).__name__}, which does not become an array: {why}")


def _must_be_in_order(value: Any) -> None:
    """Raises ValueError if the rows of a table of pandas are numbered from 0, but sorted otherwise."""
    index = getattr(value, "index", None)
    if index is None or callable(index) or not hasattr(value, "to_numpy"):
        return
    places = np.asarray(index)
    if places.dtype.kind in "iu" and (np.diff(places) < 0).any() and (np.sort(places) == np.arange(len(places))).all():
        raise ValueError(f"returned a {type(value).__name__} whose rows are out of order; return .sort_index() of it")
