"""What each way of training gains over another on the same 327 test images: at σ = 0.25 the difference in certified
accuracy at r = 0.25 and 0.5, the images certified by one of the two alone, and McNemar's exact p for that.

PYTHONPATH=. python results/Brain_Tumor_64/training/paired.py results/Brain_Tumor_64/training/paired.csv
"""

import csv
import sys
from pathlib import Path

from evaluation.certificates import paired, read_rows

HERE = Path(__file__).parent
FILES = {
    path.stem.split("_sigma_")[0]: path
    for folder in ("../sequential", ".")
    for path in sorted((HERE / folder).glob("*_sigma_0.25.tsv"))
}
found = []
for base in ("mse", "fo_ds_stability", "stability", "fo_ae_ds", "zo_ds_pool"):
    for name, path in FILES.items():
        if name == base:
            continue
        before, after = (read_rows(each)[0] for each in (FILES[base], path))
        for r in (0.25, 0.5):
            more, fewer, p = paired(before, after, r)
            found.append((base, name, r, f"{100 * (more - fewer) / len(before):+.1f}", more, fewer, f"{p:.3f}"))
with Path(sys.argv[1]).open("w", newline="") as stream:
    csv.writer(stream).writerows([("against", "row", "r", "points", "more", "fewer", "p"), *found])
for row in found:
    print(*row)
