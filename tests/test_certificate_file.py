"""The TSV on disk: continued after any interruption, refused when it does not belong, merged from shards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from certification.certificate_file import CertificateFile, merge, shard_path, wanted_indices
from common import files
from evaluation.certificates import read_rows

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"sigma": 0.25, "N": 100, "skip": 2, "end": 9, "shard": None}


def write(path: Path, settings: dict = SETTINGS, indices=None) -> Path:
    tsv = CertificateFile(path, settings, ["draws"])
    for index in wanted_indices(settings) if indices is None else indices:
        if index not in tsv.done:
            tsv.append(index, 1, 1, f"{index / 100:.6f}", 1, "0:00:00.1", 200)
    tsv.close()
    return path


def test_wanted_indices_of_shards_are_a_partition():
    assert list(wanted_indices(SETTINGS)) == [0, 2, 4, 6, 8]
    parts = [list(wanted_indices({**SETTINGS, "shard": f"{i}/3"})) for i in range(3)]
    assert parts == [[0, 6], [2, 8], [4]]


def test_killed_at_any_byte_it_resumes_with_nothing_lost_and_nothing_doubled(tmp_path):
    whole = write(tmp_path / "a.tsv").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "a.tsv").write_bytes(whole[:length])
        assert write(tmp_path / "a.tsv").read_bytes() == whole


def test_lines_in_any_order_end_up_sorted(tmp_path):
    reference = write(tmp_path / "a.tsv").read_bytes()
    assert write(tmp_path / "b.tsv", indices=[8, 0, 6, 2, 4]).read_bytes() == reference


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "a.tsv"
    first = CertificateFile(path, SETTINGS, ["draws"])
    with pytest.raises(ValueError, match="another run is writing it"):
        CertificateFile(path, SETTINGS, ["draws"])
    first.close()
    assert len(write(path).read_text().splitlines()) == 6


def test_what_does_not_belong_is_refused(tmp_path):
    path = write(tmp_path / "a.tsv")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"N 100 \(now 200\)"):
        CertificateFile(path, {**SETTINGS, "N": 200}, ["draws"])
    with pytest.raises(ValueError, match=r"radii None \(now \[0\]\)"):
        CertificateFile(path, {**SETTINGS, "radii": [0]}, ["draws"])
    with pytest.raises(ValueError, match="other columns"):
        CertificateFile(path, SETTINGS)
    for other in ({"skip": 3}, {"skip": 4}, {"end": 5}, {"shard": "0/2"}):
        with pytest.raises(ValueError, match=r"holds image [2468], which --skip, --max and --shard leave out"):
            CertificateFile(path, SETTINGS | other, ["draws"])
    assert path.read_bytes() == before
    assert json.loads(Path(f"{path}.json").read_text()) == SETTINGS
    told = write(tmp_path / "b.tsv", {**SETTINGS, "disease": ["a"]})
    with pytest.raises(ValueError, match=r"disease \['a'\] \(now \['b'\]\)"):
        write(told, {**SETTINGS, "disease": ["b"]})
    Path(f"{path}.json").unlink()
    with pytest.raises(ValueError, match="without its settings"):
        CertificateFile(path, SETTINGS, ["draws"])


def test_a_file_of_an_older_version_is_not_continued_under_the_new_rule_or_noise(tmp_path):
    """It tells no version: its rule and its noise were the first, and disease was decided by votes."""
    path = write(tmp_path / "a.tsv")
    now = {"rule_version": 1, "noise_version": 1, "group_rule": "vote"}
    CertificateFile(path, SETTINGS | now, ["draws"]).close()
    for key, value, told in (
        ("rule_version", 2, "1 (now 2)"),
        ("noise_version", 2, "1 (now 2)"),
        ("group_rule", "class", "vote (now class)"),
        ("instruction_set", "amx", "None (now amx)"),
    ):
        with pytest.raises(ValueError) as error:
            CertificateFile(path, SETTINGS | now | {key: value}, ["draws"])
        assert str(error.value) == f"--outfile {path}: was made with {key} {told}; name another file or delete it"


def seeds(path: Path) -> list[int]:
    return json.loads(Path(f"{path}.json").read_text())["seeds_tried"]


def test_every_seed_that_was_tried_on_a_file_is_kept(tmp_path):
    """Whoever deletes a table and begins it anew under another seed until he likes it has tried them all."""
    path = write(tmp_path / "a.tsv", {**SETTINGS, "seed": 0})
    assert seeds(path) == [0]
    for seed, tried in ((5, [0, 5]), (5, [0, 5]), (0, [0, 5]), (7, [0, 5, 7])):
        path.unlink()
        write(path, {**SETTINGS, "seed": seed}, indices=[0])
        assert seeds(path) == tried
    write(path, {**SETTINGS, "seed": 7, "skip": 1})  # continued, its settings renewed
    assert seeds(path) == [0, 5, 7]
    before = {**SETTINGS, "seed": 3}  # settings of an older version tell one seed and no list
    Path(f"{path}.json").write_text(json.dumps(before))
    path.unlink()
    write(path, {**SETTINGS, "seed": 4})
    assert seeds(path) == [3, 4]


def test_a_merged_table_keeps_every_seed_of_its_shards_and_of_its_own_file(tmp_path):
    def run(seed: int) -> list[Path]:
        parts = [shard_path(tmp_path / "s.tsv", (i, 2)) for i in range(2)]
        for i, path in enumerate(parts):
            path.unlink(missing_ok=True)
            write(path, {**SETTINGS, "seed": seed, "shard": f"{i}/2"})
        return parts

    parts, merged = run(0), tmp_path / "m.tsv"
    merge(parts, merged)
    assert seeds(merged) == [0]
    run(1)
    Path(f"{parts[1]}.json").unlink()
    parts[1].unlink()
    write(parts[1], {**SETTINGS, "seed": 1, "shard": "1/2"})
    merge(parts, merged)  # one shard has forgotten seed 0, the other and the table itself have not
    assert seeds(merged) == [0, 1]


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    return [write(shard_path(tmp_path / "s.tsv", (i, 3)), {**SETTINGS, "shard": f"{i}/3"}) for i in range(3)]


def test_merged_shards_are_the_whole(shards, tmp_path):
    assert shards[1].name == "s_shard_1_of_3.tsv"
    assert merge(shards[::-1], tmp_path / "m.tsv") == 5
    assert (tmp_path / "m.tsv").read_bytes() == write(tmp_path / "a.tsv").read_bytes()
    told = write(tmp_path / "told.tsv", {**SETTINGS, "shard": "2/3", "group_rule": "vote", "grey_as_rgb": True})
    assert merge([*shards[:2], told], tmp_path / "n.tsv") == 5  # shards that do not tell were decided by votes, too
    # the merged file is one like any other: it can be continued
    write(tmp_path / "m.tsv", {**SETTINGS, "skip": 1})
    assert read_rows(tmp_path / "m.tsv")[0]["idx"].tolist() == list(range(9))


def test_merge_refuses(shards, tmp_path):
    out = tmp_path / "m.tsv"
    with pytest.raises(ValueError, match="missing: 1/3"):
        merge([shards[0], shards[2]], out)
    with pytest.raises(ValueError, match="shard 0/3 is already"):
        merge([*shards, shards[0]], out)
    other = write(tmp_path / "other.tsv", {**SETTINGS, "shard": "2/3", "N": 50})
    with pytest.raises(ValueError, match="N 100"):
        merge([*shards[:2], other], out)
    for key, value, told in (
        ("rule_version", 2, "rule_version 1 \\(now 2\\)"),
        ("group_rule", "class", "group_rule vote \\(now class\\)"),
        ("instruction_set", "amx", "instruction_set None \\(now amx\\)"),
    ):
        other = write(tmp_path / f"{key}.tsv", {**SETTINGS, "shard": "2/3", key: value})
        with pytest.raises(ValueError, match=f"another run than .*: {told}"):
            merge([*shards[:2], other], out)
    cut = write(tmp_path / "cut.tsv", {**SETTINGS, "shard": "2/4"})
    with pytest.raises(ValueError, match="another run"):
        merge([*shards[:2], cut], out)
    with pytest.raises(ValueError, match="not a shard"):
        merge([write(tmp_path / "a.tsv")], out)
    with pytest.raises(FileNotFoundError, match="gone"):
        merge([tmp_path / "gone.tsv"], out)
    unfinished = write(tmp_path / "part.tsv", {**SETTINGS, "shard": "1/3"}, indices=[2])
    with pytest.raises(ValueError, match=r"unfinished \(idx 8\)"):
        merge([shards[0], unfinished, shards[2]], out)
    assert not out.exists()
    before = shards[0].read_bytes()
    with pytest.raises(ValueError, match="is one of the shards"):
        merge(shards, shards[0])
    assert shards[0].read_bytes() == before
    out.write_text("a good table")
    Path(f"{out}.json").mkdir()  # the settings cannot be written, so the table stays
    with pytest.raises(OSError, match="is a folder"):
        merge(shards, out)
    assert out.read_text() == "a good table"
    assert not list(tmp_path.glob(".m*"))


def line(index: int) -> tuple:
    return index, 1, 1, "0.1", 1, "0:00:00.1", 200


def test_who_waits_at_the_old_file_writes_to_the_sorted_one(tmp_path, monkeypatch):
    """The second run opens the file while the first holds it, and locks it when the first has put a sorted copy in its
    place: what it appended to the old one would be gone."""
    path, lock = tmp_path / "a.tsv", files._lock
    first = CertificateFile(path, SETTINGS, ["draws"])
    for index in (4, 0):
        first.append(*line(index))

    def late(stream):
        if not first._stream.closed:
            first.close()
        return lock(stream)

    monkeypatch.setattr(files, "_lock", late)
    second = CertificateFile(path, SETTINGS, ["draws"])
    assert second.done == {0, 4}
    second.append(*line(2))
    second.close()
    assert read_rows(path)[0]["idx"].tolist() == [0, 2, 4]


def test_nobody_writes_while_a_table_is_sorted(tmp_path, monkeypatch):
    path, write_text = tmp_path / "a.tsv", files.write_text
    table = CertificateFile(path, SETTINGS, ["draws"])
    for index in (4, 0):
        table.append(*line(index))

    def contended(*values):
        if values[0] == path:
            with pytest.raises(ValueError, match="another run is writing it"):
                CertificateFile(path, SETTINGS, ["draws"])
        write_text(*values)
        if values[0] == path:  # the sorted file is anybody's: all lines are in it
            other = CertificateFile(path, SETTINGS, ["draws"])
            other.append(*line(2))
            other._stream.close()

    monkeypatch.setattr(files, "write_text", contended)
    table.close()
    assert read_rows(path)[0]["idx"].tolist() == [0, 4, 2]


WRITER = """
import sys
from pathlib import Path
from common import files

path, part = Path(sys.argv[1]), int(sys.argv[2])
for number in range(40, 0, -1):  # descending: every close sorts
    while True:
        try:
            table = files.Table(path, ["number"], {})
            break
        except ValueError as error:
            assert "another run is writing it" in str(error), error
    table.append(2 * number + part)
    table.close(int)
"""


def test_two_processes_that_take_turns_lose_no_line(tmp_path):
    path = tmp_path / "a.tsv"
    started = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(part)], cwd=ROOT) for part in (0, 1)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert path.read_text().split() == ["number", *map(str, range(2, 82))]


def test_of_two_runs_that_begin_a_table_one_goes(tmp_path, monkeypatch):
    """The other looks whether there is a file before the first has made it, and opens it after the first has begun."""
    path, lock = tmp_path / "a.tsv", files._lock
    first = []

    def late(stream):
        if not first:
            first.append(None)
            first[0] = CertificateFile(path, SETTINGS, ["draws"])
            first[0].append(0, 1, 1, "0.0", 1, "0:00:00.1", 200)
        return lock(stream)

    monkeypatch.setattr(files, "_lock", late)
    with pytest.raises(ValueError, match="another run is writing it"):
        CertificateFile(path, {**SETTINGS, "N": 7}, ["draws"])
    first[0].close()
    assert write(path).read_bytes() == write(tmp_path / "b.tsv").read_bytes().replace(b"0.000000", b"0.0", 1)


def test_a_table_closes_where_there_are_no_locks(tmp_path, monkeypatch):
    """Windows has no `fcntl`, and replaces no file that is open."""
    path, write_text = tmp_path / "a.tsv", files.write_text
    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.delattr(files, "fcntl")
    table = CertificateFile(path, SETTINGS, ["draws"])
    for index in (4, 0):
        table.append(*line(index))

    def replaced(*values):
        assert table._stream.closed
        write_text(*values)

    monkeypatch.setattr(files, "write_text", replaced)
    table.close()
    assert read_rows(path)[0]["idx"].tolist() == [0, 4]
