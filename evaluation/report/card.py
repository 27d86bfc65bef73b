"""The model card (Mitchell et al. 2019) of a report, and which items of CLAIM (Mongan, Moy and Kahn 2020) it answers.

The card is plain text and tables; the page and `MODEL_CARD.md` lay out the same card.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from evaluation.certificates import DECIDED
from evaluation.report import story
from evaluation.report.sources import Sources
from evaluation.tables import SCOPE, SYNTHETIC


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, a list, and a table (its header and rows)."""

    title: str
    text: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


# The items in our own words.
CLAIM = {
    1: "Title says that machine learning is used, and which kind",
    2: "Structured summary",
    3: "Clinical and scientific background, intended use",
    4: "Aims and hypotheses",
    5: "Prospective or retrospective",
    6: "Goal of the study",
    7: "Sources of the data",
    8: "Who was included and excluded",
    9: "Preparation of the data",
    10: "Parts of images that were selected",
    11: "Definitions of data elements",
    12: "How the data was made anonymous",
    13: "Missing data",
    14: "Reference standard",
    15: "Why this reference standard",
    16: "Who annotated, with which qualification",
    17: "Tools for annotation",
    18: "Agreement between and within annotators",
    19: "Size of the sample and how it was chosen",
    20: "How images were dealt into training, validation and test",
    21: "On which level these are disjoint",
    22: "The model in detail",
    23: "Software",
    24: "How the parameters were initialized",
    25: "Training in detail",
    26: "How the final model was chosen",
    27: "Ensembles",
    28: "Measures of performance",
    29: "Uncertainty and significance",
    30: "Robustness",
    31: "Explanations",
    32: "External data",
    33: "Flow of participants",
    34: "Demographics of each part",
    35: "Performance on every part of the data",
    36: "Diagnostic accuracy with its precision",
    37: "Analysis of failures",
    38: "Limits",
    39: "What follows for practice",
    40: "Registration",
    41: "Where the protocol is",
    42: "Funding",
}

# What a certificate does not promise, in plain words.
LIMITS = [
    "The radius is an L2 length in the space of pixels, after the image was resized to {size} and rounded to 8 bits. A "
    "rotation, another scanner, another crop or a new contrast is a large change by this measure, and nothing is "
    "promised about it.",
    "Each radius holds with probability {confidence} for its own image. Among a thousand certificates about "
    "{false} may be false.",
    "A certificate says that the answer does not change. It does not say that the answer is right.",
    "The promise is about the vote of many noisy copies ({draws} draws at most). A system that wants it must decide by "
    "that vote. A single pass through the network has no certificate.",
    "Beyond the radius nothing is known. Attacks show what they found; what they did not find may exist.",
    "It holds for this pipeline on this kind of hardware, and for images that were fixed before the noise was drawn.",
    "The intervals are for other images from the same source. Another hospital, another scanner or another population "
    "is another source.",
]


def limits(sources: Sources) -> list[str]:
    """`LIMITS` with the numbers of this report."""
    settings = sources.settings
    alpha = settings.get("alpha")
    return [
        text.format(
            size=f"{settings['image_size']} px" if settings.get("image_size") else "the classifier's input size",
            confidence=f"{1 - alpha:g}" if alpha else "1 − α",
            false=f"{1000 * alpha:g}" if alpha else "1000 α",
            draws=f"{settings['N']:,}" if settings.get("N") else "N",
        )
        for text in LIMITS
    ]


def card(sources: Sources) -> list[Section]:
    """The sections of the model card."""
    facts = story.data(sources)
    return [
        _use(sources, facts),
        _networks(sources),
        _images(facts),
        _metrics(sources),
        _subgroups(sources),
        _failures(sources),
        Section("Limits", items=limits(sources)),
        _claim(sources, facts),
    ]


def _use(sources: Sources, facts: dict) -> Section:
    stamp = f"{SYNTHETIC}: these images are no patients'. " if sources.main.is_phantom else ""
    return Section(
        "Intended use",
        [
            f"{stamp}Research only. This is not a medical device, and nothing here may inform the care of a patient.",
            f"{sources.main.name} answers which of {len(sources.classes)} classes an image of {facts['title']} shows, "
            "by the vote of the classifier over noisy copies of the image, and proves a radius within which no change "
            "of the image alters the answer.",
        ],
    )


def _networks(sources: Sources) -> Section:
    s = sources.settings
    known = {
        "σ of the noise": f"{sources.main.sigma:g}",
        "draws for the choice of the class, n0": s.get("N0"),
        "draws at most, n": s.get("N"),
        "α per image": s.get("alpha"),
        "input size": f"{s['image_size']} px, {s['channels']} channel(s)" if s.get("image_size") else None,
        "classifier": s.get("classifier"),
        "classifier, SHA-256": s.get("classifier_sha256"),
        "denoiser": s.get("denoiser"),
        "denoiser, SHA-256": s.get("denoiser_sha256"),
        "disease or health": f"decided {DECIDED[sources.main.group_rule]}" if s else None,
        "noise": f"{s['noise']}, version {s.get('noise_version', 1)}" if s.get("noise") else None,
        "stopping rule": f"{s['method']}, version {s.get('rule_version', 1)}" if s.get("method") else None,
        "seed": s.get("seed"),
        "hardware": s.get("hardware"),
    }
    rows = [[name, str(value)] for name, value in known.items() if value is not None]
    return Section("Pipeline", header=["what", "value"], rows=rows)


def _images(facts: dict) -> Section:
    text = [f"{facts['title']}. {facts['citation']}".strip()]
    text += [f"Licence: {facts['licence']}."] if facts["licence"] else []
    if facts["digest"]:
        text.append(f"Data hash (SHA-256 of the manifest, which covers every pixel and split): {facts['digest']}.")
    if facts["protocol"]:
        text.append(
            f"Split: {facts['protocol']}. Images of one group ({facts['group_by'] or 'copies of one picture'}) are "
            "never in two splits."
        )
    header = ["class", "training", "validation", "test", "certified here"]
    certified = dict(facts["certified"])
    rows = [[name, *map(str, own), str(certified[name])] for name, own in facts["counts"].items()]
    if not rows:
        header, rows = ["class", "certified here"], [[name, str(count)] for name, count in facts["certified"]]
    found = [f"{row['check']}: {row['words']}; {row['done'] or 'nothing was done'}" for row in facts["findings"]]
    return Section("Data", text, found, header, rows)


def _metrics(sources: Sources) -> Section:
    main = sources.main
    rows = []
    for name, rate in (("certified accuracy", None), ("certified sensitivity", "sensitivity")):
        for radius in sources.radii:
            found = story.clinical_share(main, rate, radius) if rate else story.certified_share(main, radius)
            if found:
                rows.append([name, f"{radius:g}", percent(found), f"{found.hits} of {found.count}"])
    for radius in sources.radii:
        if found := story.clinical_share(main, "specificity", radius):
            rows.append(["certified specificity", f"{radius:g}", percent(found), f"{found.hits} of {found.count}"])
    for report in story.clean(sources):
        own = report["report"]
        low, high = own["accuracy_interval"]
        value = f"{100 * own['accuracy']:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
        rows.append([f"accuracy: {report['title']} [{report['split']}]", "", value, f"of {own['images']}"])
    text = ["In percent of the images, with 95% intervals over the draw of images (Clopper–Pearson).", SCOPE]
    return Section("Performance", text, header=["metric", "L2 radius", "value", "images"], rows=rows)


def percent(found: story.Share | None) -> str:
    """`76.8% (71.8 to 81.2)`; of a lower bound `at least 76.8% (71.8 to …)`."""
    if found is None:
        return "–"
    high = "…" if found.high is None else f"{100 * found.high:.1f}"
    return f"{'at least ' * found.at_least}{100 * found.value:.1f}% ({100 * found.low:.1f} to {high})"


def _subgroups(sources: Sources) -> Section:
    rows = [
        [part["kind"], part["name"], str(part["images"]), percent(part["answered"]), percent(part["certified"])]
        for part in story.subgroups(sources)
    ]
    at = f"{sources.radius:g}"
    return Section("Subgroups", header=["by", "subgroup", "images", "right at r = 0", f"right at r = {at}"], rows=rows)


def _failures(sources: Sources) -> Section:
    found, at = story.failures(sources), f"r = {sources.radius:g}"
    text = [f"{found['count']} images are certified at {at} with a wrong class."]
    if sources.diseased:
        text.append(
            f"{found['hidden']} images with disease are certified at {at} as healthy: the worst kind of failure."
        )
    rows = [[f"image {one['idx']}", one["was"], one["answer"], f"{one['radius']:.3f}"] for one in found["wrong"]]
    return Section("Failures", text, header=["image", "is", "answered", "radius"] if rows else [], rows=rows)


def _claim(sources: Sources, facts: dict) -> Section:
    """Which items of CLAIM this report answers, and which its author must."""
    told = claim_answers(sources, facts)
    rows = [
        [str(number), topic, "answered" if number in told else "not answered", told.get(number, "for the author")]
        for number, topic in CLAIM.items()
    ]
    text = [
        f"{len(told)} of {len(CLAIM)} items of the Checklist for Artificial Intelligence in Medical Imaging (CLAIM, "
        "Mongan et al. 2020) are answered by this report. The others cannot be known from these files."
    ]
    return Section("CLAIM", text, header=["item", "about", "", "where"], rows=rows)


def claim_answers(sources: Sources, facts: dict) -> dict[int, str]:
    """Item of CLAIM → where this report answers it, as far as the files that it was made of do."""
    s = sources.settings
    told = {28: "Performance", 29: "95% intervals; McNemar's test for pairs", 30: "Certified accuracy", 38: "Limits"}
    told |= {36: "Performance", 37: "Failures; every image"}
    if facts["citation"]:
        told[7] = "Data"
    if s.get("image_size"):
        told[9] = f"Resized to {s['image_size']} px, 8 bits, values in [0, 1]"
    if facts["counts"]:
        told[20] = f"Data: protocol {facts['protocol']}, seed {facts['seed']}"
        told[21] = "Data: groups of " + (facts["group_by"] or "copies of one picture")
    if sources.audit:
        told[8] = "Data: what the audit left out"
        told[13] = "Data: unreadable files"
    if s.get("classifier_sha256"):
        told[22] = "Pipeline: networks by digest; code in this repository"
    if s.get("torch"):
        told[23] = f"torch {s['torch']}, {s.get('hardware', '')}"
    if sources.logs:
        told[25] = "Training logs"
        told[26] = "Best epoch on the validation split"
    if any(report["split"] != "test" for report in story.clean(sources)):
        told[35] = "On clean images, by split"
    return dict(sorted(told.items()))
