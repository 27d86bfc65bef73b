"""Any file of a kind that is read gives the image that the standard's formula gives, or one clear line: never a
traceback, never a hang, never an image that shows nothing and is accepted without a word.

About half a minute. Longer, with other files each time: ./test.sh tests/test_fuzz.py --hypothesis-profile long
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script, write_image
from fuzz_files import File, files
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from imaging.images import read_image
from imaging.levels import flat

HANGS = 60  # s; a command that takes so long for one small file does not end
LONG = settings().max_examples > 100  # conftest.py has the profile
ours = settings(
    max_examples=settings().max_examples if LONG else 40,  # of 6 to 10 files each
    derandomize=not LONG,
    deadline=None,
    phases=(Phase.generate,),  # a failure says how its file was made: that is short enough without shrinking
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    """A classifier of the user's own: brightness."""
    folder = tmp_path_factory.mktemp("box")
    (folder / "fuzz_brightness.py").write_text(
        "import numpy as np\n"
        "def classify(images):\n"
        "    mean = images.mean(axis=(1, 2, 3))\n"
        "    return np.stack([mean, 1 - mean, 0 * mean, 0 * mean], axis=1)\n"
    )
    sys.path.insert(0, str(folder))
    yield "fuzz_brightness:classify"
    sys.path.remove(str(folder))


def said(module: str, *argv: object) -> tuple[int, str, str]:
    """(exit code, output, messages) of a command; whatever it raises besides is a defect."""
    out, err = io.StringIO(), io.StringIO()

    def hangs(*_: object) -> None:
        raise AssertionError(f"takes longer than {HANGS} s: {argv}")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_script(module, *argv)
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, out.getvalue(), err.getvalue()


@ours
@given(st.lists(files(), min_size=6, max_size=10))
def test_any_file_is_read_right_or_refused_in_one_line(tmp_path_factory, classifier, batch: list[File]):
    folder = tmp_path_factory.mktemp("fuzz")
    source = folder / "source"
    for seed, name in enumerate(f"{label}/ok{i:02d}.png" for label in ("a", "b") for i in range(10)):
        write_image(source / name, seed)
    answered: dict[str, bool] = {}
    for k, made in enumerate(batch):
        path = source / "ab"[k % 2] / f"fuzz{k:02d}{made.suffix}"
        path.write_bytes(made.content)
        answered[path.relative_to(source).as_posix()] = answers(classifier, path, made, folder / "answer.json")
    prepared(source, folder / "data", answered)


def answers(classifier: str, path: Path, made: File, outfile: Path) -> bool:
    """Whether --predict answers for a file. Fails if it does so for another image than the one wanted, does not say
    that an image shows nothing, refuses an undamaged file, or refuses in any other way than by one line that names it.
    """
    its = ("--classifier", classifier, "--dataset", "Phantom_MRI", "--image_size", 8, "--channels", 3)
    outfile.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, out, err = said(
            "AE_DS_verify", *its, "--sigma", 0.25, "--N0", 5, "--N", 20, "--predict", path, "--outfile", outfile
        )
        about = f"{made.told}\n{code}\n{out}\n{err}"
        if code:
            *notes, message = err.strip().split("\n")
            assert code == 1, about
            assert all("warning: " in note for note in notes), about
            assert path.name in message and "internal error" not in message, about
            assert made.wanted is None, about
            return False
        image = read_image(path)
    answer = json.loads(outfile.read_text())["answers"][0]
    assert ("image" in answer["warning"]) == bool(flat(image)), about
    if made.wanted is not None:
        seen = np.asarray(image).astype(int)
        assert seen.shape == made.wanted.shape, about
        assert abs(seen - made.wanted).max() <= 1, about
    return True


def prepared(source: Path, data_dir: Path, answered: dict[str, bool]) -> None:
    """prepare_data.py reads the same files as --predict, and reports the others and those that show nothing."""
    code, out, err = said(
        "prepare_data", "--dataset", "Fuzz", "--source", source, "--data_dir", data_dir, "--skip_unreadable"
    )
    assert code == 0, f"{code}\n{out}\n{err}"
    with (data_dir / "Fuzz" / "manifest.csv").open(newline="") as stream:
        kept = {row["path"].partition("[")[0]: row["excluded"] for row in csv.DictReader(stream)}
    with (data_dir / "Fuzz" / "audit.csv").open(newline="") as stream:
        found = {(row["check"], image) for row in csv.DictReader(stream) for image in row["images"].split(" | ")}
    for name, was in answered.items():
        if name in kept:  # a file whose suffix says nothing is not taken for an image
            assert kept[name].startswith("unreadable") != was, (name, was, kept[name])
        if was:
            whole = next((image for check, image in found if check == "flat images" and image.startswith(name)), None)
            assert (whole is not None) == bool(flat(read_image(source / name))), (name, found)


def test_the_fuzzer_notices_a_wrong_reader(monkeypatch, tmp_path, classifier):
    """The comparison is no formality: a reader that inverts is found out."""
    path = tmp_path / "x.png"
    write_image(path, 1)
    made = File(path.read_bytes(), ".png", 255 - np.asarray(read_image(path)), "inverted")
    with pytest.raises(AssertionError, match="inverted"):
        answers(classifier, path, made, tmp_path / "answer.json")
