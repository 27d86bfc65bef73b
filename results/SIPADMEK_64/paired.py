"""What end-to-end training adds to the MSE denoiser on the same test cells: at each σ and radius the difference in
certified accuracy, the cells certified by one of the two alone, and McNemar's exact p for that.

PYTHONPATH=. python results/SIPADMEK_64/paired.py results/SIPADMEK_64/paired.csv
"""

import csv
import itertools
import sys
from pathlib import Path

from evaluation.certificates import paired, read_rows

HERE = Path(__file__).parent
RADII = (0, 0.25, 0.5, 0.75, 1.0)
ASKED = (("0.25", RADII[:3]), ("0.5", RADII), ("1.0", RADII))
found = []
for classes, (sigma, radii) in itertools.product(("five", "three"), ASKED):
    mse, stability = (
        read_rows(HERE / classes / f"{denoiser}_sigma_{sigma}.tsv")[0] for denoiser in ("mse", "stability")
    )
    for r in radii:
        more, fewer, p = paired(mse, stability, r)
        found.append((classes, sigma, r, f"{100 * (more - fewer) / len(mse):+.1f}", more, fewer, f"{p:.4f}"))
with Path(sys.argv[1]).open("w", newline="") as stream:
    csv.writer(stream).writerows([("classes", "sigma", "r", "points", "more", "fewer", "p"), *found])
for row in found:
    print(*row)
