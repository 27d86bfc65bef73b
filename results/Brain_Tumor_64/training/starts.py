"""Where training starts: accuracy under noise 0.25 on the validation split, as main_ds.py measures it after each epoch
(logs/*.txt), of the MSE denoiser alone and with each autoencoder behind it, before anything is trained end to end.

PYTHONPATH=. python results/Brain_Tumor_64/training/starts.py results/Brain_Tumor_64/training/starts.json
"""

import sys
from pathlib import Path

import torch

from common import files
from datasets import get_dataset, get_loader
from models import autocast, frozen, hardware, load_classifier, load_front, prepare
from training.validation import accuracy

OWN, RUNS = Path("checkpoints/Brain_Tumor_64"), Path("runs/Brain_Tumor_64")
classifier = frozen(load_classifier(OWN / "classifier.pth.tar", "cpu")[0])
loader = get_loader(get_dataset("Brain_Tumor", "val", 64), 32)
found: dict[str, object] = {"hardware": hardware("cpu"), "torch": torch.__version__}
for latent in (None, 192, 384, 576, 1152):
    encoder = None if latent is None else RUNS / f"autoencoder_{latent}" / "best.pth.tar"
    front = frozen(prepare(load_front(3, 64, "cpu", OWN / "mse.pth.tar", encoder)[0], "cpu"))
    with torch.inference_mode(), autocast("cpu", True):
        name = "mse" if latent is None else f"mse, autoencoder_{latent}"
        found[name] = accuracy(
            lambda x, sd: classifier(front(x, sd)),  # noqa: B023 - called within this turn only
            loader,
            torch.device("cpu"),
            (0.25, 0.25),
            classifier,
        )
    print(name, found[name], flush=True)
files.write_json(Path(sys.argv[1]), found)
