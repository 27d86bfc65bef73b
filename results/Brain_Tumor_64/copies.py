"""What copies do to the numbers of the test split: accuracy by where else a picture lies, and every certified accuracy
with each picture counted once (its first copy; pictures are the same if their decoded pixels are).

PYTHONPATH=. python results/Brain_Tumor_64/copies.py checkpoints/Brain_Tumor_64/classifier.pth.tar \\
    results/Brain_Tumor_64/copies.json
"""

import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch

from common import files
from datasets import get_dataset
from evaluation.certificates import clopper_pearson, wanted_indices
from models import load_pipeline

HERE = Path(__file__).parent
data = get_dataset("Brain_Tumor", "test")
classify = load_pipeline(Path(sys.argv[1]), None).at(0)
with torch.inference_mode():
    images = torch.stack([data[i][0] for i in range(len(data))])
    right = torch.cat([classify(part).argmax(dim=1) for part in images.split(64)]) == data.labels

folders = defaultdict(set)  # picture → the published folders it lies in
for row in data.manifest.rows:
    folders[row["sha256"]].add(row["path"].partition("/")[0])
table = pd.DataFrame(data.rows)
table["right"] = right.numpy()
table["own"] = table["path"].str.partition("/")[0]
table["elsewhere"] = [len(folders[sha]) > 1 for sha in table["sha256"]]
table["first"] = ~table.duplicated("sha256")


def share(values: pd.Series) -> dict:
    low, high = clopper_pearson(int(values.sum()), len(values))
    return {"images": len(values), "share": float(values.mean()), "low": low, "high": high}


result = {"clean": share(table["right"]), "clean, each picture once": share(table["right"][table["first"]])}
for (own, elsewhere), part in table.groupby(["own", "elsewhere"]):
    name = f"clean, from {own}, " + ("also in the other folder" if elsewhere else "only there")
    result[name] = share(part["right"])
for tsv in sorted(HERE.glob("*_sigma_*.tsv")) + sorted(HERE.glob("sequential/*_sigma_*.tsv")):
    rows = pd.read_csv(tsv, sep="\t")
    settings = files.read_json(files.settings_path(tsv))
    if set(wanted_indices(settings)) - set(rows["idx"]):
        continue  # unfinished
    once = rows[table.loc[rows["idx"], "sha256"].duplicated().to_numpy() == 0]
    result[str(tsv.relative_to(HERE).with_suffix(""))] = {
        f"r = {r}": share((once["correct"] == 1) & (once["radius"] >= r))
        for r in (0.0, 0.25, 0.5, 0.75, 1.0)
        if r <= max(settings.get("radii", [1.0]))
    }
files.write_json(sys.argv[2], result)
for name, found in result.items():
    print(name, found if "share" in found else [f"{100 * each['share']:.1f}" for each in found.values()])
