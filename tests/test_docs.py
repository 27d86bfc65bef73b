"""The pages: every command parses, every local link leads somewhere, every flag is explained once."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import our_files

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dataset/README.md", "checkpoints/README.md")
]
PAGES += [*DOCS, *our_files("results/**/README.md"), *our_files("results/benchmarks/*.md")]
SCRIPTS = [
    "prepare_data",
    "train_classifier",
    "ds_main",
    "main_ds",
    "export_model",
    "attacks.generate",
    "AE_DS_verify",
    "merge_certificates",
    "attacks.check_certificates",
    "evaluate",
    "evaluate_reconstruction",
    "make_tables",
    "make_report",
    "reproduce",
]
# Flags of other people's programs that pages mention, and of our shell scripts.
FOREIGN_FLAGS = {
    "--build-arg",
    "--gpus",
    "--rm",
    "--shm-size",
    "--cores",
    "--directory",
    "--configfile",
    "--nproc_per_node",
}
SHELL_FLAGS = {
    "run.sh": {"--dataset", "--source", "--protocol", "--device", "--outdir", "--help"},
    "test.sh": {"--coverage", "--hypothesis-profile"},
}
ELLIPSIS = "…"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- reading Markdown ------------------------------------------------------------------------------------------------

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def without_fences(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    """Every command line of a page: those of its code blocks, with `NAME="…"` put in for `$NAME` and lines joined that
    end in a backslash, and those in the text that begin with `python` or `./`."""
    found = []
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            continue
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            assigned = re.match(r'([A-Z]\w*)="([^"]*)"', line)
            if assigned:
                variables[assigned[1]] = assigned[2]
            for name, value in variables.items():
                line = re.sub(rf"\${name}\b", value.replace("\\", r"\\"), line)
            found.append(line.strip())
    found += INLINE.findall(without_fences(page))
    begins = re.compile(r"(\w+=\S+ )*(python |torchrun |\./\w+\.sh)")
    return [line for line in found if begins.match(line)]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    taken: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", without_fences(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{taken[slug]}" if taken[slug] else slug)
        taken[slug] += 1
    return found


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures that lie in this repository."""
    text = INLINE.sub(lambda code: code[0] if "](" not in code[0] else "", without_fences(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield unquote(target)


# ---- commands --------------------------------------------------------------------------------------------------------


@functools.cache
def parser_of(module: str) -> argparse.ArgumentParser:
    return importlib.import_module(module).get_args_parser()


def module_of(script: str) -> str | None:
    """`../attacks/generate.py` → `attacks.generate`; None for what is no script of ours."""
    module = script.removesuffix(".py").lstrip("./").replace("/", ".")
    return module if module in SCRIPTS else None


def filled(parser: argparse.ArgumentParser, argv: list[str]) -> list[str]:
    """A command line in which `…` stands for arguments that are left out, with something in their place: after a flag
    for its value, elsewhere for whatever the parser requires."""
    flags = parser._option_string_actions
    by_name = {spelled.replace("-", "_"): action for spelled, action in flags.items()}
    tokens: list[str] = []
    for token in argv:
        if token != ELLIPSIS:
            tokens.append(token)
        elif tokens and (action := by_name.get(tokens[-1].replace("-", "_"))) and action.nargs != 0:
            tokens.append(str((list(action.choices) if action.choices else ["x"])[0]))
    if ELLIPSIS in argv:
        for action in {id(each): each for each in flags.values() if each.required}.values():
            if not set(action.option_strings) & set(tokens):
                tokens += [action.option_strings[0], "1"]
    return tokens


def check(command: str) -> str | None:
    """What is wrong with a command, or None."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"\w+=", words[0]):  # variables of the environment
        words = words[1:]
    for cut in (">", "|", "&&"):
        words = words[: words.index(cut)] if cut in words else words
    program, *rest = words
    if program.startswith("./"):
        if not (ROOT / program).is_file():
            return "there is no such script"
        known = SHELL_FLAGS[Path(program).name]
        return next((f"{word} is no flag of it" for word in rest if word.startswith("--") and word not in known), None)
    if program == "torchrun":
        rest = rest[rest.index("--") + 1 :]
    if rest[0] == "-m" and not rest[1].startswith("benchmarks."):
        return None
    module, argv = (rest[1], rest[2:]) if rest[0] == "-m" else (module_of(rest[0]), rest[1:])
    if module is None:
        return None if (ROOT / rest[0]).is_file() else f"{rest[0]} is no file of this project"
    if argv == [ELLIPSIS]:
        return None
    parser = parser_of(module)
    try:
        parser.parse_args(filled(parser, argv))
    except SystemExit as stop:
        return f"its arguments are refused (exit code {stop.code})"
    return None


COMMANDS = [
    pytest.param(command, id=f"{name_of(page)}: {command[:60]}") for page in PAGES for command in commands(page)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, capsys):
    wrong = check(command)
    assert wrong is None, f"{command}\n{wrong}\n{capsys.readouterr().err}"


def test_wrong_commands_are_found(capsys):
    assert check("python evaluate.py --classifier f --splt test") is not None
    assert check("python evaluate.py …") is None
    assert check("python evaluate.py --classifier … --split PGD") is None
    assert check("python main_ds.py --classifier f --zo_method CG --outdir x") is not None
    assert check("python evalute.py --classifier f") is not None
    assert check("./run.sh --datset x") is not None


# ---- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no such file"
        if anchor:
            assert target.suffix == ".md", f"{link}: has an anchor, but is no page"
            assert anchor in slugs(target), f"{link}: there is no such heading; there are {sorted(slugs(target))}"


def test_links_lead_to_tracked_files():
    """What is only on this disk is not on anybody else's."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = set(listed.stdout.split("\0"))
    folders = {parent.as_posix() for name in tracked for parent in Path(name).parents}
    for page in PAGES:
        for link in links(page):
            target = name_of((page.parent / link.partition("#")[0]).resolve())
            if link.partition("#")[0]:
                assert target in tracked | folders, f"{name_of(page)}: {link} is not tracked by git"


def test_every_page_is_in_the_index():
    index = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in links(ROOT / "docs" / "README.md")}
    assert set(DOCS) - {ROOT / "docs" / "README.md"} <= index


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


# ---- flags -----------------------------------------------------------------------------------------------------------


def flags_of(module: str) -> list[argparse.Action]:
    return [action for action in parser_of(module)._actions if action.option_strings]


@pytest.mark.parametrize("module", SCRIPTS)
def test_every_flag_is_explained_once(module):
    """By its help text, or else on one page."""
    for action in flags_of(module):
        if (action.help or "").strip():
            continue
        names = {option for option in action.option_strings}
        pages = [
            name_of(page)
            for page in DOCS
            if any(names & set(code.split()) for code in INLINE.findall(without_fences(page)))
        ]
        assert len(pages) == 1, (
            f"{module}: {action.option_strings[0]} has no help text and is explained on {pages or 'no page'}"
        )


def test_flags_that_pages_name_exist():
    known = {
        option.replace("-", "_")
        for module in SCRIPTS
        for action in flags_of(module)
        for option in action.option_strings
    }
    for page in [ROOT / "README.md", *DOCS]:
        for code in INLINE.findall(without_fences(page)):
            for flag in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", code):
                others = FOREIGN_FLAGS | SHELL_FLAGS["test.sh"]
                assert flag.replace("-", "_") in known or flag in others, (
                    f"{name_of(page)}: {code}: no script has {flag}"
                )


def test_all_scripts_are_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for module in SCRIPTS:
        assert f"| `{module.replace('.', '/')}.py` |" in text
