"""results/data: its scripts go through from an empty folder, and its chart hides nothing."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1] / "results" / "data"
PYTHON = """#!/bin/sh
# Stands for every script: writes what the next one reads.
while [ $# -gt 0 ]; do
    case $1 in
        --dataset) name=$2 ;;
        --data_dir) mkdir -p "$2/$name"; echo made >"$2/$name/manifest.csv"; echo made >"$2/$name/audit.csv" ;;
        --outfile) echo made >"$2" ;;
    esac
    shift
done
"""


def test_reproduce(tmp_path):
    (tmp_path / "results" / "data").mkdir(parents=True)
    shutil.copy(HERE / "reproduce.sh", tmp_path / "results" / "data")
    for folder in (".venv/bin", "brain", "cells"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text(PYTHON)
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    script = tmp_path / "results" / "data" / "reproduce.sh"
    subprocess.run(["bash", script, tmp_path / "brain", tmp_path / "cells"], check=True, timeout=60)
    made = {path.name for path in script.parent.iterdir()}
    assert {"Brain_Tumor_audit.csv", "SIPADMEK_audit.csv", "SIPADMEK_leaky_2.json"} < made


@pytest.mark.parametrize(("accuracy", "lowest"), [(0.9, 70), (0.52, 50)])
def test_no_bar_is_below_the_chart(tmp_path, accuracy, lowest):
    from matplotlib import pyplot as plt

    for name in ("summary.py", "Brain_Tumor_audit.csv", "SIPADMEK_audit.csv"):
        shutil.copy(HERE / name, tmp_path)
    for name in ("Brain_Tumor", "SIPADMEK"):
        for split in ("leaky", "clean"):
            for seed in range(3):
                report = {"accuracy": accuracy + 0.001 * seed}
                (tmp_path / f"{name}_{split}_{seed}.json").write_text(json.dumps(report))
    runpy.run_path(str(tmp_path / "summary.py"))
    axis = plt.gcf().axes[0]
    assert axis.get_ylim() == (lowest, 100)
    assert all(bar.get_height() > lowest for bar in axis.patches)
    plt.close("all")
    assert (tmp_path / "data.png").is_file()
