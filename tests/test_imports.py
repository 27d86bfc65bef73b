"""The rules of the layout: imports run one way, scripts → packages → leaves, and nothing imports a script."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest
from conftest import our_files

ROOT = Path(__file__).resolve().parents[1]
# What each script and package may import besides `common`, which all but the leaves may use, and its own package.
ALLOWED = {
    "prepare_data": {"preparation", "imaging", "datasets"},
    "train_classifier": {"training", "models", "imaging", "datasets"},
    "ds_main": {"training", "models", "imaging", "datasets"},
    "main_ds": {"training", "models", "datasets"},
    "export_model": {"models"},
    "AE_DS_verify": {"attacks", "certification", "models", "imaging", "datasets", "evaluation"},
    "merge_certificates": {"certification"},
    "attacks/generate": {"models", "datasets"},
    "attacks/check_certificates": {"models", "imaging", "datasets", "evaluation"},
    "evaluate": {"attacks", "evaluation", "core", "models", "datasets"},
    "evaluate_reconstruction": {"attacks", "models", "datasets", "training"},
    "make_tables": {"evaluation"},
    "make_report": {"attacks", "certification", "models", "imaging", "datasets", "evaluation"},
    "reproduce": {"workflow"},
    "benchmarks": {"attacks", "core", "smoothing", "models", "imaging", "datasets", "training", "evaluation"},
    "attacks": {"core", "models", "imaging", "datasets", "evaluation"},
    "certification": {"core", "smoothing", "models", "imaging", "datasets", "evaluation"},
    "training": {"models"},
    "preparation": {"imaging", "datasets"},
    "models": {"imaging"},
    "datasets": {"imaging"},
    "imaging": set(),
    "evaluation": set(),
    "workflow": set(),
    "core": {"smoothing"},
    "smoothing": set(),
    "common": set(),
}
LEAVES = {"core", "smoothing", "common"}
OURS = {name.split("/")[0] for name in ALLOWED}
ELSEWHERE = {"tests", "results"}  # nothing there is imported


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


MODULES = [path for path in our_files("*.py") if path.relative_to(ROOT).parts[0] not in ELSEWHERE]
SCRIPTS = {name_of(path) for path in MODULES if '\nif __name__ == "__main__":\n' in path.read_text()}


def imported(path: Path) -> set[str]:
    """Our modules and packages that a file imports, anywhere in it, as `models/flags`; names that it takes out of them
    are written in the same way."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.replace(".", "/") for name in found if name.split(".")[0] in OURS}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_keep_to_the_table(path):
    name = name_of(path)
    package = name.split("/")[0]
    own = ALLOWED.get(name, ALLOWED.get(package))
    assert own is not None, f"{name} is not in the table"
    leaves = set() if package in LEAVES else {"common"}
    itself = {package} if "/" in name else set()
    assert {each.split("/")[0] for each in imported(path)} <= own | leaves | itself


def test_imports_run_one_way():
    graphlib.TopologicalSorter(ALLOWED).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_imports_a_script(path):
    assert not imported(path) & SCRIPTS


def test_the_top_level_holds_scripts_and_the_two_modules_that_people_import():
    top = {path.stem for path in MODULES if path.parent == ROOT}
    assert top - SCRIPTS == {"core", "datasets"}


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
