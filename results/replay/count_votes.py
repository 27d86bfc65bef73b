"""Count the votes of the committed Brain Tumor pipelines, 2,000 draws on every sixth test image, for the stopping rules
to be replayed on (benchmarks/stopping_rules.py).

    python results/replay/count_votes.py --data_dir Dataset

Writes results/replay/votes/<denoiser>_<sigma>.tsv, `idx label` and a column of votes per class, and its settings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from attacks.folder import open_split  # noqa: E402
from common import files  # noqa: E402
from models import hardware, load_pipeline, resolve_amp, select_device  # noqa: E402
from smoothing.engine import count_votes  # noqa: E402
from smoothing.noise import Noise  # noqa: E402

CHECKPOINTS = ROOT / "checkpoints" / "Brain_Tumor_64"
PIPELINES = [
    *(("stability", sigma, f"stability_{sigma}.pth.tar") for sigma in (0.25, 0.5, 1.0)),
    *(("mse", sigma, "mse.pth.tar") for sigma in (0.25, 0.5, 1.0)),
    *(("classifier", sigma, None) for sigma in (0.25, 0.5, 1.0)),
    ("consistency", 0.25, "consistency_0.25.pth.tar"),
]
DRAWS, EVERY, SEED, BATCH = 2000, 6, 0, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("Dataset"), help="where Brain_Tumor is prepared")
    args = parser.parse_args()
    device = select_device("auto")
    amp = resolve_amp(None, device)
    for name, sigma, denoiser in PIPELINES:
        outfile = ROOT / "results" / "replay" / "votes" / f"{name}_{sigma:g}.tsv"
        if outfile.exists():
            continue
        classifier = CHECKPOINTS / "classifier.pth.tar"
        pipeline = load_pipeline(classifier, CHECKPOINTS / denoiser if denoiser else None, device)
        base = pipeline.at(sigma, amp)
        described = argparse.Namespace(
            dataset="Brain_Tumor", data_dir=args.data_dir, protocol=None, classifier=classifier
        )
        data = open_split(described, pipeline, "test")
        lines = ["\t".join(["idx", "label", *(f"votes_{c}" for c in range(pipeline.num_classes))])]
        for i in tqdm(range(0, len(data), EVERY), desc=f"{name} {sigma:g}"):
            noise = Noise(data[i][0].to(device), sigma, SEED, i, "exact")
            votes = sum(
                count_votes(base, noise.noisy(first, min(BATCH, DRAWS - first)), pipeline.num_classes)[0]
                for first in range(0, DRAWS, BATCH)
            )
            lines.append("\t".join(map(str, [i, int(data.labels[i]), *votes])))
        groups = [list(members) for members in data.info.groups.values()]
        settings = {"pipeline": name, "sigma": sigma, "groups": groups, "draws": DRAWS, "skip": EVERY, "seed": SEED}
        settings |= {"amp": amp, "hardware": hardware(device), "torch": torch.__version__}
        files.write_json(files.settings_path(outfile), settings)
        files.write_text(outfile, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
