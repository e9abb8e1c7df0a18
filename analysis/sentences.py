r"""What a sentence of a paper says of a number in it: that something rises or falls, over whom, of which arm, of which paper. In: LaTeX, the arms'
names. Out: words for the check of a paper.

A number is right only in its sentence: 4.97 points are in the record, and `improves by 4.97 points` is wrong where the arm loses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from analysis.summary import title

# How LaTeX writes a number, what may stand between it and its unit or the next number (never a new paragraph), and its unit.
NUMBER = r"(?:\d+(?:[.,]\d+)?|\.\d+)"
SIGNED = rf"(?:[-+−–]|\$-\$)?{NUMBER}"
_SPACE_OR_MARK = r"[^\S\n]|\n(?![^\S\n]*\n)|[~${}]|\\[,;:]"
GAP = rf"(?:{_SPACE_OR_MARK})*"
PERCENT = r"(?:\\%|\\percent\b|per\s?cent\b)"
POINTS = r"(?:(?:percentage[\s-]+)?points?\b(?!\s+(?:scale|Likert))|pp\b)"
UNIT = rf"(?:{PERCENT}|{POINTS})"
PLUS_MINUS = r"(?:\\pm(?![A-Za-z])|±)"
_GAP = rf"(?:{_SPACE_OR_MARK}|[()])*"
_PERCENT = re.compile(r"(?<!\\)\\(?:textpercent(?![A-Za-z])(?:\{\})?|char\s*(?:37(?!\d)|\"25|`\\%)|symbol\s*\{37\})")
_SPACE = re.compile(r"(?<!\\)\\(?: |[:!>]|(?:thinspace|medspace|enspace|quad|nobreakspace)(?![A-Za-z])(?:\{\})?)")
_SPREAD = re.compile(rf"(?P<mean>{NUMBER})(?P<spread>{_GAP}{PLUS_MINUS}{_GAP}{NUMBER}{_GAP})(?P<unit>{UNIT})")
_BRACKETED = re.compile(rf"(?<=\d)\(\d+\)(?={_GAP}{UNIT})")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d{2,3}(?:\.\d+)?)\}\s*\{100\}")
_POWER = re.compile(
    r"(?P<before>(?<![A-Za-z])[pP][^.;\n\d]{0,24}?)(?:(?P<digits>\d+(?:\.\d+)?)\s*(?:\\times|\\cdot|×)\s*10\^|(?P<ten>10\^)"
    r"|(?P<of>\d+(?:\.\d+)?)(?:\\mathrm\{e\}|[eE]))\s*\{?\s*[-−]\s*(?P<power>\d+)\}?"
)


def plain(text: str) -> str:
    r"""LaTeX in which a number stands beside its unit, in as many lines: `99\textpercent`, `$99\pm1$\,\%`, `99(1)\,\%`, `\frac{99}{100}`, and a
    p of `10^{-5}`, each as `99 \%` and as 0.00001."""
    text = _FRACTION.sub(r"\1\\%", _SPACE.sub("~", _PERCENT.sub(r"\\%", text)))
    text = _BRACKETED.sub("", text)
    text = _SPREAD.sub(lambda found: f"{found['mean']}~{found['unit'].split()[0]} {found['spread']}{found['unit']}", text)
    return _POWER.sub(_decimal, text)


def _decimal(found: re.Match[str]) -> str:
    digits, power = found["digits"] or found["of"] or "1", int(found["power"])
    return found["before"] + (f"{float(digits) * 10.0**-power:.{power + len(digits.partition('.')[2])}f}" if power < 300 else digits)


# What says of itself which way it goes, and what does so only of a measure: `increasing the zoom` is no gain.
_UP = r"gain(?:s|ed|ing)?|improv(?:es?|ed|ing|ements?)|outperform(?:s|ed|ing)?|exceed(?:s|ed|ing)?|surpass(?:es|ed|ing)?|beat(?:s|en|ing)?|boost(?:s|ed|ing)?|superior"
_DOWN = r"los(?:es?|t|ing)|loss(?=\s+(?:of|by|is|was)\b)|hurt(?:s|ing)?|harm(?:s|ed|ing)?|worsen(?:s|ed|ing)?|degrad(?:es?|ed|ing|ation)|underperform(?:s|ed|ing)?|costs?|inferior"
_RISES = r"increas(?:es?|ed|ing)|rais(?:es?|ed|ing)|rises?|rising|rose|lift(?:s|ed|ing)?"
_FALLS = r"drop(?:s|ped|ping)?|falls?|fell|falling|decreas(?:es?|ed|ing)|declin(?:es?|ed|ing)|reduc(?:es?|ed|ing|tions?)|lower(?:s|ed|ing)"
_BETTER, _WORSE = r"better|higher|above", r"worse|lower|below"
_NEVER = r"\b(?:not|never|neither|nor|cannot|without|fail(?:s|ed|ing)?\s+to|\w+n't|unable\s+to|no)"
_NOT = re.compile(rf"{_NEVER}\s+(?:(?!but\b|and\b)\w+\s+){{0,3}}$", re.I)
_HEDGE = r"significan|shown|demonstra|prove|reliabl|clear|statistic|consistent|measurabl|conclusiv|convinc"
_MEASURE = r"\b(?:accurac(?:y|ies)|precision|sensitivity|specificity|F1|recall|AUC|AMI|ARI|purity|scores?|performance|results?|it)\b"
_WAY = re.compile(
    rf"\b(?:(?P<up>{_UP})|(?P<down>{_DOWN})|(?P<rises>{_RISES})|(?P<falls>{_FALLS})|(?P<better>{_BETTER})|(?P<worse>{_WORSE}))\b"
)
_FEW = r"(?:\s+(?:by|about|only|some|as\s+much\s+as|up\s+to|of))*[{$\s]*"
_BY = re.compile(r"\bby(?:\s+(?:about|only|some|as\s+much\s+as|up\s+to))*[{$\s]*$")
_BEHIND = re.compile(
    rf"^[\s}}$-]*(?:(?P<up>{_BETTER}|ahead|more|superior|gains?|improvements?|increase|rise)|(?P<down>{_WORSE}|behind|less|inferior|loss|drop|decrease|decline|reduction|fall))\b"
)
_ERROR = re.compile(r"\b(?:errors?|mistakes?|misclassif\w*|confusions?)\b", re.I)
_OF_OTHERS = re.compile(
    r"publish|\breport(?:s|ed|ing)?\b|\bpaper|\boriginal|\bauthors?\b|\bliterature|\bet\s+al|\b(?:they|their|theirs)\b|\bprevious|\bprior\b|state.of.the.art|\bref(?:s|\.|erence)|\[\d|\x1f",
    re.I,
)
_OWN_PAPER = re.compile(
    r"\b(?:this|our|the\s+present)\s+paper|\b(?:we|us|here)\s+(?:\w+\s+)?report\w*|\breported?\s+here|\bas\s+reported\s+by\s+us", re.I
)
_OURS = re.compile(r"\b(?:ours?|we|us)\b", re.I)
_UNDECIDED = re.compile(r"undecided|\bnot?\s+(?:\w+\s+)?(?:significan|shown)|n\.s\.|insignificant|non-?significant|\bmay\b|chance", re.I)
_CLAIM = re.compile(r"significan|statistically", re.I)
_BOUND = re.compile(
    r"\b(?:(?P<low>below|under|beneath|(?:less|lower|worse|smaller)\s+than|at\s+most)|above|over|(?:more|higher|better|greater)\s+than|at\s+least"
    r"|exceed\w*|surpass\w*|reach\w*)(?:\s+(?:about|an?|the|value|of))*[\s{$+]*$",
    re.I,
)
SEEDS = r"(?:(?:of|one|the|our|its|\d+|two|three|four|five|six|seven|eight|nine|ten|random|single)\s+)*(?:seed|run|repetition|repeat|replicate)s?\b"
NEVER_IS = re.compile(
    rf"\b(?:never|not\s+once|(?:no|none|neither)\s+{SEEDS}|(?P<weak>(?:(?:do|does|did)\s+not|doesn't|don't|didn't|without|cannot)\s+"
    r"(?:fall|drop|go|sink|dip|get|ris|exceed|surpass)\w*))",
    re.I,
)
EVERY_SEED = re.compile(rf"\b(?:always|invariably|(?:every|each|any|(?<!over )(?<!across )(?<!of )all)\s+{SEEDS})", re.I)
_END = re.compile(
    r"(?<!\bvs)(?<!\bal)(?<!\bcf)(?<!\bFig)(?<!\bapprox)(?<!\be\.g)(?<!\bi\.e)[.!?][\s~]+(?=[A-Z\\$])|\n\s*\n|\\\\|\\item\b|\\tabularnewline\b"
)
_CITED = "\x1f"  # a white space that stands where a \cite stood


def _before(said: Sentence) -> str:
    return said.before


def _says(pattern: str, where: Callable[[Sentence], str] = lambda said: said.whole) -> property:
    """Whether a sentence, or a part of it, has such words."""
    words = re.compile(pattern, re.I)
    return property(lambda said: bool(words.search(where(said))))


@dataclass(frozen=True)
class Sentence:
    """before and after: what a sentence has on both sides of a number and its unit; number: those two; earlier: the sentence before it in its
    paragraph."""

    before: str
    after: str
    number: str = "0"
    earlier: str = ""

    in_table = _says(r"(?<!\\)&")
    of_average = _says(
        r"\b(?:on|in the)\s+(?:average|mean)\b|\b(?:mean|average)\s+(?:gain|improvement|loss|difference)"
    )  # a mean of several
    of_mean = _says(r"\b(?:mean|average)s?\b")
    of_validation = _says(r"\bvalidation\b|\btest\s+score\b")
    of_size = _says(r"\b(?:sizes?|areas?)\b")
    of_level = _says(
        r"\b(?:considered|deemed|regarded|declared|called|taken|accepted|threshold|level|set\s+(?:at|to)|cut-?off)\b"
    )  # of significance
    of_chance = _says(r"\bprobability\s+(?:that|of)\b", _before)  # that a claim is false
    is_below = _says(r"(?:\bbelow|<|\bless\s+than|\bunder)[\s${]*$", _before)
    of_interval = _says(r"(?:\bCI\b|\bintervals?\b|\bbetween\b|\brang\w+|[(\[])[^()\[\]]*$", _before)  # in brackets too
    from_there = _says(r"\bfrom\s*[{$]*$", _before)  # `rises from 85.7`
    of_loss = _says(
        r"\blos(?:es?|t|ing|s)\b|\b(?:drop|fall|decreas)\w*\s+(?:by\s+)?(?:more|less)\s+than", _before
    )  # `loses more than 3 points`
    of_end = _says(  # one end of an interval
        r"\b(?:lower|upper|low|high)\s+(?:\w+\s+)?(?:bound|limit|end)|\b(?:lower|upper)\b.{0,20}\binterval|as\s+(?:low|little|high)\s+as",
        lambda said: f"{said.before} 0 {said.after[:30]}",
    )
    of_spread = _says(  # a standard deviation
        r"\b(?:standard\s+deviations?|SDs?|s\.d\.|std|spread)\b", lambda said: f"{said.before[-60:]} 0 {said.after[:40]}"
    )

    @classmethod
    def around(cls, before: str, number: str, after: str) -> Sentence:
        """The sentence of a number, of the text on both sides of it."""
        ends = [(found.start(), found.end(), found[0][0] in ".!?") for found in _END.finditer(before)]
        begin = ends[-1][1] if ends else 0
        earlier = before[ends[-2][1] if len(ends) > 1 else 0 : ends[-1][0]] if ends and ends[-1][2] else ""
        last = _END.search(after)
        parts = before[begin:], after[: last.start() if last else len(after)], number, earlier
        return cls(*(re.sub(r"[ \t\n~]+", " ", part) for part in parts))

    @property
    def text(self) -> str:
        """The sentence with its number."""
        return f"{self.before}{self.number}{self.after}"

    @property
    def whole(self) -> str:
        return f"{self.before} 0 {self.after}"

    @property
    def way(self) -> str:
        """`+` or `-`, as the words say of the number; '' where they do not say."""
        if self.in_table:
            return ""
        clause, behind = self.before.rpartition(";")[2], _BEHIND.search(self.after)
        if behind:
            around = clause[-60:] + self.after[:60]
            denied = re.search(rf"{_NEVER}\s+(?:\w+\s+)?[{{$+]*$", clause, re.I)
            return "" if _ERROR.search(around) else "+" if bool(behind["up"]) != bool(denied) else "-"
        for found in reversed(list(_WAY.finditer(clause))):
            rest = clause[found.end() :]
            if (found["better"] or found["worse"]) and not _BY.search(clause):
                continue
            if found["rises"] or found["falls"]:
                adjective = re.search(r"\b(?:an?|the|with|at|of|for)\s+$", clause[: found.start()]) and found[0].endswith("ed")
                if adjective or not (re.search(_MEASURE, clause) or re.fullmatch(_FEW, rest)):
                    continue
            if _ERROR.search(clause[max(0, found.start() - 30) :]):
                return ""
            if (denied := _NOT.search(clause[: found.start()])) and re.search(_HEDGE, denied[0] + rest[:20], re.I):
                return ""  # `did not significantly improve` says nothing of the direction
            return "+" if bool(found["up"] or found["rises"] or found["better"]) != bool(denied) else "-"
        return ""

    @property
    def of_gain(self) -> bool:
        """Whether the number is said to be a change itself: `gains 3.2`, `improves it by 3.2`."""
        verbs = list(_WAY.finditer(self.before))
        return bool(self.way and verbs and (re.fullmatch(_FEW, self.before[verbs[-1].end() :]) or _BY.search(self.before)))

    @property
    def of_difference(self) -> bool:
        """Whether it speaks of differences at all."""
        return bool(
            self.in_table or self.way or _WAY.search(self.whole) or re.search(r"\b(?:differ|gap|margin|advantage|change)", self.whole)
        )

    def praises_what_lacks(self, arm: str, arms: Mapping[str, Iterable[str]]) -> bool:
        """Whether a gain of this arm is a loss in these words, because it lacks what the sentence praises: `without CatVar`."""
        lacks = re.match(r"(?:without|no|w/o)\s+(.+)", arm, re.I)
        praised = lacks and re.search(rf"(?<!\bwithout )(?<!\bno )(?<!\bw/o )(?<!\w){re.escape(lacks[1])}(?!\w)", self.before, re.I)
        dropped = praised and re.search(r"\b(?:remov|leav|dropping|omit|lack)", self.before, re.I)
        return bool(praised and not dropped and arm.lower() not in self.whole.lower())

    def metrics(self, known: Iterable[str], text: str | None = None) -> set[str]:
        """Of the metrics those that the sentence (or text) names; of one that stands in a table none, since its column names it."""
        text = self.whole if text is None else text
        if self.in_table:
            return set()
        elsewhere = re.search(r"\bexternal|\bsimulat|\belsewhere\b|\b(?:an)?other\s+(?:\w+\s+)?(?:lab|hosp|cent|set|data)", text, re.I)
        out = set()
        for name in filter(None, set(known)):
            *outside, word = title(name).split(": ")
            if (elsewhere or not outside) and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.I):
                out.add(name)
        return out

    @property
    def of_others(self) -> bool:
        """Whether the number may be another paper's: `published are 24.2`, `Luo [3] reaches 24.2`; not where its own clause is of ours."""
        clause = re.split(r"[;:,]", self.before)[-1] + " 0 " + re.split(r"[;:,]", self.after)[0]
        ours = _OURS.search(clause) and not _OF_OTHERS.search(_OWN_PAPER.sub("", clause))
        return not ours and bool(_OF_OTHERS.search(_OWN_PAPER.sub("", self.whole)))

    @property
    def statistic(self) -> str:
        """A statistic of which the number is said to be, and which a record seldom has; '' for others."""
        found = re.search(
            r"\b(kappa|dice|icc|mcc|iou|jaccard|hazard ratio|odds ratio)[\s\w]{0,14}?(?:of|is|was|=|:)?[\s${]*$", self.before, re.I
        )
        return found[1].lower() if found else ""

    @property
    def of_seeds(self) -> bool:
        """Whether it says how many seeds tell a difference."""
        return bool(re.search(r"\bdifference\s+of\s*$", self.before) and re.search(r"\b(?:tell|told|seen|excluded|decided?)\b", self.whole))

    @property
    def extreme(self) -> str:
        """`highest` of `up to 3.2 points`, `lowest` of `at least 3.2 points`, else ''."""
        found = re.search(
            r"\b(?:(?P<most>up\s+to|as\s+much\s+as|at\s+most|no\s+more\s+than|maximum\s+of)|at\s+least|no\s+less\s+than|minimum\s+of)\s*[{$+]*$",
            self.before,
            re.I,
        )
        return "" if found is None else "highest" if found["most"] else "lowest"

    @property
    def bound(self) -> tuple[str, bool]:
        """`lowest` where it is said that nothing goes below the number (`never falls below 70`, `above 70 in every seed`), `highest` where nothing
        goes above it, else ''; and whether that is said of every seed, as it need not be where it `does not fall below 70`."""
        clause, found = re.split(r"[;:]", self.before)[-1], _BOUND.search(self.before)
        if found is None or self.in_table or _ERROR.search(clause):
            return "", False
        never, every = NEVER_IS.search(clause), EVERY_SEED.search(f"{clause} 0 {re.split('[;:]', self.after)[0]}")
        if not never and not every:
            return "", False
        return "lowest" if bool(found["low"]) == bool(never) else "highest", bool(every or (never and not never["weak"]))

    @property
    def of_seed(self) -> tuple[str, int]:
        """`ends` where the numbers are said to be those of the least and the best seed, `highest` or `lowest` of one of them, `any` of single seeds,
        '' of none; and the seed that is named, -1 for none."""
        clause = f"{re.split('[;:]', self.before)[-1]} 0 {re.split('[;:]', self.after)[0]}"
        named = {int(found) for found in re.findall(r"\bseed\s+(\d+)\b", clause, re.I)}
        one = re.search(
            r"\b(?:(?P<high>best|highest)|(?P<low>worst|lowest|poorest)|single|individual|each|every)\s+(?:seed|run)s?\b", clause, re.I
        )
        if named or one:
            return "any" if one is None else "highest" if one["high"] else "lowest" if one["low"] else "any", named.pop() if len(
                named
            ) == 1 else -1
        return "ends" if re.search(r"\b(?:rang\w+|var(?:y|ies|ied)|between|lies?|lay)\b.*\b(?:seed|run)s\b", clause, re.I) else "", -1

    @property
    def claims(self) -> bool:
        """Whether it says that a difference is there, and not that it is undecided."""
        return bool((self.way or _CLAIM.search(self.whole)) and not _UNDECIDED.search(self.whole))


def split(text: str) -> Iterator[tuple[int, str, str]]:
    """The sentences of a text: where each begins, its words in as many characters, and the sentence before it in its paragraph."""
    begin, earlier = 0, ""
    for found in [*_END.finditer(text), None]:
        words = re.sub(r"[\t\n~]", " ", text[begin : found.start() if found else len(text)])
        yield begin, words, earlier
        begin, earlier = (found.end(), words if found[0][0] in ".!?" else "") if found else (len(text), "")


def bare(text: str) -> str:
    """The words of a sentence, however LaTeX writes them."""
    text = re.sub(r"\\pm(?![A-Za-z])", "±", text).replace("−", "-")
    return re.sub(r"\s+", " ", re.sub(r"\\(?:[A-Za-z]+\s*(?=\{)|[,;:])|[\\{}$*`]", "", text).replace("~", " ")).strip(" .-")


def cited(text: str) -> str:
    """What stands for a command without words: a mark for a \\cite, else a space; its new lines are kept."""
    return (_CITED if re.match(r"\\[A-Za-z]*cite", text) else " ") + "\n" * text.count("\n")


def short_names(arms: Iterable[str], baseline: str = "") -> dict[str, tuple[str, ...]]:
    """How a text may call each arm: whole, without a plus before it, to the first comma or bracket, by a first word in capitals that no other arm has,
    and training from scratch as such. baseline: the arm that is called so, '' where several are."""
    every = list(dict.fromkeys(arms))
    first = [arm.split()[0].rstrip(",;:") for arm in every if arm.split()]
    scratch = [arm for arm in every if re.search(r"\bscratch\b", arm, re.I)]
    out = {}
    for arm in every:
        word = arm.split()[0].rstrip(",;:") if arm.split() else arm
        names = [
            arm,
            re.split(r"\s*[,(]", arm)[0],
            arm.lstrip("+ "),
            word if first.count(word) == 1 and word[:1].isupper() and len(word) > 2 else arm,
        ]
        names += ["from scratch", "scratch"] if scratch == [arm] else []
        names += ["the baseline", "baseline arm", "baseline"] if arm == baseline else []
        out[arm] = tuple(dict.fromkeys(name for name in names if re.search(r"[A-Za-z]{2}|=", name)))
    return out
