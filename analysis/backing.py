"""Which value of the records backs a number of a paper. In: a Study, `Typed` numbers. Out: the value's name, or why there is none.

A number has to be a value of what the sentence says it is: a mean, a gain, an end of an interval, a p; of the arm that the sentence names, against
the arm that it names; in the direction that it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from analysis import methods, sentences
from analysis.claims import WORTH
from analysis.headline import headline
from analysis.numbers import number
from analysis.standing import baselines
from analysis.study import Study, finite, mapping
from analysis.summary import title
from analysis.typed import Typed
from analysis.whose import Held, Names

# What a value is, which decides what a number of the text may be of it.
MEAN, PUBLISHED, GAIN, APART, END, SPREAD, CHANCE, P, ASKED, OTHER, LEAD, RUN, SIZE = (
    "mean", "published", "gain", "apart", "end", "spread", "chance", "p", "asked", "other", "lead", "run", "size",
)  # fmt: skip
CELL = {  # column, what it is, and of an end the other end, of a spread its mean
    "mean": ("mean", MEAN, ""),
    "std": ("std", SPREAD, "mean"),
    "low": ("ci95_low", END, "ci95_high"),
    "high": ("ci95_high", END, "ci95_low"),
    "gain": ("gain_over_baseline", GAIN, ""),
    "gain-low": ("gain_simultaneous95_low", END, "gain_simultaneous95_high"),
    "gain-high": ("gain_simultaneous95_high", END, "gain_simultaneous95_low"),
    "published": ("published_mean", PUBLISHED, ""),
    "published-std": ("published_std", SPREAD, "published_mean"),
}


@dataclass(frozen=True)
class Value:
    """Of the records: in per cent or points, as a probability, or a setting or a count (`OTHER`); `RUN` of one seed. arm: whose it is, '' of none; over: the arm that
    a gain, its interval and its p are against; of: what it is an end or a spread of, and twin: the other end, or the mean; beside: table and metric."""

    value: float
    kind: str
    arm: str = ""
    over: str = ""
    of: str = ""
    twin: float = math.nan
    beside: tuple[str, str] = ("", "")
    shown: bool = True  # of a gain: its simultaneous interval leaves 0 out
    ranks: bool = True  # whether its metric is the one that ranks its table
    seed: int = -1  # of `RUN`


def names_of(study: Study) -> Names:
    """The arms of a study by what a text may call them; arms of one configuration are one."""
    arms = [(arm.name, arm.config_hash) for table in study.tables for arm in table.arms]
    arms += [(winner.name, winner.config_hash)] if (winner := study.winner) else []
    hashes: dict[str, set[str]] = {}
    for name, config_hash in arms:
        hashes.setdefault(name, set()).add(config_hash)
    first: dict[str, str] = {}
    for name, config_hash in arms:
        if len(hashes[name]) == 1 and config_hash:
            first.setdefault(config_hash, name)
    same = {name: first.get(config_hash, name) if len(hashes[name]) == 1 else name for name, config_hash in arms}
    names = [name for name, _ in arms] + study.results["arm"].astype(str).tolist() + [name for name, _ in baselines(study)[1]]
    compared = [table.baseline_arm for table in study.tables if table.baseline_arm and table.number != "search"]
    return Names(sentences.short_names(names, compared[0] if len({same.get(b, b) for b in compared}) == 1 else ""), same)


def values_of(study: Study, same: Mapping[str, str]) -> dict[str, Value]:
    """Everything that a number of a text may be: cells, settings, facts; by name."""
    out: dict[str, Value] = dict(_of_seeds(study, same))
    ranking = {table.number: table.metric for table in study.tables}
    for row in study.results.to_dict("records"):
        arm, over = (same.get(name, name) for name in (str(row["arm"]), str(row["baseline_arm"] or "")))
        shown = bool(row["gain_simultaneous95_low"] > 0 or row["gain_simultaneous95_high"] < 0)
        made = Value(
            math.nan, OTHER, arm, beside=(str(row["table"]), str(row["metric"])), ranks=ranking.get(str(row["table"])) == row["metric"]
        )
        for name, (column, kind, twin) in CELL.items():
            of = GAIN if name.startswith("gain") else MEAN
            out[f"\\kt{{{row['key']}/{name}}}"] = replace(
                made, value=float(row[column]), kind=kind, over=over if of == GAIN else "", of=of,
                twin=float(row[twin]) if twin else math.nan, shown=shown or kind != GAIN,
            )  # fmt: skip
        out[f"{row['key']}, difference_to_published"] = replace(made, value=float(row["difference_to_published"]), kind=APART)
        out[f"\\kt{{{row['key']}/p}}"] = replace(made, value=float(row["p_adjusted"]), kind=P, over=over)
        out[f"{row['key']}, probability_of_other_sign"] = replace(
            made, value=100 * float(row["probability_of_other_sign"]), kind=CHANCE, over=over
        )
    out |= dict(_of_headline(study, same))
    others = {f"\\kt{{study/{name}}}": value for name, value in methods.facts(study).items()}
    for name, value in mapping(study.asked.get("baseline")).items():
        others |= {f"the setting {name}": one for one in (value if isinstance(value, list) else [value])}
    for column in (c for c in map(str, study.runs) if c.startswith("param.")):
        others |= {f"a run's {column.removeprefix('param.')} = {value}": value for value in study.runs[column].dropna().unique()}
    for name in ("n", "pairs", "cases", "images"):
        others |= {f"{name} = {int(value)} of a cell": int(value) for value in study.results[name].dropna().unique()}
    known: dict[str, float] = {n: v for n, v in others.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    known |= {n: float(v) for n, v in others.items() if isinstance(v, str) and n.startswith("\\kt") and v.replace(".", "", 1).isdigit()}
    out |= {name: Value(float(value), OTHER) for name, value in known.items()}
    for method, scores in baselines(study)[1]:
        for name, value in scores.items():
            out[f"the {name} of {method}"] = Value(value, MEAN, method, beside=("", f"test_{name.removeprefix('test_')}"))
    size = finite(mapping(mapping(study.asked.get("data")).get("size_baseline")).get("accuracy"))
    out["what sizes alone give"] = Value(100 * size, SIZE)
    out["the difference that the report asks more seeds for"] = Value(WORTH, ASKED)
    return {name: one for name, one in out.items() if not math.isnan(one.value)}


def _of_seeds(study: Study, same: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    """The score of each seed of each arm, and what it gains over the baseline arm's of that seed."""
    for summary in study.summaries:
        base = next((row for row in summary.rows if row.is_baseline), None)
        for row in summary.rows:
            arm = same.get(row.arm.name, row.arm.name)
            for metric, cell in row.cells.items():
                theirs = dict(base.cells[metric].values) if base and not row.is_baseline else {}
                made = Value(math.nan, RUN, arm, of=MEAN, beside=(summary.table.number, metric), ranks=metric == summary.table.metric)
                for seed, value in cell.values:
                    name = f"seed {seed} of {row.arm.name} in table {summary.table.number} by {metric}"
                    yield name, replace(made, value=value, seed=seed)
                    if seed in theirs and base:
                        over = same.get(base.arm.name, base.arm.name)
                        yield f"the gain of {name}", replace(made, value=value - theirs[seed], of=GAIN, over=over, seed=seed)


def _of_headline(study: Study, same: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    """What the first line of the report has, which may stand in no table: the winner may be a trial."""
    found, winner = headline(study), study.winner
    if found is None or winner is None:
        return
    made = Value(math.nan, MEAN, same.get(winner.name, winner.name), beside=("", found.metric))
    over = same.get(found.over, found.over)
    yield "the headline's mean", replace(made, value=found.mean)
    yield "the headline's spread", replace(made, value=found.std, kind=SPREAD, of=MEAN, twin=found.mean)
    for (name, low, high), of in ((("mean", *found.interval), MEAN), (("gain", *found.gain_interval), GAIN)):
        against = over if of == GAIN else ""
        yield f"the low end of the headline's {name}", replace(made, value=low, kind=END, over=against, of=of, twin=high)
        yield f"the high end of the headline's {name}", replace(made, value=high, kind=END, over=against, of=of, twin=low)
    shown = found.gain_interval.low > 0 or found.gain_interval.high < 0
    yield "the headline's gain", replace(made, value=found.gain, kind=GAIN, over=over, shown=shown)
    yield "the winner's validation score", replace(made, value=100 * winner.mean, beside=("", study.metric))
    if found.metric.startswith("test_"):
        yield "the winner's validation score less its test score", Value(100 * winner.mean - found.mean, LEAD)


def backing(typed: Typed, values: Mapping[str, Value], names: Names) -> tuple[str | None, str]:
    """Whose value, rounded as the text rounds, is the text, and in words what stands against it all the same; None where it is no value of the
    records, '' where nothing comes near."""
    held = names.held(typed.said.before, typed.said.number, typed.said.after, typed.said.earlier)
    said = typed.said.metrics(every := {one.beside[1] for one in values.values()})
    if not typed.relation and (bounded := _bounded(typed, values, held, said)):
        return bounded
    if typed.name:
        key = f"\\kt{{{typed.name}}}"
        values = {key: values[key]} if key in values else {}
        if not values:
            return key, ""
    if typed.unit == "level":
        return None, ""
    if typed.said.statistic and not any(typed.said.statistic in name.lower() for name in values):
        return None, ""
    start = len(typed.said.before)
    if not typed.name and any(one.start <= start < one.end for one in names.find(typed.said.text)):
        return "the name of an arm", ""
    found = [name for name, one in values.items() if _backs(typed, one, names, held)]
    found = [name for name in found if not said or values[name].beside[1] in said or not values[name].arm]
    own = [name for name in found if _is_of(typed, values[name], values, held)]
    for name in sorted(own, key=lambda one: not values[one].ranks):
        if _goes_so_far(typed, values[name], values, held):
            metric = values[name].beside[1]
            unnamed = (
                not values[name].ranks and not typed.said.in_table and metric not in said | typed.said.metrics(every, typed.said.earlier)
            )
            return name, f"is of {title(metric)}, which the sentence does not name" if unnamed else ""
    if own:
        return None, f"it is not the {typed.said.extreme or 'least or the best of the seeds'}: others of the records go further"
    if found:
        one = values[found[0]]
        against = f" against {one.over}" if one.over else ""
        told = f"{' or '.join(sorted(held.subjects))}" if held.subjects else "another arm"
        over = f" against {' or '.join(sorted(held.others))}" if held.others and one.over else ""
        return None, f"it is that of {one.arm}{against}, and the sentence gives it to {told}{over}"
    return None, ""


def _bounded(typed: Typed, values: Mapping[str, Value], held: Held, said: set[str]) -> tuple[str | None, str] | None:
    """Whether what never falls below a number, or never exceeds it, does not; None where no such thing is said of an arm or a metric."""
    (bound, strict), given, places = typed.said.bound, float(typed.digits), len(typed.digits.partition(".")[2])
    if not bound or not (held.subjects or said):
        return None
    if not typed.unit and given <= 1:  # a fraction
        given, places = 100 * given, max(0, places - 2)
    kind = GAIN if typed.unit == "points" else MEAN
    turn, worst = -1 if kind == GAIN and typed.said.of_loss else 1, min if bound == "lowest" else max

    def furthest(kinds: tuple[str, str]) -> tuple[str, float] | None:
        known = {
            name: turn * one.value
            for name, one in values.items()
            if (one.kind, one.of or one.kind) == kinds and (one.beside[1] in said if said else one.ranks)
            and (not held.subjects or one.arm in held.subjects) and (kind == MEAN or not held.others or one.over in held.others)
        }  # fmt: skip
        name = worst(known, key=lambda one: known[one], default="")
        return (name, known[name]) if name else None

    seeds, means = furthest((RUN, kind)), furthest((kind, kind))
    if seeds is None or means is None:
        return None
    (name, value), (mean, level) = seeds, means

    def beyond(one: float) -> bool:
        return round(one, places) < given if bound == "lowest" else round(one, places) > given

    if beyond(level):
        return None, f"{mean} is {number(turn * level)}"
    if not beyond(value) or typed.said.of_mean:
        return f"the {bound} of the seeds", ""
    return (None if strict and held.subjects else mean), f"{name} is {number(turn * value)}"


def _is_of(typed: Typed, one: Value, values: Mapping[str, Value], held: Held) -> bool:
    """Whether a value is of the arm, and against the arm, that the sentence names."""
    if one.arm and held.subjects is None and one.kind == GAIN and typed.said.of_average:
        return False  # a mean over arms is in no record
    if not one.arm or (held.subjects is None and not held.others):
        return True
    subjects = held.subjects or frozenset()
    if one.over:
        if one.arm in subjects or held.subjects is None:
            return not held.others or one.over in held.others or one.over in subjects or (held.subjects is None and one.arm in held.others)
        return one.over in subjects and one.arm in held.others
    if held.subjects is None or one.arm in subjects or one.arm in held.beside:
        return True
    begin = held.others or {v.over for v in values.values() if v.over and v.arm in subjects}
    return typed.said.from_there and one.arm in begin


def _goes_so_far(typed: Typed, one: Value, values: Mapping[str, Value], held: Held) -> bool:
    """Whether no other value of its kind, table and metric that the sentence may speak of goes further: `up to 3.2 points`, `the best seed has 84 %`,
    `between 78 and 84 % over seeds`; True where nothing of the like is said."""
    extreme = typed.said.extreme or (typed.said.of_seed[0] if one.kind == RUN else "")
    if extreme in ("", "any"):
        return True
    others = [
        v.value for v in values.values() if (v.kind, v.of, v.beside) == (one.kind, one.of, one.beside) and _is_of(typed, v, values, held)
    ]
    falls = one.kind == GAIN and one.value < 0
    ends = (min, max) if extreme == "ends" else (max if (extreme == "highest") != falls else min,)
    return one.value in [end(others) for end in ends]


def _backs(typed: Typed, one: Value, names: Names, held: Held) -> bool:
    """Whether a number of the text may be this value, whoever it is of. A p is a p, a number with a unit is no setting and no count, a difference of
    two percentages is in points, what is said to rise or fall is a gain or a loss, an end of an interval stands beside the other end, a number of
    another paper is called so, and only a mean may stand as a fraction of 1. A sign that is written must be the value's; without one and without
    such words -0.94 may stand as 0.94. A number that is rounded to less than two decimals is held against means, gains and settings alone: some end
    of an interval would fit it by chance."""
    places, said = len(typed.digits.partition(".")[2]), typed.said
    if one.kind == RUN and (
        one.of != MEAN or one.arm not in (held.subjects or ()) or not said.of_seed[0] or said.of_seed[1] not in (-1, one.seed)
    ):
        return False
    macro = bool(typed.name)
    if (typed.relation != "") != (one.kind == P) and (typed.relation or typed.unit or places < 2 or (macro and not said.in_table)):
        return False
    if typed.relation in ("<", ">") and not macro:
        return one.value < float(typed.digits) if typed.relation == "<" else one.value > float(typed.digits)
    if one.kind == CHANCE:
        return said.of_chance and (f"{one.value:.{places}f}" == typed.digits or (said.is_below and one.value < float(typed.digits)))
    if one.kind == LEAD and not said.of_validation:
        return False
    if one.kind == PUBLISHED and not (said.of_others or said.in_table):
        return False
    if typed.unit == "points" and said.of_gain and one.kind not in (GAIN, LEAD) and not (one.kind == APART and said.of_others):
        return False
    if typed.unit == "%" and one.kind in (GAIN, APART, LEAD) and not said.in_table:
        return False
    if one.kind == SIZE and (held.subjects or not said.of_size):
        return False
    if one.kind == ASKED and not said.of_seeds:
        return False
    if typed.unit and one.kind == OTHER:
        return False
    end = one.kind in (END, SPREAD, APART)
    if (not end) if typed.unit == "end" else (end and places < 2 and not macro):
        return False
    if macro and one.kind != GAIN:
        return True
    sign, lost = typed.sign, _is_loss(said.way, one, names, said, held)
    if one.kind == END:
        text = sign.replace("+", "") + typed.digits
        if f"{one.value:.{places}f}" == text:
            return _is_end(typed, one.value, one.twin)
        turned = one.of == GAIN and (lost or said.in_table) and f"{-one.value:.{places}f}" == text  # a loss of 4.97 points (1.85 to 8.10)
        return turned and _is_end(typed, -one.value, -one.twin)
    if one.kind == SPREAD and not (_rounds_to(typed.centre, one.twin) if typed.centre else said.of_spread or said.in_table):
        return False
    if one.kind == GAIN and (not sign or macro):
        if not typed.unit and not said.of_difference and not macro:
            return False
        sign = {True: "-", False: "+", None: ""}[lost]
    if sign and one.value * (1 if sign == "+" else -1) < 0:
        return False
    if macro:
        return True
    of = (one.value, one.value / 100) if one.kind in (MEAN, PUBLISHED, RUN, SIZE) and not typed.unit else (one.value,)
    return any(f"{abs(v):.{places}f}" == typed.digits for v in of)


def _is_loss(way: str, one: Value, names: Names, said: sentences.Sentence, held: Held) -> bool | None:
    """Whether the words tell of a gain as of a loss of the arm; None where they tell no direction."""
    if not way:
        return None
    subjects = held.subjects or frozenset()
    turned = bool(one.arm) and one.arm not in subjects and (one.arm in held.others or one.over in subjects)
    return (way == "-") != (turned or said.praises_what_lacks(one.arm, names.spelled))


def _is_end(typed: Typed, value: float, twin: float) -> bool:
    """Whether what is an end of an interval stands as one, beside its other end."""
    if typed.centre:
        return False
    if typed.others and not typed.said.in_table:
        return any(_rounds_to(other, twin) and first == (value <= twin) for other, first in typed.others)
    return bool(typed.said.of_end or typed.said.in_table)


def _rounds_to(text: str, value: float) -> bool:
    """Whether a number of the text is this value, but for its sign, which is held against it at its own place."""
    digits = text.lstrip("-+−–$").replace(",", ".")
    return f"{abs(value):.{len(digits.partition('.')[2])}f}" == digits
