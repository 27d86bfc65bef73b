"""The TSV on disk: continued after any interruption, refused when it does not belong, merged from shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certification.certificate_file import CertificateFile, merge, shard_path, wanted_indices
from common import files
from evaluation.certificates import read_rows

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


def test_killed_at_any_byte_it_goes_on_with_nothing_lost_and_nothing_doubled(tmp_path):
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
    # What counts as disease is compared where the file tells it; those of older versions do not.
    write(path, {**SETTINGS, "disease": ["a"]})
    told = write(tmp_path / "b.tsv", {**SETTINGS, "disease": ["a"]})
    with pytest.raises(ValueError, match=r"disease \['a'\] \(now \['b'\]\)"):
        write(told, {**SETTINGS, "disease": ["b"]})
    Path(f"{path}.json").unlink()
    with pytest.raises(ValueError, match="without its settings"):
        CertificateFile(path, SETTINGS, ["draws"])


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    return [write(shard_path(tmp_path / "s.tsv", (i, 3)), {**SETTINGS, "shard": f"{i}/3"}) for i in range(3)]


def test_merged_shards_are_the_whole(shards, tmp_path):
    assert shards[1].name == "s_shard_1_of_3.tsv"
    assert merge(shards[::-1], tmp_path / "m.tsv") == 5
    assert (tmp_path / "m.tsv").read_bytes() == write(tmp_path / "a.tsv").read_bytes()
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
    cut = write(tmp_path / "cut.tsv", {**SETTINGS, "shard": "2/4"})
    with pytest.raises(ValueError, match="of another run"):
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
    with pytest.raises(OSError, match="directory"):
        merge(shards, out)
    assert out.read_text() == "a good table"
    assert not list(tmp_path.glob(".m*"))


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
