r"""The numbers in a paper's text that look like results. In: LaTeX without its definitions. Out: `Typed`, each with the sentence in which it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis import sentences
from analysis.sentences import GAP, NUMBER, PERCENT, PLUS_MINUS, POINTS, SIGNED, UNIT, Sentence


@dataclass(frozen=True)
class Typed:
    """A number as the text has it. sign: `-`, `+`, or '' where none is written; unit: `%`, `points`, `end` of a number that is one of an interval
    or stands behind +-, `level` of an interval that is not of 95 %, or ''; relation: `=`, `<` or `>` behind a p; name: of the macro that gives it, ''
    of what is typed by hand; others: what may be the other end of an interval that it is an end of, each
    with whether the number stands before it; centre: what stands before the +- that it stands behind."""

    sign: str
    digits: str
    at: int
    unit: str
    relation: str
    said: Sentence
    name: str = ""
    others: tuple[tuple[str, bool], ...] = ()
    centre: str = ""


_SKIPPED = {  # commands whose first arguments are no words of the paper, and how many
    "cite\\w*|ref|eqref|autoref|cref|Cref|label|input|include|subfile|includegraphics|bibliography\\w*|addbibresource|url|href|vspace|hspace"
    "|begin|end|textcolor|color|colorbox|scalebox|linespread|documentclass|usepackage": 1,
    "setlength|addtolength|setcounter|fontsize|import|subimport": 2,
    "definecolor": 3,
}
_ARGUMENTS = re.compile(
    "|".join(
        rf"\\(?:{names})(?![A-Za-z])\*?(?:[^\S\n]*\[[^\]]*\])*" + r"(?:\s*\{(?:[^{}]|\{[^{}]*\})*\}(?:[^\S\n]*\[[^\]]*\])*)?" * count
        for names, count in _SKIPPED.items()
    )
)
_LENGTH = re.compile(r"\d*\.?\d+\s*(?:\\(?:line|text|column)width|(?:pt|cm|mm|em|ex|in|px)\b)")
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-+−–]|\$-\$|\\ensuremath\{-\})?(?P<number>\d+(?:\{,\}\d+|,\d+(?!,\d)|\.\d+)?|\.\d+)(?![\w]|\.\d)"
    + rf"(?P<unit>(?:{GAP}-)*{GAP}(?:(?P<percent>{PERCENT})|{POINTS}))?"
)
_P_BEFORE = re.compile(
    r"(?<![A-Za-z])[pP](?:[\s~-]*values?)?[}$\s~]*(?:(?P<less><|≤|\\(?:leq?(?:slant)?|lt|ll)(?![A-Za-z])|(?:(?:is|was)\s+)?(?:below|under|less\s+than"
    r"|smaller\s+than|at\s+most)\b)|(?P<more>>|≥|\\(?:geq?(?:slant)?|gt|gg)(?![A-Za-z])|(?:(?:is|was)\s+)?(?:above|over|greater\s+than|larger\s+than"
    r"|at\s+least)\b)|=|\\approx\b|(?:of|is|was)\b)[{$\s~]*$"
)
_CELL_BEFORE = re.compile(r"(?<!\\)&(?:[\s{$~]|\\(?:text(?:bf|it)|emph|underline|num|bfseries|bf|boldmath|mathbf)(?![A-Za-z]))*$")
_CELL_AFTER = re.compile(r"[}\s$~]*(?:(?:\$?\^|\\tnote|\\textsuperscript)[^&]*?)?(?:&|\\\\|\\tabularnewline)")
_TO = r"[\s~$]*(?:to\b|-+|–|,)[\s~$]*"
_INTERVAL = r"(?:\bCI|\b[Ii]ntervals?)\b[\s~$:=(\[{]*(?:(?:from|of)\s+)?"
_LOW = re.compile(_INTERVAL + r"[-+−]?$"), re.compile(_TO + r"[-+−]?\d")
_HIGH = re.compile(_INTERVAL + r"[-+−]?\d+(?:\.\d+)?" + _TO + "$")
_LEVEL = re.compile(r"(?:(?:\\alpha|α)[}$\s]*=|level\s+of)\s*\$?\s*$")
_BEHIND_SPREAD = re.compile(rf"{PLUS_MINUS}{GAP}$")


_MACRO = 0xF0000  # a sign of private use and one that counts stand before a number that a macro gives
_GIVEN = re.compile("[\U000f0000-\U000ffffd]")
_ENDS = rf"{GAP}{UNIT}?{GAP}(?:\b(?:to|bis)\b|--?|–|\b(?:and|und)\b|,|;){GAP}"
_UPPER = re.compile(rf"^{_ENDS}(?P<end>{SIGNED})(?![\w]|[.,]\d)")
_LOWER = re.compile(rf"(?<![\w.])(?P<end>{SIGNED}){_ENDS}$")
_CENTRE = re.compile(rf"(?P<mean>{NUMBER}){GAP}{UNIT}?{GAP}{PLUS_MINUS}{GAP}$")
_REACH = 4000  # characters of a sentence on either side of a number
_LISTED = re.compile(r"(?:,|;|\b(?:and|und)\b)")


def placed(lines: Sequence[tuple[str, str]], given: Mapping[str, str]) -> Iterator[tuple[str, Typed]]:
    """The numbers of all lines, (place, text) each, with the place of the line on which it starts. given: numbers by the names of their macros."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        digits = re.search(r"[-+]?\d+(?:\.\d+)?", given.get(found[1], ""))
        if digits is None:
            return " "
        names.append(found[1])
        return chr(_MACRO + len(names) - 1) + digits[0]

    text = re.sub(r"\\kt\s*\{([^}]*)\}", number, "\n".join(line for _, line in lines))
    text = prepared(text)
    for one in typed(text, names):
        yield lines[text.count("\n", 0, one.at)][0], one


def prepared(text: str) -> str:
    """LaTeX without lengths and without what commands are told that is no word of the paper, in as many lines."""
    text = re.sub(r"(?<=\d)\{\.\}(?=\d)", ".", text)
    return _LENGTH.sub(_newlines, _ARGUMENTS.sub(lambda found: sentences.cited(found[0]), sentences.plain(text)))


def typed(text: str, names: Sequence[str] = ()) -> Iterator[Typed]:
    """The numbers in a text that look like results: with decimals, with a per cent sign or points behind, or whole ones from 10 to 100 that are a
    cell of a table, as a score is. `95 % interval` and a level of 0.05 are none, and the dash of a range is no sign. names: of the macros that gave
    numbers, in order."""
    for found in _NUMBER.finditer(text):
        before, after = text[max(0, found.start() - _REACH) : found.start()], text[found.end() : found.end() + _REACH]
        name = names[ord(before[-1]) - _MACRO] if _GIVEN.match(before[-1:]) else ""
        said = Sentence.around(_GIVEN.sub(" ", before), found[0], _GIVEN.sub(" ", after))
        before, after = _GIVEN.sub(" ", before).rstrip(" ~$"), after.lstrip(" ~-\n")
        digits = found["number"].replace("{,}", ".").replace(",", ".")
        digits = f"0{digits}" if digits.startswith(".") else digits
        confidence = (
            not name and digits in ("90", "95", "99") and re.match(r"(?:simultaneous\s+)?(?:confidence|interval|CI\b|t interval)", after)
        )
        relation = _P_BEFORE.search(before[-80:])
        level = not name and (_LEVEL.search(before) or (relation and relation["less"] and said.of_level))
        if (confidence and digits == "95") or level or (not name and "," in found["number"] and not _is_decimal(found)):
            continue
        whole = found["number"].isdigit() and 10 <= int(digits) <= 100
        end = bool(_BEHIND_SPREAD.search(before)) or (found["number"].isdigit() and _is_end(text, found))
        if name or "." in digits or found["unit"] or end or (whole and _is_cell(text, found)):
            sign = "" if re.search(r"[\d%})/][-–]*$", before) else found["sign"] or ""  # the dash of a range is none
            unit = "level" if confidence else "end" if end else "%" if found["percent"] else "points" if found["unit"] else ""
            upper, lower, centre = _UPPER.match(said.after), _LOWER.search(said.before), _CENTRE.search(said.before)
            ends = tuple((one["end"], one is upper) for one in (lower, upper) if one and (said.of_interval or not _LISTED.search(one[0])))
            yield Typed(
                "-" if sign and sign != "+" else sign, digits, found.start(), unit,
                "" if not relation else "<" if relation["less"] else ">" if relation["more"] else "=", said, name,
                ends, centre["mean"] if centre else "",
            )  # fmt: skip


def _is_end(text: str, found: re.Match[str]) -> bool:
    """Whether a whole number is an end of an interval: `CI 93 to 97`."""
    start, end = max(0, found.start() - 60), found.end("number")
    low = _LOW[0].search(text, start, found.start("number")) and _LOW[1].match(text, end)
    return bool(low or _HIGH.search(text, start, found.start()))


def _is_cell(text: str, found: re.Match[str]) -> bool:
    """Whether a number is all that stands in a cell of a table, but for marks, and not in its first column."""
    return bool(_CELL_BEFORE.search(text, max(0, found.start() - 80), found.start()) and _CELL_AFTER.match(text, found.end("number")))


def _newlines(found: re.Match[str]) -> str:
    return " " + "\n" * found[0].count("\n")


def _is_decimal(found: re.Match[str]) -> bool:
    """Whether the comma of a number is a decimal one, and not that of thousands or of a list: `97{,}12`, `97,12 %`, `97,12`; neither `4,000`
    nor `[12,13]`, `(12,13)` or `{10,20}` outside siunitx's commands."""
    digits, places = found["number"], len(found["number"].rpartition(",")[2])
    if "{,}" in digits or found["percent"]:
        return True
    start, end = found.string[: found.start()], found.string[found.end("number") :]
    listed = (
        start[-1:] in tuple("[({")
        and end.lstrip("\\")[:1] in tuple("])}")
        and not re.search(r"\\(?:num|qty|SI)\s*(?:\[[^\]]*\])?\{$", start)
    )
    return not listed and (places == 2 or (bool(found["unit"]) and places != 3))
