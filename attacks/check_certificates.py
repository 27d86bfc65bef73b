"""Attack certified images within their radii, where nothing may happen, and beyond, where something should.

    python attacks/check_certificates.py --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/stability/best.pth.tar \\
        --certificates runs/Phantom_MRI/certify/stability_sigma_0.25.tsv --outfile runs/Phantom_MRI/check_0.25.tsv

For every certified image of the TSV (AE_DS_verify.py) and every multiple of its radius: PGD in the L2 ball of that size
on the expected loss over noise (Salman et al. 2019), rounded to 8 bits within it where the certificate is for 8-bit
images. Whether the smoothed classifier's answer has changed is decided by PREDICT with fresh noise; an abstention is no
change. The same against the certified group (disease or healthy). Writes one line per attack to --outfile, a summary to
<outfile>.summary.json and, as <outfile>.png, certified accuracy with the accuracy under attack above it. The same
command goes on where it was interrupted. Exit code 1 if more certificates are violated than chance explains.

What chance explains: a certificate is false with probability alpha (of the certificates), and PREDICT errs on an image
with probability --alpha (of the judge). Every change that it finds is therefore judged once more with fresh draws
(columns answer_again and group_answer_again), and counts only if both judgements see it: a false alarm must happen
twice, which --alpha² bounds. What is left is the certificates' own alpha: of 205 certificates at alpha = 0.001 two may
be violated (more are with probability 0.01 at most if all is sound); with one judgement it would be five.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

if __package__ in (None, ""):  # run as a file: the project's root is where its packages lie
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attacks.certified import CertificateAttack, claims_of, differ
from attacks.folder import open_images
from common import cli, files
from evaluation.certificates import ABSTAIN, Certification, load
from evaluation.figures import robustness_png
from evaluation.robustness import Claim, summary
from imaging.catalogue import dataset_name
from models import QueriedClassifier, fingerprint, hardware, select_device
from models.flags import open_pipeline

COLUMNS = (
    "idx",
    "attacked",
    "multiple",
    "eps",
    "l2",
    "answer",
    "group_answer",
    "answer_again",
    "group_answer_again",
    "seconds",
)
KINDS = ("class", "group")  # of claims
NOT_COMPARED = {"skip", "multiples", "certificates", "batch", "command", "hardware", "torch"}


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags(split=False)
    parser.add_argument("--certificates", type=Path, required=True, metavar="TSV", help="what AE_DS_verify.py wrote")
    parser.add_argument("--outfile", type=Path, required=True, metavar="TSV", help="one line per attack")
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="only every SKIP-th line of the certificates")
    parser.add_argument(
        "--multiples",
        type=cli.positive_float,
        nargs="+",
        default=[0.5, 0.9, 1.0, 1.5, 2.0, 3.0],
        metavar="M",
        help="of the certified radius",
    )
    parser.add_argument("--steps", type=cli.positive_int, default=20)
    parser.add_argument("--draws", type=cli.positive_int, default=32, help="draws of noise behind the attacked loss")
    parser.add_argument(
        "--restarts",
        type=cli.positive_int,
        default=1,
        help="the strongest of so many runs; the first starts at the image",
    )
    parser.add_argument("--N", type=cli.positive_int, default=1000, help="draws that judge an attacked image")
    parser.add_argument("--alpha", type=cli.probability, default=0.001, help="level of that judgement")
    parser.add_argument("--batch", type=cli.positive_int, default=64, help="images through the network at once")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    if args.outfile.suffix == ".csv":
        raise ValueError(f"--outfile {args.outfile}: its columns are separated by tabs; name it .tsv")
    args.multiples = list(dict.fromkeys(args.multiples))

    # ---- the certificates, and the pipeline that they are of ----
    certification = load("certified", args.certificates)
    settings, sigma = certification.settings, certification.sigma
    missing = sorted({"dataset", "protocol", "split", "manifest", "amp", "noise", "seed", "alpha"} - set(settings))
    if missing:
        raise ValueError(
            f"{args.certificates}: the settings beside it ({args.certificates.name}.json) do not tell "
            f"{', '.join(missing)}; certify with AE_DS_verify.py"
        )
    for flag in ("dataset", "protocol", "amp"):
        given = getattr(args, flag)
        if given is not None and (dataset_name(given) if flag == "dataset" else given) != settings[flag]:
            raise ValueError(f"--{flag}: the certificates were made with {settings[flag]}, and so are these attacks")
    args.dataset, args.protocol = settings["dataset"], settings["protocol"]
    pipeline = open_pipeline(args, device)
    if isinstance(pipeline.classifier, QueriedClassifier):
        raise ValueError(
            f"--classifier {args.classifier}: gives no gradients, which these attacks need; "
            "attacks/generate.py --target smoothed --attack QEBA does without"
        )
    must_be_certified(args, settings)
    dataset = open_images(args, pipeline, settings["split"])
    if dataset.manifest.digest != settings["manifest"]:
        raise ValueError(f"{dataset.manifest.path}: is not the one whose images were certified")
    rows = certification.rows[:: args.skip]
    groups = dataset.info.groups if "group_radius" in rows.dtype.names else {}

    # ---- attack what is certified ----
    attack = CertificateAttack(
        pipeline,
        settings,
        list(groups.values()),
        device,
        args.steps,
        args.draws,
        args.restarts,
        args.N,
        args.alpha,
        args.seed,
        args.batch,
    )
    table = files.Table(args.outfile, COLUMNS, describe(args, device), NOT_COMPARED)
    lines = table.rows
    done = {(line["idx"], line["attacked"], float(line["multiple"])) for line in lines}
    try:
        for row in tqdm(rows, desc=f"attack sigma {sigma:g}", disable=None, unit="image"):
            index = int(row["idx"])
            claims = claims_of(row, list(groups))
            certified = tuple(next((goal for claim, goal, _ in claims if claim == name), ABSTAIN) for name in KINDS)
            for claim, _, radius in claims:
                missing = [each for each in args.multiples if (str(index), claim, each) not in done]
                if not missing:
                    continue
                image = dataset[dataset.place(index)][0].to(device)
                for found in attack(index, image, certified, claim, radius, missing):
                    line = (
                        index,
                        claim,
                        found.multiple,
                        f"{found.eps:.6f}",
                        f"{found.l2:.6f}",
                        found.answer,
                        found.group_answer,
                        *(found.again or ("", "")),
                        f"{found.seconds:.2f}",
                    )
                    table.append(*line)
                    lines.append(dict(zip(COLUMNS, map(str, line), strict=True)))
    finally:
        table.close(lambda line: (int(line.split("\t")[0]), line.split("\t")[1], float(line.split("\t")[2])))

    # ---- what became of the claims ----
    claims = outcome(certification, rows, lines, list(groups))
    found = [summary(claim, settings["alpha"], args.alpha) for claim in claims]
    files.write_json(Path(f"{args.outfile}.summary.json"), {"settings": describe(args, device), "claims": found})
    longest = max((float(line["l2"]) for line in lines), default=1.0)
    with files.replacing(Path(f"{args.outfile}.png")) as temporary:
        note = "SYNTHETIC phantom data, " if certification.is_phantom else ""
        title = f"{note}σ = {sigma:g}, {len(rows)} images"
        temporary.write_bytes(robustness_png(claims, longest, title, certification.asked))
    print(tabulate(found, headers="keys"))
    print(f"sigma {sigma:g}: {args.outfile}, .summary.json, .png")
    if not all(each["sound"] for each in found):
        raise ValueError(
            "more certificates were violated than chance explains: they are false, or the pipeline is not "
            "the one that was certified"
        )


def must_be_certified(args: argparse.Namespace, settings: dict) -> None:
    """Raises ValueError unless the parts on the command line are those of the certificates."""
    parts = {
        "classifier": args.classifier,
        "denoiser": args.pretrained_denoiser,
        "encoder": args.pretrained_encoder,
        "decoder": args.pretrained_decoder,
    }
    for name, path in parts.items():
        own = None if path is None else fingerprint(path)
        if own != settings.get(f"{name}_sha256"):
            flag = "--classifier" if name == "classifier" else f"--pretrained_{name}"
            raise ValueError(f"{flag} {path}: is not the {name} of {args.certificates}")


def outcome(certification: Certification, rows: np.ndarray, lines: list[dict], groups: list[str]) -> list[Claim]:
    """The claims of `rows` and the shortest perturbation that broke each, whichever of the claims it was made for."""
    found = []
    for name in KINDS if groups else KINDS[:1]:
        prefix = "group_" if name == "group" else ""
        certified = np.array([any(claim == name for claim, *_ in claims_of(row, groups)) for row in rows])
        right = rows["group_predict"] == rows["group_label"] if prefix else rows["correct"]
        broken, suspected = np.full(len(rows), np.inf), np.full(len(rows), np.inf)
        inside = np.zeros(len(rows), dtype=int)
        place = {int(row["idx"]): i for i, row in enumerate(rows)}
        for line in lines:
            i = place.get(int(line["idx"]))
            if i is None or not certified[i]:
                continue
            own = groups.index(rows[i]["group_predict"]) if prefix else int(rows[i]["predict"])
            length = float(line["l2"])
            inside[i] += length <= rows[i][f"{prefix}radius"]
            if differ([int(line[f"{prefix}answer"])], [own]):
                suspected[i] = min(suspected[i], length)
                if differ([int(line[f"{prefix}answer_again"])], [own]):
                    broken[i] = min(broken[i], length)
        found.append(Claim(name, np.asarray(right), certified, rows[f"{prefix}radius"], broken, suspected, inside))
    return found


def describe(args: argparse.Namespace, device: torch.device) -> dict:
    """The settings of the attacks; those of the certificates lie beside their TSV."""
    return {
        "certificates": str(args.certificates),
        "certificates_sha256": files.sha256(args.certificates),
        **{name: getattr(args, name) for name in ("multiples", "steps", "draws", "restarts", "N", "alpha", "seed")},
        **{name: getattr(args, name) for name in ("skip", "batch")},
        "command": shlex.join(["attacks/check_certificates.py", *sys.argv[1:]]),
        "hardware": hardware(device),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    cli.run(get_args_parser, main)
