"""What a paper's sentences claim of two arms without a number. In: a Study, LaTeX text. Out: what the records do not bear, in words.

`A significantly outperforms B` is held against the test of that pair, `A outperforms B` against their means, `A is comparable to B` against what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pandas as pd

from analysis import methods, sentences
from analysis.backing import MEAN, RUN, Value
from analysis.study import Study
from analysis.summary import title
from analysis.whose import Held, Names

_BETTER = (
    r"outperform(?:s|ed|ing)?|beat(?:s|en|ing)?|exceed(?:s|ed|ing)?|surpass(?:es|ed|ing)?|superior\s+to|better\s+than|higher\s+than"
    r"|improv(?:es?|ed|ing)\s+(?:\w+\s+){0,3}(?:up)?(?:on|over)|(?<!the )(?<!of )gain(?:s|ed|ing)?\s+(?:\w+\s+){0,3}over|ahead\s+of"
)
_WORSE = (
    r"underperform(?:s|ed|ing)?|inferior\s+to|worse\s+than|lower\s+than|falls?\s+(?:behind|below)|loses\s+(?:\w+\s+){0,3}(?:to|against)"
)
_SAME = (
    r"comparable\s+(?:to|with)|equivalent\s+to|on\s+par\s+with|similar\s+to|as\s+(?:good|accurate|well)\s+as|indistinguishable\s+from"
    r"|match(?:es|ed)|equal(?:s|led)|not?\s+differ(?:s|ed|ences?|ent)?|no\s+(?:\w+\s+)?difference|identical\s+to"
)
_SIGNIFICANT = r"significan(?:t|tly|ce)|statistically"
_SAID = re.compile(rf"\b(?:(?P<better>{_BETTER})|(?P<worse>{_WORSE})|(?P<same>{_SAME}))(?!\w)", re.I)
_TESTED = re.compile(rf"\b(?:in)?{_SIGNIFICANT}\b", re.I)
_DENIED = re.compile(r"insignifican|undecided|n\.s\.|\bnon-?\s*$", re.I)
_NOT = re.compile(r"\b(?:not?|never|neither|nor|cannot|fail(?:s|ed)?\s+to|\w+n't|without|none|lacks?)\b[^;:,]*$", re.I)
_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COUNTED = re.compile(
    rf"(?<![\w.,])(?:(?P<number>\d[\d,]*)|(?P<word>{'|'.join(_WORDS)}))(?:[\s~]+(?:random|test))?[\s~]+(?P<what>seeds|patients)\b", re.I
)
_OF_TESTS = re.compile(
    r"significance\s+(?:level|test|threshold)|considered|deemed|regarded|level\s+of|tested\s+for|clinical(?:ly)?\s+$|whether|\bif\b|\bmay\b|\bmight\b|hypothes"
)


def not_borne(study: Study, names: Names, values: Mapping[str, Value], lines: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """(refused, notes) of the sentences of a text, (place, text) by line, each with its place and the words that it claims by. values: of `values_of`."""
    text = sentences.plain("\n".join(line for _, line in lines))
    rows = study.results[study.results["metric"].isin([table.metric for table in study.tables]) | (study.results["n"] > 0)]
    metrics = {title(str(name)).lower(): str(name) for name in rows["metric"].unique() if str(name).startswith(("test_", "val_"))}
    counts = _counts(study)
    refused: list[str] = []
    notes: list[str] = []
    for start, sentence, earlier in sentences.split(text):

        def told(found: re.Match[str], why: str, start: int = start) -> str:
            return f"{lines[text.count(chr(10), 0, start + found.start())][0]}: '{found[0]}': {why}"

        for found in _SAID.finditer(sentence):
            bad, why = _of_words(found, sentence, earlier, names, rows, metrics, values)
            if why:
                (refused if bad else notes).append(told(found, why))
        for found in _COUNTED.finditer(sentence) if names.find(sentence) else ():
            number = _WORDS.index(found["word"].lower()) + 2 if found["word"] else int(found["number"].replace(",", ""))
            known = counts[found["what"].lower()]
            if known and number not in known and not re.search(r"publish|report|\\cite", sentence):
                refused.append(told(found, f"the records have {' or '.join(map(str, sorted(known)))} {found['what']}"))
        for found in _TESTED.finditer(sentence):
            if why := _of_test(found, sentence, earlier, names, rows, metrics):
                refused.append(told(found, why))
    return refused, notes


def _counts(study: Study) -> dict[str, set[int]]:
    """How many seeds and patients a number of a study may rest on."""
    cells, facts = study.results, methods.facts(study)
    seeds = {len(study.seeds), *cells["n"].astype(int), *cells["pairs"].dropna().astype(int)}
    people = {int(value) for name, value in facts.items() if name.split("-")[0] == "patients"}
    of_people = cells["interval_over"].str.contains("patients").fillna(False).astype(bool)
    return {"seeds": seeds - {0}, "patients": people | set(cells.loc[of_people, "cases"].dropna().astype(int))}


def _held(found: re.Match[str], sentence: str, earlier: str, names: Names) -> Held:
    return names.held(sentence[: found.start()], found[0], sentence[found.end() :], earlier)


def _pairs(held: Held, names: Names, rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each arm that the words speak of with each that it is set against; with the baseline of its table where none is named."""
    for arm in sorted(held.subjects or ()):
        own = rows[(rows["arm"].map(names.name) == arm) & ~rows["is_baseline"]]["baseline_arm"].dropna().map(names.name).unique()
        for other in sorted(held.others) or own:
            if other != arm:
                yield arm, other


def _metric(sentence: str, metrics: Mapping[str, str]) -> str:
    """The metric that the sentence names, where it names one."""
    said = [name for word, name in metrics.items() if re.search(rf"\b{re.escape(word)}\b", sentence, re.I)]
    return said[0] if len(said) == 1 else ""


def _shown(arm: str, other: str, names: Names, rows: pd.DataFrame, metric: str) -> set[str] | None:
    """What the tests of a pair show of the first arm; None where none was made."""
    there = rows[rows["p_adjusted"].notna() & ((rows["metric"] == metric) if metric else True)]
    mine, theirs = there["arm"].map(names.name), there["baseline_arm"].map(names.name, na_action="ignore")
    turn = {"better": "worse", "worse": "better"}
    shown = [str(word) if isinstance(word, str) else "" for word in there.loc[(mine == arm) & (theirs == other), "shown"]]
    shown += [turn.get(str(word), "") for word in there.loc[(mine == other) & (theirs == arm), "shown"]]
    return set(shown) if shown else None


def _of_words(
    found: re.Match[str],
    sentence: str,
    earlier: str,
    names: Names,
    rows: pd.DataFrame,
    metrics: Mapping[str, str],
    values: Mapping[str, Value],
) -> tuple[bool, str]:
    """Whether what a comparing verb or adjective says is refused or noted, and why; '' where nothing is to be said."""
    before, held = sentence[: found.start()], _held(found, sentence, earlier, names)
    pairs, metric = list(_pairs(held, names, rows)) if held.others else [], _metric(sentence, metrics)
    if not pairs or len(held.others) > 1 or _OF_TESTS.search(sentence) or re.search(r"\b(?:error|loss)\b", sentence):
        return False, ""
    for arm, other in pairs:
        shown = _shown(arm, other, names, rows, metric) or set()
        if found["same"]:
            if word := next((word for word in shown if word), ""):
                return True, f"{arm} is shown to be {word} than {other}"
            return False, f"{arm} and {other} are not shown to differ, which is not yet that they are alike: give the interval"
        way = "better" if found["better"] else "worse"
        never = (one := sentences.NEVER_IS.search(before)) and not one["weak"]
        if (never or sentences.EVERY_SEED.search(sentence)) and not re.search(r"\b(?:mean|average)", sentence):
            for seed, apart in _by_seed(arm, other, values, metric):
                if (apart > 0 if way == "better" else apart < 0) == bool(never):
                    return True, f"with seed {seed} {arm} is {abs(apart):.2f} points {'above' if apart > 0 else 'below'} {other}"
        if _NOT.search(before):
            if way in shown:
                return True, f"{arm} is shown to be {way} than {other}"
            continue
        both = rows[(rows["metric"] == metric) if metric else rows["metric"].isin(rows.loc[rows["p_adjusted"].notna(), "metric"])]
        above = _above(both, arm, other, names)
        if above is not None and (above > 0) != (way == "better"):
            return True, f"the records have {arm} {'above' if above > 0 else 'below' if above < 0 else 'equal to'} {other}"
        if not shown - {""} and not re.search(r"undecided|\bnumerical|nominal|not\s+(?:\w+\s+)?significan", sentence, re.I):
            return False, f"{arm} is not shown to differ from {other}: say that it is undecided"
    return False, ""


def _by_seed(arm: str, other: str, values: Mapping[str, Value], metric: str) -> list[tuple[int, float]]:
    """An arm's score less that of another with each seed that both have in a table."""
    runs = [one for one in values.values() if (one.kind, one.of) == (RUN, MEAN) and (one.beside[1] == metric if metric else one.ranks)]
    theirs = {(one.beside, one.seed): one.value for one in runs if one.arm == other}
    return [(one.seed, one.value - theirs[one.beside, one.seed]) for one in runs if one.arm == arm and (one.beside, one.seed) in theirs]


def _above(rows: pd.DataFrame, arm: str, other: str, names: Names) -> float | None:
    """Mean of an arm less that of another, of the first table and metric that has both; None where none has."""
    for _, table in rows.groupby(["table", "metric"], sort=False, observed=True):
        means = {names.name(str(name)): float(value) for name, value in zip(table["arm"], table["mean"], strict=True) if value == value}
        if arm in means and other in means:
            return means[arm] - means[other]
    return None


def _of_test(found: re.Match[str], sentence: str, earlier: str, names: Names, rows: pd.DataFrame, metrics: Mapping[str, str]) -> str:
    """Why the records do not bear what a sentence says of significance; '' where they do."""
    before = sentence[: found.start()]
    if _OF_TESTS.search(sentence) or "&" in sentence:
        return ""
    denied = bool(_NOT.search(before) or _DENIED.search(before[-5:] + found[0]) or re.search(r"undecided", sentence))
    for arm, other in _pairs(_held(found, sentence, earlier, names), names, rows):
        shown = _shown(arm, other, names, rows, _metric(sentence, metrics))
        if denied and any(shown or ()):
            return f"{arm} is shown to be {next(filter(None, shown or ()))} than {other}"
        if not denied and shown is None:
            return f"no test of {arm} against {other} was made by that metric"
        if not denied and not any(shown or ()):
            return f"{arm} is not shown to differ from {other}"
    return ""
