"""Names of files, folders and classes: any that a file system allows, through every script."""

from __future__ import annotations

import csv
import json
import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script, write_image

from common import files
from common.lines import lines_of, read_table, shown, table_line
from datasets import read_manifest
from evaluation.metrics import metric_records, report_text, summarize
from evaluation.tables import Table, certified_accuracy_table, to_latex, to_markdown
from imaging.images import of_volume, suffix_of
from preparation.sources import find_images

LONG = "ü" * 125  # 250 bytes; with .png 254
ODD = (
    "plain,comma",
    'quo"te',
    "'single'",
    "tab\tin",
    "line\nfeed",
    "carriage\rreturn",
    "both\r\n",
    "\x0bvertical\x0cform",
    "file\x1cgroup\x1drecord\x1e",
    "next\x85line",
    "line\u2028paragraph\u2029",
    "escape\x1b[31m",
    "-dash",
    "--data_dir",
    "=1+2",
    "@SUM(A1)",
    " blank before",
    "blank behind ",
    "two  blanks",
    "100%s%d",
    "scan[3]",
    "scan.nii[3]",
    "NA",
    "nan",
    "null",
    "None",
    "True",
    "007",
    "1e5",
    "0x10",
    "1,5",
    "2024-01-01",
    "emoji🩻👩\u200d⚕️",
    "שלום עולם",
    "\u202eright to left",
    "良性",
    "back\\slash",
    "star*",
    "what?",
    "[a-z]",
    "$x_1^2$",
    "under_score_",
    "_first",
    "pi|pe | pipe",
    "{brace}",
    "<b>&amp;",
    "~tilde",
    "#hash",
    "`tick`",
    "[link](http:x)",
    "**bold**",
    "\\newcommand",
    "semi;colon:",
    "!bang",
    "ABSTAIN ",
    "all",
    "disease",
    "con",
    "é (composed)",
    "e\u0301 (apart)",
    "Case",
    "case",
    "LONG",
)


def name_of(odd: str) -> str:
    return LONG if odd == "LONG" else odd


# ---- lines of tables, and names on a screen --------------------------------------------------------------------------


def random_text(seed: int, letters: str) -> str:
    chooses = random.Random(seed)
    return "".join(chooses.choice(letters) for _ in range(chooses.randrange(12)))


@pytest.mark.parametrize("separator", [",", "\t"])
def test_lines_are_those_of_csv_and_are_read_back(separator, tmp_path):
    """Byte for byte, but for carriage returns, which csv leaves bare before Python 3.13; torn ones are told apart."""
    letters = "ab ,\t\"'\n\\;\x0b\x1c\x85\u2028=é🩻"
    rows = [[random_text(10 * i + k, letters) for k in range(3)] for i in range(300)]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=separator, lineterminator="\n").writerows(rows)
    content = "".join(table_line(row, separator) for row in rows).encode()
    assert content == (tmp_path / "a.csv").read_bytes()
    rows = [[random_text(10 * i + k, letters + "\r") for k in range(3)] for i in range(300)]
    lines = [table_line(row, separator).encode() for row in rows]
    assert lines_of(b"".join(lines)) == (lines, b"")
    for cut in range(1, len(lines[-1])):
        assert lines_of(b"".join(lines)[:-cut]) == (lines[:-1], lines[-1][:-cut])
    (tmp_path / "b.csv").write_bytes(b"".join(lines))
    with (tmp_path / "b.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream, delimiter=separator)) == rows
    assert table_line([None, 1, 0.1, True]) == ",1,0.1,True\n"


def test_names_on_a_screen():
    assert shown("a\nb\x1b[31m\u202e\u2028\x85") == r"a\nb\x1b[31m\u202e\u2028\x85"
    assert shown("良性 🩻👩\u200d⚕️ שלום") == "良性 🩻👩\u200d⚕️ שלום"
    for longest in range(2, 30):
        assert len(shown("abcdefghijklmnopqrstuvwxyz"[:27], longest)) == min(26, longest)
    assert shown("abcdefghij", 5) == "ab…ij"
    assert all(shown(name_of(odd)).isprintable() or "\u200d" in odd for odd in ODD)


def test_a_table_resumes_and_sorts_whatever_its_cells_hold(tmp_path):
    """Also after a power cut between two bytes of a line."""
    names = [name_of(odd) for odd in ODD]
    whole = tmp_path / "whole.csv"
    table = files.Table(whole, ["number", "name"], {})
    for number, name in reversed(list(enumerate(names))):
        table.append(number, name)
    table.close(order=lambda line: int(line.partition(",")[0]))
    again = files.Table(whole, ["number", "name"], {})
    assert [(int(row["number"]), row["name"]) for row in again.rows] == list(enumerate(names))
    again.close(order=lambda line: 0)
    content = whole.read_bytes()
    ends = [len(content) - 1, content.index(b"line\nfeed") + 5, content.index(b"carriage") + 9]
    for end in ends:
        cut = tmp_path / f"cut{end}.csv"
        cut.write_bytes(content[:end])
        files.write_json(files.settings_path(cut), {})
        resumed = files.Table(cut, ["number", "name"], {})
        assert [row["name"] for row in resumed.rows] == names[: len(resumed.rows)]
        for number in range(len(resumed.rows), len(names)):
            resumed.append(number, names[number])
        resumed.close(order=lambda line: 0)
        assert cut.read_bytes() == content


def test_files_of_the_longest_names_are_written(tmp_path):
    """And one that is too long for its settings leaves nothing behind."""
    for name in ("x" * 251 + ".png", "x." + "y" * 253, LONG + ".json"):
        files.check_writable(tmp_path / name)
        files.write_text(tmp_path / name, "content")
        assert (tmp_path / name).read_text() == "content"
    with pytest.raises(OSError, match="File name too long"):
        files.Table(tmp_path / ("x" * 251 + ".tsv"), ["a"], {})
    assert len(list(tmp_path.iterdir())) == 3


def test_names_that_look_like_slices(tmp_path):
    """A DICOM file without suffix may be called so itself; blanks at the end of a name do not change its kind."""
    dicom = bytes(128) + b"DICM"
    (tmp_path / "scan").write_bytes(dicom)
    assert of_volume(tmp_path / "scan[3]") == (tmp_path / "scan", (3,))
    (tmp_path / "scan[3]").write_bytes(dicom)
    assert of_volume(tmp_path / "scan[3]") == (tmp_path / "scan[3]", ())
    assert of_volume(tmp_path / "line\nfeed.nii.gz[80]") == (tmp_path / "line\nfeed.nii.gz", (80,))
    assert of_volume(tmp_path / "x.png[3]") == (tmp_path / "x.png[3]", ())
    assert of_volume(tmp_path / ("x" * 300 + ".dcm[3]")) == (tmp_path / ("x" * 300 + ".dcm"), (3,))
    for name, suffix in (
        ("a.PNG ", ".png"),
        ("a.nii.gz\n", ".nii.gz"),
        ("a.png\u2028", ".png"),
        ("a.png[3]", ".png[3]"),
    ):
        assert suffix_of(tmp_path / name) == suffix


# ---- through every script --------------------------------------------------------------------------------------------

CLASSES = (
    "NA",
    "a,b",
    'quo"te',
    "line\nfeed",
    "cr\r",
    "\u2028\x85\x1c.",
    "-1",
    "$x_1^2$ ",
    "all",
    "disease",
    "LONG",
    "007",
)
DISEASE = ("NA", "line\nfeed", "all", "disease")
DATASET = "odd\n, 'set' 良\u2028"
PER_CLASS = 6


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> dict[str, Path]:
    """A data set whose classes, files, folder and name are odd, and a classifier that saw it for an epoch."""
    root = tmp_path_factory.mktemp("odd")
    source, data_dir = root / " my\nscans, 'all' \u2028", root / 'Da"ta, set\r'
    for i in range(PER_CLASS * len(CLASSES)):
        name = f"{name_of(ODD[i % len(ODD)])}.png"
        write_image(source / name_of(CLASSES[i % len(CLASSES)]) / (f"{name}.png" if i >= len(ODD) else name), i)
    for i, twin in enumerate(("twin \u00e9", "twin e\u0301", "Twin \u00e9")):
        write_image(source / "NA" / f"{twin}.png", 1000 + i)
    run_script(
        "prepare_data",
        *("--dataset", DATASET, "--data_dir", data_dir, "--source", source, "--disease", *DISEASE),
    )
    run_script(
        "train_classifier",
        *("--dataset", DATASET, "--data_dir", data_dir, "--arch", "mobilenet_v3_small", "--image_size", 16),
        *("--epochs", 1, "--batch", 64, "--outdir", root / "run, [1]"),
    )
    return {"source": source, "data_dir": data_dir, "classifier": root / "run, [1]" / "best.pth.tar", "root": root}


def test_what_was_prepared(odd, monkeypatch):
    """Every image under its own name and class; names that pandas would turn into numbers stay text. What was read is
    found again under its name."""
    manifest = read_manifest(DATASET, odd["data_dir"])
    on_disk = sorted(path.relative_to(odd["source"]).as_posix() for path in odd["source"].rglob("*.png"))
    assert [row["path"] for row in manifest.rows] == on_disk
    for row in manifest.rows:
        assert row["class"] == row["path"].split("/")[0] == manifest.info.classes[int(row["label"])]
    counts = dict.fromkeys(map(name_of, CLASSES), PER_CLASS) | {"NA": PER_CLASS + 3}
    assert Counter(row["class"] for row in manifest.rows) == counts
    assert manifest.info.disease == DISEASE
    assert {row["split"] for row in manifest.rows} == {"train", "val", "test"}
    columns, findings = read_table(manifest.path.with_name("audit.csv"))
    assert columns[-1] == "images"
    assert {row["severity"] for row in findings} <= {"ok", "note", "warning", "error"}
    _, kept = read_table(manifest.path.parent / "cache" / "read.csv")
    assert sorted(row["path"] for row in kept) == on_disk
    before = manifest.path.read_bytes()
    monkeypatch.setattr("preparation.scan.read_image", None)
    flags = ("--dataset", DATASET, "--data_dir", odd["data_dir"], "--source", odd["source"], "--disease", *DISEASE)
    run_script("prepare_data", *flags)
    assert manifest.path.read_bytes() == before


def test_evaluated(odd, capsys):
    out = odd["root"] / " $report_1$,\u2028.json"
    data = ("--data_dir", odd["data_dir"], "--classifier", odd["classifier"])
    run_script("evaluate", *data, "--outfile", out, "--predictions", odd["root"] / "-predictions\n.tsv")
    report = json.loads(out.read_text())
    classes = read_manifest(DATASET, odd["data_dir"]).info.classes
    assert tuple(report["per_class"]) == classes
    _, rows = read_table(out.with_suffix(".csv"))
    named = [row["of"] for row in rows if row["metric"] == "images"]
    assert named == ["all", *(f"class {c}" if c in ("all", "disease") else c for c in classes), "disease", "healthy"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    printed = [line for line in capsys.readouterr().out.split("\n") if line.startswith("  ")]
    assert len(printed) == 1 + len(classes) + 2
    assert all(line == shown(line) for line in printed)


def test_attacked_and_evaluated_again(odd):
    data = ("--data_dir", odd["data_dir"], "--classifier", odd["classifier"])
    attack = ("--attack", "FGSM", "--split", "test")
    run_script("attacks.generate", *data, *attack, "--skip", 2)
    folder = odd["data_dir"] / DATASET / "AT_FGSM"
    _, rows = read_table(folder / "manifest.csv")
    test = read_manifest(DATASET, odd["data_dir"]).split("test")
    assert [row["source"] for row in rows] == [test[int(row["idx"])]["path"] for row in rows]
    before = (folder / "manifest.csv").read_bytes()
    run_script("attacks.generate", *data, *attack, "--skip", 2)  # everything is there
    assert (folder / "manifest.csv").read_bytes() == before
    run_script("evaluate", *data, "--split", "FGSM", "--predictions", odd["root"] / "fgsm.tsv")
    assert len((odd["root"] / "fgsm.tsv").read_text().splitlines()) == len(rows) + 1


SMOOTH = ("--sigma", 0.25, "--N0", 2, "--N", 4, "--batch", 64, "--alpha", 0.1, "--radii", 0)


def test_certified_and_tabulated(odd):
    """Also under names that mean something in CSV, Markdown, LaTeX or a legend; the file's name may hold a =."""
    out, folder = odd["root"] / '=cert "1", 50%\u2028.tsv', odd["root"] / "-tables\n$"
    data = ("--data_dir", odd["data_dir"], "--classifier", odd["classifier"])
    run_script("AE_DS_verify", *data, *SMOOTH, "--skip", 5, "--outfile", out)
    names = [name_of(name) for name in ODD if "=" not in name]
    run_script("make_tables", *(f"--add={name}={out}" for name in names), "--radii", 0, "--outdir", folder)
    _, rows = read_table(folder / "certified_accuracy.csv")
    assert [row["name"] for row in rows] == [name.strip() for name in names]
    table = (folder / "certified_accuracy.md").read_text().split("\n\n")[1].split("\n")
    assert len(table) == len(names) + 2
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table} == {4}  # bars that are not escaped
    lines = (folder / "certified_accuracy.tex").read_text().split("\n")
    assert sum(line.endswith(r" \\") and "multicolumn" not in line for line in lines) == len(names) + 1
    assert not any(line.startswith(("[", "*")) for line in lines)
    assert (folder / "certified_accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_predicted(odd, monkeypatch, capsys):
    """Each file by its name, and by that alone from within its folder."""
    paths = sorted(odd["source"].rglob("*.png"))
    data = ("--data_dir", odd["data_dir"], "--classifier", odd["classifier"])
    out = odd["root"] / "-answers\x1c.json"
    run_script("AE_DS_verify", *data, *SMOOTH, "--outfile", out, "--predict", *paths)
    answers = json.loads(out.read_text())["answers"]
    assert [each["file"] for each in answers] == list(map(str, paths))
    classes = read_manifest(DATASET, odd["data_dir"]).info.classes
    assert all(tuple(each["votes"]) == classes for each in answers)
    table = capsys.readouterr().out.split("\nwhat was done")[0].split("\n")
    assert len(table) == len(paths) + 2
    dashed = next(path for path in paths if path.name.startswith("-"))
    monkeypatch.chdir(dashed.parent)
    run_script("AE_DS_verify", *data, *SMOOTH, "--outfile", out, "--predict", f"./{dashed.name}")
    assert json.loads(out.read_text())["answers"][0]["file"] == dashed.name
    run_script("AE_DS_verify", *data, *SMOOTH, "--outfile", out, f"--predict={dashed.name}")
    assert json.loads(out.read_text())["answers"][0]["file"] == dashed.name


def test_every_name_as_a_class(tmp_path):
    """In the table of a user too, where blanks around a name are none of it."""
    classes = [name_of(name) for name in ODD if name not in ("ABSTAIN ", "case")]
    for c, name in enumerate(classes):
        (tmp_path / "S" / name).mkdir(parents=True)
        (tmp_path / "S" / name / f"{c} .png").touch()
    records, found = find_images(tmp_path / "S", None)
    assert set(found) == {unicodedata.normalize("NFC", name) for name in classes}
    lines = [table_line((record.path, record.class_name)) for record in records]
    (tmp_path / "S" / "table.csv").write_text("path,label\n" + "".join(lines), encoding="utf-8", newline="")
    again, _ = find_images(tmp_path / "S" / "table.csv", None)
    assert [(r.path, r.class_name) for r in again] == [(r.path, r.class_name.strip()) for r in records]


def test_class_names_that_are_refused(tmp_path, fails):
    """Those that a reader could not tell apart, or would take for something else."""
    flags = ("prepare_data", "--dataset", "Mine", "--data_dir", tmp_path / "D", "--source")
    for names, words in (
        (("tumour", "tumour "), ("classes tumour, tumour  differ only in", "blanks")),
        (("Benign", "benign"), ("differ only in case",)),
        (("a", "ABSTAIN"), ("ABSTAIN", "rename it")),
        (("a", b"\xff".decode(errors="surrogateescape")), (r"\udcff", "not UTF-8")),
    ):
        source = tmp_path / ascii(names)
        for name in names:
            (source / name).mkdir(parents=True)
            (source / name / "0.png").touch()
        fails(1, (*words[1:], ascii(names)), *flags, source)
    fails(1, ("--dataset", r"\udcff", "not UTF-8"), "prepare_data", "--dataset", "a\udcff")


def test_letters_that_a_font_lacks_are_one_warning(recwarn):
    from evaluation.figures import evaluation_png

    report = summarize(np.array([0, 1]), np.array([0, 1]), ["良性肿瘤", "恶性肿瘤 $"])
    assert evaluation_png(report, ["良性肿瘤", "恶性肿瘤 $"], "图").startswith(b"\x89PNG")
    lacking = [str(each.message) for each in recwarn if "font" in str(each.message)]
    assert lacking == ["the font of the figure lacks 6 letters of the names in it"]


def test_names_in_tables_for_people():
    """What a name may hold that Markdown, LaTeX or a screen would take for something else."""
    record = {"sigma": 0.25, "radius": 0.0, "certified_accuracy": 0.5, "low": 0.4, "high": 0.6}
    table = certified_accuracy_table(
        [record | {"name": n, "is_lower_bound": False} for n in ("[3] a\n|b", "*c* &lt; ~d")]
    )
    markdown, latex = to_markdown(table), to_latex(table)
    assert r"| [3] a\\n\|b" in markdown
    assert r"| \*c\* \&lt; \~d" in markdown
    assert "\n" + r"{[}3] a\textbackslash{}n$|$b & 0.25 & " in latex
    assert "\n" + r"{*}c* \&lt; \textasciitilde{}d & 0.25 & " in latex
    assert r"[x]\(http" in to_markdown(Table("", ["[x](http:y)"], [["a"]]))
    report = summarize(np.array([0, 1]), np.array([0, 0]), ["all", "disease"], groups={"disease": (1,)})
    named = [row["of"] for row in metric_records(report) if row["metric"] == "images"]
    assert named == ["all", "class all", "class disease", "disease"]
    assert report_text(report, "so").count("\n  disease   ") == 2
