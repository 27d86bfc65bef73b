"""What all figures share."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def missing_letters() -> Iterator[None]:
    """Let matplotlib's warnings in the block about letters that its font lacks be one; a name may hold many."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    found = [re.match(r"Glyph (\d+) ", str(each.message)) for each in caught]
    for each, match in zip(caught, found, strict=True):
        if match is None:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    lacking = "".join(chr(int(match[1])) for match in found if match)
    if lacking:
        warnings.warn(f"the font of the figure lacks {len(set(lacking))} letters of the names in it", stacklevel=3)
