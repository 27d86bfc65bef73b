"""The import rules of the architecture: scripts → packages → leaves, never script → script, never against the table."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = {"cli", "files", "images"}  # anybody may use them, they use nothing of ours
ALLOWED = {
    "prepare_data": {"preparation", "catalogue", "datasets"},
    "train_classifier": {"training", "models", "catalogue", "datasets"},
    "ds_main": {"training", "models", "catalogue", "datasets"},
    "main_ds": {"training", "pipeline_args", "models", "datasets"},
    "AE_DS_verify": {
        "attacks", "certification", "core", "smoothing", "pipeline_args", "models", "catalogue", "datasets",
        "evaluation",
    },
    "merge_certificates": {"certification"},
    "export_model": {"models"},
    "attacks/generate": {"attacks", "pipeline_args", "models", "datasets"},
    "attacks/check_certificates": {"attacks", "pipeline_args", "models", "catalogue", "evaluation"},
    "evaluate": {"attacks", "evaluation", "core", "pipeline_args", "models", "datasets"},
    "evaluate_reconstruction": {"attacks", "pipeline_args", "models", "datasets", "training"},
    "make_tables": {"evaluation"},
    "reproduce": {"workflow"},
    "workflow": set(),
    "benchmarks": {"attacks", "core", "smoothing", "pipeline_args", "models", "datasets", "training"},
    "core": {"smoothing"},
    "smoothing": set(),
    "cli": set(),
    "files": set(),
    "images": set(),
    "catalogue": set(),
    "datasets": {"catalogue"},
    "pipeline_args": {"models", "catalogue", "datasets"},
    "preparation": {"catalogue", "datasets"},
    "models": set(),
    "training": {"models"},
    "evaluation": set(),
    "certification": {"core", "smoothing", "models", "catalogue", "datasets", "evaluation"},
    "attacks": {"core", "pipeline_args", "models", "catalogue", "datasets"},
}  # fmt: skip
OURS = {name.split("/")[0] for name in ALLOWED}
ELSEWHERE = {"tests", "results", "runs", "Dataset"}  # and hidden folders: nothing there is imported
MODULES = [
    path for path in sorted(ROOT.rglob("*.py"))
    if (top := path.relative_to(ROOT).parts[0]) not in ELSEWHERE and not top.startswith(".")
]  # fmt: skip


def imported(path: Path) -> set[str]:
    """Our top-level names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
        found |= {name.split(".")[0] for name in names} & OURS
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_table(path):
    relative = path.relative_to(ROOT).with_suffix("")
    package = relative.parts[0]
    own = ALLOWED.get(relative.as_posix(), ALLOWED.get(package))
    assert own is not None, f"{relative} is not in the table"
    leaves = set() if package in LEAVES | {"core", "smoothing"} else LEAVES
    assert imported(path) <= own | leaves | ({package} if len(relative.parts) > 1 else set())


def test_core_stands_alone():
    """`core.py` and `smoothing/` can be copied into another project: they need torch, NumPy, SciPy and each other."""
    for path in (ROOT / "core.py", *(ROOT / "smoothing").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names
            assert foreign <= {"torch", "numpy", "scipy", "smoothing"}, path


def test_nothing_is_hard_wired_to_cuda():
    for path in MODULES:
        assert ".cuda()" not in path.read_text(), path
