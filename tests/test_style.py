"""What formatter, linter and type checker leave to a test: functions of moderate size, no exceptions from layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import our_files
from radon.complexity import cc_visit

ROOT = Path(__file__).resolve().parents[1]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


MOST = 15  # independent paths through a function (radon's cyclomatic complexity)
EVERY = our_files("*.py")
FILES = [path for path in EVERY if path.relative_to(ROOT).parts[0] != "tests"]  # an assertion is a path too


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_fit_the_head(path):
    blocks = cc_visit(path.read_text())
    methods = [method for block in blocks for method in getattr(block, "methods", [])]
    assert [f"{block.name}: {block.complexity}" for block in (*blocks, *methods) if block.complexity > MOST] == []


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_the_formatter_needs_no_exceptions(path):
    assert "# fmt" + ":" not in path.read_text()
