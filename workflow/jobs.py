"""The commands behind a table of results, from a YAML file in `configs/`: scripts, their flags, and their order.

    name: Brain_Tumor_64                     runs/<name>/<model>, checkpoints/<name>/<model>.pth.tar, results/<name>
    dataset: Brain_Tumor
    sigmas: [0.25, 0.5]                      whatever has {sigma} in its name exists once for each
    data:                                    how it is prepared; the first is what models are trained on by default
      stratified: {flags: --protocol stratified, data_dir: Dataset}
    models:
      classifier: {script: train_classifier.py, flags: --epochs 50, export: true}
      mse: {script: ds_main.py, flags: --noise_sd 0.2 1.1}
      "stability_{sigma}": {script: main_ds.py, flags: "--noise_sd {sigma}",
                            uses: {classifier: classifier, pretrained_denoiser: mse}}
    evaluations:
      clean: {uses: {classifier: classifier}}                          results/<name>/clean.json
    tables:
      fixed:                                                           results/<name>/fixed/
        flags: --N 1000 --no-sequential
        radii: 0 0.25 0.5
        rows:
          + stability: {file: stability, uses: {classifier: classifier, denoiser: "stability_{sigma}"}}

`uses` maps the flags of a script to models. Optional keys are `data`, `sigmas`, for an evaluation `script`
(default: evaluate.py) and, for a table, `folder` (`.`: results/<name>) and `flags_at`, more flags for some sigma
(`{0.25: --N 10000}`). A row with `of` is a row of an earlier table. A model with `export` is used as `export_model.py`
writes it. `classifier.onnx` stands for the model `classifier` as an ONNX file, runs/<name>/classifier.onnx.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

TOP = {"name", "dataset", "sigmas", "data", "models", "evaluations", "tables"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A command line (after `python`) and the names of the jobs that must have ended before it. A job that was
    interrupted resumes, or takes seconds."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()


def jobs(grid: dict[str, Any], source: str | None = None) -> list[Job]:
    """All jobs of a grid (above), each after what it needs. `source` is where the raw images lie.

    Raises ValueError for a key, a model or a kind of data that is not known.
    """
    if unknown := set(grid) - TOP:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}; known are {', '.join(sorted(TOP))}")
    return _Grid(grid, source).jobs()


class _Grid:
    def __init__(self, grid: dict[str, Any], source: str | None) -> None:
        self.name, self.dataset, self.data = grid["name"], grid["dataset"], grid["data"]
        self.sigmas, self.source = grid.get("sigmas", []), source
        self.tables, self.evaluations = grid.get("tables", {}), grid.get("evaluations", {})
        self.models = {name: spec for raw in grid["models"].items() for name, spec, _ in self._for_each_sigma(*raw)}
        self.results = Path("results") / self.name
        self.onnx: set[str] = set()  # the models that some script takes as an ONNX file

    def jobs(self) -> list[Job]:
        found = [self._prepared(name, spec) for name, spec in self.data.items()]
        for name, spec in self.models.items():
            flags = shlex.split(spec.get("flags", ""))
            outdir = f"runs/{self.name}/{name}"
            found.append(self._job_of(spec, name, spec["script"], *flags, "--outdir", outdir, "--resume"))
            if spec.get("export"):
                files = ("--model", f"{outdir}/best.pth.tar", "--outfile", self._checkpoint(name))
                found.append(Job(f"export {name}", ("export_model.py", *files), (name,)))
        for name, spec in self.evaluations.items():
            script, flags = spec.get("script", "evaluate.py"), shlex.split(spec.get("flags", ""))
            outfile = str(self.results / f"{name}.json")
            found.append(self._job_of(spec, f"evaluate {name}", script, *flags, "--outfile", outfile))
        for name, table in self.tables.items():
            found += self._table(name, table)
        return [each for job in found for each in (job, *self._as_onnx(job))]

    def _job_of(self, spec: dict[str, Any], name: str, script: str, *flags: str) -> Job:
        """The job `name` that runs `script` on the data and the models of `spec`, with more `flags`."""
        where, data = self._data(spec)
        given, needs = self._given(spec)
        return Job(name, (script, "--dataset", self.dataset, *where, *given, *flags), (data, *needs))

    def _as_onnx(self, job: Job) -> list[Job]:
        """The job that writes a model's ONNX file, right after the one that ends it, where a script is given that."""
        name = job.name.removeprefix("export ")
        if name not in self.onnx or job.name != self._job(name):
            return []
        path = f"runs/{self.name}/{name}.onnx"
        command = ("export_model.py", "--model", self._checkpoint(name), "--outfile", path)
        return [Job(self._job(f"{name}.onnx"), command, (job.name,))]

    def _job(self, name: str) -> str:
        """The job that writes a model's file."""
        return f"export {name}" if name.endswith(".onnx") or self.models[name].get("export") else name

    def _prepared(self, name: str, spec: dict[str, Any]) -> Job:
        raw = ["--source", self.source] if self.source else []
        command = ["prepare_data.py", "--dataset", self.dataset, "--data_dir", spec["data_dir"], *raw]
        return Job(f"data {name}", (*command, *shlex.split(spec.get("flags", ""))))

    def _table(self, name: str, table: dict[str, Any]) -> list[Job]:
        """Certificates, one job for each row and sigma, and the table of them."""
        found: list[Job] = []
        tsvs, certified = [], []
        for title, row in table["rows"].items():
            for _, spec, sigma in self._for_each_sigma("{sigma}", row):
                of = spec.get("of", name)
                tsv = f"{self._folder(of)}/{spec['file']}_sigma_{sigma}.tsv"
                tsvs.append(f"{title}={tsv}")
                certified.append(f"certify {of} {spec['file']} {sigma}")
                if of != name:
                    continue
                at_sigma = table.get("flags_at", {}).get(sigma, "")
                flags = ["--sigma", str(sigma), *shlex.split(f"{at_sigma} {table['flags']} {spec.get('flags', '')}")]
                found.append(self._job_of(spec, certified[-1], "AE_DS_verify.py", *flags, "--outfile", tsv))
        radii, outdir = str(table["radii"]).split(), str(self._folder(name))
        command = ("make_tables.py", "--add", *tsvs, "--radii", *radii, "--outdir", outdir)
        return [*found, Job(f"table {name}", command, tuple(certified))]

    def _folder(self, table: str) -> Path:
        if table not in self.tables:
            raise ValueError(f"table {table}: not among {', '.join(self.tables)}")
        return self.results / self.tables[table].get("folder", table)

    def _for_each_sigma(self, name: str, spec: dict[str, Any]) -> list[tuple[str, dict[str, Any], Any]]:
        """(name, spec, sigma) with {sigma} filled in, once for each if the name has it."""
        if "{sigma}" not in name:
            return [(name, spec, None)]
        return [(_fill(name, each), _fill(spec, each), each) for each in spec.get("sigmas", self.sigmas)]

    def _data(self, spec: dict[str, Any]) -> tuple[list[str], str]:
        """(flags, the job that prepares it)"""
        name = spec.get("data", next(iter(self.data)))
        if name not in self.data:
            raise ValueError(f"data {name}: not among {', '.join(self.data)}")
        return ["--data_dir", self.data[name]["data_dir"]], f"data {name}"

    def _given(self, spec: dict[str, Any]) -> tuple[list[str], list[str]]:
        """(flags that name the models' files, the jobs that write them)"""
        given: list[str] = []
        needs: list[str] = []
        for flag, used in spec.get("uses", {}).items():
            names = used if isinstance(used, list) else [used]
            models = [name.removesuffix(".onnx") for name in names]
            if unknown := [name for name in models if name not in self.models]:
                raise ValueError(f"model {unknown[0]}: not among {', '.join(self.models)}")
            self.onnx |= {model for model, name in zip(models, names, strict=True) if model != name}
            given += [f"--{flag}", *map(self._checkpoint, names)]
            needs += map(self._job, names)
        return given, needs

    def _checkpoint(self, name: str) -> str:
        if name.endswith(".onnx"):
            return f"runs/{self.name}/{name}"
        exported = self.models[name].get("export")
        return f"checkpoints/{self.name}/{name}.pth.tar" if exported else f"runs/{self.name}/{name}/best.pth.tar"


def _fill(value: Any, sigma: Any) -> Any:
    """`value` with every {sigma} in its texts filled in."""
    if isinstance(value, dict):
        return {key: _fill(each, sigma) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, sigma) for each in value]
    return value.replace("{sigma}", str(sigma)) if isinstance(value, str) else value
