"""What may be said of an arm in a paper, in one sentence. In: a table's rows. Out: words; everything in them comes from the row's own estimate.

A sentence that claims a difference stands only where the simultaneous interval of the table excludes 0; else it says what more it would take."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from scipy import stats

from analysis.crossed import LOST, MOST, Estimate, seeds_to_tell
from analysis.numbers import interval, number
from analysis.statistics import LEVEL
from analysis.study import BROKEN, Study, Table, by_seed, plural

if TYPE_CHECKING:
    from analysis.summary import Cell, Row

ROUGH = 5  # seeds below which their spread is known to no more than a factor of three or so (95 %: 0.60 to 2.9 times with five)
WORTH = 3.0  # points: the difference of which an undecided row says how many seeds would tell it


def claims(study: Study, table: Table, rows: Sequence[Row], baseline: Row | None) -> tuple[str, ...]:
    """A sentence for each arm that has a number beside the baseline arm's, by the metric that ranks the table."""
    if baseline is None:
        return ()
    return tuple(
        _claim(study, table, row, row.cells[table.metric], baseline) + _of_fits(study, table, row, baseline)
        for row in rows
        if not row.is_baseline and row.cells[table.metric].pairs
    )


def _claim(study: Study, table: Table, row: Row, cell: Cell, baseline: Row) -> str:
    from analysis.summary import phrase

    name = phrase(table.metric).removeprefix("test ")
    estimate = cell.difference_to
    assert estimate is not None  # an arm with pairs has one
    if some := [one for one in (row, baseline) if one.broken[0]]:
        rates = "; ".join(f"{one.arm.name}: {failure_rate(one.counts)}" for one in some)
        return f"{rates}. {row.arm.name} against {baseline.arm.name}: {number(cell.gain, True)} points of {name} over the {plural(estimate.seeds, 'seed')} that both ended; that leaves out what {' or '.join(dict.fromkeys(one.broke for one in some))} and is no claim."
    if estimate.lost:
        return f"{row.arm.name} against {baseline.arm.name}: undecided, {number(cell.gain, True)} points of {name} ({rests_on(estimate)})."
    if estimate.seeds < 2 or math.isnan(cell.gain_interval.low):
        return f"{row.arm.name} against {baseline.arm.name}: {number(cell.gain, True)} points of {name}, of {plural(estimate.seeds, 'seed')}; nothing can be said of others."
    kind = "95 % interval" if cell.comparisons < 2 else f"simultaneous 95 % interval of {cell.comparisons} comparisons"
    ends = f"{kind} {interval(cell.gain_interval, True)}; {rests_on(estimate)}"
    if cell.shown:
        verb = "gains" if cell.gain > 0 else "loses"
        over = "over" if cell.gain > 0 else "against"
        words = f"{row.arm.name} {verb} {abs(cell.gain):.2f} points of {name} {over} {baseline.arm.name} ({ends})."
        return f"{words} Probability that it is not {cell.shown}: {share(cell.wrong)}."
    words = f"{row.arm.name} against {baseline.arm.name}: undecided, {number(cell.gain, True)} points of {name} ({ends})."
    return f"{words} {'' if max(row.ratio, baseline.ratio) else _more(study, row, cell, baseline, estimate)}".rstrip()


def by_fit(study: Study, row: Row, metric: str) -> tuple[dict[int, float], dict[int, float], bool] | None:
    """An arm's metric by seed, per cent: with clusters fitted on the scored part, on the training part, and whether the first is the table's; None
    where but one is known."""
    own = dict(row.cells[metric].values)
    for other, first in (("_train_fit", True), ("_scored_fit", False)):
        if values := by_seed(study, row.arm, metric + other):
            return (own, values, True) if first else (values, own, False)
    return None


def _of_fits(study: Study, table: Table, row: Row, baseline: Row) -> str:
    """Where the two arms' clusters were fitted on different parts: the difference for each part alone, like with like; else ''."""
    mine, theirs = (by_fit(study, one, table.metric) for one in (row, baseline))
    if mine is None or theirs is None or mine[2] == theirs[2]:
        return ""
    words = []
    for name, one, other in (("the scored part", mine[0], theirs[0]), ("the training part", mine[1], theirs[1])):
        seeds = sorted(one.keys() & other.keys())
        gained = sum(one[seed] - other[seed] for seed in seeds) / len(seeds) if seeds else math.nan
        words.append(f"{number(gained, True) or 'not known'} on {name}")
    return f" Clusters of the two were fitted on different parts; with both fitted on one it is {' and '.join(words)}, points, without an interval."


def _more(study: Study, row: Row, cell: Cell, baseline: Row, estimate: Estimate) -> str:
    """What would decide it, and what that costs by the ledger's times."""
    if cell.gain_interval.low > -WORTH and cell.gain_interval.high < WORTH:
        return f"A difference of {WORTH:g} points is excluded."
    needed = seeds_to_tell(estimate, WORTH, max(1, cell.comparisons))
    asked = f"a difference of {WORTH:g} points"
    rough = f"As a rough guess, by the spread of {estimate.seeds} seeds, " if estimate.seeds < ROUGH else ""
    if needed is None and not _by_cases(estimate, max(1, cell.comparisons)):
        words = f"more than {MOST} seeds would be needed to tell {asked} in four of five studies."
    elif needed is None:
        words = f"no number of seeds would tell {asked} with these {estimate.cases:,} {estimate.unit}: it takes more {estimate.unit}."
    elif needed <= estimate.seeds:
        words = f"{asked} would have been seen in four of five such studies."
    else:
        price = "" if needed <= len(study.seeds) else _price(study, [*row.keys, *baseline.keys], 2 * (needed - estimate.seeds))
        more = ", and the study is asked for as many" if needed <= len(study.seeds) else f"{price}{' for the two arms' if price else ''}"
        words = f"{plural(needed - estimate.seeds, 'more seed')} would tell {asked} in four of five studies{more}."
    return rough + words if rough else words[:1].upper() + words[1:]


def _by_cases(estimate: Estimate, comparisons: int) -> bool:
    """Whether the patients alone leave too much open, however many seeds there were."""
    if estimate.parts is None:
        return False
    error, free = math.sqrt(estimate.parts.cases / estimate.cases), estimate.cases - 1
    return bool((stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), free) + stats.t.ppf(0.8, free)) * error > WORTH)


def commands(study: Study, table: Table, rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """For the undecided rows of which more seeds would tell: the command that trains them, in the folder that holds the study, fewest first, and
    what it costs, for it trains all arms of the study."""
    needed = set()
    for cell in (row.cells[table.metric] for row in rows):
        excluded = cell.gain_interval.low > -WORTH and cell.gain_interval.high < WORTH
        if (estimate := cell.tested) is not None and not cell.shown and estimate.seeds > 1 and not excluded:
            count = seeds_to_tell(estimate, WORTH, max(1, cell.comparisons))
            needed |= {count} if count is not None and count > max(estimate.seeds, len(study.seeds)) else set()  # else it is asked for
    if not (study.folder / "request.toml").is_file():
        return ()
    file = shlex.quote(f"{study.folder.resolve().name}/request.toml")
    arms = {arm.config_hash for one in study.tables for arm in one.arms}
    keys = study.usable.loc[study.usable["config_hash"].isin(arms), "key"]
    out = []
    for count in sorted(needed):
        more = len(arms) * (count - len(study.seeds))
        words = f"{plural(more, 'run')} of {plural(len(arms), 'arm')}{_price(study, keys, more)}"
        out.append((f"karyotune {study.procedure} --request {file} --repeats {count}", words))
    return tuple(out)


def _price(study: Study, keys: Iterable[str], more: int) -> str:
    """What so many more runs cost by the times of those that ended, of which keys are the names."""
    runs = study.usable[study.usable["key"].isin(list(keys)) & (study.usable["status"] == "completed")]
    gpu = runs["gpu_seconds"].fillna(0).sum() > 0
    hours = more * float(runs["gpu_seconds" if gpu else "seconds"].mean()) / 3600
    of = "GPU" if gpu else "worker"
    return (
        "" if math.isnan(hours) else f": {hours:.1f} {of}-hours" if hours >= 1 else f": {plural(max(1, round(60 * hours)), f'{of}-minute')}"
    )


def failure_rate(counts: Mapping[str, int]) -> str:
    """`1 of 3 runs diverged (33 %, 95 % interval 1 to 91 %)`, by Clopper and Pearson; '' where none did. counts: of runs, by their status."""
    if not (broken := sum(counts[status] for status in BROKEN)):
        return ""
    ended, broke = broken + counts["completed"], " or ".join(status for status in BROKEN if counts[status])
    low = stats.beta.ppf(0.025, broken, ended - broken + 1)
    high = stats.beta.ppf(0.975, broken + 1, ended - broken) if broken < ended else 1.0
    return f"{broken} of {plural(ended, 'run')} {broke} ({100 * broken / ended:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %)"


def rests_on(estimate: Estimate) -> str:
    """`3 seeds, 31 patients`; of one run `by patient, one training: 31 patients`."""
    seeds = plural(estimate.seeds, "seed")
    if estimate.lost:
        return f"{seeds}; no interval, since {estimate.lost}"
    if not estimate.cases:
        return f"{seeds}; says nothing of other patients"
    if estimate.cases == 1 and estimate.seeds > 1:
        return f"{seeds}, all of one {estimate.unit.removesuffix('s')}; says nothing of others"
    cases = f"{estimate.cases:,} images, taken for independent" if estimate.unit == "images" else counted(estimate)
    return f"by {estimate.unit.removesuffix('s')}, one training: {cases}" if estimate.seeds == 1 else f"{seeds}, {cases}"


def counted(estimate: Estimate) -> str:
    """`31 patients`; `24 patients and 1,175 images without one`."""
    known = f"{estimate.cases - estimate.lone:,} {estimate.unit}"
    return f"{known} and {estimate.lone:,} image{'s' * (estimate.lone > 1)} without one" if estimate.lone else known


def share(p: float) -> str:
    """A probability for a sentence: `0.4 %`, `below 0.1 %`."""
    return "below 0.1 %" if p < 0.001 else f"{100 * p:.1f} %"


def how_known(rows: Sequence[Row], metric: str) -> list[str]:
    """What the intervals of a table's ranking metric hold for, in words."""
    cells = [row.cells[metric] for row in rows]
    words = [
        f"Of {row.arm.name} {failure_rate(row.counts)}; its mean is over the others."
        for row in rows
        if row.broken[0] and row.cells[metric].n
    ]
    known = [(row, row.cells[metric].level) for row in rows if row.cells[metric].n]
    for lost in dict.fromkeys(level.lost for _, level in known if level.lost):
        names = [row.arm.name for row, level in known if level.lost == lost]
        step = "Bring them back, or train those runs again." if lost.startswith(LOST) else "It takes others that have it."
        words.append(f"No interval of {'; '.join(names)}: {lost}, and seeds alone would leave less open than there is. {step}")
    known = [(row, level) for row, level in known if level.seeds > 1 and not level.lost]
    if single := [row.cells[metric].level for row in rows if row.cells[metric].level.seeds == 1 and not row.cells[metric].level.lost]:
        units = sorted({level.unit.removesuffix("s") for level in single if level.cases})
        ends = f"intervals are by {' or '.join(units)}, of that one training" if units else "there is no interval"
        which = "One seed of each arm" if not known else "Where an arm has one seed"
        words.append(f"{which}: nothing is known of other seeds, and {ends}.")
    if not known:
        return words
    redrawn = [row for row, _ in known if row.ratio]
    fixed = [(row, level) for row, level in known if not row.ratio]
    if redrawn:
        of = "Every seed" if len(redrawn) == len(known) else f"Every seed of {'; '.join(row.arm.name for row in redrawn)}"
        ratios = " or ".join(f"{ratio:.3g}" for ratio in sorted({row.ratio for row in redrawn}))
        words.append(f"{of} draws its own split, so training parts overlap: intervals use Nadeau and Bengio's variance (1/n + {ratios}).")
    if crossed := [level for _, level in fixed if level.cases > 1]:
        most = max(crossed, key=lambda level: level.cases)
        named = {"images": "images (patients are not known: images are taken for independent)", "tiles": "tiles (patients are not known)"}
        of = f" ({counted(most)}; those images are taken for independent)" if most.lone else ""
        words.append(
            f"Intervals hold for other seeds and other {most.unit}: seeds x {named.get(most.unit, most.unit)}, {most.cases:,} of them{of}, both taken as "
            "drawn from many (Obuchowski and Rockette's model, pseudo-values of Dorfman, Berbaum and Metz)."
        )
    if left := [row.arm.name for row, level in fixed if not level.cases]:
        of = "" if len(left) == len(known) else f" of {'; '.join(left)}"
        words.append(f"Intervals{of} are over seeds alone (no predictions of single images are kept): they say nothing of other patients.")
    if one := next((level for _, level in fixed if level.cases == 1), None):
        words.append(f"Intervals are over seeds alone (all images are of one {one.unit.removesuffix('s')}): they say nothing of others.")
    count = max((cell.comparisons for cell in cells), default=0)
    dagger = "†: shown to differ from the baseline arm" if any(cell.shown for cell in cells) else ""
    if count > 1:
        words.append(
            f"The intervals of the {count} differences hold together at 95 % (Bonferroni); p is of the same model, times {count}."
            + (f" {dagger}." if dagger else " No arm is shown to differ from the baseline arm.")
        )
    elif count and dagger:
        words.append(f"{dagger} (its interval excludes 0).")
    return words
