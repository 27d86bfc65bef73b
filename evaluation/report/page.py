"""From what was read to the page and the model card: templates, style and script of this folder put together into one
file without links to anything outside."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.certificates import ABSTAIN, rms_grey_levels
from evaluation.report import charts, story
from evaluation.report.card import card, limits, percent
from evaluation.report.explorer import STATES, explorer, sampling_note, tiles
from evaluation.report.sources import Sources, has_groups
from evaluation.tables import (
    Table,
    certified_accuracy_records,
    certified_accuracy_table,
    certified_notes,
    clinical_records,
    clinical_table,
    empirical_records,
    empirical_table,
)

HERE = Path(__file__).parent
# What browsers may load: nothing but what lies in the page itself.
POLICY = "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def report_html(sources: Sources, pictures: Mapping[str, Mapping[str, str]], notes: Sequence[str] = ()) -> str:
    """The page. `pictures` are those of `certification.pictures`; `notes` say what they lack."""
    accuracy = certified_accuracy_records(sources.certifications, sources.radii)
    clinical = clinical_records(sources.certifications, sources.radii)
    main = sources.main
    grouped = [each for each in sources.certifications if has_groups(each)]
    drawn = [each for each in grouped if each.sigma == main.sigma or each.name == main.name]  # the table has all
    attacked = story.under_attack(sources)
    shown = tiles(sources)
    data = explorer(sources, shown)
    return (
        _environment()
        .get_template("page.html")
        .render(
            policy=POLICY,
            style=_style(),
            script=_script(),
            sources=sources,
            main=main,
            radius=sources.radius,
            answer=story.answer(sources),
            facts=story.data(sources),
            clean=story.clean(sources),
            rate_rows=story.rate_rows,
            accuracy=_with_intervals(certified_accuracy_table(accuracy), accuracy),
            clinical=clinical_table(clinical) if clinical else None,
            empirical=empirical_table(empirical_records(sources.reports)) if _attacked(sources) else None,
            notes=certified_notes(sources.certifications, sources.radii),
            certified_panels=charts.certified_panels(sources.certifications, sources.radius),
            clinical_panels=charts.clinical_panels(drawn, sources.radius),
            attacked=attacked,
            attack_panels=charts.attack_panels(
                [(one["each"], one["claim"]) for one in attacked if one["claim"].name == "class"], sources.radius
            ),
            scale=story.scale(sources),
            costs=story.costs(sources),
            subgroups=story.subgroups(sources),
            failures=story.failures(sources),
            limits=limits(sources),
            card=card(sources),
            warnings=story.warnings(sources),
            pictures=pictures,
            looked_up={kind: own for kind, own in pictures.items() if not kind.startswith("worst")},
            picture_notes=notes,
            sampling=sampling_note(len(shown), data["all"]),
            states=STATES,
            data=data,
            names=list(dict.fromkeys(each.name for each in sources.certifications)),
            frame={"width": charts.WIDTH, "height": charts.HEIGHT, "left": charts.LEFT, "right": charts.RIGHT}
            | {"top": charts.TOP, "bottom": charts.BOTTOM},
        )
    )


def model_card(sources: Sources) -> str:
    """`MODEL_CARD.md`."""
    text = _environment().get_template("card.md").render(title=story.data(sources)["title"], sections=card(sources))
    return re.sub(r"\n{3,}", "\n\n", text)


def answers_html(
    answers: Sequence[dict], settings: dict, statement: str, pictures: Mapping[str, Mapping[str, str]]
) -> str:
    """The page about a person's own files (AE_DS_verify.py --predict): a section for each file. `answers` are those of
    `certification.run.certify_files`, `statement` is what they prove, and `pictures` has for each file clean, noisy and
    denoised."""
    by_file: dict[str, list[dict]] = {}
    for one in answers:
        by_file.setdefault(one["file"], []).append(one | {"bars": _bars(one["votes"])})
    radii = [one.get(key, 0.0) for one in answers for key in ("radius", "group_radius")]
    grouped = any(one.get("group", ABSTAIN) != ABSTAIN for one in answers)
    longest = 1.2 * max([*radii, 0.1])
    return (
        _environment()
        .get_template("answers.html")
        .render(
            policy=POLICY,
            style=_style(),
            by_file=by_file,
            settings=settings | {"has_groups": grouped},
            statement=statement,
            pictures=pictures,
            longest=longest,
            marks=charts.ticks(longest),
            values=settings["channels"] * settings["image_size"] ** 2,
        )
    )


def _attacked(sources: Sources) -> bool:
    """Whether any report of evaluate.py is on attacked images."""
    return any(report["settings"]["split"] not in story.SPLITS for *_, report in sources.reports)


def _bars(votes: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"name": name, "votes": count, "share": story.share(count, sum(votes.values()))}
        for name, count in votes.items()
    ]


def _with_intervals(table: Table, records: Sequence[dict]) -> list[dict[str, Any]]:
    """A table of certified accuracy as rows: name, sigma, and for each radius the cell of `table`, whether it stands
    out, and its interval."""
    found = []
    width = len(table.header) - 2
    for i, line in enumerate(table.cells):
        own = records[i * width : (i + 1) * width]
        cells = [
            {"text": text, "best": (i, j + 2) in table.best, "low": record["low"], "high": record["high"]}
            for j, (text, record) in enumerate(zip(line[2:], own, strict=True))
        ]
        found.append({"name": line[0], "sigma": line[1], "cells": cells})
    return [{"header": table.header, "rows": found}]


# ---- templates -------------------------------------------------------------------------------------------------------


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "pct": lambda share: f"{100 * share:.1f}",
        "words": words,
        "thousands": lambda number: f"{number:,.0f}",
        "duration": duration,
        "in_script": in_script,
        "md": markdown,
        "spark": spark,
        "grey_levels": rms_grey_levels,
        "base_name": lambda path: re.split(r"[\\/]", path)[-1],
    }
    made.filters |= filters
    return made


def _style() -> Markup:
    font = base64.b64encode((HERE / "report_sans.woff2").read_bytes()).decode()
    face = f'@font-face{{font-family:"Report Sans";font-weight:200 900;src:url(data:font/woff2;base64,{font})}}'
    return Markup(f"{face}\n{(HERE / 'report.css').read_text(encoding='utf-8')}")


def _script() -> Markup:
    return Markup((HERE / "report.js").read_text(encoding="utf-8"))


def in_script(content: object) -> Markup:
    """JSON that may stand in a script element, whatever names it holds: nothing in it can end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def words(name: object) -> str:
    """The name of a class or an answer for reading: `no_tumor` → no tumor."""
    return str(name).replace("_", " ").strip() or str(name)


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s`, `12 s`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def spark(values: Sequence[float]) -> str:
    """The points of a small curve in a box of 100 by 24."""
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(1, len(values) - 1)
    return " ".join(f"{100 * i / last:.1f},{22 - 20 * (value - low) / span:.1f}" for i, value in enumerate(values))
