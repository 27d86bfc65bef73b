"""The grids of `configs/`: what depends on what, and whether each script still takes the flags that they give it."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import run_script

from workflow.jobs import jobs

ROOT = Path(__file__).resolve().parents[1]
GRIDS = sorted((ROOT / "configs").glob("*.yaml"))
GRID = yaml.safe_load("""
name: small
dataset: Phantom_MRI
sigmas: [0.25, 0.5]
data:
  here: {data_dir: data}
  there: {data_dir: elsewhere, flags: --protocol official}
models:
  f: {script: train_classifier.py, flags: --epochs 1, export: true}
  other: {script: train_classifier.py, data: there}
  "d_{sigma}": {script: main_ds.py, uses: {classifier: f, surrogates: [f, other]}, flags: "--noise_sd {sigma}"}
evaluations:
  clean: {data: there, uses: {classifier: other}, flags: --split val}
tables:
  one:
    flags: --N 100
    flags_at: {0.5: --alpha 0.01}
    radii: 0 0.25
    rows:
      alone: {file: alone, sigmas: [0.5], uses: {classifier: f}}
      with: {file: with, uses: {classifier: f, denoiser: "d_{sigma}"}}
  two:
    flags: --N 200
    radii: 0
    rows:
      again: {of: one, file: with}
      more: {file: more, sigmas: [0.5], uses: {classifier: f}}
""")


def parser_of(script: str):
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_args_parser()


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_grids_give_flags_that_the_scripts_know(path):
    found = jobs(yaml.safe_load(path.read_text()), "DIR")
    parsers = {script: parser_of(script) for script in {job.command[0] for job in found}}
    for job in found:
        parsers[job.command[0]].parse_args(list(job.command[1:]))  # exits where it does not
    assert len({job.name for job in found}) == len(found)
    seen = set()
    for job in found:
        assert set(job.needs) <= seen, f"{job.name} comes before what it needs"
        seen.add(job.name)
    written = [job.command[-1] for job in found if job.command[-2] == "--outfile"]
    assert len(set(written)) == len(written)


def test_training_by_queries_compares_like_with_like():
    """Behind one encoder, whose latent orthogonal directions can span, with one budget; an encoder needs AE_DS."""
    grid = yaml.safe_load((ROOT / "configs" / "brain_tumor_64.yaml").read_text())
    parser, encoded, budgets = parser_of("main_ds.py"), set(), set()
    for job in jobs(grid):
        if job.command[0] == "main_ds.py":
            args = parser.parse_args(list(job.command[1:]))
            if args.train_objective == "reconstruction":
                continue
            assert (args.pretrained_encoder is None) == (args.model_type == "DS"), job.name
            encoded.add(args.pretrained_encoder)
            budgets.add((args.optimization_method, args.query_budget))
    assert encoded == {None, Path("runs/Brain_Tumor_64/autoencoder_192/best.pth.tar")}
    assert budgets == {("FO", None), ("ZO", 2_000 * 2_284)}


@pytest.mark.parametrize(
    ("model", "before", "file"),
    [
        ("f", "export f", "checkpoints/small/f.pth.tar"),
        ("other", "other", "runs/small/other/best.pth.tar"),
    ],
)
def test_a_model_as_an_onnx_file(model, before, file):
    """It is written once, from what the others are given, before whatever takes it."""
    grid = copy.deepcopy(GRID)
    grid["models"]["d_{sigma}"]["uses"]["classifier"] = f"{model}.onnx"
    grid["tables"]["two"]["rows"]["more"]["uses"]["classifier"] = f"{model}.onnx"
    found = jobs(grid)
    (written,) = (job for job in found if job.name == f"export {model}.onnx")
    assert written.needs == (before,)
    assert written.command == ("export_model.py", "--model", file, "--outfile", f"runs/small/{model}.onnx")
    takers = [job for job in found if f"runs/small/{model}.onnx" in job.command[:-1]]
    assert {job.name for job in takers} == {"d_0.25", "d_0.5", "certify two more 0.5"}
    assert all(written.name in job.needs and found.index(written) < found.index(job) for job in takers)
    with pytest.raises(ValueError, match="model nothing: not among"):
        jobs(GRID | {"evaluations": {"clean": {"uses": {"classifier": "nothing.onnx"}}}})


def test_commands():
    found = {job.name: job for job in jobs(GRID, "RAW")}
    assert found["data there"].command == (
        "prepare_data.py",
        *("--dataset", "Phantom_MRI", "--data_dir", "elsewhere", "--source", "RAW", "--protocol", "official"),
    )
    step = found["d_0.5"]
    assert step.needs == ("data here", "export f", "export f", "other")
    text = " ".join(step.command)
    assert "--classifier checkpoints/small/f.pth.tar" in text
    assert "--surrogates checkpoints/small/f.pth.tar runs/small/other/best.pth.tar --noise_sd 0.5" in text
    assert "d_{sigma}" not in found
    assert "--data_dir elsewhere --classifier runs/small/other" in " ".join(found["evaluate clean"].command)
    certified = [name for name in found if name.startswith("certify")]
    assert certified.pop() == "certify two more 0.5"
    assert certified == ["certify one alone 0.5", "certify one with 0.25", "certify one with 0.5"]
    assert found["table two"].needs == (*certified[1:], "certify two more 0.5")
    assert "again=results/small/one/with_sigma_0.25.tsv" in found["table two"].command
    assert "--sigma 0.5 --alpha 0.01 --N 100" in " ".join(found["certify one with 0.5"].command)
    assert "--sigma 0.25 --N 100" in " ".join(found["certify one with 0.25"].command)
    assert found["table one"].needs == tuple(certified)
    assert found["table one"].command[2:5] == tuple(
        f"{name}=results/small/one/{file}"
        for name, file in (
            ("alone", "alone_sigma_0.5.tsv"),
            ("with", "with_sigma_0.25.tsv"),
            ("with", "with_sigma_0.5.tsv"),
        )
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tabels": {}}, "tabels"),
        ({"evaluations": {"clean": {"uses": {"classifier": "g"}}}}, "model g"),
        ({"evaluations": {"clean": {"data": "nowhere", "uses": {}}}}, "data nowhere"),
        ({"tables": {"one": {"flags": "", "radii": 0, "rows": {"a": {"of": "none", "file": "a"}}}}}, "table none"),
    ],
)
def test_what_is_not_known(change, said):
    with pytest.raises(ValueError, match=said):
        jobs(GRID | change)


def test_a_small_grid_from_nothing_to_its_table(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    grid = {
        "name": "tiny",
        "dataset": "Phantom_MRI",
        "sigmas": [0.25],
        "data": {"phantoms": {"data_dir": "data", "flags": "--subjects 60 --phantom_size 32"}},
        "models": {
            "f": {
                "script": "train_classifier.py",
                "export": True,
                "flags": "--arch regnet_y_400mf --image_size 32 --epochs 1",
            }
        },
        "tables": {
            "only": {
                "folder": ".",
                "flags": "--N 100 --max 2",
                "radii": 0,
                "rows": {"alone": {"file": "alone", "uses": {"classifier": "f"}}},
            }
        },
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(grid))
    run_script("reproduce", "tiny.yaml", "--dry_run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]
    run_script("reproduce", "tiny.yaml")
    table = Path("results/tiny/certified_accuracy.csv").read_text()
    assert table.splitlines()[1].startswith("alone,0.25,0")
    run_script("reproduce", "tiny.yaml", "--only", "table")
    fails(1, ("--only nothing", "certify only alone 0.25"), "reproduce", "tiny.yaml", "--only", "nothing")
    fails(1, ("missing.yaml",), "reproduce", "missing.yaml")
    Path("bad.yaml").write_text("name: x\n")
    fails(1, ("bad.yaml", "dataset"), "reproduce", "bad.yaml")
    shutil.rmtree("data")
    fails(1, ("certify only alone 0.25", "exit code"), "reproduce", "tiny.yaml", "--only", "certify")


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="snakemake is not installed")
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_snakemake_plans_every_job(path, tmp_path):
    done = subprocess.run(
        [
            "snakemake",
            *("--dry-run", "--cores", "1", "--directory", tmp_path, "--configfile", path, "--config", "source=DIR"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,  # it finds workflow/Snakefile there
    )
    assert done.returncode == 0, done.stderr
    count = len(jobs(yaml.safe_load(path.read_text())))
    assert f"total {count + 1}" in " ".join((done.stdout + done.stderr).split())
