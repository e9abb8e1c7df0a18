"""How a study stands: its runs by status, what is still waiting, what it took, and the first line of its page. In: a Study. Out: `Standing`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.study import STATUSES, Study, finite, mapping, plural, whole


@dataclass(frozen=True)
class Standing:
    """Runs by status, hours, and what shared stages saved."""

    counts: Mapping[str, int]
    waiting: int  # runs that the tables and the search ask for and that have no record yet
    first: str  # what must be known before any number is read; '' for a study that has ended well
    hours: float
    gpu_hours: float
    saved: float  # share of all work (done + saved) that shared stages spared; nan where no stage was shared
    money: tuple[float, str] | None  # what the hours cost, and in what words

    @property
    def ended(self) -> int:
        """Runs with a record."""
        return sum(self.counts.values())


def standing(study: Study, price: float | None = None) -> Standing:
    """price: of one GPU-hour, or of an hour of a worker where no run used a GPU. Its product counts what a budget counts: every try."""
    rows = study.usable
    counts = {status: int(count) for status, count in Counter(rows["status"]).items()}
    counts = {status: counts.get(status, 0) for status in STATUSES}
    spent, gpu = float(rows["seconds"].sum()), float(rows["gpu_seconds"].sum())
    money = None
    if price is not None:
        money = (price * float(rows["paid_seconds"].sum()) / 3600, f"spent at {price:g} per {'GPU' if gpu else 'worker'}-hour")
    saved = _saved(study)
    share = saved / (saved + spent) if saved + spent > 0 and any(map(bool, rows["stages_reused"])) else math.nan
    waiting = _waiting(study)
    return Standing(counts, waiting, _first(study, counts, waiting), spent / 3600, gpu / 3600, share, money)


def _waiting(study: Study) -> int:
    rows = study.usable
    asked = {(a.config_hash, seed) for table in study.tables for a in table.arms for seed in study.seeds}
    there = set(zip(rows["config_hash"], rows["seed"], strict=True))
    return len(asked - there) + max(0, (whole(study.asked.get("trials")) or 0) - int(rows["trial"].nunique()))


def _first(study: Study, counts: Mapping[str, int], waiting: int) -> str:
    """Of an unfinished, failed or empty study what it is, with the exit status that its command ends with."""
    ended = sum(counts.values())
    if not ended:
        return "Empty: no run has ended yet, so there is nothing to report."
    rows = study.usable
    bad = rows[rows["status"].isin(["diverged", "collapsed", "failed"])]
    why = "; ".join(f"{word}: {count}" for word, count in Counter(bad["reason"]).most_common(3))
    halted = study.asked.get("halted")
    unfinished = f"{ended:,} of {ended + waiting:,} runs have ended, {waiting:,} {'is' if waiting == 1 else 'are'} missing{f' ({halted})' if isinstance(halted, str) and halted else ''}"
    if not counts["completed"]:
        of = f"none of the {plural(ended, 'run')} that ended has completed ({why or 'all were stopped early'})"
        return f"Unfinished: {unfinished}, and {of}." if waiting else f"Failed: {of}. Exit status 1."
    if waiting:
        return f"Unfinished: {unfinished}. What stands below may still change."
    why = "; ".join(f"{word}: {count}" for word, count in Counter(bad[bad["status"] == "failed"]["reason"]).most_common(3))
    return f"Finished, but {plural(counts['failed'], 'run')} of {ended:,} failed ({why}). Exit status 4." if counts["failed"] else ""


def _saved(study: Study) -> float:
    """Seconds that runs were spared by taking over a stage that another had trained."""
    rows = study.usable
    stages = [rows[k].tolist() for k in ("stage_hashes", "stages_reused", "stage_seconds")]
    trained: dict[tuple[str, str], float] = {}
    for hashes, taken, seconds in zip(*stages, strict=True):
        for stage, value in hashes.items():
            if stage not in taken and not math.isnan(took := finite(seconds.get(stage))):
                trained[stage, str(value)] = max(took, trained.get((stage, str(value)), 0.0))
    return sum(trained.get((stage, str(hashes.get(stage))), 0.0) for hashes, taken, _ in zip(*stages, strict=True) for stage in taken)


def size_baseline(study: Study) -> str:
    """What image and foreground area alone reach, in words; '' where it was not measured."""
    given = mapping(mapping(study.asked.get("data")).get("size_baseline"))
    share, low, high = (finite(given.get(k)) for k in ("accuracy", "low", "high"))
    if any(map(math.isnan, (share, low, high))):
        return ""
    return f"The size of an image and of its foreground alone give {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f}) accuracy."


def baselines(study: Study) -> tuple[tuple[str, ...], tuple[tuple[str, dict[str, float]], ...]]:
    """What simpler methods reach: the metrics, and (name, value by metric in per cent)."""
    given = mapping(study.asked.get("data")).get("baselines")
    rows = []
    for entry in map(mapping, given if isinstance(given, list) else []):
        numbers = {str(k): finite(v) for k, v in mapping(entry.get("metrics")).items()}
        values = {k: 100 * v for k, v in numbers.items() if not math.isnan(v)}
        if isinstance(entry.get("name"), str) and values:
            rows.append((entry["name"], values))
    return tuple(dict.fromkeys(m for _, values in rows for m in values)), tuple(rows)
