r"""Whose a number of a sentence is: of which arm, and set against which other. In: a sentence on both sides of a number, the arms' names. Out: `Held`.

`A gains x over B (y to z)`, `x for A and y for B`, `A and B reach x and y`: a number that is right of one arm is wrong of another, and a reader
has no other way to tell than the words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from analysis.sentences import GAP, PLUS_MINUS, SIGNED, UNIT

OVER = (
    r"(?:over|than|against|improv\w*\s+(?:up)?on|(?:compar\w*|relative|superior|inferior|equal|equivalent|similar|close|respect|due)\s+to|compar\w*\s+with"
    r"|differs?\s+(?:\w+\s+)?from|on\s+par\s+with|indistinguishable\s+from|above|below|behind|ahead\s+of|versus|vs\.?|unlike|contrast\s+(?:to|with)|outperform\w*|underperform\w*"
    r"|exceed\w*|surpass\w*|beat\w*|match(?:es|ed|ing)?|equal(?:s|led)|instead\s+of|not)"
    r"\s+(?:(?:the|that|training|plain|arm|of|with|those|one|baseline)\s+)*"
)
_OVER = re.compile(rf"\b{OVER}[{{$]*$", re.I)
_FROM_TO = re.compile(r"\bfrom\s+(?:the\s+|that\s+of\s+)?$", re.I)
_OF = r"(?:for|by|of|with|in|from|at|using|on)\s+(?:(?:the|arm|training|an?)\s+)*[{$]*"
_ITS_OWN = re.compile(
    rf"^{GAP}{UNIT}?{GAP}(?:{PLUS_MINUS}{GAP}{SIGNED}{GAP}{UNIT}?{GAP})?"
    rf"(?:(?:to\b|bis\b|and\b|or\b|,|--?|–){GAP}(?:and\b)?{GAP}{SIGNED}{GAP}{UNIT}?{GAP})*[)\]]?{GAP}(?:\([^()]*\){GAP})?(?:{_OF}|[(\[]\s*)$",
    re.I,
)
_ABOUT_IT = re.compile(rf"^{GAP}(?:[(\[]|,?\s*(?:which|that|whose)\b|,?\s*(?:at|with)\b|'s\b)")
_BETWEEN = re.compile(rf"^{GAP}(?:,|and|or|/|,\s*and|as\s+well\s+as|&)?{GAP}(?:(?:the|with|for|of|both)\s+)*[{{$]*$", re.I)
_ADDED = re.compile(r"\badd(?:s|ed|ing)?\s[^,;.]{0,40}\bto\s+$", re.I)
_IT = re.compile(r"\W*(?:It|Its|This|That|The (?:\w+ ){0,2}(?:difference|gain|loss|interval|improvement|p))\b")
_CLAUSE = re.compile(r";|,\s*(?:and|but|while|whereas|yet|although|though)\s|\b(?:while|whereas)\s", re.I)
_NEXT = re.compile(rf"^{GAP}{UNIT}?{GAP}(?:,\s*and\b|,|and\b|or\b|/){GAP}({SIGNED})(?![\w.])")
_LAST = re.compile(rf"(?<![\w.]){SIGNED}{GAP}{UNIT}?{GAP}(?:,\s*and\b|,|and\b|or\b|/){GAP}$")


@dataclass(frozen=True)
class Mention:
    """A place of a text where arms are named; several where one word stands for all of them. over: something is set against it."""

    start: int
    end: int
    arms: frozenset[str]
    over: bool


@dataclass(frozen=True)
class Held:
    """subjects: the arms that the number may be of, None where none is named; others: what they are set against; beside: an arm that stands just
    before it and is set against, whose own score it may be."""

    subjects: frozenset[str] | None
    others: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()


@dataclass
class Names:
    """The arms by what a text may call them. spelled: spellings by arm; same: what is one configuration has one name here."""

    spelled: Mapping[str, Iterable[str]]
    same: Mapping[str, str] = field(default_factory=dict)
    _found: dict[str, list[Mention]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        every: dict[str, set[str]] = {}
        for arm, names in self.spelled.items():
            for name in names:
                every.setdefault(name.lower(), set()).add(self.name(arm))
        self._every = [(_spelling(name), frozenset(arms)) for name, arms in sorted(every.items(), key=lambda one: -len(one[0]))]

    def name(self, arm: str) -> str:
        """The one name of arms that are one configuration."""
        return self.same.get(arm, arm)

    def find(self, text: str) -> list[Mention]:
        """Each place that names an arm, in order; of two names that begin alike the longer. `A + B` where only A is an arm names none."""
        if (known := self._found.get(text)) is not None:
            return known
        taken: list[Mention] = []
        for spelling, arms in self._every:
            for found in spelling.finditer(text):
                start, end = found.span()
                if not any(start < one.end and one.start < end for one in taken):
                    taken.append(Mention(start, end, arms, bool(_OVER.search(text[:start]))))
        taken.sort(key=lambda one: one.start)
        out: list[Mention] = []
        for one in taken:
            if out and text[one.start] == "+" and not text[out[-1].end : one.start].strip(" ~${}"):  # `MoCo + SupCon` `+ CatVar`
                out[-1] = Mention(out[-1].start, one.end, one.arms, out[-1].over)
            else:
                out.append(one)
        for at, one in enumerate(out[:-1]):  # from A to B: B against A
            if _FROM_TO.search(text[: one.start]) and re.fullmatch(rf"{GAP}to\s+(?:the\s+)?", text[one.end : out[at + 1].start]):
                out[at] = Mention(one.start, one.end, one.arms, True)
        more = re.compile(r"[\s~$}]*(?:\+|plus\b|without\b|minus\b)\s*[\w$\\]")
        out = [one for one in out if not more.match(text, one.end) and not _ADDED.search(text[: one.start])]
        self._found[text] = out
        return out

    def held(self, before: str, number: str, after: str, earlier: str = "") -> Held:
        """Whose a number is that stands between the two parts of its sentence. earlier: the sentence before it, which `it` speaks of."""
        whole = before + number + after
        at, behind = len(before), len(before) + len(number)
        mentions = self.find(whole)
        left, right = [one for one in mentions if one.end <= at], [one for one in mentions if one.start >= behind]
        start = max((found.end() for found in _CLAUSE.finditer(before)), default=0)
        stop = next((behind + found.start() for found in _CLAUSE.finditer(after)), len(whole))
        if right and _ITS_OWN.match(whole[behind : right[0].start]) and not right[0].over:
            group = _group(whole, right, 0)
            near = [one.arms for one in [*left, *right] if one.over and start <= one.start < stop]
            return Held(_one(group, before, after), frozenset().union(*near))
        subjects = [one for one in left if not one.over and one.start >= start]
        subjects = subjects or [one for one in right if not one.over and one.start < stop] or [one for one in left if not one.over]
        last = left[-1] if left else None
        beside = last.arms if last and last.over and _ABOUT_IT.match(whole[last.end : at]) and last.start >= start else frozenset()
        if not subjects:
            others = frozenset().union(*(one.arms for one in mentions if one.over))
            spoken = self.find(earlier) if _IT.match(whole) else []
            if named := [one for one in spoken if not one.over]:
                return Held(named[0].arms, others or frozenset().union(*(one.arms for one in spoken if one.over)), beside)
            return Held(None, others, beside)
        chosen = subjects[-1] if subjects[-1].end <= at else subjects[0]
        place = mentions.index(chosen)
        group = _group(whole, mentions, place, back=chosen.end <= at)
        first = min(one.start for one in group)
        near = [one.arms for one in mentions if one.over and (start <= one.start < stop or first <= one.start <= at)]
        return Held(_one(group, before, after), frozenset().union(*near), beside)


def _spelling(name: str) -> re.Pattern[str]:
    """A name as LaTeX may write it: `m = 0.1` as `$m=0.1$`, `zoom 2.0` as `zoom of 2`."""
    words: list[str] = []
    for word in re.findall(r"[=+(),]|[^\s=+(),]+", name):
        plain = re.escape(word).replace(r"\-", "-{1,2}").replace(r"\_", r"\\?_").replace("%", r"\\?%")
        plain = re.sub(r"(?<=\d)\\\.0$", r"(?:\\.0)?", plain) if re.fullmatch(r"\d+\.0", word) else plain
        if words and re.fullmatch(r"[\d.]+", word) and words[-1].isalpha():
            plain = rf"(?:(?:of|=|level)[\s~$]*)?{plain}"
        words.append(plain)
    return re.compile(r"(?<!\w)" + r"[\s~${}]*".join(words) + r"(?!\w|\.\d)", re.I)


def _group(text: str, mentions: list[Mention], at: int, back: bool = False) -> list[Mention]:
    """The mentions that are listed with one: `A, B and C`."""
    first = last = at
    while (
        not back
        and last + 1 < len(mentions)
        and not mentions[last + 1].over
        and _BETWEEN.match(text[mentions[last].end : mentions[last + 1].start])
    ):
        last += 1
    while back and first and not mentions[first - 1].over and _BETWEEN.match(text[mentions[first - 1].end : mentions[first].start]):
        first -= 1
    return mentions[first : last + 1]


def _one(group: list[Mention], before: str, after: str) -> frozenset[str]:
    """Of as many arms as numbers are listed the one at the number's place; else all of them."""
    place = count = 0
    while found := _LAST.search(before):
        before, place = before[: found.start()], place + 1
    while found := _NEXT.match(after):
        after, count = after[found.end() :], count + 1
    if len(group) > 1 and place + count + 1 == len(group):
        return group[place].arms
    return frozenset().union(*(one.arms for one in group))
