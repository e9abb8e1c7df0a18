"""What a paper's sentences claim of two arms without a number. In: a Study, LaTeX text. Out: what the records do not bear, in words.

`A significantly outperforms B` is held against the test of that pair, `A outperforms B` against their means, and where it is said of all seeds against
each; `A is the best arm` against the means of its table, `twice as good` against the ratio, `A is comparable to B` against what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

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
_EVERY = re.compile(
    rf"{sentences.EVERY_SEED.pattern}|\b(?:consistently|without\s+exception|(?:over|across|of)\s+all\s+{sentences.SEEDS})", re.I
)
_ALL_ARMS = re.compile(
    r"\b(?:all|every|each|any)\s+(?:of\s+)?(?:(?:the|our|other)\s+)*(?:arm|method|variant|configuration)s?\b(?!\s+(?:but|except|other|save))",
    re.I,
)
_MOST = re.compile(
    r"\b(?:performs?\s+(?P<adverb>best|worst)|the\s+(?P<most>best|highest|top|worst|lowest|poorest)\s+(?:\w+\s+){0,3}?"
    r"(?:arm|method|variant|model|performance|result|score|mean|accuracy|precision|sensitivity|specificity|recall|F1|AUC|AMI|ARI|purity)s?\b)",
    re.I,
)
_NOT_MOST = re.compile(
    r"\b(?:seed|run|trial|search|validation|publish\w*|report\w*|second|third|next|class|error|loss|epoch|interval|bound|one\s+of|among\s+the)s?\b|\\cite"
    r"|\x1f",
    re.I,
)
_RATIO = re.compile(
    r"\b(?:(?P<two>twice|doubl(?:es?|ed|ing))|(?P<half>hal(?:f|ves?|ved|ving))|(?P<three>thrice|tripl(?:es?|ed|ing))|factor\s+of[\s$]+(?P<factor>\d+(?:\.\d+)?)"
    r"|(?P<times>\d+(?:\.\d+)?)[\s~$-]*(?:times\b|fold\b|\\times\$?\s+(?:as|that|the|higher|lower|better)\b))",
    re.I,
)
_SCORES = r"\b(?:errors?|mistakes?|misclassif\w*|accura\w+|precision|sensitivity|F1|AMI|ARI|AUC|purity|scores?|performance|as\s+good|better|worse)\b"
_PARTS = re.compile(
    r"\b(?:(?P<set>test|training|validation)[\s~]+(?:set|part|split)\s+(?:(?:has|had|contains?|contained|holds?|comprises?|consists?\s+of|of|with)\s+)"
    r"|(?P<done>tested|evaluated|trained|validated)\s+on\s+)(?P<images>\d[\d,]*)[\s~]+(?:(?:test|training|validation)\s+)?(?:images|cells)\b"
    r"(?:\s+(?:of|from)\s+(?P<patients>\d[\d,]*)[\s~]+patients)?(?!\s+(?:per|of\s+each|each|in\s+each))",
    re.I,
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
        whole = _of_most, _of_ratio
        for found, of in (
            (found, of) for of, spelling in zip(whole, (_MOST, _RATIO), strict=True) for found in spelling.finditer(sentence)
        ):
            if why := of(found, sentence, earlier, names, rows, metrics):
                refused.append(told(found, why))
        for found in _PARTS.finditer(sentence):
            if why := _of_part(found, study):
                refused.append(told(found, why))
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


def _of_part(found: re.Match[str], study: Study) -> str:
    """Why a part of the data has another number of images or patients than is said; '' where it has it or nothing is known."""
    word = (found["set"] or found["done"]).lower()
    parts = {"tr": ("train",), "va": ("val",)}.get(word[:2], ("test",))
    splits = list(methods.divisions(study).values())
    images = {study.parts[part] for part in parts if part in study.parts} | {
        one.images[part] for one in splits for part in parts if part in one.images
    }
    patients = {one.patients[part] for one in splits for part in parts if part in one.patients}
    if parts == ("test",) and found["done"]:
        images |= set(study.external_images.values())
        patients = set() if study.external_images else patients
    for said, known, what in ((found["images"], images, "images"), (found["patients"], patients, "patients")):
        if said and known and int(said.replace(",", "")) not in known:
            return f"the records have {' or '.join(map(str, sorted(known)))} {what}"
    return ""


def _means(rows: pd.DataFrame, metric: str, column: str, names: Names) -> Iterator[dict[str, float]]:
    """Of each table and metric that a sentence may speak of the arms' values."""
    of = rows[(rows["metric"] == metric) if metric else rows["metric"].isin(rows.loc[rows["p_adjusted"].notna(), "metric"])]
    for _, table in of.groupby(["table", "metric"], sort=False, observed=True):
        yield {names.name(str(name)): float(value) for name, value in zip(table["arm"], table[column], strict=True) if value == value}


def _of_most(found: re.Match[str], sentence: str, earlier: str, names: Names, rows: pd.DataFrame, metrics: Mapping[str, str]) -> str:
    """Why an arm that is said to be the best, or the worst, is not: of those that the sentence names with it, else of all of its table."""
    subjects, before = _held(found, sentence, earlier, names).subjects or (), sentence[: found.start()]
    if len(subjects) != 1 or _NOT_MOST.search(sentence) or _NOT.search(before):
        return ""
    (arm,) = subjects
    turn = 1 if (found["adverb"] or found["most"]).lower() in ("best", "highest", "top") else -1
    named = frozenset().union(*(one.arms for one in names.find(sentence)))
    above = ""
    clause = re.split("[,;:.]", sentence[found.start() :])[0]
    for known in _means(rows, _metric(clause, metrics) or _metric(sentence, metrics), "mean", names):
        among = {one: value for one, value in known.items() if len(named) == 1 or one in named}
        if arm in among:
            most = max(among, key=lambda one: turn * among[one])
            if turn * round(among[most] - among[arm], 9) <= 0:
                return ""
            above = above or f"the records have {most} at {among[most]:.2f} and {arm} at {among[arm]:.2f}"
    return above


def _of_ratio(found: re.Match[str], sentence: str, earlier: str, names: Names, rows: pd.DataFrame, metrics: Mapping[str, str]) -> str:
    """Why two arms' scores, errors or gains have not the ratio that is said of them."""
    of_gain = re.search(r"\b(?:gains?|improvements?|differences?)\b", sentence, re.I)
    errors = re.search(r"\b(?:errors?|mistakes?|misclassif\w*)\b", sentence, re.I) and not of_gain
    named = frozenset().union(*(one.arms for one in names.find(sentence) if not (of_gain and one.over)))
    if len(named) != 2 or not (of_gain or re.search(_SCORES, sentence, re.I)) or _NOT.search(sentence[: found.start()]):
        return ""
    digits = found["factor"] or found["times"] or ""
    given = float(digits) if digits else 3.0 if found["three"] else 2.0
    wide = 0.5 * 10.0 ** -len(digits.partition(".")[2]) if "." in digits else 0.1 * given
    seen = []
    for known in _means(rows, _metric(sentence, metrics), "gain_over_baseline" if of_gain else "mean", names):
        if named <= known.keys():
            one, other = (100 - known[arm] if errors else known[arm] for arm in sorted(named))
            losses = one < 0 and re.search(r"\b(?:gains?|improvements?)\b", sentence, re.I)
            if one * other > 0 and not losses and any(abs(ratio - given) <= wide for ratio in (one / other, other / one)):
                return ""
            seen.append(f"{one:.2f} and {other:.2f}")
    what = "gains" if of_gain else "errors" if errors else "scores"
    return f"the {what} of {' and '.join(sorted(named))} are {seen[0]}" if seen else ""


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
    said = [word for word in metrics if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", sentence, re.I)]
    said = [word for word in said if not any(word != other and word in other for other in said)]  # `AMI within tiles` is not `AMI`
    return metrics[said[0]] if len(said) == 1 else ""


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
    metric = _metric(sentence, metrics)
    every: dict[str, frozenset[str]] = {}
    for known in _means(rows, metric, "mean", names):
        every |= {one: every.get(one, frozenset()) | (known.keys() - {one}) for one in known}
    if not held.subjects and len(held.others) == 1 and _ALL_ARMS.search(before):
        held = replace(held, subjects=every.get(min(held.others), frozenset()))
    pairs = list(_pairs(held, names, rows)) if len(held.others) == 1 else []
    if held.subjects and not held.others and _ALL_ARMS.match(sentence[found.end() :].lstrip()):
        pairs = [(arm, other) for arm in sorted(held.subjects) for other in sorted(every.get(arm, ()))]
    if not pairs or _OF_TESTS.search(sentence) or re.search(r"\b(?:error|loss)\b", sentence):
        return False, ""
    note = ""
    for arm, other in pairs:
        shown = _shown(arm, other, names, rows, metric) or set()
        if found["same"]:
            if word := next((word for word in shown if word), ""):
                return True, f"{arm} is shown to be {word} than {other}"
            note = note or f"{arm} and {other} are not shown to differ, which is not yet that they are alike: give the interval"
            continue
        way = "better" if found["better"] else "worse"
        never = (one := sentences.NEVER_IS.search(before)) and not one["weak"]
        if (never or _EVERY.search(sentence)) and not re.search(r"\b(?:mean|average)", sentence, re.I):
            for seed, apart in _by_seed(arm, other, values, metric):
                if (apart > 0 if way == "better" else apart < 0) == bool(never):
                    return True, f"with seed {seed} {arm} is {abs(apart):.2f} points {'above' if apart > 0 else 'below'} {other}"
        if _NOT.search(before):
            if way in shown:
                return True, f"{arm} is shown to be {way} than {other}"
            continue
        above = _above(rows, arm, other, names, metric)
        if above is not None and (above > 0) != (way == "better"):
            return True, f"the records have {arm} {'above' if above > 0 else 'below' if above < 0 else 'equal to'} {other}"
        if not shown - {""} and not re.search(r"undecided|\bnumerical|nominal|not\s+(?:\w+\s+)?significan", sentence, re.I):
            note = note or f"{arm} is not shown to differ from {other}: say that it is undecided"
    return False, note


def _by_seed(arm: str, other: str, values: Mapping[str, Value], metric: str) -> list[tuple[int, float]]:
    """An arm's score less that of another with each seed that both have in a table."""
    runs = [one for one in values.values() if (one.kind, one.of) == (RUN, MEAN) and (one.beside[1] == metric if metric else one.ranks)]
    theirs = {(one.beside, one.seed): one.value for one in runs if one.arm == other}
    return [(one.seed, one.value - theirs[one.beside, one.seed]) for one in runs if one.arm == arm and (one.beside, one.seed) in theirs]


def _above(rows: pd.DataFrame, arm: str, other: str, names: Names, metric: str) -> float | None:
    """Mean of an arm less that of another, of the first table and metric that has both; None where none has."""
    return next((means[arm] - means[other] for means in _means(rows, metric, "mean", names) if arm in means and other in means), None)


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
