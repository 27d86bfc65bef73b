"""Queries: who holds which memory, what is repeated and when, and whether a function answers as one."""

from __future__ import annotations

import datetime
import email.utils
import types
import urllib.error

import numpy as np
import pytest
import torch

from models import QueriedClassifier, steady
from models.black_box import BlackBox
from models.queries import may_pass, retry_after

IMAGES = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
OTHERS = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))
WEIGHTS = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)


def scores(images):
    """Logits of a linear classifier."""
    return (images.reshape(len(images), -1) - 0.5) @ WEIGHTS


def right(images):
    return torch.from_numpy(scores(images.numpy()))


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_a_function_that_works_in_place():
    """On its own copy: of the images of a caller, and again of each repeated query."""
    calls = []

    def spoils(images):
        assert images.flags.c_contiguous
        assert images.flags.writeable
        images -= 0.2
        images /= 0.2
        calls.append(1)
        if len(calls) % 2:
            raise TimeoutError("read timed out")
        return scores(images * 0.2 + 0.2)

    images = IMAGES.clone()
    classifier = QueriedClassifier(spoils, "f", 4, sleep=lambda seconds: None)
    for layout in (images, images.to(memory_format=torch.channels_last), images.expand(20, 1, 4, 4)):
        torch.testing.assert_close(classifier(layout), right(IMAGES))
    assert torch.equal(images, IMAGES)


def test_a_function_that_keeps_its_argument_or_its_answer():
    kept, buffer = [], np.empty((64, 4), dtype=np.float32)

    def keeps(images):
        for before in kept:
            before[:] = 7
        kept.append(images)
        buffer[: len(images)] = scores(images)
        return buffer[: len(images)]

    classifier = QueriedClassifier(keeps, "f", 4)
    images = IMAGES.clone()
    first, second = classifier(images), classifier(OTHERS)
    torch.testing.assert_close(first, right(IMAGES))
    torch.testing.assert_close(second, right(OTHERS))
    assert torch.equal(images, IMAGES)


def test_a_function_is_called_as_from_outside():
    """Neither our number format, nor our kind of tensors: what it stores may take part in gradients later."""
    stored = []

    def classify(images):
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
        stored.append(torch.from_numpy(images) @ torch.ones(4, 4))
        with torch.enable_grad():
            x = torch.tensor(images, requires_grad=True)
            (gradient,) = torch.autograd.grad((x**2).sum(), x)
        return scores(gradient.numpy() / 2)

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = QueriedClassifier(classify, "f", 4)(IMAGES)
    torch.testing.assert_close(found, right(IMAGES))
    assert stored[0].dtype == torch.float32
    assert not any(each.is_inference() for each in stored)


# ---- errors ----------------------------------------------------------------------------------------------------------


class ServiceError(Exception):
    """As those of requests and httpx."""

    def __init__(self, status, **headers):
        super().__init__(f"status {status}")
        self.response = types.SimpleNamespace(
            status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


def asked(error):
    """(pauses, message) of a function that raises `error` twice and then answers."""
    pauses, left = [], [error, error]

    def classify(images):
        if left:
            raise left.pop()
        return scores(images)

    classifier = QueriedClassifier(classify, "f", 4, sleep=pauses.append)
    try:
        classifier(IMAGES)
    except OSError as failed:
        return pauses, str(failed)
    return pauses, None


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (TimeoutError(), [1, 2]),
        (KeyError("scores"), [1, 2]),
        (ServiceError(503), [1, 2]),
        (ServiceError(429, Retry_After="7"), [7, 7]),
        (ServiceError(503, retry_after=" 1.5 "), [1.5, 2]),
        (ServiceError(408, Retry_After="soon"), [1, 2]),
        (ServiceError(425, Retry_After="-4"), [1, 2]),
        (ServiceError(500, Retry_After="nan"), [1, 2]),
        (urllib.error.HTTPError("u", 502, "bad", {"Retry-After": "3"}, None), [3, 3]),
    ],
)
def test_what_may_pass_is_asked_again(error, pauses):
    assert asked(error) == (pauses, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServiceError(401), "a query failed: ServiceError: status 401"),
        (ServiceError(404, Retry_After="3"), "status 404"),
        (urllib.error.HTTPError("u", 403, "forbidden", {}, None), "403"),
        (TypeError("f() got numpy.ndarray, not Tensor"), "torch.from_numpy"),
        (NameError("name 'net' is not defined"), "net"),
        (SystemExit(0), "a query failed: SystemExit"),
        (RuntimeError("two\nlines"), None),
        (ServiceError(429, Retry_After="86400"), "asks to wait 86400 s"),
    ],
)
def test_what_cannot_pass_is_reported_at_once(error, words):
    pauses, message = asked(error)
    if words is None:
        assert message is None
        return
    assert pauses == []
    assert words in message
    assert "\n" not in message


def test_an_interruption_is_no_failure():
    def classify(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QueriedClassifier(classify, "f", 4, sleep=lambda seconds: pytest.fail("waited"))(IMAGES)


def test_dates_and_other_holders_of_a_response():
    when = datetime.datetime(2030, 1, 1, 12, 0, tzinfo=datetime.timezone.utc)
    date = email.utils.format_datetime(when, usegmt=True)
    assert retry_after(ServiceError(503, Retry_After=date), lambda: when.timestamp() - 90) == 90
    assert retry_after(ServiceError(503, Retry_After=date), lambda: when.timestamp() + 90) == 0
    aws = OSError("throttled")
    aws.response = {"ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {"retry-after": "4"}}}
    assert (retry_after(aws), may_pass(aws)) == (4, False)
    wrapped = RuntimeError("no answer")
    wrapped.__cause__ = ServiceError(403, Retry_After="5")
    assert (retry_after(wrapped), may_pass(wrapped)) == (5, False)
    bare = RuntimeError("aiohttp")
    bare.status, bare.headers = 429, {"RETRY-AFTER": "6"}
    assert (retry_after(bare), may_pass(bare)) == (6, True)


# ---- one answer per image --------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
norm = torch.nn.BatchNorm1d(4)


def noisy(share):
    """Relative noise in the answers."""

    def classify(images):
        found = scores(images)
        return found * (1 + share * rng.standard_normal(found.shape).astype(np.float32))

    return classify


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        (noisy(0.2), "logits", "the same images again.*dropout"),
        (lambda x: torch.nn.functional.dropout(torch.from_numpy(scores(x)), 0.5), "logits", "the same images again"),
        (lambda x: np.where(rng.random(len(x)) < 0.3, 0, scores(x).argmax(1)), "labels", "the same images again"),
        (lambda x: norm(torch.from_numpy(scores(x))), "logits", "other images are in the batch.*batch norm"),
        (lambda x: scores((x - x.mean()) / x.std()), "logits", "other images are in the batch"),
        (lambda x: scores(x)[::-1], "logits", "other images are in the batch"),
    ],
)
@pytest.mark.parametrize("count", [1, 20])
def test_a_function_that_is_none(function, kind, words, count):
    with pytest.raises(ValueError, match=f"--classifier f: answers differently when.*{words}"):
        QueriedClassifier(function, "f", 4, kind)(IMAGES[:count])


@pytest.mark.parametrize("share", [1e-7, 1e-5])
def test_rounding_is_no_randomness(share, recwarn):
    torch.testing.assert_close(QueriedClassifier(noisy(share), "f", 4)(IMAGES), right(IMAGES), atol=1e-3, rtol=1e-3)
    assert not recwarn


def test_rounding_that_may_change_votes_is_said():
    with pytest.warns(UserWarning, match=r"--classifier f: answers differently .*, by .*%"):
        QueriedClassifier(noisy(3e-3), "f", 4)(IMAGES)


def test_a_constant_answer_is_one():
    assert not QueriedClassifier(lambda x: np.zeros((len(x), 4)), "f", 4)(IMAGES).any()


def test_differences_are_shares_of_what_decides():
    """The median lead is 2; the first image's lead changes by 0.5. A class that is masked decides nothing."""
    first = torch.tensor([[2.0, 0.0, -1e9], [0.0, 1.0, -1e9], [5.0, 1.0, -1e9]])
    second = first.clone()
    second[0, 1] += 0.5
    assert steady.difference(first, second) == pytest.approx(0.25)
    images = torch.rand(2, 1, 4, 4)
    assert steady.difference(images, images + 0.5 * (images.max() - images.min())) == pytest.approx(0.5)


def test_the_check_is_paid_once():
    asked_about = []

    def classify(images):
        asked_about.append(len(images))
        return scores(images)

    box = BlackBox(QueriedClassifier(classify, "f", 4))
    assert box.due == steady.QUERIES
    for images in (IMAGES, OTHERS):
        box.query(images)
        assert box.queries == sum(asked_about)
    assert box.due == 0
    assert sum(asked_about) == 40 + steady.QUERIES


# ---- one value per image ---------------------------------------------------------------------------------------------


def value(images):
    """The logit of class 1."""
    found = scores(images)
    return found[:, 1] - found[:, 0]


def sigmoid(images):
    return 1 / (1 + np.exp(-value(images)))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (value, "logits"),
        (lambda x: value(x)[:, None], "logits"),
        (lambda x: value(x).squeeze(), "logits"),
        (sigmoid, "probabilities"),
        (lambda x: torch.from_numpy(sigmoid(x))[:, None].double(), "probabilities"),
        (lambda x: {"probability": sigmoid(x)}, "probabilities"),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 20])
def test_of_two_classes(function, kind, count):
    found = QueriedClassifier(function, "f", 2, kind)(IMAGES[:count])
    expected = torch.from_numpy(sigmoid(IMAGES[:count].numpy()))
    torch.testing.assert_close(found.softmax(dim=1), torch.stack([1 - expected, expected], dim=1))


def test_what_one_value_may_not_be():
    with pytest.raises(ValueError, match=r"all of them between 0 and 1.*--scores"):
        QueriedClassifier(sigmoid, "f", 2)(IMAGES)
    with pytest.raises(ValueError, match="no probabilities; try --scores logits"):
        QueriedClassifier(value, "f", 2, "probabilities")(IMAGES)
    with pytest.raises(ValueError, match=r"returned shape \[16\], but logits have shape \[16, 4\]"):
        QueriedClassifier(value, "f", 4)(IMAGES)
    with pytest.warns(UserWarning, match="no value below 0"):
        QueriedClassifier(lambda x: 100 * sigmoid(x), "f", 2)(IMAGES)


def test_of_one_image_the_axis_may_be_missing():
    torch.testing.assert_close(QueriedClassifier(lambda x: scores(x).squeeze(), "f", 4)(IMAGES[:1]), right(IMAGES[:1]))
    labels = QueriedClassifier(lambda x: scores(x).argmax(1).squeeze(), "f", 4, "labels")(IMAGES[:1])
    assert labels.argmax(dim=1).tolist() == right(IMAGES[:1]).argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        (lambda x: scores(x).T, "logits", r"returned shape \[4, 16\].*transpose it"),
        (lambda x: scores(x)[:-1], "logits", r"returned shape \[15, 4\]"),
        (lambda x: np.repeat(scores(x), 2, axis=1), "logits", "the data has 4 classes"),
        (lambda x: scores(x).argmax(1) + 0.5, "labels", "no whole numbers|outside 0 … 3"),
        (lambda x: scores(x).argmax(1) - 1, "labels", "outside 0 … 3"),
    ],
)
def test_shapes_and_labels_that_are_wrong(function, kind, words):
    with pytest.raises(ValueError, match=words):
        QueriedClassifier(function, "f", 4, kind)(IMAGES)


def test_probabilities_in_place_of_logits_are_noticed():
    def softmax(x):
        return torch.from_numpy(scores(x)).softmax(dim=1)

    with pytest.warns(UserWarning, match="--scores probabilities"):
        found = QueriedClassifier(softmax, "f", 4)(IMAGES)
    assert torch.equal(found.argmax(dim=1), right(IMAGES).argmax(dim=1))
