"""Certified accuracy, ACR, abstentions and their interval in closed form; reading and refusing TSVs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binom

from evaluation.certificates import (
    ROW,
    abstention_rate,
    accuracy_curve,
    arrange,
    average_certified_radius,
    caveats,
    certified_accuracy,
    clopper_pearson,
    contradictions,
    grey_radius,
    load,
    paired,
    read_rows,
    sigma_in,
)

RESULTS = Path(__file__).resolve().parents[1] / "results"
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
# Two correct (R = .5 and .25), one wrong in spite of the largest radius, one abstention.
LINES = ["0\t1\t1\t0.5\t1\t0:00:01.2", "1\t0\t0\t0.25\t1\t0:00:01.3", "2\t2\t1\t0.9\t0\t15.4", "3\t2\t-1\t0.0\t0\t1"]


def write_tsv(path: Path, lines: list[str] = LINES, header: str = HEADER, **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")
    if settings:
        Path(f"{path}.json").write_text(json.dumps(settings))
    return path


@pytest.fixture
def rows(tmp_path) -> np.ndarray:
    return read_rows(write_tsv(tmp_path / "a.tsv"))[0]


# ---- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "share"), [(0, 0.5), (0.25, 0.5), (0.2501, 0.25), (0.5, 0.25), (0.51, 0), (0.9, 0)])
def test_certified_accuracy_counts_correct_images_with_radius_at_least_r(rows, radius, share):
    assert certified_accuracy(rows, radius) == share


def test_acr_and_abstention_rate(rows):
    assert average_certified_radius(rows) == pytest.approx((0.5 + 0.25) / 4)
    assert abstention_rate(rows) == 0.25


def test_metrics_are_zero_when_everything_abstains():
    rows = np.array([(0, 1, -1, 0.0, False), (1, 0, -1, 0.0, False)], dtype=ROW)
    assert (certified_accuracy(rows, 0), average_certified_radius(rows), abstention_rate(rows)) == (0, 0, 1)
    assert [list(axis) for axis in accuracy_curve(rows)] == [[0], [0]]


def test_curve_has_a_step_at_each_radius_and_acr_is_its_area(rows):
    r, accuracy = accuracy_curve(rows)
    assert list(r) == [0, 0.25, 0.5, 0.5]
    assert list(accuracy) == [0.5, 0.5, 0.25, 0]
    assert np.sum(np.diff(r) * accuracy[1:]) == pytest.approx(average_certified_radius(rows))


@pytest.mark.parametrize("asked", [math.inf, 1.0, 0.75, 5.0])
def test_curve_agrees_with_certified_accuracy_as_far_as_was_asked(asked):
    random = np.random.default_rng(0)
    rows = np.zeros(200, dtype=ROW)
    rows["radius"] = random.integers(0, 20, 200) / 10  # with many ties
    rows["correct"] = random.random(200) < 0.7
    r, accuracy = accuracy_curve(rows, asked)
    assert r[-1] <= asked
    for radius in np.arange(0, min(asked, 2) + 1e-9, 0.05).clip(max=asked):
        # steps-pre: the value on (r[i-1], r[i]] is accuracy[i]
        corner = np.searchsorted(r, radius, side="left")
        assert (accuracy[corner] if corner < len(r) else 0) == certified_accuracy(rows, radius)


def test_clopper_pearson_has_its_tail_probabilities_and_closed_form_ends():
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1))
    low, high = clopper_pearson(30, 100)
    assert (low, high) == pytest.approx((beta.ppf(0.025, 30, 71), beta.ppf(0.975, 31, 70)))
    assert binom.sf(29, 100, low) == pytest.approx(0.025)
    assert binom.cdf(30, 100, high) == pytest.approx(0.025)


def test_paired_counts_what_one_table_alone_certifies():
    """Order does not matter; three more and none fewer is a coin that falls on one side three times."""
    before = np.zeros(5, ROW)
    before["idx"], before["correct"], before["radius"] = range(5), 1, 0.1
    after = before[::-1].copy()
    after["radius"][:3] = 0.5
    assert paired(before, after, 0.3) == (3, 0, pytest.approx(2 * 0.5**3))
    assert paired(after, before, 0.3)[:2] == (0, 3)
    assert paired(before, after, 0.1) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="different images"):
        paired(before, after[:4], 0.3)


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_rows_of_our_format_with_extra_columns(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [f"{line}\t0.99\tx" for line in LINES], f"{HEADER}\tpA\tgroup")
    rows, torn = read_rows(path)
    assert not torn
    assert rows.tolist() == [(0, 1, 1, 0.5, True), (1, 0, 0, 0.25, True), (2, 2, 1, 0.9, False), (3, 2, -1, 0, False)]


GROUPED = f"{HEADER}\tdraws\tbound\tgroup_label\tgroup_predict\tgroup_radius"
GROUPED_LINES = [
    "0\t1\t1\t0.5\t1\t1\t300\tmargin\tdisease\tdisease\t0.6",
    "1\t0\t2\t0.1\t0\t1\t900\trunner_up\tdisease\tdisease\t0.2",  # called healthy, and certified as diseased
    "2\t2\t2\t0.1\t1\t1\t900\ttop\thealthy\t-1\t0.0",  # no group is certified: nothing to contradict
    "3\t2\t3\t0.1\t0\t1\t900\ttop\thealthy\thealthy\t0.1",  # of class 3 no label tells the group
    "4\t2\t-1\t0.0\t0\t1\t900\ttop\thealthy\tdisease\t0.1",
]


def test_rows_with_votes_and_without(tmp_path):
    without, _ = read_rows(write_tsv(tmp_path / "a.tsv", GROUPED_LINES, GROUPED))
    assert "votes" not in without.dtype.names
    lines = [f"{line}\t{i},290,0,{10 - i}" for i, line in enumerate(GROUPED_LINES)]
    rows, _ = read_rows(write_tsv(tmp_path / "b.tsv", lines[::-1], f"{GROUPED}\tvotes"))
    assert rows["votes"].tolist() == [(i, 290, 0, 10 - i) for i in range(4, -1, -1)]
    assert paired(without, rows, 0.1) == (0, 0, 1.0)
    for votes in ("", "1,x,3", "1,,3", "1,-2"):
        path = write_tsv(tmp_path / "c.tsv", [f"{GROUPED_LINES[0]}\t{votes}"], f"{GROUPED}\tvotes")
        with pytest.raises(ValueError, match="line 2: votes must be a whole number >= 0"):
            read_rows(path)


def test_committed_tables_are_still_read():
    """Those of older versions: without votes, with the runner-up bound, seven lines that contradict themselves."""
    paths = sorted(RESULTS.rglob("*_sigma_*.tsv"))
    tables = [load("A", path) for path in paths if "check_sigma" not in path.name]
    assert len(tables) > 30
    assert not any(table.torn for table in tables)
    assert sum(contradictions(table.rows) for table in tables) == 7


def test_radius_on_the_grey_image_is_a_root_of_three_shorter_and_never_rounded_up():
    assert [grey_radius(r) for r in (0, 0.25, 0.5, 0.35, 1)] == [0, 0.144337, 0.288675, 0.202072, 0.57735]
    for millionths in np.random.default_rng(0).integers(0, 5_000_000, 2000).tolist():
        found = round(grey_radius(millionths / 1e6) * 1e6)
        assert 3 * found**2 <= millionths**2 < 3 * (found + 1) ** 2


@pytest.mark.parametrize("tail", ["4\t1\t1\t0.9", "4\t1\t1\t0.97\t1\t0:00:01.2", "4"])
def test_last_line_without_newline_is_left_out(tmp_path, tail):
    path = write_tsv(tmp_path / "sigma_0.25.tsv")
    path.write_text(path.read_text() + tail)
    certification = load("A", path)
    assert len(certification.rows) == 4
    assert caveats([certification]) == [f"{path}: the last line is incomplete and left out"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t0\t0\t0.25\t1", "has 5 tab-separated values, must have 6"),
        ("", "has 1 tab-separated values"),
        ("1 0 0 0.25 1 0:00:01", "has 1 tab-separated values"),
        ("0\t0\t0\t0.25\t1\t1", "idx 0 is already on line 2"),
        ("x\t0\t0\t0.25\t1\t1", "idx must be a whole number >= 0, got 'x'"),
        ("1\ttensor([3])\t0\t0.25\t1\t1", "label must be a whole number >= 0"),
        ("1\t-1\t0\t0.25\t0\t1", "label must be a whole number >= 0"),
        ("1\t0\t0.0\t0.25\t1\t1", "predict must be a whole number >= -1, got '0.0'"),
        ("1\t0\t-2\t0.25\t0\t1", "predict must be a whole number >= -1"),
        ("1\t0\t0\t-0.1\t1\t1", "radius must be a number >= 0, got '-0.1'"),
        ("1\t0\t0\tnan\t1\t1", "radius must be a number >= 0, got 'nan'"),
        ("1\t0\t0\tinf\t1\t1", "radius must be a number >= 0"),
        ("1\t0\t0\t\t1\t1", "radius must be a number >= 0"),
        ("1\t0\t-1\t0.25\t0\t1", "an abstention (predict -1) must have radius 0"),
        ("1\t0\t0\t0.25\tTrue\t1", "correct must be 0 or 1, got 'True'"),
        ("1\t0\t2\t0.25\t1\t1", "correct is 1 for label 0, predict 2"),
        ("1\t0\t0\t0.25\t0\t1", "correct is 0 for label 0, predict 0"),
    ],
)
def test_malformed_line_is_named_with_file_and_number(tmp_path, line, message):
    path = write_tsv(tmp_path / "a.tsv", [LINES[0], line, *LINES[2:]])
    with pytest.raises(ValueError) as error:
        read_rows(path)
    assert f"{path}, line 3: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: there is no complete line"),
        (HEADER, "line 1: there is no complete line"),
        (f"{HEADER}\n", "line 2: there is no certified image"),
        (f"{HEADER}\n0\t1\t1\t0.", "line 2: there is no certified image"),
        ("idx\tlabel\tpredict\tradius\tSta_correct\ttime\n", "missing: correct"),
        ("idx\tpredict\tlabel\tradius\tcorrect\ttime\n", "the order is another"),
        ("\n".join(LINES) + "\n", "missing: idx, label"),
    ],
)
def test_empty_file_or_wrong_header_is_refused(tmp_path, text, message):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match="must be") as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}, line")
    assert message in str(error.value)


# ---- sigma -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sigma"),
    [
        ("/x/noise_0.50/test/sigma_0.25", 0.25),  # locuslab/smoothing
        ("/x/mse_obj/M_DENOISER_d/noise_0.00/test_N10000/sigma_1.00", 1.0),  # microsoft/denoised-smoothing
        ("/x/sigma_0.25.tsv", 0.25),
        ("/x/sigma_1.tsv", 1.0),
        ("/x/noise_1.00/noise_0.50/log.tsv", 0.5),
        ("/x/noise_0.50_sigma_0.25.tsv", 0.25),
        ("/x/run/log.tsv", None),
        ("/x/noise_0.00/log.tsv", None),
    ],
)
def test_sigma_in_path(path, sigma):
    assert sigma_in(Path(path)) == sigma


def test_sigma_comes_from_settings_before_path_and_from_the_caller_before_path(tmp_path):
    path = write_tsv(tmp_path / "sigma_0.25.tsv")
    assert load("A", path).sigma == 0.25
    assert load("A", path, 0.5).sigma == 0.5
    write_tsv(path, sigma=1, N=100)
    assert load("A", path).sigma == 1
    assert load("A", path, 1.0).settings["N"] == 100
    with pytest.raises(ValueError, match=r"given as sigma 0\.5, but its settings .*\.json say 1"):
        load("A", path, 0.5)


def test_unknown_sigma_says_how_to_give_it(tmp_path):
    path = write_tsv(tmp_path / "log.tsv")
    with pytest.raises(ValueError, match=f"NAME={path}@0.25"):
        load("A", path)


@pytest.mark.parametrize("text", ["{", "[]", '{"sigma": 0}', '{"sigma": "0.25"}', '{"sigma": true}', '{"sigma": NaN}'])
def test_unusable_settings_are_refused(tmp_path, text):
    path = write_tsv(tmp_path / "sigma_0.25.tsv")
    Path(f"{path}.json").write_text(text)
    with pytest.raises(ValueError, match=f"{path}.json: must "):
        load("A", path)


# ---- side by side ----------------------------------------------------------------------------------------------------


def test_arrange_sorts_by_sigma_then_by_first_appearance_and_refuses_a_second_of_a_kind(tmp_path):
    path = write_tsv(tmp_path / "a.tsv")
    given = [load("B", path, 0.5), load("A", path, 0.25), load("A", path, 0.5), load("B", path, 0.25)]
    assert [(each.name, each.sigma) for each in arrange(given)] == [("B", 0.25), ("A", 0.25), ("B", 0.5), ("A", 0.5)]
    with pytest.raises(ValueError, match=r"'A' at sigma 0\.25 is already .*a\.tsv"):
        arrange([*given, load("A", path, 0.25)])


def test_caveats_name_other_images_and_other_settings_but_only_at_the_same_sigma(tmp_path):
    a = load("A", write_tsv(tmp_path / "a.tsv", sigma=0.25, N=1000, alpha=0.001))
    same = load("B", write_tsv(tmp_path / "b.tsv", sigma=0.25, N=1000))
    fewer = load("C", write_tsv(tmp_path / "c.tsv", LINES[:3], sigma=0.25, N=1000))
    other_label = load("D", write_tsv(tmp_path / "d.tsv", [*LINES[:3], "3\t1\t-1\t0.0\t0\t1"], sigma=0.25))
    other_n = load("E", write_tsv(tmp_path / "e.tsv", sigma=0.25, N=500))
    elsewhere = load("C", write_tsv(tmp_path / "f.tsv", LINES[:3], sigma=0.5, N=1))
    assert caveats([a, same, elsewhere]) == []
    assert caveats([a, fewer]) == ["sigma 0.25: compared on different images (A: 4, C: 3)"]
    assert caveats([a, other_label]) == ["sigma 0.25: compared on different images (A: 4, D: 4)"]
    assert caveats([a, other_n]) == ["sigma 0.25: compared at different N (A: 1000, E: 500)"]


def test_caveats_name_versions_rules_and_instructions_that_differ(tmp_path):
    """A file that does not tell was made under the first rule and the first noise, by votes; a published log has no
    settings at all, and is compared in nothing."""
    old = load("old", write_tsv(tmp_path / "a.tsv", sigma=0.25))
    same = load("same", write_tsv(tmp_path / "b.tsv", sigma=0.25, rule_version=1, noise_version=1, group_rule="vote"))
    log = load("log", write_tsv(tmp_path / "sigma_0.25.tsv"))
    assert caveats([old, same, log]) == []
    new = load("new", write_tsv(tmp_path / "c.tsv", sigma=0.25, rule_version=2, noise_version=3, group_rule="class"))
    assert caveats([old, new, log]) == [
        "sigma 0.25: compared at different group_rule (old: vote, new: class)",
        "sigma 0.25: compared at different rule_version (old: 1, new: 2)",
        "sigma 0.25: compared at different noise_version (old: 1, new: 3)",
    ]
    amx, avx = (
        load(name, write_tsv(tmp_path / f"{name}.tsv", sigma=0.25, instruction_set=name)) for name in ("amx", "avx")
    )
    assert caveats([amx, avx, old]) == ["sigma 0.25: compared at different instruction_set (amx: amx, avx: avx)"]


def test_caveats_count_lines_that_contradict_themselves(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", GROUPED_LINES, GROUPED, sigma=0.25)
    (line,) = caveats([load("A", path)])
    assert line.startswith(
        f"{path}: 1 of its 5 lines contradict themselves: the class lies outside the certified group"
    )
    assert contradictions(load("A", write_tsv(tmp_path / "b.tsv", sigma=0.25)).rows) == 0  # it knows no groups


def test_caveats_name_seeds_that_were_tried_one_after_the_other(tmp_path):
    one = load("A", write_tsv(tmp_path / "a.tsv", sigma=0.25, seed=4, seeds_tried=[4]))
    several = load("B", write_tsv(tmp_path / "b.tsv", sigma=0.25, seed=4, seeds_tried=[0, 3, 4]))
    assert caveats([one]) == []
    (line,) = caveats([one, several])
    assert line.startswith(f"{several.path}: was made under 3 seeds one after the other (0, 3, 4)")


def test_radii_between_those_asked_for_are_lower_bounds(tmp_path):
    all_drawn = load("A", write_tsv(tmp_path / "a.tsv", sigma=0.25))
    asked = load("B", write_tsv(tmp_path / "b.tsv", sigma=0.25, radii=[0.25, 0.5]))
    radii = [0, 0.1, 0.25, 0.3, 0.5, 0.6]
    assert not any(all_drawn.is_lower_bound(r) for r in radii)
    assert [asked.is_lower_bound(r) for r in radii] == [True, True, False, True, False, False]
    (line,) = caveats([asked], radii)
    assert "certified accuracy at 0, 0.1, 0.3 is a lower bound, because --radii asked only for 0.25, 0.5" in line
