"""The images that both tables hold, certified by a fixed n = 1,000 and by as many draws as the radii need: certified
accuracy and abstentions; of all images of the sequential table the draws, and how often the runner-up bound was used.

PYTHONPATH=. python results/Brain_Tumor_64/both_rules.py results/Brain_Tumor_64/both_rules.json
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from common import files
from evaluation.certificates import abstention_rate, certified_accuracy

HERE = Path(__file__).parent
result: dict[str, dict[str, object]] = {}
for path in sorted(HERE.glob("*_sigma_*.tsv")):
    sequential = HERE / "sequential" / path.name
    files_of = {"fixed": path, "sequential": sequential}
    tables = {rule: np.asarray(pd.read_csv(file, sep="\t").to_records(index=False)) for rule, file in files_of.items()}
    common = set(tables["fixed"]["idx"]) & set(tables["sequential"]["idx"])
    asked = max(files.read_json(files.settings_path(sequential))["radii"])
    result[path.stem] = {"images": len(common)}
    for rule, rows in tables.items():
        rows = rows[np.isin(rows["idx"], list(common))]
        certified = {f"r = {r}": certified_accuracy(rows, r) for r in (0.0, 0.25, 0.5, 0.75, 1.0) if r <= asked}
        result[path.stem][rule] = {"certified": certified, "abstained": abstention_rate(rows)}
    drawn, bound = tables["sequential"]["draws"], tables["sequential"]["bound"]
    result[path.stem] |= {
        "draws, mean": float(drawn.mean()),
        "draws, median": float(np.median(drawn)),
        "took all draws": float((drawn == drawn.max()).mean()),
        "runner-up bound": float((bound == "runner_up").mean()),
    }
files.write_json(sys.argv[1], result)
for name, found in result.items():
    print(name, found)
