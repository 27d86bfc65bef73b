"""What functions answer: every kind of array in every kind of container gives the same numbers, or one clear line."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import json
import types

import numpy as np
import pandas as pd
import pytest
import torch

from models.answers import Wanted, scores_wanted, to_array

CLASSES = ("fish", "bird", "cat")
ROWS = np.array([[2.0, -1.0, 0.5], [0.0, 4.0, -2.0], [1.5, 1.0, 3.0], [-3.0, 0.25, 8.0]], dtype=np.float32)
TENSOR = torch.from_numpy(ROWS)
ORDER = [2, 0, 1]  # of the classes, in answers that name them
WANTED = scores_wanted("logits", len(ROWS), 3, CLASSES)
Named = collections.namedtuple("Named", "logits features")
Pair = collections.namedtuple("Pair", "first second")


@dataclasses.dataclass
class Data:
    loss: float
    logits: object


class Attributes(dict):
    __getattr__ = dict.__getitem__


class Protocol:
    """An array of a library that NumPy can ask."""

    def __array__(self, dtype=None, copy=None):
        return ROWS


class Symbol:
    def __array__(self, dtype=None, copy=None):
        raise NotImplementedError("a symbol has no value")


class OnDevice:
    """An array of a library that hands out its memory, but not to NumPy."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("lies on a GPU")

    def __dlpack__(self, **kwargs):
        return TENSOR.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return TENSOR.__dlpack_device__()


def bfloat16():
    """As JAX and TensorFlow give it to NumPy."""
    return ROWS.astype(pytest.importorskip("ml_dtypes").bfloat16)


ARRAYS = {
    "float64": lambda: ROWS.astype(np.float64),
    "float16": lambda: ROWS.astype(np.float16),
    "longdouble": lambda: ROWS.astype(np.longdouble),
    "big endian": lambda: ROWS.astype(">f4"),
    "columns first": lambda: np.asfortranarray(ROWS),
    "objects": lambda: ROWS.astype(object),
    "nothing masked": lambda: np.ma.masked_array(ROWS, mask=False),
    "of a convolution": lambda: ROWS[:, :, None, None],
    "list": lambda: ROWS.tolist(),
    "tuples": lambda: tuple(map(tuple, ROWS.tolist())),
    "list of arrays": lambda: list(ROWS),
    "list of batches of one": lambda: [row[None] for row in ROWS],
    "tensor": lambda: TENSOR,
    "bfloat16": lambda: TENSOR.bfloat16(),
    "half": lambda: TENSOR.half(),
    "double": lambda: TENSOR.double(),
    "float8": lambda: TENSOR.to(torch.float8_e5m2),
    "with gradient": lambda: TENSOR.clone().requires_grad_(),
    "parameter": lambda: torch.nn.Parameter(TENSOR.clone()),
    "negative view": lambda: torch._neg_view(-TENSOR),
    "sparse": lambda: TENSOR.to_sparse(),
    "list of tensors": lambda: [row.clone().requires_grad_() for row in TENSOR.bfloat16()],
    "list of numbers in tensors": lambda: [list(row) for row in TENSOR],
    "array protocol": Protocol,
    "DLPack": OnDevice,
    "bfloat16 outside of torch": bfloat16,
    "table": lambda: pd.DataFrame(ROWS),
    "table with names of images": lambda: pd.DataFrame(ROWS, index=list("dcba")),
    "table in another order": lambda: pd.DataFrame(ROWS, columns=CLASSES)[[CLASSES[k] for k in ORDER]],
    "column of lists": lambda: pd.Series(ROWS.tolist()),
}
CONTAINERS = {
    "logits": lambda: {"logits": TENSOR, "loss": None},
    "any single key": lambda: {"out": ROWS},
    "by shape": lambda: {"features": np.ones((4, 9)), "out": ROWS},
    "upper case": lambda: {"Logits": ROWS, "OTHER": ROWS * 0},
    "attributes": lambda: Attributes(logits=TENSOR),
    "namespace": lambda: types.SimpleNamespace(logits=ROWS, features=np.ones((4, 9))),
    "named tuple": lambda: Named(ROWS, np.ones((4, 9))),
    "named tuple by shape": lambda: Pair(ROWS, ROWS.argmax(axis=1)),
    "data class": lambda: Data(0.5, TENSOR.bfloat16()),
    "tuple of one": lambda: (ROWS,),
    "list of one": lambda: [ROWS],
    "tuple by shape": lambda: (np.ones((4, 9)), ROWS),
    "labels, scores": lambda: (ROWS.argmax(axis=1), ROWS),
    "nested": lambda: {"predictions": {"logits": ROWS.tolist()}},
    "columns by class": lambda: {CLASSES[k]: ROWS[:, k] for k in ORDER},
    "columns by number": lambda: {k: ROWS[:, k] for k in ORDER},
    "rows by class": lambda: [{CLASSES[k]: float(row[k]) for k in ORDER} for row in ROWS],
    "rows by number": lambda: [{k: row[k] for k in ORDER} for row in ROWS],
    "rows of a dictionary each": lambda: [{"logits": row.tolist(), "id": i} for i, row in enumerate(ROWS)],
    "pipeline": lambda: [[{"label": CLASSES[k], "score": row[k]} for k in ORDER] for row in ROWS],
    "pipeline without names": lambda: [[{"label": f"LABEL_{k}", "score": row[k]} for k in ORDER] for row in ROWS],
}


@pytest.mark.parametrize("kind", [*ARRAYS, *CONTAINERS])
def test_the_same_numbers(kind):
    found = to_array((ARRAYS | CONTAINERS)[kind](), WANTED)
    assert found.dtype == np.float32
    assert np.array_equal(found, ROWS)  # each of them is held exactly by every type


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_tensor_on_a_gpu():
    assert np.array_equal(to_array({"logits": TENSOR.cuda().half()}, WANTED), ROWS)


def test_the_answer_is_a_copy():
    held = ROWS.copy()
    found = to_array({"logits": torch.from_numpy(held)}, WANTED)
    held[:] = 7
    assert np.array_equal(found, ROWS)


@pytest.mark.parametrize("kind", [np.uint16, np.int8, bool])
def test_whole_numbers_stay_whole(kind):
    found = to_array(np.arange(4).astype(kind), scores_wanted("labels", 4, 4))
    assert found.dtype == np.int64
    assert found.tolist() == np.arange(4).astype(kind).tolist()


async def coroutine():
    return ROWS


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: None, "returned None; does the function lack a return"),
        (coroutine, "asyncio.run"),
        (lambda: (row for row in ROWS), "generator"),
        (lambda: json.dumps(ROWS.tolist()), "json.loads"),
        (lambda: ROWS.tobytes(), "bytes"),
        (lambda: set(ROWS.ravel()), "no order"),
        (lambda: object(), "returned object, not an array of numbers"),
        (lambda: [[1.0, 2.0, 3.0], [1.0]], "returned list, not an array of numbers"),
        (lambda: [["fish"] * 3] * 4, "returned text"),
        (lambda: ROWS.astype(str), "values of type <U32, not numbers"),
        (lambda: [[decimal.Decimal(1)] * 3] * 4, "Decimal, not"),
        (lambda: np.array([[decimal.Decimal(1)] * 3] * 4), "values of type Decimal"),
        (lambda: np.ma.masked_array(ROWS, mask=ROWS > 3), "masked values"),
        (lambda: ROWS.astype(complex), "complex128"),
        (lambda: torch.zeros(4, 3, device="meta"), "device meta"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (Symbol, "a symbol has no value"),
        (lambda: pd.DataFrame(ROWS).sort_values(0), "out of order; return .sort_index"),
        (lambda: {}, "returned nothing"),
        (lambda: {"a": ROWS, "b": ROWS}, r"returned a \[4, 3\], b \[4, 3\]; name one with --output NAME"),
        (lambda: (ROWS, ROWS), r"returned 0 \[4, 3\], 1 \[4, 3\]; name one with --output"),
        (lambda: dict.fromkeys("xyz", ROWS[:, 0]), "values for x, y, z, but the classes are fish, bird, cat"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_no_numbers(answer, words):
    with pytest.raises(ValueError, match=words):
        to_array(answer(), WANTED)


def test_one_of_several_that_the_user_names():
    two = {"a": ROWS, "b": -ROWS, "features": np.ones((4, 9))}
    for name, sign in (("a", 1), ("b", -1)):
        assert np.array_equal(to_array(two, dataclasses.replace(WANTED, output=name)), sign * ROWS)
    assert np.array_equal(to_array((ROWS, -ROWS), dataclasses.replace(WANTED, output="1")), -ROWS)
    assert np.array_equal(
        to_array(types.SimpleNamespace(heads=-ROWS), dataclasses.replace(WANTED, output="heads")), -ROWS
    )
    with pytest.raises(ValueError, match="--output c is none of them"):
        to_array(two, dataclasses.replace(WANTED, output="c"))


def test_by_what_is_asked_for():
    probabilities = np.exp(ROWS) / np.exp(ROWS).sum(axis=1, keepdims=True)
    answer = {"label": ROWS.argmax(axis=1), "probabilities": probabilities, "logits": ROWS}
    for scores, right in (("logits", ROWS), ("probabilities", probabilities), ("labels", ROWS.argmax(axis=1))):
        assert np.array_equal(to_array(answer, scores_wanted(scores, 4, 3, CLASSES)), right)


def test_labels_may_be_the_names_of_classes():
    wanted = scores_wanted("labels", 4, 3, CLASSES)
    names = ["cat", "fish", "cat", "bird"]
    for answer in (names, np.array(names), np.array(names, dtype=object), {"label": names}, (names, ROWS)):
        assert to_array(answer, wanted).tolist() == [2, 0, 2, 1]
    with pytest.raises(ValueError, match="returned the label 'dog', but the classes are fish, bird, cat"):
        to_array(["cat", "dog"], wanted)
    with pytest.raises(ValueError, match="text"):
        to_array(names, scores_wanted("labels", 4, 3))


def test_images_are_no_rows_of_scores():
    images = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    wanted = Wanted(("images",), (images.shape,))
    for answer in (images, images.tolist(), {"images": images, "psnr": 30.0}, (images, 30.0)):
        assert np.array_equal(to_array(answer, wanted), images)
