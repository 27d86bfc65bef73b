"""The answers to single image files as text: a table, and the statement that they prove."""

from __future__ import annotations

from tabulate import tabulate

from common.lines import shown
from core import ABSTAIN
from evaluation.certificates import DECIDED


def answers_table(answers: list[dict]) -> str:
    """The answers for the screen, without votes. The radii on grey images are left out if no image is grey, warnings if
    there is none."""
    left_out = {"done", "grey_as_rgb", "votes"}
    if not any(answer["grey_as_rgb"] for answer in answers):
        left_out |= {"radius_grey", "group_radius_grey"}
    if not any(answer["warning"] for answer in answers):
        left_out.add("warning")
    columns = [name for name in answers[0] if name not in left_out]
    rows = [["ABSTAIN" if answer[name] == ABSTAIN else _shown(answer[name]) for name in columns] for answer in answers]
    return tabulate(rows, columns, disable_numparse=True)


def done_text(answers: list[dict]) -> str:
    """What was done to each file to make it square and 8-bit, a line for each way."""
    files: dict[str, dict[str, None]] = {}
    for answer in answers:
        files.setdefault(answer["done"], {})[answer["file"]] = None
    lines = []
    for done, of in files.items():
        named, more = list(of)[:2], len(of) - 2
        lines.append(f"{', '.join(map(shown, named))}{f' and {more} more' if more > 0 else ''}: {done}")
    return "\n".join(["what was done to the files to make them what is certified:", *(f"  {line}" for line in lines)])


def _shown(value: object) -> object:
    return shown(value) if isinstance(value, str) else value


def what_is_proved(settings: dict, has_groups: bool) -> str:
    """The statement that the answers of --predict prove, and their seed."""
    seed, alpha = settings["seed"], settings["alpha"]
    known = (
        f"The seed was secret until now: {seed}. If you repeat the command until you like the answer, these "
        "probabilities no longer hold."
        if settings["secret_seed"]
        else f"They hold for images that were fixed before --seed {seed} was known."
    )
    both = f" (class and group together {1 - 2 * alpha:g})" if has_groups else ""
    decided = f" Disease or health is decided {DECIDED[settings['group_rule']]}." if has_groups else ""
    return (
        f"L2 radii on the [0, 1] scale, of the smoothed classifier, with probability {1 - alpha:g} per image{both}, at "
        f"its input size after resizing ({settings['image_size']} px) and rounding to 8 bits, for this pipeline on "
        "this kind of hardware; "
        f"…_grey: on the grey image behind three equal channels.{decided} {known} Research only, not a medical device."
    )
