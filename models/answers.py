"""What a foreign function answers, as an array: from any array library, out of any container, by name or by shape."""

from __future__ import annotations

import dataclasses
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from models.arrays import numbers_of

PROBABILITIES = ("probabilities", "probability", "probs", "output_probability")
# What a part of an answer may be called, by what is asked for; the first that is there is taken.
NAMES = {
    "logits": ("logits", "logit", "scores", "output_scores", *PROBABILITIES),
    "probabilities": (*PROBABILITIES, "scores", "output_scores"),
    "labels": ("labels", "label", "output_label", "predictions", "prediction"),
    "images": ("images", "image", "reconstructions", "reconstruction", "reconstructed"),
}
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is looked for in an answer: the part that the user named (`output`), else one that bears one of `names`,
    else the only one of shape `forms[0]`. `forms` are all shapes that it may have. `classes` are the names of the
    classes, if they are known: columns that bear them are put into their order."""

    names: tuple[str, ...]
    forms: tuple[Shape, ...]
    classes: tuple[str, ...] = ()
    output: str | None = None


def scores_wanted(
    scores: str, count: int, num_classes: int, classes: Sequence[str] = (), output: str | None = None
) -> Wanted:
    """The answer to `count` images. Of two classes one value per image tells both, and the answer to a single image may
    lack the axis of images."""
    forms: list[Shape] = [(count,) if scores == "labels" else (count, num_classes)]
    if scores == "labels" or num_classes == 2:
        forms += [(count, 1), (count,)]
    if count == 1:
        forms += [form[1:] for form in forms]
    return Wanted(NAMES[scores], tuple(dict.fromkeys(forms)), tuple(classes), output)


def to_array(answer: Any, wanted: Wanted) -> np.ndarray:
    """The numbers of an answer as a new array: float32, or int64 if their type is one of whole numbers. Raises
    ValueError that says what was returned, if it holds no numbers or does not tell which part is wanted."""
    found = _squeezed(_array(answer, wanted), max(map(len, wanted.forms)))
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        return np.array(found, dtype=np.float32 if found.dtype.kind == "f" else np.int64, order="C")


def choose(parts: Mapping[str, Any], wanted: Wanted) -> str:
    """The name of the part that is wanted. Raises ValueError that lists the parts if it is not clear which."""
    if wanted.output in parts:
        return str(wanted.output)
    shapes = {name: _shape(part, wanted) for name, part in parts.items()}
    fitting = [name for name, shape in shapes.items() if shape in wanted.forms] or list(parts)
    whole = [name for name in fitting if shapes[name] == wanted.forms[0]]
    if wanted.output is None:
        called = {name.lower(): name for name in reversed(fitting)}
        named = [called[name] for name in wanted.names if name in called]
        if named:
            return named[0]
        for only in (whole, list(parts)):
            if len(only) == 1:
                return only[0]
    raise ValueError(_unclear(shapes, wanted))


def _unclear(shapes: Mapping[str, Shape | None], wanted: Wanted) -> str:
    """What is said of parts of these shapes if none can be chosen."""
    if not shapes:
        return "returned nothing"
    alike = len(shapes) == len(wanted.classes) and len(set(shapes.values())) == 1
    if alike and list(shapes) != [str(place) for place in range(len(shapes))]:
        return f"returned values for {', '.join(shapes)}, but the classes are {', '.join(wanted.classes)}"
    listed = ", ".join(f"{name} {'(no numbers)' if shape is None else list(shape)}" for name, shape in shapes.items())
    how = "name one with --output NAME" if wanted.output is None else f"--output {wanted.output} is none of them"
    return f"returned {listed}; {how}"


def misfit(shape: Shape, wanted: Wanted) -> str:
    """What may be wrong with an answer of another shape, as the end of a message."""
    form = wanted.forms[0]
    if len(form) == 2 and shape == form[::-1]:
        return "; transpose it"
    if len(form) == len(shape) == 2 and shape[0] == form[0] and shape[1] > 1:
        return f"; the data has {form[1]} classes"
    if len(form) == 4:
        return ""
    return "; --scores can be logits, probabilities, labels"


def _shape(part: Any, wanted: Wanted) -> Shape | None:
    """The shape of a part; None if it holds no numbers."""
    try:
        return to_array(part, dataclasses.replace(wanted, output=None)).shape
    except ValueError:
        return None


def _squeezed(found: np.ndarray, axes: int) -> np.ndarray:
    """Without axes of length 1 behind the first, where there are more than `axes`: `[B, K, 1, 1]` of a convolution."""
    while found.ndim > axes and 1 in found.shape[1:]:
        found = found.squeeze(1 + found.shape[1:].index(1))
    return found


# ---- containers ------------------------------------------------------------------------------------------------------


def _array(answer: Any, wanted: Wanted) -> np.ndarray:
    """The numbers of `answer`, or of its part that is wanted."""
    names = _names_of_classes(answer, wanted)
    if names:
        return np.array([wanted.classes.index(name) for name in names])
    if _is_sequence(answer):
        return _of_sequence(answer, wanted)
    parts = _parts(answer, wanted)
    if parts is None:
        return _rows(list(answer), wanted) if _holds_rows(answer) else numbers_of(answer)
    columns = _columns(parts, wanted)
    if columns:
        return _joined([_array(parts[name], wanted) for name in columns], answer, axis=-1)
    named = {str(name): part for name, part in parts.items()}
    return _array(named[choose(named, wanted)], dataclasses.replace(wanted, output=None))


def _names_of_classes(answer: Any, wanted: Wanted) -> list[str]:
    """The labels of all images, if labels are wanted and they are names of classes; else []. Raises ValueError if they
    are names, but not all of classes."""
    if len(wanted.forms[0]) != 1 or not wanted.classes or not isinstance(answer, (list, tuple, np.ndarray)):
        return []
    names = [*(answer.flat if isinstance(answer, np.ndarray) else answer)]
    if not all(isinstance(name, str) for name in names):
        return []
    others = [name for name in names if name not in wanted.classes]
    if others:
        raise ValueError(f"returned the label {others[0]!r}, but the classes are {', '.join(wanted.classes)}")
    return names


def _parts(answer: Any, wanted: Wanted) -> Mapping[Any, Any] | None:
    """The parts of an answer by name; None if it is an array."""
    if isinstance(answer, Mapping):
        return answer
    if isinstance(answer, tuple):
        return dict(zip(getattr(answer, "_fields", ()), answer, strict=True))
    if dataclasses.is_dataclass(answer):
        return {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    if hasattr(answer, "columns") and hasattr(answer, "to_numpy"):  # a table
        named = {name: answer[name] for name in answer.columns}
        return named if _columns(named, wanted) else None
    return None if hasattr(answer, "__array__") or hasattr(answer, "__dlpack__") else _attributes(answer, wanted)


def _attributes(answer: Any, wanted: Wanted) -> Mapping[str, Any] | None:
    """The attributes of an object that may be what is wanted; None if it has none."""
    names = [name for name in (wanted.output, *wanted.names) if name is not None and hasattr(answer, name)]
    return {name: getattr(answer, name) for name in names} or None


def _columns(parts: Mapping[Any, Any], wanted: Wanted) -> list[Any] | None:
    """The keys in the order of the classes, if they are the classes, by name or by number."""
    if wanted.classes and set(parts) == set(wanted.classes):
        return list(wanted.classes)
    numbered = len(parts) > 1 and all(isinstance(name, numbers.Integral) for name in parts)
    return sorted(parts) if numbered and set(parts) == set(range(len(parts))) else None


def _is_sequence(answer: Any) -> bool:
    """Whether it is a list or a tuple whose values have no names."""
    return isinstance(answer, (list, tuple)) and not hasattr(answer, "_fields")


def _holds_rows(answer: Any) -> bool:
    """Whether it is an array of arrays, such as a column of a table whose cells are lists."""
    if getattr(answer, "dtype", None) != np.dtype(object) or getattr(answer, "ndim", 0) != 1:
        return False
    return all(isinstance(each, (list, tuple, np.ndarray, Tensor)) for each in answer)


def _labelled(row: Any) -> Mapping[Any, Any] | None:
    """{label: score} of a row [{"label": …, "score": …}, …], as pipelines of Hugging Face give it; None of others."""
    if not (_is_sequence(row) and row and all(isinstance(e, Mapping) and {"label", "score"} <= set(e) for e in row)):
        return None
    numbered = (re.fullmatch(r"LABEL_(\d+)", str(each["label"])) for each in row)
    names = [int(match[1]) if match else each["label"] for match, each in zip(numbered, row, strict=True)]
    return dict(zip(names, (each["score"] for each in row), strict=True))


def _of_sequence(answer: Sequence, wanted: Wanted) -> np.ndarray:
    """Rows of numbers, or the wanted one of several arrays such as (logits, features), which go by their places."""
    parts = {str(place): part for place, part in enumerate(answer)}
    if wanted.output not in parts:
        rows, failed = None, ValueError()
        try:
            rows = _rows(answer, wanted)
        except ValueError as error:
            failed = error
        fits = rows is not None and _squeezed(rows, max(map(len, wanted.forms))).shape in wanted.forms
        if fits or not any(_shape(part, wanted) == wanted.forms[0] for part in answer):
            if rows is None:
                raise failed
            return rows
    return _array(parts[choose(parts, wanted)], dataclasses.replace(wanted, output=None))


def _rows(rows: Sequence, wanted: Wanted) -> np.ndarray:
    """Rows (of rows) of numbers as one array."""
    first: Any = rows
    while _is_sequence(first) and len(first):
        first = first[0]
    if isinstance(first, (numbers.Real, np.ndarray)) and not isinstance(first, np.ma.MaskedArray):
        try:
            found = np.asarray(rows)
            if found.dtype.kind in "fiub":  # at once, for speed
                return found
        except Exception:  # tensors among them, which raise what they like
            pass
    inner = dataclasses.replace(wanted, output=None)
    labelled: list[Any] = [_labelled(row) or row for row in rows]
    return _joined([_rows(row, inner) if _is_sequence(row) else _array(row, inner) for row in labelled], rows)


def _joined(parts: Sequence[np.ndarray], answer: Any, axis: int = 0) -> np.ndarray:
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"returned {type(answer).__name__}, not an array of numbers: its parts differ in length")
    return np.stack(parts, axis=axis) if parts else np.empty(0)
