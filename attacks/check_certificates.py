"""Attack certified images within their radii, where no answer may change, and beyond, where some should.

    python attacks/check_certificates.py --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/stability/best.pth.tar \\
        --certificates runs/Phantom_MRI/certify/stability_sigma_0.25.tsv --outfile runs/Phantom_MRI/check_0.25.tsv

Each certified image of the TSV (AE_DS_verify.py) is attacked at every multiple of its radius: PGD in the L2 ball of
that size on the expected loss over noise (Salman et al. 2019). If the certificate is for 8-bit images, the result is
rounded to 8 bits within the ball. PREDICT with fresh noise decides whether the answer of the smoothed classifier has
changed; an abstention is no change. Certified groups (disease or healthy) are attacked in the same way.

--outfile gets one line per attack, <outfile>.summary.json a summary. <outfile>.png shows certified accuracy and, above
it, accuracy under attack. After an interruption the same command resumes. Exit code 1 if more certificates are violated
than chance explains.

What chance explains: a certificate is false with probability alpha (of the certificates), and PREDICT errs on an image
with probability --alpha (of the judge). Every change is therefore judged a second time with fresh draws (columns
answer_again and group_answer_again), and counts only if both judgements see it. A false alarm must happen twice, which
has probability --alpha² at most. So the alpha of the certificates dominates: of 205 certificates at alpha = 0.001 two
may be violated (if all is sound, more are violated with probability 0.01 at most); with one judgement it would be five.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the project's root is where its packages lie
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.script import start

import argparse
import shlex

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from attacks.certified import Attempt, CertificateAttack
from attacks.folder import open_images
from common import cli, files
from datasets import ImageDataset
from evaluation.certificates import ABSTAIN, Certification, columns_of, load
from evaluation.figures import robustness_png
from evaluation.robustness import Claim, claims_of, outcome, summary
from imaging.catalogue import dataset_name
from models import Pipeline, QueriedClassifier, fingerprint, hardware, select_device
from models.flags import fixed_by, open_pipeline

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
NOT_COMPARED = {"skip", "multiples", "certificates", "batch", "command", "hardware", "torch"}


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags(split=False)
    parser.add_argument(
        "--certificates",
        type=Path,
        required=True,
        metavar="TSV",
        help="TSV of AE_DS_verify.py whose certificates are attacked",
    )
    parser.add_argument("--outfile", type=Path, required=True, metavar="TSV", help="TSV to write, one line per attack")
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="attack only every SKIP-th line of the TSV")
    parser.add_argument(
        "--multiples",
        type=cli.positive_float,
        nargs="+",
        default=[0.5, 0.9, 1.0, 1.5, 2.0, 3.0],
        metavar="M",
        help="sizes of the L2 balls, as multiples of the certified radius",
    )
    parser.add_argument("--steps", type=cli.positive_int, default=20, help="steps of PGD")
    parser.add_argument("--draws", type=cli.positive_int, default=32, help="draws of noise in the attacked loss")
    parser.add_argument(
        "--restarts",
        type=cli.positive_int,
        default=1,
        help="runs of PGD per attack, of which the strongest counts; the first starts at the image",
    )
    parser.add_argument("--N", type=cli.positive_int, default=1000, help="draws that judge an attacked image")
    parser.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability of that judgement")
    parser.add_argument("--batch", type=cli.positive_int, default=64, help="images per forward pass")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    if args.outfile.suffix == ".csv":
        raise ValueError(f"--outfile {args.outfile}: its columns are separated by tabs; name it .tsv")
    args.multiples = list(dict.fromkeys(args.multiples))

    # ---- the certificates, and the pipeline that they certify ----
    certification = load("certified", args.certificates)
    take_settings(args, certification.settings)
    pipeline = open_pipeline(args, device)
    if isinstance(pipeline.classifier, QueriedClassifier):
        raise ValueError(
            f"--classifier {args.classifier}: gives no gradients, which these attacks need; use "
            "attacks/generate.py --target smoothed --attack QEBA, which needs none"
        )
    must_be_certified(args, pipeline, certification.settings)
    dataset = open_images(args, pipeline, certification.settings["split"])
    if dataset.manifest.digest != certification.settings["manifest"]:
        raise ValueError(f"{dataset.manifest.path}: is not the manifest of the certified images")
    rows = certification.rows[:: args.skip]
    groups = dataset.info.groups if "group_radius" in columns_of(rows) else {}

    # ---- attacks and their outcome ----
    attack = CertificateAttack(
        pipeline,
        certification.settings,
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
    lines = attack_all(args, attack, dataset, rows, list(groups))
    claims = outcome(rows, lines, list(groups))
    found = [summary(claim, certification.settings["alpha"], args.alpha) for claim in claims]

    # ---- the report ----
    files.write_json(Path(f"{args.outfile}.summary.json"), {"settings": describe(args, device), "claims": found})
    draw(args, certification, claims, lines)
    print(tabulate(found, headers="keys"))
    print(f"sigma {certification.sigma:g}: {args.outfile}, .summary.json, .png")
    if not all(each["sound"] for each in found):
        raise ValueError(
            "more certificates were violated than chance explains: they are false, or this is not the certified "
            "pipeline"
        )


def take_settings(args: argparse.Namespace, settings: dict) -> None:
    """Set --dataset and --protocol to those of the certificates. Raises ValueError if a flag contradicts them, or if
    they are incomplete."""
    missing = sorted({"dataset", "protocol", "split", "manifest", "amp", "noise", "seed", "alpha"} - set(settings))
    if missing:
        raise ValueError(
            f"{args.certificates}: the settings beside it ({args.certificates.name}.json) do not tell "
            f"{', '.join(missing)}; certify with AE_DS_verify.py"
        )
    for flag in ("dataset", "protocol", "amp"):
        given = getattr(args, flag)
        if given is not None and (dataset_name(given) if flag == "dataset" else given) != settings[flag]:
            raise ValueError(f"--{flag}: the certificates were made with {settings[flag]}; leave the flag out")
    args.dataset, args.protocol = settings["dataset"], settings["protocol"]


def must_be_certified(args: argparse.Namespace, pipeline: Pipeline, settings: dict) -> None:
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
    used = fixed_by(args, pipeline)
    for name in ("classifier_flags", "classifier_weights_sha256"):
        if used.get(name) != settings.get(name):
            raise ValueError(
                f"--classifier {args.classifier}: was used in another way for {args.certificates}: {name} "
                f"{settings.get(name)} (now {used.get(name)})"
            )


def attack_all(
    args: argparse.Namespace, attack: CertificateAttack, dataset: ImageDataset, rows: np.ndarray, groups: list[str]
) -> list[dict[str, str]]:
    """Attack the claims of `rows` at all multiples that --outfile lacks; return all its lines."""
    table = files.Table(args.outfile, COLUMNS, describe(args, attack.device), NOT_COMPARED)
    lines = table.rows
    done = {(line["idx"], line["attacked"], float(line["multiple"])) for line in lines}
    try:
        for row in tqdm(rows, desc=f"attack sigma {attack.settings['sigma']:g}", disable=None, unit="image"):
            index = int(row["idx"])
            claims = claims_of(row, groups)
            goals = {claim: goal for claim, goal, _ in claims}
            certified = (goals.get("class", ABSTAIN), goals.get("group", ABSTAIN))
            for claim, _, radius in claims:
                missing = [each for each in args.multiples if (str(index), claim, each) not in done]
                if not missing:
                    continue
                image = dataset[dataset.place(index)][0].to(attack.device)
                for attempt in attack(index, image, certified, claim, radius, missing):
                    line = line_of(index, claim, attempt)
                    table.append(*line)
                    lines.append(dict(zip(COLUMNS, map(str, line), strict=True)))
    finally:
        table.close(place_of)
    return lines


def line_of(index: int, claim: str, attempt: Attempt) -> tuple[object, ...]:
    """The values of `COLUMNS`."""
    return (
        index,
        claim,
        attempt.multiple,
        f"{attempt.eps:.6f}",
        f"{attempt.l2:.6f}",
        attempt.answer,
        attempt.group_answer,
        *(attempt.again or ("", "")),
        f"{attempt.seconds:.2f}",
    )


def place_of(line: str) -> tuple[int, str, float]:
    """What the lines of --outfile are sorted by."""
    index, claim, multiple, *_ = line.split("\t")
    return int(index), claim, float(multiple)


def draw(args: argparse.Namespace, certification: Certification, claims: list[Claim], lines: list[dict]) -> None:
    """Write the figure <outfile>.png."""
    longest = max((float(line["l2"]) for line in lines), default=1.0)
    note = "SYNTHETIC phantom data, " if certification.is_phantom else ""
    images = len(claims[0].certified)
    title = f"{note}σ = {certification.sigma:g}, {images} images"
    with files.replacing(Path(f"{args.outfile}.png")) as temporary:
        temporary.write_bytes(robustness_png(claims, longest, title, certification.asked))


def describe(args: argparse.Namespace, device: torch.device | str) -> dict:
    """The settings of the attacks; those of the certificates are beside their TSV."""
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
    start(get_args_parser, main)
