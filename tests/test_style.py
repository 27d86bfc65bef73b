"""What formatter, linter and type checker leave to a test: functions of moderate size, no exceptions from layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from radon.complexity import cc_visit

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"runs", "Dataset"}  # and hidden folders


def is_elsewhere(path: Path) -> bool:
    top = path.relative_to(ROOT).parts[0]
    return top in ELSEWHERE or top.startswith(".")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


MOST = 15  # independent paths through a function (radon's cyclomatic complexity)
# Being rewritten beside this (issue 24): each goes from here when its file is free again.
FOR_NOW = {
    "AE_DS_verify.py",
    "attacks/certified.py",
    "attacks/check_certificates.py",
    "benchmarks/certification.py",
    "benchmarks/stopping_rules.py",
    "benchmarks/passes.py",
    "certification/certificate_file.py",
    "certification/run.py",
    "common/files.py",
    "ds_main.py",
    "evaluate.py",
    "evaluation/certificates.py",
    "evaluation/figures.py",
    "evaluation/metrics.py",
    "evaluation/tables.py",
    "make_tables.py",
    "models/denoisers.py",
    "models/registry.py",
    "smoothing/engine.py",
    "tests/test_check_certificates.py",
    "tests/test_evaluate.py",
    "tests/test_make_tables.py",
    "tests/test_models.py",
    "tests/test_smoothing.py",
}
EVERY = [path for path in sorted(ROOT.rglob("*.py")) if not is_elsewhere(path)]
FILES = [path for path in EVERY if path.relative_to(ROOT).parts[0] != "tests"]  # an assertion is a path too


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_fit_the_head(path):
    if name_of(path) in FOR_NOW:
        pytest.skip("being rewritten")
    blocks = cc_visit(path.read_text())
    methods = [method for block in blocks for method in getattr(block, "methods", [])]
    assert [f"{block.name}: {block.complexity}" for block in (*blocks, *methods) if block.complexity > MOST] == []


@pytest.mark.parametrize("path", [path for path in EVERY if name_of(path) not in FOR_NOW], ids=name_of)
def test_the_formatter_needs_no_exceptions(path):
    assert "# fmt" + ":" not in path.read_text()
