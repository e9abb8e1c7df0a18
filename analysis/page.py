"""The page: what report.html and report.md are filled with. In: a Study. Out: a context for the templates in page/, and the page's style and script.

All tables stand in the HTML; figures are drawn in the browser from one JSON block (`view`)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from analysis import frames, ledger, methods, pareto, pictures, search, view
from analysis import tables as tb
from analysis.beside import calibration_words, class_names, external_sets, look
from analysis.headline import above, changed, headline, other_card
from analysis.mixture import word_of
from analysis.numbers import interval, number
from analysis.pretext import pretexts
from analysis.standing import baselines, size_baseline, standing
from analysis.study import STATUSES, Study, mapping, plural, whole, without_folders
from analysis.summary import Summary, of_external, phrase, title

HERE = Path(__file__).parent / "page"
SCRIPTS = ("tables", "state", "svg", "arms", "plots", "runs", "ledger", "more")  # in the order in which the page runs them


@dataclass(frozen=True)
class Matrix:
    """A table of shares (of the row, per cent) and counts."""

    words: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Images:
    """What the page says of the image ledger where its script does not run."""

    words: str
    groups: Mapping[str, tuple[ledger.Group, ...]]
    compared: tuple[str, str] | None  # winner, baseline arm
    listed: tuple[tuple[str, str, str, str], ...]
    doubts: int
    over: str
    again: str  # the command that trains with the labels that a reader has marked; '' where the study cannot be asked for again
    effect: tuple[tuple[str, float, float, float, float], ...]


def style() -> str:
    """The page's CSS."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def script(*names: str) -> str:
    """Files of page/ as one script."""
    return "".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in names)


_BESIDE = 7  # metrics, +- included, that stand side by side at 1,280 pixels
_LONG = 80  # characters of a name; what is longer is shown by its ends, and whole at the pointer
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+(?:[^A-Za-z<]*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+)*")


def bdi(name: str, breaks: bool = False) -> Markup:
    """A name that somebody gave: it runs in its own direction and turns nothing beside it, and however long it is it fits. breaks: a line
    may end after its underscores."""
    middle = (_LONG - 1) // 2
    text = str(escape(name if len(name) <= _LONG else f"{name[: _LONG - 1 - middle]}…{name[-middle:]}"))
    whole = f' title="{escape(name)}"' if len(name) > _LONG else ""
    return Markup(f"<bdi{whole}>{text.replace('_', '_<wbr>') if breaks else text}</bdi>")


@jinja2.pass_eval_context
def _isolated(context: jinja2.nodes.EvalContext, value: Any) -> Any:
    """Words of a page in which a name runs from right to left: marks that it ends where it ends (the first strong isolate of Unicode, since a
    sentence or an attribute holds no element)."""
    if not context.autoescape or not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _RIGHT_TO_LEFT.sub(lambda found: f"\u2068{found[0]}\u2069", value)


@cache
def templates() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_isolated,
    )
    env.globals.update(
        number=number,
        plus_minus=tb.plus_minus,
        interval=interval,
        published=tb.published,
        published_title=tb.published_title,
        probability=tb.probability,
        nan=math.nan,
        heading=tb.heading,
        intervals_over=tb.intervals_over,
        asks=asks,
        column_groups=column_groups,
        of_external=of_external,
        title=title,
        phrase=phrase,
        over=frames.over,
        to_markdown=tb.to_markdown,
        isnan=math.isnan,
        plural=plural,
        zip=zip,
    )
    env.filters.update(md=tb.markdown, plain=without_folders, title_of=title, bdi=bdi, breaks=lambda name: bdi(name, breaks=True))
    return env


def asks(summary: Summary) -> str:
    """The question that a table answers."""
    if summary.table.number == "search":
        return "Does the search's winner hold on fresh seeds?"
    what = f"which arms differ from {summary.baseline}" if summary.baseline else "what does each arm reach"
    return f"Table {summary.table.number}: {what}{', and does the paper hold' if summary.against_paper else ''}?"


def context(study: Study, price_per_hour: float | None, light: bool) -> dict[str, Any]:
    """Of both templates. light: the study is still at work, and nothing slow is computed."""
    trials = search.trial_table(study)
    beside, found, runs = look(study), ledger.ledger(study), view.runs_shown(study, trials)
    block = view.whole_view(study, runs, trials, beside, found, light)
    stands = standing(study, price_per_hour)
    matrices = _confusions(study)
    clusters, strips = pictures.cluster_matrix(study, beside), (pictures.heat(study, beside), pictures.nearest(study, beside))
    inside = block["map"] is not None or clusters is not None or any(strips)
    given = {
        "study": study,
        "live": light and stands.waiting > 0,
        "latest": max(study.usable["ended"].dropna().astype(str), default="")[:16].replace("T", " "),
        "standing": stands,
        "summaries": study.summaries,
        "best": study.winner,
        "headline": (shown := headline(study)),
        "other_card": "" if stands.waiting else other_card(study, shown),  # of a study at work it is of the runs of before
        "above": above(study, shown) if shown else "",
        "changed": changed(study),
        "question": methods.question(study),
        "statuses": STATUSES,
        "size_baseline": size_baseline(study),
        "baselines": baselines(study),
        "data_notes": [str(n) for n in notes] if isinstance(notes := mapping(study.asked.get("data")).get("notes"), list) else [],
        "lone": lone,
        "searched": not trials.empty,
        "overtuning": search.overtuning(study, trials),
        "front": [r for r in pareto.front(study, trials).itertuples() if r.best],
        "front_words": pareto.UNITS.get(pareto.second(study), (1.0, pareto.second(study)))[1],
        "few": not block["search"] or not block["search"]["enough"],
        "few_trials": search.FEWEST,
        "runs": _rows(study, runs),
        "runs_left_out": len(study.records) - len(runs),
        "pretexts": (learned := pretexts(study, study.summaries)),
        "matrices": matrices,
        "beside": beside,
        "beside_words": (*beside.words, *_copies(study)),
        "calibration": calibration_words(beside.calibration) if beside.calibration else "",
        "images": _images(study, found) if found else None,
        "inside": inside,
        "mapped": block["map"] is not None,
        "inside_matrices": [_clusters(study, *clusters)] if clusters else [],
        "pictures": [strip for strip in strips if strip],
        "slots": block["slots"],
        "provenance": provenance(study),
        "study_log": "log.txt" if (study.folder / "log.txt").is_file() else "",
    }
    there = (
        ("search", "Search", given["searched"]), ("runs", "Runs", bool(given["runs"])), ("training", "Training", bool(learned)), ("classes", "Classes", bool(matrices or beside.classes)),
        ("images", "Images", found is not None), ("calibration", "Confidence", bool(given["calibration"] or given["beside_words"])),
        ("inside", "Inside", inside), ("workers", "Machines", block["slots"] is not None), ("provenance", "Made from", True),
    )  # fmt: skip
    tables = [
        (f"table-{s.table.slug}", "Fresh seeds" if s.table.number == "search" else f"Table {s.table.number}") for s in study.summaries
    ]
    given["sections"] = [("answer", "Answer"), *tables, *((id_, word) for id_, word, is_there in there if is_there)]
    # `<` cannot stand in the block as it is: a name could end the script that holds it
    given["block"] = json.dumps(block, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return given | {"css": style(), "js": script(*SCRIPTS)}


def column_groups(summary: Summary) -> list[tuple[str, tuple[str, ...]]]:
    """The metrics of a table by the set that they are of, whose name stands first: '' for the study's own. Each is a table of its own, and several
    of about one width where it has more than `_BESIDE`, for all of them side by side do not fit a page."""
    groups: dict[str, tuple[str, ...]] = {}
    for metric in summary.table.metrics:
        external = of_external(metric)
        groups[external[0] if external else ""] = (*groups.get(external[0] if external else "", ()), metric)
    out = []
    for name, metrics in groups.items():
        width = -(-len(metrics) // -(-len(metrics) // _BESIDE))
        out += [(name, metrics[first : first + width]) for first in range(0, len(metrics), width)]
    return out


def lone(summary: Summary) -> bool:
    """The search's own table where its best point is the published configuration: one arm, nothing to set beside it."""
    return summary.table.number == "search" and len(summary.rows) == 1


def _rows(study: Study, runs: pd.DataFrame) -> list[dict[str, Any]]:
    tested = "test_" + study.metric.removeprefix("val_")
    return [
        {
            "id": row["key"][:8],
            "what": what,
            "seed": row["seed"],
            "status": row["status"],
            "reason": row["reason"] if row["known"] else "not used: of another data set or procedure, or another run of this seed counts",
            "score": 100 * row.get(study.metric, math.nan),
            "test": 100 * row.get(tested, math.nan),
            "seconds": row["seconds"],
        }
        for what, row in zip(view.named(study, runs), runs.to_dict("records"), strict=True)
    ]


def _matrix(words: str, corner: str, rows: tuple[str, ...], columns: tuple[str, ...], counts: np.ndarray) -> Matrix:
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = tuple(tuple(zip(a, b, strict=True)) for a, b in zip(shares.tolist(), counts.tolist(), strict=True))
    return Matrix(words, corner, rows, columns, cells)


def confusion_of(study: Study, external: str = "") -> tuple[str, np.ndarray] | None:
    """The part and the summed matrix of the best configuration; None where no run recorded one."""
    winner = study.winner
    for part in ((f"external_{external}",) if external else ("test", "val")) if winner else ():
        matrix = study.confusion(winner.keys, part) if winner else None
        if matrix is not None:
            return part, matrix
    return None


def _confusions(study: Study) -> list[Matrix]:
    out = []
    for external in ("", *(str(e["slug"]) for e in external_sets(study))):
        found, winner = confusion_of(study, external), study.winner
        if found is None or winner is None:
            continue
        names = class_names(study, len(found[1]))
        where = f"external set {external}" if external else f"{found[0]} part"
        unit = "share of the row, %" + ("" if len(names) > 8 else ", and below it the number of images")
        words = (
            f"{winner.name}, {where}, summed over {plural(len(winner.keys), 'seed')}: rows are the truth, columns what was said; {unit}."
        )
        out.append(_matrix(words, "Truth", names, names, found[1]))
    return out


def _clusters(study: Study, what: str, counts: np.ndarray) -> Matrix:
    names = tuple(f"cluster {i}" for i in range(len(counts)))
    words = f"Cells of each type in each cluster, {what}: share of the cluster, %" + (
        ", and the number of cells." if counts.shape[1] <= 8 else "."
    )
    return _matrix(words, "", names, class_names(study, counts.shape[1]), counts)


def _images(study: Study, found: ledger.Ledger) -> Images:
    doubts = found.doubts
    return Images(
        ledger.words(found),
        ledger.doubts_by(found),
        (found.arms[found.winner], found.arms[found.baseline]) if ledger.compared(found) else None,
        ledger.listed(found),
        len(doubts),
        found.arms[found.baseline] if found.baseline >= 0 else "",
        ledger.relabelled(study),
        ledger.effect(found, doubts),
    )


def _copies(study: Study) -> tuple[str, ...]:
    """How many of the test images keep their class or cluster when they come in another form, as the export has measured it."""
    try:
        told = json.loads((study.folder / "best" / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing is exported yet; `data check` names a damaged export
        return ()
    same = mapping(told.get("same_class")) if isinstance(told, Mapping) else {}
    parts = [f"{name}: {100 * part:.0f} %" for name, part in same.items() if isinstance(part, float)]
    of = mapping(told.get("copies_of")) if isinstance(told, Mapping) else {}
    count = f" ({plural(of['images'], 'image')}, each in every form)" if isinstance(of.get("images"), int) else ""
    small = f" brought to {of['packed']} x {of['packed']} px before, since their files were not at hand" if whole(of.get("packed")) else ""
    what = of.get("keep", "class")
    return (
        (f"Copies of test images{small}{count} to which the exported model gives the {what} of the image itself: {'; '.join(parts)}.",)
        if parts
        else ()
    )


def provenance(study: Study) -> str:
    """Plain text: what was asked, with what code, on what data, by which files."""
    asked = study.asked
    data, versions = mapping(asked.get("data")), mapping(asked.get("versions"))
    rows = study.usable
    commits = sorted({str(c) for c in rows["commit"].dropna()})
    lines = [
        ("study", study.name),
        ("procedure", study.procedure),
        ("preset", asked.get("preset")),
        ("created", asked.get("created")),
        ("command", asked.get("command")),
        ("commit", f"{asked.get('commit')}{' (with local changes)' if asked.get('dirty') else ''}"),
        ("commits of the runs", ", ".join(commits) or None),
        ("data", data.get("source")),
        ("data hash", data.get("hash")),
        ("images", data.get("images")),
        ("parts", ", ".join(f"{k} {v}" for k, v in data["parts"].items()) if isinstance(data.get("parts"), Mapping) else None),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("objective", f"{phrase(study.metric)}, {'maximised' if study.maximize else 'minimised'}"),
        ("devices", ", ".join(sorted(set(map(word_of, rows["device"].dropna())))) or None),
        ("code", ", ".join(sorted({code[:16] for codes in rows["codes"].unique() for code in codes.split()})) or None),
        ("versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) or None),
        ("records", f"{plural(len(study.records), 'run')} in records.jsonl"),
    ]
    return "\n".join(f"{name + ':':<21}{without_folders(str(value))}" for name, value in lines if value not in (None, "", "None"))
