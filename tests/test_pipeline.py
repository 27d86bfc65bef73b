"""The real command lines from data to table at tiny sizes, and what each script says to bad input."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_script, write_image

from certification.certificate_file import CertificateFile
from certification.run import all_grey, is_grey
from core import Smooth
from datasets import get_dataset
from evaluation.certificates import contradictions, grey_radius, read_rows
from models import load_pipeline
from models.flags import info_of
from smoothing.rules import RULE_VERSION

ROOT = Path(__file__).resolve().parents[1]


def shell(folder: Path, *command: object) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_end_to_end(tmp_path):
    """As a user types it, in a folder of their own, each stage in a process of its own."""
    tiny = ("--epochs", 1, "--batch", 16)
    shell(tmp_path, ROOT / "prepare_data.py", "--subjects", 40, "--phantom_size", 48)
    shell(tmp_path, ROOT / "train_classifier.py", *tiny, "--image_size", 16, "--outdir", "r/f")
    shell(tmp_path, ROOT / "ds_main.py", *tiny, "--image_size", 16, "--noise_sd", 0.1, 0.5, "--outdir", "r/mse")
    f, mse, stab = (f"r/{name}/best.pth.tar" for name in ("f", "mse", "stab"))
    shell(
        tmp_path,
        ROOT / "main_ds.py",
        *tiny,
        *("--classifier", f, "--pretrained_denoiser", mse, "--mse_weight", 10, "--outdir", "r/stab"),
    )
    assert "FGSM" in shell(tmp_path, ROOT / "attacks" / "generate.py", "--classifier", f)
    out = shell(
        tmp_path,
        ROOT / "AE_DS_verify.py",
        *("--classifier", f, "--pretrained_denoiser", stab, "--sigma", 0.25, 0.5, "--N", 50, "--N0", 10, "--skip", 4),
        *("--outfile", "r/certify.tsv"),
    )
    assert "sigma 0.5: certified accuracy" in out and "SYNTHETIC" in out
    assert re.search(r"\| certify +\| 0.50 \| +[\d.]+ \|", out) and "sensitivity / specificity" in out
    assert "accuracy" in shell(tmp_path, ROOT / "evaluate.py", "--classifier", f, "--denoiser", stab)
    attacked = shell(tmp_path, ROOT / "evaluate.py", "--classifier", f, "--denoiser", stab, "--split", "FGSM")
    assert "Phantom_MRI FGSM" in attacked
    checked = shell(
        tmp_path,
        ROOT / "attacks" / "check_certificates.py",
        *("--classifier", f, "--denoiser", stab, "--certificates", "r/certify_sigma_0.25.tsv", "--steps", 1),
        *("--draws", 2, "--N", 20, "--skip", 4, "--outfile", "r/check.tsv"),
    )
    assert "violated" in checked
    shell(tmp_path, ROOT / "ds_main.py", "--mode", "test", "--pretrained_denoiser", mse, "--noise_sd", 0.25)
    shell(tmp_path, ROOT / "ds_main.py", "--mode", "inference", "--pretrained_denoiser", mse, "--outdir", "r/grids")
    assert (tmp_path / "r" / "grids" / "noise_0.25.png").is_file()
    table = shell(
        tmp_path,
        ROOT / "make_tables.py",
        *("--add", "DS=r/certify_sigma_0.25.tsv", "DS=r/certify_sigma_0.5.tsv", "--outdir", "r/tables"),
    )
    assert "SYNTHETIC" in table
    assert (tmp_path / "r" / "tables" / "certified_accuracy.png").stat().st_size > 5000


@pytest.fixture
def verify(pipeline, data_dir, tmp_path):
    """`verify(outfile, *more)`: certify 5 test images with few draws; returns the TSV's path."""

    def run(outfile, *more):
        run_script(
            "AE_DS_verify",
            *("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir),
            *("--sigma", 0.25, "--N0", 20, "--N", 60, "--max", 5, "--no-amp", "--outfile", tmp_path / outfile, *more),
        )
        return tmp_path / outfile

    return run


def answers(path: Path) -> list[list[str]]:
    """All columns but the time."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [row[:5] + row[6:] for row in rows]


def test_tsv_and_settings(verify):
    path = verify("a.tsv")
    header = path.read_text().splitlines()[0].split("\t")
    assert header[:6] == ["idx", "label", "predict", "radius", "correct", "time"]
    assert header[6:] == ["draws", "bound", "group_label", "group_predict", "group_radius", "votes"]
    rows, torn = read_rows(path)
    assert not torn
    pilots = rows["draws"] - [sum(votes) for votes in rows["votes"]]
    assert ((pilots == 20) & ([len(votes) == 4 for votes in rows["votes"]])).all()
    assert rows["idx"].tolist() == [0, 1, 2, 3, 4]
    settings = json.loads(Path(f"{path}.json").read_text())
    assert (settings["sigma"], settings["N0"], settings["N"], settings["alpha"]) == (0.25, 20, 60, 0.001)
    assert (settings["dataset"], settings["split"]) == ("Phantom_MRI", "test")
    assert (settings["seed"], settings["seeds_tried"], settings["group_rule"]) == (0, [0], "vote")
    assert settings["grey_as_rgb"]  # the phantoms are grey
    assert settings["rule_version"] == RULE_VERSION
    assert settings["noise_version"] >= 1
    assert "instruction_set" not in settings  # without bfloat16 it does not matter
    from scipy.stats import norm

    ceiling = 0.25 * norm.ppf(0.001 ** (1 / 60))
    assert (rows["radius"] <= ceiling).all()


def test_what_disease_is_does_not_change_within_a_table(verify, pipeline, data_dir, tmp_path, capsys):
    """Sensitivity would be of two kinds of images."""
    path = verify("a.tsv")
    shutil.copytree(data_dir / "Phantom_MRI", tmp_path / "D" / "Phantom_MRI", ignore=shutil.ignore_patterns("AT_*"))
    manifest = tmp_path / "D" / "Phantom_MRI" / "manifest.json"
    settings = json.loads(manifest.read_text())
    settings["info"]["disease"] = ["glioma_tumor"]
    manifest.write_text(json.dumps(settings))
    before = path.read_bytes()
    loaded = load_pipeline(pipeline["classifier"], None)
    for folder, disease in ((tmp_path / "D", (0,)), (data_dir, (0, 1, 3)), (tmp_path, (0, 1, 3))):  # the last: from f
        asked = argparse.Namespace(dataset=None, data_dir=folder, classifier=pipeline["classifier"])
        assert info_of(asked, loaded).groups["disease"] == disease
    with pytest.raises(SystemExit):
        verify("a.tsv", "--max", 7, "--data_dir", tmp_path / "D")
    assert "was made with disease ['glioma_tumor', 'meningioma_tumor', 'pituitary_tumor']" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_noise_makes_certificates_independent_of_batch_skip_and_order(verify):
    reference = answers(verify("a.tsv"))
    assert answers(verify("b.tsv", "--batch", 7)) == reference
    sparse = answers(verify("c.tsv", "--skip", 2))
    assert sparse == [reference[0], *reference[1::2]]
    # The images left out follow later; the file ends up the same.
    assert answers(verify("c.tsv", "--skip", 1)) == reference


def test_shards_by_flag_and_by_torchrun_merge_into_the_whole(verify, tmp_path, monkeypatch):
    reference = answers(verify("a.tsv"))
    for rank in range(2):
        verify("s.tsv", "--shard", f"{rank}/3")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    verify("s.tsv")
    shards = sorted(tmp_path.glob("s_shard_*.tsv"))
    run_script("merge_certificates", *shards, "--outfile", tmp_path / "m.tsv")
    assert answers(tmp_path / "m.tsv") == reference


def test_an_empty_shard_and_one_that_was_taken_further_merge(verify, tmp_path, capsys):
    verify("s.tsv", "--shard", "0/3", "--max", 1)
    for part in range(3):
        verify("s.tsv", "--shard", f"{part}/3", "--max", 2)
    assert "this shard gets no image" in capsys.readouterr().out
    run_script("merge_certificates", *sorted(tmp_path.glob("s_shard_*.tsv")), "--outfile", tmp_path / "m.tsv")
    assert answers(tmp_path / "m.tsv") == answers(verify("a.tsv"))[:3]


def test_without_sequential_and_with_float_noise_it_is_the_published_certify(verify, pipeline, data_dir):
    path = verify("a.tsv", "--no-sequential", "--noise", "float", "--skip", 2, "--group_rule", "class")
    loaded = load_pipeline(pipeline["classifier"], pipeline["mse"])
    images = get_dataset("Phantom_MRI", "test", loaded.image_size, data_dir=data_dir)
    smoothed = Smooth(loaded.at(0.25), 4, 0.25, seed=0)
    for idx, label, predict, radius, correct, draws, *_ in answers(path)[1:]:
        expected, exact = smoothed.certify(images[int(idx)][0], 20, 60, 0.001, 32, int(idx))
        assert (int(predict), draws) == (expected, "80")
        assert int(label) == images[int(idx)][1]
        assert int(correct) == (expected == int(label))
        assert exact - 1e-6 <= float(radius) <= exact


def test_group_columns_follow_the_table(verify):
    path = verify("a.tsv")
    assert contradictions(read_rows(path)[0]) == 0
    for idx, label, _, _, _, draws, bound, group, answer, radius, _ in answers(path)[1:]:
        assert group == ("healthy" if label == "2" else "disease"), idx
        assert answer in ("disease", "healthy", "-1")
        assert (float(radius) == 0) == (answer == "-1")
        assert int(draws) <= 80
        assert bound in ("top", "margin")


def test_the_group_rule_is_kept_and_compared(verify, capsys):
    path = verify("a.tsv", "--group_rule", "class")
    assert "sensitivity / specificity (%) by the class answer, at L2 radius" in capsys.readouterr().out
    assert json.loads(Path(f"{path}.json").read_text())["group_rule"] == "class"
    assert contradictions(read_rows(path)[0]) == 0
    with pytest.raises(SystemExit):
        verify("a.tsv")
    assert "was made with group_rule class (now vote)" in capsys.readouterr().err


def test_what_is_claimed_stands_below_the_tables(verify, capsys):
    verify("a.tsv", "--radii", 0, 0.25)
    out = capsys.readouterr().out
    for words in (
        "smoothed classifier, with probability 1 − α per image",
        "for images fixed before the seed was known",
        "input size after resizing and rounding to 8 bits",
        "for this pipeline on this kind of hardware",
        "Grey images stored as RGB: r = 0.25 is 0.144 on the grey image.",
        "by the summed votes of each group",
    ):
        assert out.count(words) == 1, words


def test_a_seed_that_was_tried_before_is_told(verify, capsys):
    path = verify("a.tsv")
    assert "seeds" not in capsys.readouterr().err
    path.unlink()
    verify("a.tsv", "--seed", 3)
    assert f"{path}: was made under 2 seeds one after the other (0, 3)" in capsys.readouterr().err


@pytest.mark.parametrize("told", ["rule_version", "noise_version"])
def test_a_table_of_an_older_version_is_not_continued(told, verify, capsys, monkeypatch):
    path = verify("a.tsv", "--max", 2)
    beside = Path(f"{path}.json")
    monkeypatch.setattr(f"certification.settings.{told.upper()}", 7)
    settings = json.loads(beside.read_text())
    beside.write_text(json.dumps({key: value for key, value in settings.items() if key != told}))
    before = path.read_bytes()
    with pytest.raises(SystemExit):
        verify("a.tsv")
    message = capsys.readouterr().err
    assert f"was made with {told} 1 (now 7); name another file or delete it" in message
    assert message.count("\n") == 1
    assert path.read_bytes() == before


def test_bfloat16_depends_on_the_instructions(verify, capsys, monkeypatch):
    monkeypatch.setattr("certification.settings.instruction_set", lambda _: "amx")
    path = verify("a.tsv", "--max", 1, "--amp")
    assert json.loads(Path(f"{path}.json").read_text())["instruction_set"] == "amx"
    monkeypatch.setattr("certification.settings.instruction_set", lambda _: "avx512_bf16")
    with pytest.raises(SystemExit):
        verify("a.tsv", "--amp")
    assert "was made with instruction_set amx (now avx512_bf16)" in capsys.readouterr().err


@pytest.fixture
def predict(pipeline, tmp_path):
    """`predict(name, *files, more=flags)`: certify the files with few draws; what the JSON `name` then holds."""

    def run(name, *images, more=()):
        parts = ("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--sigma", 0.25)
        draws = ("--N0", 20, "--N", 60, "--no-amp")
        run_script("AE_DS_verify", *parts, *draws, *more, "--outfile", tmp_path / name, "--predict", *images)
        return json.loads((tmp_path / name).read_text())

    return run


def phantoms(data_dir: Path) -> list[Path]:
    """Grey slices, stored as RGB or read as such; what other tests attacked lies beside them, and is coloured."""
    return sorted(each for each in (data_dir / "Phantom_MRI").rglob("*.png") if "AT_" not in str(each))


def test_predict_answers_for_files_and_folders_alike(predict, data_dir, tmp_path, capsys):
    images = phantoms(data_dir)[:3]
    folder = tmp_path / "mine"
    folder.mkdir()
    for image in images:
        (folder / image.name).write_bytes(image.read_bytes())
    together = predict("all.json", folder, more=("--seed", 4))["answers"]
    shown = capsys.readouterr().out
    assert len(together) == 3
    assert all(Path(answer["file"]).name in shown for answer in together)
    of_an_answer = (
        "file done sigma class radius radius_grey group group_radius group_radius_grey grey_as_rgb draws votes warning"
    )
    assert list(together[0]) == of_an_answer.split()
    (alone,) = predict("one.json", images[1], more=("--seed", 4))["answers"]
    assert {**alone, "file": ""} == {**together[1], "file": ""}
    assert list(alone["votes"]) == ["glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"]
    assert sum(alone["votes"].values()) == alone["draws"] - 20


def test_predict_draws_a_secret_seed_and_tells_it(predict, data_dir, capsys):
    image = phantoms(data_dir)[0]
    found = [predict(f"{i}.json", image) for i in range(2)]
    shown, seeds = capsys.readouterr().out, [each["settings"]["seed"] for each in found]
    assert seeds[0] != seeds[1]
    assert min(seeds) > 2**40  # of 63 bits: not one that anybody would try
    for each in found:
        assert each["settings"]["secret_seed"]
        assert f"The seed was secret until now: {each['settings']['seed']}." in shown
    # Given afterwards, it gives the answer again; before, it makes the weaker statement.
    again = predict("again.json", image, more=("--seed", seeds[0]))
    assert again["answers"] == found[0]["answers"]
    assert not again["settings"]["secret_seed"]
    assert f"fixed before --seed {seeds[0]} was known" in capsys.readouterr().out


def test_every_image_of_predict_has_noise_of_its_own(predict, data_dir, monkeypatch):
    drawn, certify = [], Smooth.certify_images

    def recorded(self, images, *values):
        listed = list(images)
        drawn.extend((self.seed, index) for index, _ in listed)
        return certify(self, listed, *values)

    monkeypatch.setattr(Smooth, "certify_images", recorded)
    predict("a.json", *phantoms(data_dir)[:4])
    assert len(set(drawn)) == 4
    assert len({seed for seed, _ in drawn}) == 1


def test_predict_says_what_is_proved(predict, data_dir, capsys):
    image = phantoms(data_dir)[0]
    predict("a.json", image, more=("--alpha", 0.01))
    out = capsys.readouterr().out
    for words in (
        "of the smoothed classifier, with probability 0.99 per image",
        "at its input size after resizing (32 px) and rounding to 8 bits",
        "for this pipeline on this kind of hardware",
        "decided by the summed votes of each group",
    ):
        assert words in out
    predict("a.json", image, more=("--group_rule", "class"))
    assert "decided by the class answer" in capsys.readouterr().out


def test_radii_on_the_grey_image_where_the_channels_are_equal(predict, data_dir, tmp_path, capsys):
    write_image(tmp_path / "colour.png", 0)
    mixed = predict("mixed.json", phantoms(data_dir)[0], tmp_path / "colour.png", more=("--alpha", 0.2))["answers"]
    assert "radius_grey" in capsys.readouterr().out.splitlines()[0].split()
    assert [answer["grey_as_rgb"] for answer in mixed] == [True, False]
    for name in ("radius", "group_radius"):
        assert mixed[0][f"{name}_grey"] == grey_radius(mixed[0][name]) <= mixed[0][name] / 3**0.5
        assert mixed[1][f"{name}_grey"] is None
    assert mixed[0]["group_radius"] > 0
    predict("colour.json", tmp_path / "colour.png")
    assert "radius_grey" not in capsys.readouterr().out.splitlines()[0].split()


def test_a_split_is_grey_if_all_its_images_are():
    images = [torch.rand(1, 8, 8).expand(3, 8, 8) for _ in range(5)]
    colours, one_channel = torch.rand(3, 8, 8), torch.rand(1, 8, 8)
    assert [is_grey(each) for each in (images[0], colours, one_channel)] == [True, False, False]

    class Images(list):
        place = staticmethod(lambda index: index // 2)  # every second one of a split

    dataset = Images((each, 0) for each in [*images[:3], colours, images[4]])
    settings = {"end": 10, "skip": 2, "shard": "0/4"}
    assert not all_grey(dataset, settings)  # the coloured one is another shard's, but of the same table
    assert all_grey(dataset, settings | {"end": 6})
    assert all_grey(dataset, settings | {"skip": 4})


def test_interrupted_certification_resumes(verify, monkeypatch, tmp_path):
    reference = answers(verify("whole.tsv"))
    append, calls = CertificateFile.append, []

    def stop_at_third(self, *values):
        calls.append(values)
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(self, *values)

    monkeypatch.setattr(CertificateFile, "append", stop_at_third)
    with pytest.raises(SystemExit) as stop:
        verify("cut.tsv")
    assert stop.value.code == 130
    monkeypatch.undo()
    path = tmp_path / "cut.tsv"
    assert len(answers(path)) == 3
    path.write_text(path.read_text() + "2\t1\t1\t0.1")  # killed in the middle of a line
    assert answers(verify("cut.tsv")) == reference
    path.write_text("")  # nothing left but the settings
    assert answers(verify("cut.tsv")) == reference


def test_other_settings_are_refused(verify, pipeline, capsys):
    path = verify("a.tsv")
    before = path.read_bytes()
    for more, word in (
        (("--N", 70), "N 60 (now 70)"),
        (("--seed", 1), "seed 0 (now 1)"),
        (("--split", "val"), "split test (now val)"),
    ):
        with pytest.raises(SystemExit) as stop:
            verify("a.tsv", *more)
        assert stop.value.code == 1
        assert word in capsys.readouterr().err
    assert path.read_bytes() == before


def test_bad_input(pipeline, data_dir, tmp_path, fails, monkeypatch):
    f, d = pipeline["classifier"], pipeline["mse"]
    data = ("--data_dir", data_dir)
    gone = tmp_path / "gone.pth.tar"

    verify = ("AE_DS_verify", *data, "--sigma", 0.25, "--outfile", tmp_path / "x.tsv")
    fails(2, ("--sigma", "must be a number > 0, got 0.0"), "AE_DS_verify", "--sigma", 0.0, "--classifier", f)
    fails(2, ("--alpha",), *verify, "--classifier", f, "--alpha", 2)
    fails(2, ("required", "--classifier"), *verify)
    fails(1, ("--outfile",), *verify[:-2], "--classifier", f)
    fails(1, (tmp_path / "gone.png",), *verify[:-2], "--classifier", f, "--predict", tmp_path / "gone.png")
    fails(1, (gone, "no such file"), *verify, "--classifier", gone)
    fails(1, (d, "holds a denoiser (nafnet4), but a classifier is needed"), *verify, "--classifier", d)
    fails(1, (f, "holds a classifier"), *verify, "--classifier", f, "--pretrained_denoiser", f)
    fails(1, ("Brain_Tumor", "prepare_data.py"), *verify, "--classifier", f, "--dataset", "Brain_Tumor")
    fails(1, ("--protocol stratified, not official",), *verify, "--classifier", f, "--protocol", "official")
    fails(2, ("--shard", "0 <= I < K"), *verify, "--classifier", f, "--shard", "3/3")
    fails(1, ("--radii 0.5 0.25", "ascending"), *verify, "--classifier", f, "--radii", 0.5, 0.25)
    fails(2, ("--radii",), *verify, "--classifier", f, "--radii", -1)
    fails(1, ("--N 50", "--N0"), *verify, "--classifier", f, "--N", 50)
    fails(1, ("x.csv", ".tsv"), *verify[:-1], tmp_path / "x.csv", "--classifier", f)
    fails(1, ("x.tsv", ".json"), *verify, "--classifier", f, "--predict", tmp_path)
    fails(1, ("--radius_tol", "--radii"), *verify, "--classifier", f, "--radius_tol", 0.1, "--radii", 0.5)
    with monkeypatch.context() as environment:
        environment.setenv("WORLD_SIZE", "2")
        fails(1, ("RANK and WORLD_SIZE are None and 2",), *verify, "--classifier", f)
        environment.setenv("RANK", "0")
        fails(1, ("--shard 1/2", "torchrun"), *verify, "--classifier", f, "--shard", "1/2")
    assert not (tmp_path / "x.tsv").exists()
    fails(1, (tmp_path / "gone.tsv", "missing"), "merge_certificates", tmp_path / "gone.tsv", "--outfile", "m.tsv")

    run = ("--outdir", tmp_path / "run")
    fails(1, ("Chest", "the known Brain_Tumor"), "train_classifier", *run, *data, "--dataset", "Chest")
    fails(1, ("manifest.csv is missing", "prepare_data.py"), "train_classifier", *run, "--data_dir", tmp_path)
    fails(1, ("resnet19",), "train_classifier", *run, *data, "--arch", "resnet19")
    fails(1, ("vgg11", "16 px"), "train_classifier", *run, *data, "--arch", "vgg11", "--image_size", 16)
    fails(1, ("vit_b_16", "40 px"), "train_classifier", *run, *data, "--arch", "vit_b_16", "--image_size", 40)
    fails(2, ("--label_smoothing", "between 0 and 1"), "train_classifier", *run, *data, "--label_smoothing", 3)
    fails(2, ("--noise_sd", ">= 0"), "train_classifier", *run, *data, "--noise_sd", -0.1)
    fails(2, ("--arch", "nafnet"), "ds_main", *run, *data, "--arch", "unknown")
    fails(1, ("--noise_sd 0.5 0.1", "LOW <= HIGH"), "ds_main", *run, *data, "--noise_sd", 0.5, 0.1)
    fails(2, ("--noise_sd", "> 0"), "main_ds", *run, *data, "--classifier", f, "--noise_sd", 0)
    start = ("--pretrained_denoiser", d)
    fails(1, ("--arch dncnn", d, "nafnet"), "ds_main", *run, *data, *start, "--arch", "dncnn")
    fails(1, ("--channels 1", d), "ds_main", *data, *start, "--mode", "test", "--channels", 1)
    fails(1, ("--arch dncnn", d, "nafnet"), "main_ds", *run, *data, *start, "--classifier", f, "--arch", "dncnn")
    fails(1, ("--mode test needs --pretrained_denoiser",), "ds_main", *data, "--mode", "test")
    fails(1, ("--mode train needs --outdir",), "ds_main", *data)
    fails(1, (d, "a classifier is needed"), "main_ds", *run, *data, "--classifier", d)
    fails(1, (f, "a denoiser is needed"), "main_ds", *run, *data, "--classifier", f, "--pretrained_denoiser", f)
    fails(2, ("--objective", "stability"), "main_ds", *run, *data, "--classifier", f, "--objective", "robust")
    fails(2, ("--attack", "FGSM"), "attacks.generate", *data, "--classifier", f, "--attack", "PGM")
    fails(1, (gone,), "evaluate", *data, "--classifier", gone)
    fails(1, ("e.csv", ".json"), "evaluate", *data, "--classifier", f, "--outfile", tmp_path / "e.csv")
    if not torch.cuda.is_available():
        fails(1, ("--device cuda",), "evaluate", *data, "--classifier", f, "--device", "cuda")
    assert not (tmp_path / "run").exists()


def test_parts_with_other_channels_are_refused(pipeline, data_dir, tmp_path, fails):
    common = ("--data_dir", data_dir, "--epochs", 1, "--image_size", 32, "--channels", 1)
    run_script("ds_main", *common, "--outdir", tmp_path / "grey")
    grey = tmp_path / "grey" / "best.pth.tar"
    flags = ("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--pretrained_denoiser", grey)
    fails(1, (grey, "1 channel"), "AE_DS_verify", *flags, "--sigma", 0.25, "--outfile", tmp_path / "x.tsv")
    fails(1, (grey, "1 channel"), "main_ds", *flags, "--outdir", tmp_path / "run")


def test_missing_image_is_named(data_dir, tmp_path, fails, made_up_tree):
    run_script("prepare_data", "--dataset", "Brain_Tumor", "--source", made_up_tree, "--data_dir", tmp_path)
    victim = next((made_up_tree / "Training" / "no_tumor").glob("*.png"))
    victim.unlink()
    fails(
        1,
        (victim,),
        "train_classifier",
        *("--dataset", "Brain_Tumor", "--data_dir", tmp_path, "--outdir", tmp_path / "run"),
    )
