"""How a study was done, in words for a paper. In: a Study. Out: facts, the methods section (methods.md) and answers to the questions of
reporting checklists. Every number is read from study.json, from the records or from what lies beside them; what is not known is not said."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import artefacts, race
from analysis.crossed import split_metric
from analysis.headline import changed
from analysis.mixture import mixture, origins, word_of
from analysis.numbers import interval, number, show
from analysis.search import parameters, trial_table
from analysis.standing import standing
from analysis.study import STATUSES, Study, finite, listed, mapping, plural, text_of, whole, without_folders
from analysis.summary import phrase, title

CHECKLISTS = {"claim": "CLAIM, 2024 update", "tripod": "TRIPOD+AI, 2024", "reforms": "REFORMS, 2024"}
SIMULATED = "simulated_elsewhere"  # the external set that is made of the study's own test images, as `search` calls it
_WORD = {"tpe": "the tree-structured Parzen estimator", "gp": "a Gaussian process", "random": "random search", "grid": "a grid"}
_WORD |= {"asha": "asynchronous successive halving", "hyperband": "Hyperband"}


class Division(NamedTuple):
    """A file of splits/: images and patients by part, and how many patients stand in more than one. Patients are 0 where they are not known."""

    images: Mapping[str, int]
    patients: Mapping[str, int]
    shared: int


def divisions(study: Study) -> dict[str, Division]:
    """By the name of the split. A file that cannot be read is none."""
    data = study.folder / "data" / "data.json"
    names = artefacts.patients(study) if data.exists() else ()
    found = {}
    for path in sorted((study.folder / "splits").glob("*.csv")):
        try:
            rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError):
            continue
        if "part" not in rows:
            continue
        known = rows["patient"] if "patient" in rows else pd.Series(names) if len(names) == len(rows) else None
        images = {str(part): int(count) for part, count in rows["part"].value_counts(sort=False).items()}
        if known is None or not known.astype(bool).any():
            found[path.stem] = Division(images, {}, 0)
            continue
        there = known.astype(bool)
        each = known[there].groupby(rows["part"][there]).nunique()
        parts = rows["part"][there].groupby(known[there]).nunique()
        found[path.stem] = Division(images, {str(k): int(v) for k, v in each.items()}, int((parts > 1).sum()))
    return found


def facts(study: Study) -> dict[str, int | str]:
    """Numbers of the study as a whole, by the name that they have in numbers.tex."""
    data, rows = mapping(study.asked.get("data")), study.usable
    counts = Counter(rows["status"])
    out: dict[str, int | str | None] = {"images": whole(data.get("images")), "classes": len(study.classes) or None}
    out |= {f"images-{part}": count for part, count in study.parts.items()}
    out |= {f"images-{name.replace('_', '-')}": count for name, count in study.external_images.items()}
    patients = {name for name in _patients(study) if name}
    out["patients"] = len(patients) or None
    if len(found := divisions(study)) == 1:
        out |= {f"patients-{part}": count for part, count in next(iter(found.values())).patients.items()}
    out |= {"seeds": len(study.seeds), "trials": rows["trial"].nunique() or None, "runs": len(rows)}
    out |= {status: counts[status] for status in STATUSES}
    hours, gpu = float(rows["seconds"].sum()) / 3600, float(rows["gpu_seconds"].sum()) / 3600
    out |= {"hours": f"{hours:.2f}", "gpu-hours": f"{gpu:.2f}"}
    if (won := study.winner) is not None:
        out |= {"validation": f"{100 * won.mean:.2f}"}
    return {name: value for name, value in out.items() if value is not None}


def _notes(study: Study) -> list[str]:
    return [without_folders(str(n)).rstrip(".") for n in listed(mapping(study.asked.get("data")).get("notes"))]


def question(study: Study) -> str:
    """What the study asks, in one sentence."""
    source = without_folders(text_of(mapping(study.asked.get("data")).get("source")))
    source = {"synthetic": "the built-in synthetic set", "": "its data"}.get(source, source)
    parts = []
    if trials := whole(study.asked.get("trials")):
        goal = f"which configuration of {study.procedure} reaches the best {phrase(study.metric)} on {source}"
        parts.append(f"{goal}, in {plural(trials, 'trial')}")
    if own := [t.number for t in study.tables if t.number != "search"]:
        what = f"what the arms of table{'s' if len(own) > 1 else ''} {', '.join(own)} reach" + ("" if parts else f" on {source}")
        parts.append(f"{what}, with {plural(len(study.seeds), 'seed')} each")
    text = "; and ".join(parts) or f"what the runs of {study.procedure} reached"
    return text[:1].upper() + text[1:] + "."


def _variation(study: Study) -> str:
    """What was varied to see how the result depends on it: seeds, and the settings of the tables."""
    arms = {t.number: sorted({name for a in t.arms for name in a.overrides}) for t in study.tables if t.number != "search"}
    varied = "; ".join(f"table {number}: {', '.join(names)}" for number, names in arms.items() if names)
    return f"Varied: the seed ({plural(len(study.seeds), 'seed')}); {varied}." if varied and len(study.seeds) > 1 else ""


def _patients(study: Study) -> tuple[str, ...]:
    try:
        return artefacts.patients(study)
    except artefacts.Damaged:
        return ()


def answers(study: Study) -> dict[str, str]:
    """What the study itself can say to each question, a sentence or more; '' where it cannot."""
    data, asked = mapping(study.asked.get("data")), study.asked
    number, rows, won = facts(study), study.usable, study.winner
    said = {name: make(study) for name, make in _SAID.items()}
    counts = ", ".join(f"{name} {count:,}" for name, count in mapping(data.get("counts")).items() if whole(count) is not None)
    images = f"{number['images']:,} images" if "images" in number else ""
    said["sample"] = f"{images} of {plural(len(study.classes), 'class')} ({counts})." if images and counts else ""
    if said["sample"] and "patients" in number:
        said["sample"] = (
            f"{said['sample'][:-1]} of {number['patients']:,} {_unit(study)}s{'; patients are not known' if _unit(study) == 'tile' else ''}."
        )
    said["data"] = f"{said['sample']} Hash of the packed data: {text_of(data.get('hash'))}." if said["sample"] and data.get("hash") else ""
    notes = _notes(study)
    size = [rows[f"param.{k}"].dropna().unique() for k in ("canvas", "input_size") if f"param.{k}" in rows]
    scaled = f"Images enter the network at {', '.join(str(v) for v in size[-1])} pixels." if size and len(size[-1]) else ""
    said["preparation"] = " ".join([scaled, *(f"{n[:1].upper()}{n[1:]}." for n in notes)]).strip()
    trained = ", ".join(f"{name} {show(value)}" for name, value in mapping(asked.get("baseline")).items())
    own = [
        f"table {table.number}, {arm.name}: " + ", ".join(f"{name} {show(value)}" for name, value in arm.overrides.items())
        for table in study.tables
        for arm in table.arms
        if arm.overrides and table.number != "search"
    ]
    said["settings"] = f"Settings that hold where an arm has none of its own: {trained}." if trained else ""
    said["settings"] += f" Of their own have {'; '.join(own)}." if trained and own else ""
    if trained and won is not None and won.kind == "trial" and (moved := changed(study)):
        said["settings"] += f" The best configuration has {', '.join(f'{name} {value}' for name, value, _ in moved)}."
    sizes = sorted({int(v) for v in rows["parameters"].dropna()}) if "parameters" in rows else []
    of_size = f" ({' or '.join(f'{v:,}' for v in sizes)} parameters)" if sizes else ""
    network = _network(study)
    said["model"] = f"Procedure {study.procedure}; network {network}{of_size}." if network else ""
    done = rows[rows["status"] == "completed"]
    start = sorted(set(map(str, done["param.weights"].dropna()))) if "param.weights" in done else []
    said["start"] = f"Initial weights: {' or '.join(start)}." if start else ""
    if won is not None:
        said["selection"] = f"{won.name} was chosen, by the {won.words}."
        said["selection"] += " " + " ".join(race.words(study)) if race.words(study) else ""
    externals = [f"{name} ({count:,} images)" for name, count in study.external_images.items() if name != SIMULATED]
    said["external"] = f"Tested once on {' and '.join(externals)}, none of which took part in training or selection." if externals else ""
    made = study.external_images.get(SIMULATED)
    said["simulated"] = (
        f"Tested too on the test images as another laboratory might show them ({made:,}), which are no other patients." if made else ""
    )
    baselines = [str(e.get("name")) for e in map(mapping, listed(data.get("baselines"))) if e.get("name")]
    share = finite(mapping(data.get("size_baseline")).get("accuracy"))
    simple = [f"the size of an image and of its foreground alone gives {100 * share:.1f} % accuracy"] if not math.isnan(share) else []
    simple += [f"simpler methods measured on the same images: {', '.join(baselines)}"] if baselines else []
    arms = [t.baseline_arm for t in study.tables if t.baseline_arm and t.number != "search"]
    simple += [f"the arms of the tables are compared with {', '.join(dict.fromkeys(arms))}"] if arms else []
    said["baselines"] = f"{'; '.join(simple)[:1].upper()}{'; '.join(simple)[1:]}." if simple else ""
    inside = any((study.folder / "checkpoints" / key / "artefacts.npz").exists() for key in (won.keys if won else ()))
    said["inside"] = "Heat maps, embeddings and nearest images of the chosen configuration stand in the report." if inside else ""
    return said


def _network(study: Study) -> str:
    """The backbone of the runs. An arm that does not ask for another than the study's and has one all the same does not use it: settings that a
    method does not use stand at their defaults."""
    rows = study.usable
    if "param.backbone" not in rows:
        return ""
    common, own = str(mapping(study.asked.get("baseline")).get("backbone", "")), {}
    for table in study.tables:
        for arm in table.arms if common and table.number != "search" else ():
            if "backbone" not in arm.overrides and (study.of_arm(arm)["param.backbone"].dropna().astype(str) != common).any():
                own[arm.config_hash] = arm.name
    named = sorted(set(map(str, rows.loc[~rows["config_hash"].isin(list(own)), "param.backbone"].dropna())))
    words = (
        f"{common}; in some arms {', '.join(b for b in named if b != common)}" if common in named and len(named) > 1 else ", ".join(named)
    )
    return words + (f"{'; ' if words else ''}the method's own, if any, in {', '.join(dict.fromkeys(own.values()))}" if own else "")


def _division(study: Study) -> str:
    words = []
    for name, found in divisions(study).items():
        parts = ", ".join(f"{part} {count:,}" for part, count in found.images.items())
        people = ", ".join(f"{part} {count:,}" for part, count in found.patients.items())
        words.append(
            f"Split {name}: {parts} images"
            + (f"; {_unit(study)}s {people}, {found.shared or 'none'} in more than one part." if people else ".")
        )
    if not words and study.parts:
        words = [f"Parts: {', '.join(f'{part} {count:,}' for part, count in study.parts.items())} images."]
    redrawn = study.usable.get("param.split_per_seed")
    if redrawn is not None and (redrawn == True).any():  # noqa: E712  (a column of objects)
        words.append("Each seed draws its own split.")
    return " ".join(words)


def _disjoint(study: Study) -> str:
    found = [d for d in divisions(study).values() if d.patients]
    if not found or any(d.shared for d in found):
        return ""
    return f"Parts are disjoint by {_unit(study)}{'; patients are not known' if _unit(study) == 'tile' else ''}."


def _search(study: Study) -> str:
    asked, trials = mapping(study.asked.get("search")), study.usable["trial"].nunique()
    if not trials:
        return ""
    sampler, scheduler = (_WORD.get(text_of(asked.get(k)), text_of(asked.get(k))) for k in ("sampler", "scheduler"))
    tried = trial_table(study)
    ranges = [
        f"{p.name} {{{', '.join(p.choices)}}}" if p.choices else f"{p.name} {p.low:g} to {p.high:g}{' (log)' if p.log else ''}"
        for p in parameters(study)
        if tried[f"param.{p.name}"].notna().any()
    ]
    pruned = int((study.usable["trial"].notna() & (study.usable["status"] == "pruned")).sum())
    stopped = f", {pruned} of them stopped early by {scheduler}" if scheduler and scheduler != "none" else ""
    goal = f"{'Highest' if study.maximize else 'Lowest'} {phrase(study.metric)} was sought in {plural(trials, 'trial')}"
    return f"{goal}{f' by {sampler}' if sampler else ''}{stopped}, over {', '.join(ranges)}. The search saw validation data only."


def _repeats(study: Study) -> str:
    counts = Counter(study.usable["status"])
    each = ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s])
    others = f", {len(study.unasked)} of them of other seeds, on which no number of the tables rests" if len(study.unasked) else ""
    asked = "is asked for" if any(row.waiting for summary in study.summaries for row in summary.rows) else "was run"
    return f"Each arm {asked} with {plural(len(study.seeds), 'seed')} ({', '.join(map(str, study.seeds))}); {plural(len(study.usable), 'run')}{others}: {each}."


def _libraries(study: Study) -> str:
    versions = mapping(study.asked.get("versions"))
    words = [f"Software: {', '.join(f'{k} {v}' for k, v in sorted(versions.items()))}."] if versions else []
    return " ".join([*words, *mixture(origins(study.usable))])


def _code(study: Study) -> str:
    commits = sorted({str(c) for c in study.usable["commit"].dropna()})
    changed = " with local changes" if (study.usable["dirty"] == True).any() else ""  # noqa: E712  (a column of objects)
    return f"karyotune, commit {', '.join(commits)}{changed}." if commits else ""


def _machines(study: Study) -> str:
    devices = sorted(set(map(word_of, study.usable["device"].dropna())))
    number = facts(study)
    spent = f"{number['hours']} hours of runs" + (f", {number['gpu-hours']} GPU-hours" if float(number["gpu-hours"]) else "")
    return f"Trained on {', '.join(devices)}; {spent}." if devices else ""


def _metrics(study: Study) -> str:
    names = dict.fromkeys(title(m) for t in study.tables for m in t.metrics)
    return f"Metrics: {', '.join(names)}." if names else ""


def _statistics(study: Study) -> str:
    results = study.results
    over = sorted(set(results["interval_over"].dropna()))
    if not over:
        return ""
    words = f"95 % intervals over {' or '.join(over)}"
    if any(" and " in one for one in over):
        words += " (both random: pseudo-values of Dorfman, Berbaum and Metz in Obuchowski and Rockette's model)"
    together = ", and those of one table hold together (Bonferroni)" if (results["comparisons"] > 1).any() else ""
    return f"{words}; differences to a table's baseline arm are paired by seed{together}."


def _performance(study: Study) -> str:
    """The winner's row of each table; of a table without it every arm's: the best of them by the test part would be chosen by it."""
    said, won = [], study.winner
    for summary in study.summaries:
        mine = [row for row in summary.rows if won is not None and row.arm.config_hash == won.config_hash]
        for row in mine or summary.rows:
            if (cell := row.cells[summary.table.metric]).n:
                ends = f" (95 % interval {interval(cell.interval)})" if not math.isnan(cell.interval.low) else ""
                where = f"{row.arm.name} in table {summary.table.number}"
                said.append(f"{title(summary.table.metric)} of {where}: {number(cell.mean)} %{ends}, {plural(cell.n, 'seed')}.")
    return " ".join(said)


def _analysed(study: Study) -> str:
    rows = study.results[study.results["cases"].notna() & study.results["metric"].str.startswith("test_")]
    tested = study.parts.get("test")
    if not tested:
        return ""
    most = rows.sort_values("cases").iloc[-1] if len(rows) else None
    of = "" if most is None else f" of {int(most['cases']):,} {str(most['interval_over']).removeprefix('seeds and ')}"
    return f"{_repeats(study)} Test part: {tested:,} images{of if not of.endswith('images') else ''}."


def _by_class(study: Study) -> str:
    rows = [r for r in (study.confusion([k]) for k in (study.winner.keys if study.winner else ())) if r is not None]
    if not rows or len(study.classes) != len(rows[0]):
        return ""
    total = sum(rows[1:], rows[0])
    each = [f"{name} {100 * total[i, i] / total[i].sum():.1f} %" for i, name in enumerate(study.classes) if total[i].sum()]
    return f"Recognised of each class on the test part, over {plural(len(rows), 'seed')} of the chosen configuration: {', '.join(each)}."


def _mistakes(study: Study) -> str:
    won = study.winner
    total = study.confusion(won.keys) if won else None
    if total is None or len(study.classes) != len(total) or not (total.sum() - total.trace()):
        return ""
    pairs = [(total[i, j], i, j) for i in range(len(total)) for j in range(len(total)) if i != j and total[i, j]]
    pairs.sort(key=lambda p: (-p[0], p[1], p[2]))
    most = "; ".join(f"{study.classes[i]} taken for {study.classes[j]} {n:.0f} of {total[i].sum():.0f}" for n, i, j in pairs[:3])
    return f"Most frequent mistakes of the chosen configuration: {most}. The most confident ones stand in the report with their images."


def _again(study: Study) -> str:
    command = without_folders(text_of(study.asked.get("command")))
    return (
        f"`{command}` on the same data; on one kind of device a run is a function of its settings, its seed and the data."
        if command
        else ""
    )


_SAID: dict[str, Callable[[Study], str]] = {
    "division": _division,
    "disjoint": _disjoint,
    "search": _search,
    "repeats": _repeats,
    "libraries": _libraries,
    "code": _code,
    "machines": _machines,
    "metrics": _metrics,
    "statistics": _statistics,
    "performance": _performance,
    "analysed": _analysed,
    "by class": _by_class,
    "mistakes": _mistakes,
    "again": _again,
    "goal": lambda study: question(study),
    "variation": lambda study: _variation(study),
    "duplicates": lambda study: " ".join(f"{note}." for note in _notes(study) if "duplicate" in note),
    "protocol": lambda _: (
        "study.json, request.toml, records.jsonl and splits/ of the study; `python -m analysis STUDY --bundle` packs them."
    ),
    "single": lambda _: "No ensemble: every number is of single models, means are over seeds.",
    "output": lambda study: _output(study),
    "once": lambda _: (
        "The test part is used once, after training, by runs that stand in a table; the search and the choice of a configuration see "
        "validation data only."
    ),
}


def _output(study: Study) -> str:
    ranked = {split_metric(metric)[1] for metric in (study.metric, *(table.metric for table in study.tables))}
    if any(name.startswith(("ami", "ari", "purity")) for name in ranked):
        return "A cluster for each image, by K-means on what the network makes of it; no class is predicted."
    return "A probability for each class; the most probable is the prediction." if study.classes else ""


def _unit(study: Study) -> str:
    """`patient`, or `tile` where each tile stands for one because patients are not known."""
    try:
        return "tile" if artefacts.tiles_are_patients(study) else "patient"
    except artefacts.Damaged:
        return "patient"


def _head(study: Study) -> list[str]:
    """What must be known of an unfinished, failed or empty study before its text is taken for a paper."""
    first = standing(study).first
    return [f"**{first}**", ""] if first else []


def methods_md(study: Study) -> str:
    """The methods section, to be cut and pasted; what the study does not know is not in it."""
    said = answers(study)
    parts = {
        "Data": ("data", "preparation", "division", "disjoint", "external", "simulated"),
        "Training": ("model", "start", "settings", "repeats"),
        "Search and choice": ("search", "selection", "once"),
        "Evaluation": ("metrics", "output", "statistics", "baselines"),
        "Software and machines": ("code", "libraries", "machines", "again"),
    }
    lines = [f"# Methods of {study.name}", "", *_head(study)]
    for heading, names in parts.items():
        if text := " ".join(said[name] for name in names if said.get(name)):
            lines += [f"**{heading}.** {text}", ""]
    return "\n".join(lines)


class Item(NamedTuple):
    """An item of a checklist in our words. by: the answers that fill it, empty where none can; add: what a person adds all the same."""

    number: str
    words: str
    by: tuple[str, ...]
    add: str


@cache
def items(name: str) -> tuple[Item, ...]:
    """Of `claim`, `tripod` or `reforms`, in their order."""
    with (Path(__file__).parent / "checklists.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["checklist"] == name]
    return tuple(Item(r["item"], r["words"], tuple(filter(None, r["by"].split(";"))), r["add"]) for r in rows)


def checklist_md(study: Study, name: str) -> str:
    """The checklist: filled items with their text, then those that a person must fill."""
    said = answers(study)
    filled = [(item, " ".join(said[by] for by in item.by if said.get(by))) for item in items(name)]
    done = [(item, text) for item, text in filled if text]
    whole_ = [item for item, _ in done if not item.add]
    lines = [f"# {CHECKLISTS[name]}: {study.name}", "", *_head(study)]
    lines += [
        f"Of {len(filled)} items this study fills {len(whole_)} and {len(done) - len(whole_)} in part; a person fills {len(filled) - len(done)}.",
        "",
    ]
    lines += ["Items are named in our own words; the published checklist is what counts.", "", "## Filled by the study", ""]
    lines += [f"- **{item.number} {item.words}.** {text}" + (f" *To add: {item.add}.*" if item.add else "") for item, text in done]
    lines += ["", "## For a person", "", *(f"- [ ] **{item.number} {item.words}.**" for item, text in filled if not text), ""]
    return "\n".join(lines)
