"""How hard each way of splitting is: how near the images are to training images, and of which class those are.

    PYTHONPATH=. python results/Brain_Tumor_64/nearest.py CLASSIFIER OUTFILE OFFICIAL IDENTICAL

CLASSIFIER is a checkpoint; OFFICIAL and IDENTICAL are data folders prepared under the published protocol, and with only
identical images kept together. Per split: the median Euclidean distance (64 px, grey) to the nearest training image,
the share nearer than 2, and the share whose class it has. Then the classifier's accuracy on the test split of
`stratified`, by the folder that an image came from.
"""

import sys
from pathlib import Path

import torch

from common import files
from datasets import get_dataset
from models import load_pipeline


def load(split: str, folder: str):
    data = get_dataset("Brain_Tumor", split, 64, data_dir=Path(folder))
    return data, torch.stack([data[i][0] for i in range(len(data))])


result = {}
for protocol, folder in (("official", sys.argv[3]), ("identical", sys.argv[4]), ("stratified", "Dataset")):
    train, known = load("train", folder)
    for split in ("val", "test"):
        data, images = load(split, folder)
        distance, nearest = torch.cdist(images[:, 0].flatten(1), known[:, 0].flatten(1)).min(dim=1)
        same = train.labels[nearest] == data.labels
        result[f"{protocol} {split}"] = {
            "images": len(data),
            "median distance": distance.median().item(),
            "nearer than 2": (distance < 2).float().mean().item(),
            "same class": same.float().mean().item(),
        }
classify = load_pipeline(Path(sys.argv[1]), None).at(0)
with torch.inference_mode():
    right = torch.cat([classify(part).argmax(dim=1) for part in images.split(64)]) == data.labels
rows = [row for row in data.manifest.rows if row["split"] == "test" and not row["excluded"]]
for name in ("Training", "Testing"):
    own = torch.tensor([row["path"].startswith(name) for row in rows])
    result[f"accuracy on images from {name}"] = {"images": int(own.sum()), "accuracy": right[own].float().mean().item()}
files.write_json(sys.argv[2], result)
print(result)
