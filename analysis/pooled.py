"""Several laboratories' studies of the same question: a forest plot. In: bundles or study folders. Out: forest.csv, .md and a figure for each arm.

Each laboratory gives the gain of an arm over the baseline arm and its standard error, over its own seeds and patients. True gains differ between
laboratories (random effects): their variance by restricted maximum likelihood, the interval of the mean by Hartung and Knapp (2001), Sidik and
Jonkman (2002), never shorter than the one without their factor (Röver, Knapp and Friede 2015)."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis import artefacts
from analysis.bundle import unpack
from analysis.drawing import BLUE, INK, MUTED, ORANGE, Drawing, axes, short, style
from analysis.frames import slug
from analysis.numbers import interval, number
from analysis.report import encoded, write_file
from analysis.statistics import LEVEL, NONE, Interval
from analysis.study import BROKEN, Study, StudyError, load, mapping, plural, text_of
from analysis.summary import title
from analysis.tables import markdown


@dataclass(frozen=True)
class Pooled:
    """The mean of true effects that differ, its interval, where the effect of one more laboratory lies, and how far they differ: tau, I² (0 to 1)."""

    mean: float
    error: float
    interval: Interval
    prediction: Interval
    tau: float
    share: float


def random_effects(effects: Sequence[float] | np.ndarray, errors: Sequence[float] | np.ndarray, level: float = LEVEL) -> Pooled:
    """effects, errors: (k,), one of each laboratory, k at least 2, errors above 0."""
    y, v = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** 2
    k = y.size
    if k < 2 or (v <= 0).any() or not np.isfinite([y, v]).all():
        raise ValueError(f"two or more finite effects with errors above 0 are needed, got {k}")
    between = _between(y, v)
    w = 1 / (v + between)
    mean = float((w * y).sum() / w.sum())
    spread = float((w * (y - mean) ** 2).sum() / (k - 1))
    error = math.sqrt(max(1.0, spread) / w.sum())
    half = float(stats.t.ppf((1 + level) / 2, k - 1)) * error
    far = float(stats.t.ppf((1 + level) / 2, k - 2)) * math.sqrt(between + error**2) if k > 2 else math.nan
    fixed = 1 / v
    typical = (k - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    prediction = NONE if math.isnan(far) else Interval(mean - far, mean + far)
    return Pooled(mean, error, Interval(mean - half, mean + half), prediction, math.sqrt(between), between / (between + float(typical)))


def _between(y: np.ndarray, v: np.ndarray) -> float:
    """The variance of true effects: restricted maximum likelihood by Fisher scoring, not below 0."""
    between = max(0.0, float(y.var(ddof=1) - v.mean()))
    for _ in range(1_000):
        w = 1 / (v + between)
        mean = (w * y).sum() / w.sum()
        # score and information of the restricted likelihood; P = W - W 1 1' W / sum(w)
        score = (w**2 * (y - mean) ** 2).sum() - (w.sum() - (w**2).sum() / w.sum())
        information = (w**2).sum() - 2 * (w**3).sum() / w.sum() + ((w**2).sum() / w.sum()) ** 2
        new = max(0.0, between + float(score / information))
        if abs(new - between) <= 1e-12 * (1 + between):
            return new
        between = new
    raise ValueError("the variance between laboratories does not settle")


def write_forest(sources: Sequence[str | Path], out: str | Path) -> tuple[Path, ...]:
    """forest.csv, forest.md and a figure (SVG and PDF) for each arm that two or more laboratories have. StudyError where they share none, or
    differ in procedure or in what an arm is."""
    with ExitStack() as stack:
        studies = []
        for source in map(Path, sources):
            folder = source
            if source.is_file():
                folder = unpack(source, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="analysis-"))))
            studies.append((source.stem if source.is_file() else source.resolve().name, load(folder)))
        rows, words = _gains(studies)
    files: dict[str, bytes] = {}
    pooled = []
    for (table, arm, metric, baseline), group in rows.groupby(["table", "arm", "metric", "baseline_arm"], sort=False):
        if len(group) < 2:
            words.append(f"Table {table}, {arm}: one laboratory alone has a gain with an interval; nothing is pooled.")
            continue
        found = random_effects(group["gain"].to_numpy(), group["error"].to_numpy())
        pooled.append(
            {"table": table, "arm": arm, "metric": metric, "baseline_arm": baseline, "laboratory": "all, random effects"}
            | _row(found, group)
            | {"over": "laboratories"}
        )
        name = f"forest-{slug(str(table))}-{slug(str(arm))}"
        drawing = _forest(name, f"{title(str(metric))} of {arm}: gain over {baseline}", group, found)
        files |= {f"{name}.svg": encoded(drawing.svg()), f"{name}.pdf": drawing.pdf()}
    if not pooled:
        raise StudyError(
            "no two of the studies have a gain over the same baseline arm, by table, arm and metric, with an interval: nothing is pooled"
        )
    frame = pd.concat([rows, pd.DataFrame(pooled)], ignore_index=True).sort_values(["table", "arm"], kind="stable")
    files["forest.csv"] = frame.to_csv(index=False, lineterminator="\n").encode()
    files["forest.md"] = encoded(_markdown(frame, words))
    return tuple(write_file(Path(out) / name, content) for name, content in files.items())


def _row(found: Pooled, group: pd.DataFrame) -> dict[str, float]:
    return {
        "seeds": int(group["seeds"].sum()),
        "gain": found.mean,
        "error": found.error,
        "low": found.interval.low,
        "high": found.interval.high,
        "prediction_low": found.prediction.low,
        "prediction_high": found.prediction.high,
        "tau": found.tau,
        "i_squared": found.share,
    }


def _gains(studies: Sequence[tuple[str, Study]]) -> tuple[pd.DataFrame, list[str]]:
    """Each laboratory's gains by the metric that ranks the table, and words on what differs between them."""
    procedures = sorted({study.procedure for _, study in studies})
    if len(procedures) > 1:
        raise StudyError(f"the studies are of different procedures ({', '.join(procedures)}); give those of one")
    hashes: dict[str, list[str]] = defaultdict(list)
    for name, study in studies:
        hashes[text_of(mapping(study.asked.get("data")).get("hash")) or name].append(name)
    if same := [names for names in hashes.values() if len(names) > 1]:
        raise StudyError(f"{' and '.join(same[0])} are of the same data: they are no two laboratories; merge them or give one")
    for name, study in studies:
        if mapping(study.asked.get("data")).get("relabelled"):
            raise StudyError(
                f"{name} is of relabelled data: the same images with other labels are no other laboratory; give the study of the data as they came"
            )
    files: dict[frozenset[str], str] = {}
    for name, study in studies:
        if (names := _files(study)) and (other := files.setdefault(names, name)) != name:
            raise StudyError(f"{other} and {name} are of files of the same names: they are no two laboratories; give one")
    if len({name for name, _ in studies}) < len(studies):
        raise StudyError("two of the laboratories have the same name; rename their files or folders")
    arms: dict[tuple[str, str], set[str]] = defaultdict(set)
    rows, words = [], []
    for name, study in studies:
        metrics = {t.number: t.metric for t in study.tables}
        for table in study.tables:
            for arm in table.arms:
                arms[table.number, arm.name].add(arm.config_hash)
        for row in study.results.to_dict("records"):
            if row["metric"] == metrics[row["table"]] and row["table"] != "search" and row["gain_error"] > 0:
                mine = study.results[(study.results["table"] == row["table"]) & (study.results["metric"] == row["metric"])]
                both = mine[(mine["arm"] == row["arm"]) | mine["is_baseline"]]
                if broke := int(both[list(BROKEN)].to_numpy().sum()):
                    words.append(
                        f"Table {row['table']}, {row['arm']}, {name}: {plural(broke, 'run')} of the arm or its baseline arm diverged or collapsed; "
                        "its gain leaves them out and is not pooled."
                    )
                    continue
                gain = row["gain_over_baseline"]
                of = {k: row[k] for k in ("table", "arm", "metric", "baseline_arm")}
                ends = {"low": row["gain95_low"], "high": row["gain95_high"], "over": row["gain_interval_over"]}
                rows.append({**of, "laboratory": name, "seeds": row["pairs"], "gain": gain, "error": row["gain_error"], **ends})
    if not rows:
        why = "it takes two seeds of each" if not words else f"it takes two seeds of each, none of them broken. {' '.join(words)}"
        raise StudyError(f"none of the studies has a gain over a baseline arm with an interval: {why}")
    mixed = [f"Table {table}, {arm}: settings differ between laboratories." for (table, arm), found in arms.items() if len(found) > 1]
    for (number_, of_arm), group in pd.DataFrame(rows).groupby(["table", "arm"], sort=False):
        if group["over"].nunique() > 1:
            which = "; ".join(f"{name}: {over}" for name, over in zip(group["laboratory"], group["over"], strict=True))
            mixed.append(f"Table {number_}, {of_arm}: the laboratories' intervals are over different things ({which}).")
    return pd.DataFrame(rows), [*mixed, *words]


def _files(study: Study) -> frozenset[str]:
    """Names of the study's images; none of a bundle, which does not hold them."""
    try:
        return frozenset(artefacts.files(study))
    except artefacts.Damaged:
        return frozenset()


def _forest(name: str, words: str, group: pd.DataFrame, found: Pooled) -> Drawing:
    with style():
        fig, ax = axes(0.9 + 0.3 * (len(group) + 1))
        drawing = Drawing(name, words, fig)
        weight = 1 / (group["error"].to_numpy() ** 2 + found.tau**2)
        for y, (row, share) in enumerate(zip(group.to_dict("records"), weight / weight.sum(), strict=True)):
            ax.plot([row["low"], row["high"]], [y, y], color=BLUE, lw=1.4)
            ax.scatter([row["gain"]], [y], marker="s", s=20 + 120 * share, color=BLUE, zorder=3)
        last = len(group)
        low, high = found.interval
        ax.fill([low, found.mean, high, found.mean], [last, last - 0.22, last, last + 0.22], color=ORANGE, zorder=3)
        if not math.isnan(found.prediction.low):
            ax.plot(list(found.prediction), [last, last], color=ORANGE, lw=1.2, ls=":")
        ax.axvline(0, color=MUTED, lw=0.8)
        ax.set_yticks(range(last + 1), [short(str(n)) for n in group["laboratory"]] + ["all, random effects"])
        ax.set_ylim(last + 0.6, -0.6)
        ends = [*zip(group["gain"], group["low"], group["high"], strict=True), (found.mean, low, high)]
        for y, (gain, a, b) in enumerate(ends):
            ax.text(
                1.02,
                y,
                f"{number(gain, True)} ({interval(Interval(a, b), True)})",
                transform=ax.get_yaxis_transform(),
                va="center",
                color=INK,
            )
        ax.set_xlabel(f"{words}, points; dotted: where one more laboratory's lies")
        ax.grid(axis="x")
    return drawing


def _markdown(frame: pd.DataFrame, words: Sequence[str]) -> str:
    lines = ["# Gains in several laboratories", ""]
    lines += [
        "| Table | Arm | over | of | Laboratory | seeds | gain, points | 95 % interval | for other | tau | I² |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- | --- | ---: | ---: |",
    ]
    for row in frame.to_dict("records"):
        share = "" if math.isnan(row["i_squared"]) else f"{100 * row['i_squared']:.0f} %"
        cells = [
            row["table"],
            row["arm"],
            row["baseline_arm"],
            title(row["metric"]),
            row["laboratory"],
            str(int(row["seeds"])),
            number(row["gain"], True),
        ]
        cells += [interval(Interval(row["low"], row["high"]), True), row["over"], number(row["tau"]), share]
        lines.append(f"| {' | '.join(markdown(str(c)) or '–' for c in cells)} |")
    lines += [
        "",
        "Random effects: variance between laboratories by restricted maximum likelihood, interval by Hartung, Knapp, Sidik and Jonkman, ",
    ]
    lines[-1] += f"of {frame['laboratory'].nunique() - 1} laboratories. Each laboratory's error is taken as known."
    return "\n".join([*lines, *(f"- {markdown(w)}" for w in words), ""])
