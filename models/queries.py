"""Queries of a foreign function: how images are handed out, what comes back, what happens when a query fails."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.resources import is_exhausted
from models import steady
from models.answers import Wanted, to_array
from models.arrays import said

RETRIES = 5  # of a failing query, after 1, 2, 4, 8 and 16 s, or when the service says
LONGEST = 600  # seconds that a service may ask to wait
# Errors of the function itself, and statuses of HTTP below 500 that may pass.
LASTING = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, AssertionError, SystemExit)
PASSING = (408, 425, 429)
Function = Callable[[np.ndarray], Any]  # float32 images [B, C, H, W] in [0, 1] → an array of numbers


class Queried(nn.Module):
    """A foreign function as a module without parameters and gradients. `name` is its flag with its value, for messages.
    The function gets a copy of the images and its answer is copied, so that neither side can change what the other
    holds. `output` names the part of the answer that is wanted (`models.answers`).

    Before the first answer it is checked that the same images get the same answers (`models.steady`), unless `checked`
    says that this is known; `due` is what that costs.

    A query that raises an error is repeated `retries` times, after ever longer pauses, or when the service says
    (`Retry-After`); then ConnectionError (an OSError) reports the error. What cannot pass is not repeated. Raises
    FloatingPointError if an answer is not finite, and ValueError if it holds no numbers, differs from query to query,
    or a gradient is asked for.
    """

    def __init__(
        self,
        function: Function,
        name: str,
        retries: int = RETRIES,
        sleep: Callable[[float], None] = time.sleep,
        output: str | None = None,
        checked: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.output, self.checked = name, output, checked
        self._function, self._retries, self._sleep = function, retries, sleep

    @property
    def due(self) -> int:
        """Images that the check before the first answer will ask about."""
        return 0 if self.checked else steady.QUERIES

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(
                f"{self.name}: a black box gives no gradients; train by queries (main_ds.py --optimization_method ZO) "
                "and use attacks that need labels only"
            )
        if not self.checked:
            self.check(x)
            self.checked = True
        return self.answer(x)

    def check(self, x: Tensor) -> None:
        """Raises ValueError unless images like those of `x` get one answer each."""
        steady.check(self.answer, x, self.name)

    def answer(self, x: Tensor) -> Tensor:
        """What `forward` returns."""
        raise NotImplementedError

    def ask(self, x: Tensor, wanted: Wanted) -> Tensor:
        """The part of the function's answer that is wanted, float32 or int64."""
        # As called from outside: in the user's own number format, with tensors that the user's code may keep.
        own = torch.autocast(x.device.type, enabled=False), torch.inference_mode(False), torch.no_grad()
        with own[0], own[1], own[2]:
            try:
                answer = to_array(self._asked(x.detach().float().cpu().numpy()), wanted)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        if not np.isfinite(answer).all():
            raise FloatingPointError(f"{self.name}: returned numbers that are not finite")
        return torch.from_numpy(answer).to(x.device)

    def _asked(self, images: np.ndarray) -> Any:
        for attempt in range(self._retries + 1):
            try:
                return self._function(np.array(images, order="C"))
            except (Exception, SystemExit) as error:  # whatever a foreign function raises
                if is_exhausted(error):
                    raise  # memory, which a smaller batch may need
                wait = max(2.0**attempt, retry_after(error))
                if attempt == self._retries or not may_pass(error) or wait > LONGEST:
                    times = f" {attempt + 1} times" if attempt else ""
                    asks = f"; the service asks to wait {wait:.0f} s" if LONGEST < wait < math.inf else ""
                    hint = "; images are NumPy arrays, torch.from_numpy makes tensors" if _wants_tensors(error) else ""
                    raise ConnectionError(f"{self.name}: a query failed{times}: {said(error)}{asks}{hint}") from error
                self._sleep(wait)
        raise AssertionError


def _wants_tensors(error: BaseException) -> bool:
    return isinstance(error, TypeError) and "ndarray" in str(error) and "Tensor" in str(error)


# ---- what a service says of its failure ------------------------------------------------------------------------------


def may_pass(error: BaseException) -> bool:
    """Whether the same query may succeed later: not after a mistake in the function, nor where HTTP says that the
    request itself is wrong."""
    status = _status(error)
    if status is not None and 400 <= status < 500:
        return status in PASSING
    return not isinstance(error, LASTING)


def retry_after(error: BaseException, now: Callable[[], float] = time.time) -> float:
    """The seconds after which a service wants to be asked again, from the header `Retry-After` (RFC 9110, section
    10.2.3: seconds, or a date) of the response that the error of requests, httpx, urllib, aiohttp or botocore holds;
    else 0."""
    for holder in _holders(error):
        headers = _field(holder, "headers", "HTTPHeaders")
        if not hasattr(headers, "items"):
            continue
        named = {str(name).lower(): value for name, value in headers.items()}
        text = str(named.get("retry-after", "")).strip()
        try:
            return max(0.0, float(text)) if float(text) == float(text) else 0.0
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
        except (ValueError, TypeError, OverflowError):
            continue
    return 0.0


def _status(error: BaseException) -> int | None:
    for holder in _holders(error):
        status = _field(holder, "status_code", "status", "code", "HTTPStatusCode")
        if isinstance(status, int):
            return status
    return None


def _holders(error: BaseException | None) -> list[Any]:
    """What may tell of a response: the response of an error, the error itself, and those of the error behind it."""
    found: list[Any] = []
    while error is not None:
        response = getattr(error, "response", None)
        found += [_field(response, "ResponseMetadata") or response, error]
        error = error.__cause__
    return [each for each in found if each is not None]


def _field(holder: Any, *names: str) -> Any:
    """The first of the attributes, or keys, that `holder` has."""
    for name in names:
        value = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
        if value is not None:
            return value
    return None
