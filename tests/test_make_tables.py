"""make_tables.py from the command line: the files of the contract, the stamp on synthetic data, every way to fail."""

from common.script import start

import csv
import json
from pathlib import Path

import pytest

from make_tables import get_args_parser, main

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
GOOD = [
    "0\t1\t1\t0.5\t1\t0:00:01.2",
    "1\t0\t0\t0.25\t1\t0:00:01.3",
    "2\t2\t1\t0.9\t0\t0:00:01",
    "3\t2\t-1\t0.0\t0\t0:00:01",
]
WORSE = [
    "0\t1\t1\t0.1\t1\t0:00:01.2",
    "1\t0\t0\t0.1\t1\t0:00:01.3",
    "2\t2\t1\t0.9\t0\t0:00:01",
    "3\t2\t-1\t0.0\t0\t0:00:01",
]
OUTPUTS = {f"{table}.{kind}" for table in ("certified_accuracy", "summary") for kind in ("csv", "md", "tex")} | {
    "certified_accuracy.png"
}


def write_tsv(path: Path, lines: list[str], **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    if settings:
        Path(f"{path}.json").write_text(json.dumps(settings))
    return path


def make_tables(*argv) -> None:
    start(get_args_parser, main, [str(arg) for arg in argv])


def fails(capsys, *argv) -> tuple[int, str]:
    """Exit code and standard error, which must be one line."""
    with pytest.raises(SystemExit) as stopped:
        make_tables(*argv)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.out == ""
    return stopped.value.code, captured.err


def records(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def two(tmp_path) -> list[str]:
    settings = {"sigma": 0.25, "dataset": "Brain_Tumor", "N0": 100, "N": 1000, "alpha": 0.001, "split": "test"}
    good = write_tsv(tmp_path / "good.tsv", GOOD, **settings)
    worse = write_tsv(tmp_path / "worse.tsv", WORSE, **settings)
    return [f"AE-DS (ZO) 5% a_b|c={good}", f"none={worse}"]


GROUPED_HEADER = f"{HEADER}\tdraws\tbound\tgroup_label\tgroup_predict\tgroup_radius"
GROUPED = [  # three tumours: one certified to .6, one to .1 though its class abstains, one called healthy; two healthy
    "0\t1\t1\t0.5\t1\t0:00:01.2\t300\ttop\tdisease\tdisease\t0.6",
    "1\t0\t-1\t0.0\t0\t0:00:01.3\t900\ttop\tdisease\tdisease\t0.1",
    "2\t0\t2\t0.9\t0\t0:00:01\t200\ttop\tdisease\thealthy\t0.9",
    "3\t2\t2\t0.3\t1\t0:00:01\t400\tmargin\thealthy\thealthy\t0.3",
    "4\t2\t-1\t0.0\t0\t0:00:01\t200\ttop\thealthy\t-1\t0.0",
]


def test_certified_sensitivity_and_specificity(two, tmp_path):
    path = write_tsv(tmp_path / "grouped.tsv", [], sigma=0.25, dataset="Brain_Tumor")
    path.write_text("\n".join([GROUPED_HEADER, *GROUPED]) + "\n")
    make_tables("--add", f"ours={path}", two[1], "--radii", 0, 0.25, 0.5, "--outdir", tmp_path / "out")
    clinical = records(tmp_path / "out" / "certified_sensitivity.csv")
    assert {line["name"] for line in clinical} == {"ours"}  # the other file knows no groups
    rates = [(float(r["certified_sensitivity"]), float(r["certified_specificity"])) for r in clinical]
    assert rates == [(pytest.approx(2 / 3), 0.5), (pytest.approx(1 / 3), 0.5), (pytest.approx(1 / 3), 0.0)]
    assert (clinical[0]["disease_images"], clinical[0]["healthy_images"]) == ("3", "2")
    assert float(clinical[0]["sensitivity_low"]) < 2 / 3 < float(clinical[0]["sensitivity_high"])
    assert "66.7 / 50.0" in (tmp_path / "out" / "certified_sensitivity.md").read_text()
    assert [line["draws"] for line in records(tmp_path / "out" / "summary.csv")] == ["400.0", ""]


def test_radii_that_were_not_asked_for_are_unknown_not_zero(two, tmp_path):
    """Draws stopped when 0 and 0.25 were decided: beyond, nothing was tried, and the ACR is a lower bound."""
    path = write_tsv(tmp_path / "grouped.tsv", [], sigma=0.25, dataset="Brain_Tumor", radii=[0.0, 0.25])
    path.write_text("\n".join([GROUPED_HEADER, *GROUPED]) + "\n")
    make_tables("--add", f"ours={path}", two[1], "--radii", 0, 0.25, 0.5, "--outdir", tmp_path / "out")
    own = [r["certified_accuracy"] for r in records(tmp_path / "out" / "certified_accuracy.csv") if r["name"] == "ours"]
    assert own[2] == "" != own[1]
    assert records(tmp_path / "out" / "certified_sensitivity.csv")[2]["certified_sensitivity"] == ""
    (line,) = [x for x in (tmp_path / "out" / "certified_accuracy.md").read_text().splitlines() if "ours" in x]
    assert line.rstrip("| ").endswith("–")
    assert "≥ " in (tmp_path / "out" / "summary.md").read_text()
    assert r"$\geq$" in (tmp_path / "out" / "summary.tex").read_text()


def grouped(path: Path, **settings) -> Path:
    write_tsv(path, [], sigma=0.25, dataset="Brain_Tumor", **settings)
    path.write_text("\n".join([GROUPED_HEADER, *GROUPED]) + "\n")
    return path


def cells(path: Path, name: str) -> list[str]:
    """Those of the Markdown line that begins with `name`, without it and sigma."""
    (line,) = [line for line in path.read_text().splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][2:]


def test_radii_between_those_asked_for_are_marked_as_lower_bounds_everywhere(tmp_path):
    paths = [grouped(tmp_path / f"{name}.tsv", radii=[0.0, 0.25, 0.6]) for name in ("a", "b")]
    out = tmp_path / "out"
    make_tables("--add", *(f"{path.stem}={path}" for path in paths), "--radii", 0, 0.25, 0.3, 0.6, 0.9, "--outdir", out)
    accuracy, clinical = (records(out / f"certified_{name}.csv") for name in ("accuracy", "sensitivity"))
    marked = [False, False, True, False, False]  # 0.9 is not known at all
    assert [line["is_lower_bound"] for line in accuracy + clinical] == [str(each) for each in 4 * marked]
    assert [line["high"] == "" for line in accuracy[:4]] == marked[:4]
    for rate in ("sensitivity", "specificity"):
        assert [line[f"{rate}_high"] == "" for line in clinical[:4]] == marked[:4]
        assert all(line[f"{rate}_low"] for line in clinical[:4])
    assert accuracy[2]["low"] != ""
    assert cells(out / "certified_accuracy.md", "a") == ["**40.0**", "**40.0**", "**≥ 40.0**", "0.0", "–"]
    assert cells(out / "certified_sensitivity.md", "a")[1:4] == ["33.3 / 50.0", "≥ 33.3 / ≥ 50.0", "33.3 / 0.0"]
    for kind, at_least in (("md", "≥"), ("tex", r"$\geq$")):
        for name in ("accuracy", "sensitivity"):
            text = (out / f"certified_{name}.{kind}").read_text()
            assert text.count(f"{at_least} ") == (2 if name == "accuracy" else 4)
            assert text.count(f"{at_least}: the draws were not asked to decide this radius") == 1


def test_a_lower_bound_is_never_beaten_by_a_number(tmp_path):
    """Where the leader is a bound, it stands out; where it is a number, the bound beside it may be higher in truth."""

    def table(one, other):
        settings = {"sigma": 0.25, "dataset": "Brain_Tumor"}
        bound = write_tsv(tmp_path / "bound.tsv", one, **settings, radii=[0.0, 0.9])
        number = write_tsv(tmp_path / "number.tsv", other, **settings)
        make_tables("--add", f"bound={bound}", f"number={number}", "--radii", 0.25, "--outdir", tmp_path / "out")
        return [cells(tmp_path / "out" / "certified_accuracy.md", name)[0] for name in ("bound", "number")]

    assert table(GOOD, WORSE) == ["**≥ 50.0**", "0.0"]
    assert table(WORSE, GOOD) == ["≥ 0.0", "50.0"]
    assert table(GOOD, GOOD) == ["≥ 50.0", "50.0"]


def test_radii_on_grey_images(tmp_path):
    grey = grouped(tmp_path / "grey.tsv", grey_as_rgb=True)
    colour = grouped(tmp_path / "colour.tsv", grey_as_rgb=False)
    note = "r = 0.25 is 0.144, 0.5 is 0.288, 1 is 0.577 on the grey image."
    for name, added, expected in (
        ("all", [f"A={grey}"], f"Grey images stored as RGB: {note}"),
        ("one", [f"A={grey}", f"B={colour}"], f"Grey images stored as RGB (A): {note}"),
    ):
        out = tmp_path / name
        make_tables("--add", *added, "--radii", 0, 0.25, 0.5, 1, "--outdir", out)
        for table in ("certified_accuracy", "certified_sensitivity"):
            assert expected in (out / f"{table}.md").read_text()
            assert "Grey images stored as RGB" in (out / f"{table}.tex").read_text()
            lines = records(out / f"{table}.csv")
            own = [line["radius_grey"] for line in lines if line["name"] == "A"]
            assert own == ["0.0", "0.144337", "0.288675", "0.57735"]
            assert {line["radius_grey"] for line in lines if line["name"] == "B"} <= {""}
    make_tables("--add", f"B={colour}", "--outdir", tmp_path / "none")
    assert "grey image" not in (tmp_path / "none" / "certified_accuracy.md").read_text()


def test_tables_name_what_decides_between_disease_and_health(tmp_path, capsys):
    files = {
        "vote": grouped(tmp_path / "vote.tsv", group_rule="vote"),
        "class": grouped(tmp_path / "class.tsv", group_rule="class"),
        "old": grouped(tmp_path / "old.tsv"),  # does not tell: it was by votes
    }
    titles = {"vote": "(%) by the summed votes of each group, at L2", "class": "(%) by the class answer, at L2"}
    for name, path in files.items():
        make_tables("--add", f"A={path}", "--outdir", tmp_path / name)
        rule = "class" if name == "class" else "vote"
        for kind in ("md", "tex"):
            text = (tmp_path / name / f"certified_sensitivity.{kind}").read_text().replace("\\%", "%")
            assert titles[rule] in text
        assert {line["group_rule"] for line in records(tmp_path / name / "certified_sensitivity.csv")} == {rule}
    capsys.readouterr()
    make_tables("--add", f"A={files['old']}", f"B={files['class']}", "--outdir", tmp_path / "both")
    assert "sigma 0.25: compared at different group_rule (A: vote, B: class)" in capsys.readouterr().err
    text = (tmp_path / "both" / "certified_sensitivity.md").read_text()
    assert "| A (by the summed votes of each group) |" in text
    assert "| B (by the class answer) " in text
    assert text.startswith("Certified sensitivity / specificity (%) at L2 radius")


def test_every_table_says_what_its_numbers_are_about(two, tmp_path):
    make_tables("--add", *two, "--outdir", tmp_path)
    for name in ("certified_accuracy", "summary"):
        for kind in ("md", "tex"):
            text = " ".join((tmp_path / f"{name}.{kind}").read_text().split())
            for line in (r"} \\ \multicolumn{9}{l}{\footnotesize ", r"} \\ \multicolumn{10}{l}{\footnotesize "):
                text = text.replace(line, " ")
            text = text.replace(r"$-$ $\alpha$", "− α")
            assert "the smoothed classifier, with probability 1 − α per image, for images fixed before" in text
            assert "at the classifier's input size after resizing and rounding to 8 bits, for this pipeline on" in text
    widest = max(map(len, (tmp_path / "summary.tex").read_text().splitlines()[1:]))
    assert widest < 180  # notes do not make a table wider than the page


def test_an_unfinished_file_warns(tmp_path, capsys):
    path = write_tsv(tmp_path / "a.tsv", GOOD, sigma=0.25, end=6, skip=1, shard=None)
    make_tables("--add", f"a={path}", "--outdir", tmp_path / "out")
    assert f"{path}: is unfinished, 2 of its 6 images are missing" in capsys.readouterr().err


@pytest.mark.parametrize(("column", "value"), [("draws", "x"), ("group_predict", "ill"), ("group_radius", "-1")])
def test_bad_group_columns_are_named(column, value, tmp_path, capsys):
    fields = dict(zip(GROUPED_HEADER.split("\t"), GROUPED[0].split("\t"), strict=True)) | {column: value}
    path = tmp_path / "sigma_0.25.tsv"
    path.write_text("\n".join([GROUPED_HEADER, "\t".join(fields.values())]) + "\n")
    code, message = fails(capsys, "--add", f"a={path}", "--outdir", tmp_path / "out")
    assert code == 1
    assert f"line 2: {column} must be" in message


# ---- the contract ----------------------------------------------------------------------------------------------------


def test_csv_files_hold_the_hand_computed_numbers(two, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    make_tables("--add", two[0], "--add", two[1], "--radii", 0.5, 0, 0.25, 0.25, "--outdir", out)
    assert {path.name for path in out.iterdir()} == OUTPUTS

    accuracy = records(out / "certified_accuracy.csv")
    of_a_line = ["name", "sigma", "radius", "certified_accuracy", "low", "high", "is_lower_bound", "radius_grey"]
    assert list(accuracy[0]) == of_a_line
    assert {(line["is_lower_bound"], line["radius_grey"]) for line in accuracy} == {("False", "")}
    assert [(line["name"], *(float(line[key]) for key in list(line)[1:4])) for line in accuracy] == [
        ("AE-DS (ZO) 5% a_b|c", 0.25, 0.0, 0.5),
        ("AE-DS (ZO) 5% a_b|c", 0.25, 0.25, 0.5),
        ("AE-DS (ZO) 5% a_b|c", 0.25, 0.5, 0.25),
        ("none", 0.25, 0.0, 0.5),
        ("none", 0.25, 0.25, 0.0),
        ("none", 0.25, 0.5, 0.0),
    ]
    assert all(float(line["low"]) <= float(line["certified_accuracy"]) <= float(line["high"]) for line in accuracy)

    summary = records(out / "summary.csv")
    assert ",".join(summary[0]) == "name,sigma,images,acr,acr_is_bound,abstain,N0,N,alpha,split,draws"
    assert [float(line["acr"]) for line in summary] == pytest.approx([0.1875, 0.05])
    assert [(line["images"], line["abstain"], line["N"], line["split"]) for line in summary] == [
        ("4", "0.25", "1000", "test")
    ] * 2

    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith((out / "certified_accuracy.md").read_text())
    assert {line.removeprefix(f"wrote {out}/") for line in captured.out.splitlines()[-7:]} == OUTPUTS


def test_markdown_and_latex_mark_the_best_and_escape_names(two, tmp_path):
    make_tables("--add", *two, "--radii", 0, 0.25, 0.75, "--outdir", tmp_path)
    lines = (tmp_path / "certified_accuracy.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.replace(r"\|", "¦").strip("|").split("|")] for line in lines[2:]]
    assert cells[0] == ["Method", "σ", "0.00", "0.25", "0.75"]
    # Equal at 0: both are best; nothing certified at .75: nobody is.
    assert cells[2] == [r"AE-DS (ZO) 5% a\_b¦c", "0.25", "**50.0**", "**50.0**", "0.0"]
    assert cells[3] == ["none", "0.25", "**50.0**", "0.0", "0.0"]

    latex = (tmp_path / "certified_accuracy.tex").read_text()
    assert r"AE-DS (ZO) 5\% a\_b$|$c & 0.25 & \textbf{50.0} & \textbf{50.0} & 0.0 \\" in latex
    assert r"\begin{tabular}{lrrrr}" in latex
    assert "0.188" in (tmp_path / "summary.md").read_text()
    assert "SYNTHETIC" not in latex + (tmp_path / "summary.md").read_text()


def test_sigmas_are_compared_apart(tmp_path):
    paths = [write_tsv(tmp_path / f"sigma_{sigma}.tsv", GOOD) for sigma in (1.0, 0.25)]
    make_tables("--add", f"A={paths[0]}", f"A={paths[1]}", "--radii", 0, "--outdir", tmp_path)
    assert [line["sigma"] for line in records(tmp_path / "summary.csv")] == ["0.25", "1.0"]
    latex = (tmp_path / "certified_accuracy.tex").read_text()
    assert latex.count(r"\midrule") == 2  # under the header and between the sigmas
    assert r"\textbf" not in latex  # a name alone is not the best of anything
    assert r"A & 0.25 & 50.0 \\" in latex
    assert r"A & 1.00 & 50.0 \\" in latex


def test_published_log_without_settings_or_extension(tmp_path):
    log = write_tsv(
        tmp_path / "noise_0.50" / "test" / "sigma_0.25",
        ["0\t3\t3\t0.378\t1\t15.4", "20\t7\t-1\t0.0\t0\t15.6", "40\t4\t4\t0.00316\t1\t0:00:14.554244"],
    )
    make_tables("--add", f"Cohen={log}", "--outdir", tmp_path / "out")
    (summary,) = records(tmp_path / "out" / "summary.csv")
    assert (summary["sigma"], summary["images"], summary["N"], summary["split"]) == ("0.25", "3", "", "")
    assert float(summary["acr"]) == pytest.approx((0.378 + 0.00316) / 3)
    accuracy = [float(line["certified_accuracy"]) for line in records(tmp_path / "out" / "certified_accuracy.csv")]
    assert accuracy == pytest.approx([2 / 3, 1 / 3, 0, 0, 0, 0, 0])  # the default radii


def test_sigma_on_the_command_line(tmp_path):
    log = write_tsv(tmp_path / "log.tsv", GOOD)
    make_tables("--add", f"A={log}@0.25", f"A={log}@1", "--outdir", tmp_path / "out")
    assert [line["sigma"] for line in records(tmp_path / "out" / "summary.csv")] == ["0.25", "1.0"]


def test_one_phantom_among_the_inputs_stamps_everything(two, tmp_path):
    make_tables("--add", *two, "--outdir", tmp_path / "real")
    path = Path(two[1].partition("=")[2])
    write_tsv(path, WORSE, sigma=0.25, dataset="Phantom_MRI", N0=100, N=1000, alpha=0.001, split="test")
    make_tables("--add", *two, "--outdir", tmp_path / "stamped")
    for name in OUTPUTS - {"certified_accuracy.csv", "summary.csv", "certified_accuracy.png"}:
        text = (tmp_path / "stamped" / name).read_text()
        assert text.count("SYNTHETIC phantom data") == 1
        assert text.index("SYNTHETIC") > text.index("none")  # below the table
    real, stamped = ((tmp_path / run / "certified_accuracy.png").read_bytes() for run in ("real", "stamped"))
    assert real != stamped


def test_every_byte_is_the_same_the_second_time(two, tmp_path):
    for run in ("a", "b"):
        make_tables("--add", *two, "--outdir", tmp_path / run)
    for name in OUTPUTS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert (tmp_path / "a" / "certified_accuracy.png").read_bytes().startswith(b"\x89PNG")


# ---- warnings --------------------------------------------------------------------------------------------------------


def test_torn_line_and_different_images_warn_but_do_not_stop(two, tmp_path, capsys):
    path = Path(two[1].partition("=")[2])
    path.write_text(path.read_text() + "4\t1\t1\t0.2")
    make_tables("--add", *two, "--outdir", tmp_path / "out")
    assert capsys.readouterr().err == f"make_tables.py: warning: {path}: the last line is incomplete and left out\n"
    write_tsv(path, WORSE[:2])
    make_tables("--add", *two, "--outdir", tmp_path / "out")
    assert "warning: sigma 0.25: compared on different images" in capsys.readouterr().err


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_table_is_of_one_split_of_the_data(tmp_path, capsys):
    """Attacked images have a manifest of their own; that of the test split must be one."""
    shared = {"sigma": 0.25, "dataset": "Brain_Tumor", "N0": 100, "N": 1000, "alpha": 0.001}
    one, other, attacked = (
        write_tsv(tmp_path / f"{name}.tsv", GOOD, **shared, split=split, manifest=digest)
        for name, split, digest in (("one", "test", "aa"), ("other", "val", "bb"), ("attacked", "PGD", "cc"))
    )
    make_tables("--add", f"A={one}", f"B={attacked}", "--outdir", tmp_path / "fine")
    capsys.readouterr()
    code, message = fails(capsys, "--add", f"A={one}", f"B={other}", "--outdir", tmp_path / "no")
    assert code == 1
    assert f"{other}: uses another split of Brain_Tumor than {one}" in message
    assert not (tmp_path / "no").exists()


def test_help_shows_the_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        make_tables("--help")
    assert stopped.value.code == 0
    assert "python make_tables.py --add" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: --outdir"),
        (["--add", "a.tsv", "--outdir", "o"], "must be NAME=FILE"),
        (["--add", "=a.tsv", "--outdir", "o"], "must be NAME=FILE"),
        (["--add", "A=", "--outdir", "o"], "must be NAME=FILE"),
        (["--add", "A=a.tsv@0", "--outdir", "o"], "must be a number > 0, got 0"),
        (["--add", "A=a.tsv@0.2.5", "--outdir", "o"], "must be a number, got '0.2.5'"),
        (["--add", "A=a.tsv", "--radii", "-1", "--outdir", "o"], "must be a number >= 0, got -1"),
        (["--add", "A=a.tsv", "--radii", "--outdir", "o"], "--radii"),
    ],
)
def test_wrong_command_line_exits_2(capsys, argv, message):
    code, line = fails(capsys, *argv)
    assert code == 2
    assert message in line


def test_bad_input_exits_1_and_leaves_earlier_results_alone(two, tmp_path, capsys):
    out = tmp_path / "out"
    make_tables("--add", *two, "--outdir", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()

    path = Path(two[0].partition("=")[2])
    write_tsv(path, [GOOD[0], "1\t0\t0\tnan\t1\t0:00:01"])
    code, line = fails(capsys, "--add", *two, "--outdir", out)
    assert (code, f"{path}, line 3: radius must be" in line) == (1, True)

    code, line = fails(capsys, "--add", f"A={tmp_path}/missing.tsv", "--outdir", out)
    assert (code, f"{tmp_path}/missing.tsv: No such file" in line) == (1, True)

    code, line = fails(capsys, "--add", two[1], two[1], "--outdir", out)
    assert (code, "'none' at sigma 0.25 is already" in line) == (1, True)

    log = write_tsv(tmp_path / "log.tsv", GOOD)
    code, line = fails(capsys, "--add", f"A={log}", "--outdir", out)
    assert (code, f"NAME={log}@0.25" in line) == (1, True)

    code, line = fails(capsys, "--add", two[1], "--outdir", log)
    assert (code, str(log) in line) == (1, True)

    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_full_disk_leaves_the_earlier_file_whole(two, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    make_tables("--add", *two, "--outdir", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", half)
    code, line = fails(capsys, "--add", two[0], "--outdir", out)
    assert (code, "the disk is full" in line) == (1, True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_reports_of_evaluate_side_by_side(tmp_path, capsys):
    def report(name, accuracy, images=50, **settings):
        path = tmp_path / f"{name}.json"
        settings = {"dataset": "Brain_Tumor", "split": "test", "noise_sd": 0.25, "N": None, **settings}
        interval = [accuracy - 0.1, accuracy + 0.05]
        report = {"settings": settings, "accuracy": accuracy, "accuracy_interval": interval}
        path.write_text(json.dumps({**report, "images": images, "abstained": 0.02}))
        return path

    clean, pgd, smoothed = report("clean", 0.9), report("pgd", 0.125), report("smoothed", 0.7, N=1000, split="PGD")
    reports = ("--empirical", f"a: b:clean={clean}", f"a: b:PGD-L∞={pgd}", "--empirical", f"DS:PGD-L∞={smoothed}")
    make_tables(*reports, "--outdir", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"empirical_accuracy.{kind}" for kind in ("csv", "md", "tex")
    }
    found = records(tmp_path / "out" / "empirical_accuracy.csv")
    assert [(row["name"], row["on"], row["sigma"], row["accuracy"]) for row in found] == [
        ("a: b", "clean", "", "0.9"),
        ("a: b", "PGD-L∞", "", "0.125"),
        ("DS", "PGD-L∞", "0.25", "0.7"),
    ]
    markdown = (tmp_path / "out" / "empirical_accuracy.md").read_text()
    assert "90.0 (80.0–95.0) |  12.5 (2.5–17.5) |" in markdown
    assert "SYNTHETIC" not in markdown
    assert r"PGD-L$\infty$" in (tmp_path / "out" / "empirical_accuracy.tex").read_text()
    assert "PGD-L∞ |" in markdown
    assert ", 50 images:" in markdown
    few = report("few", 0.5, 3, synthetic=True)
    make_tables("--empirical", f"a:clean={few}", f"a:PGD={pgd}", f"b:PGD={few}", "--outdir", tmp_path / "two")
    captured = capsys.readouterr()
    assert "warning: PGD: reports of different numbers of images ([3, 50])" in captured.err
    assert "clean: reports" not in captured.err
    assert "| clean [3] |" in " ".join(captured.out.split())
    assert "| PGD [3, 50] |" in " ".join(captured.out.split())
    assert "SYNTHETIC" in captured.out

    assert fails(capsys, "--outdir", tmp_path)[0] == 1
    code, message = fails(capsys, "--empirical", f"clean={clean}", "--outdir", tmp_path)
    assert (code, "NAME:IMAGES=FILE" in message) == (2, True)
    clean.write_text("{}")
    code, message = fails(capsys, "--empirical", f"a:clean={clean}", "--outdir", tmp_path)
    assert (code, "no report of evaluate.py" in message) == (1, True)
