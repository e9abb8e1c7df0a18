"""The numbers of a study in the text of a paper. In: a Study, a LaTeX file. Out: numbers.tex, one macro a number, and what is wrong in the text.

A number that is typed by hand goes stale without a word. `\\kt{2/scratch/accuracy/mean}` is looked up in numbers.tex, which is written from
the records; the check reads the paper with all that it includes, and holds every macro and every number that looks like a result against the records."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import methods, sentences
from analysis.claims import WORTH
from analysis.numbers import number
from analysis.sentences import Sentence
from analysis.study import Study, StudyError, load, mapping
from analysis.tables import probability

MARK = "% karyotune:"  # the first line of what is written for a paper: the check compares such a file as a whole
EXEMPT = "not a result"  # in a comment of a line whose numbers are none
_CELL = {
    "mean": "mean",
    "std": "std",
    "low": "ci95_low",
    "high": "ci95_high",
    "gain": "gain_over_baseline",
    "gain-low": "gain_simultaneous95_low",
    "gain-high": "gain_simultaneous95_high",
    "published": "published_mean",
    "published-std": "published_std",
}


def numbers(study: Study) -> dict[str, str]:
    """Each number under its name: `2/scratch/accuracy/mean`, `.../low`, `.../gain`, `.../p`, `.../n`, and `study/images` and the like."""
    out = {f"study/{name}": str(value) for name, value in methods.facts(study).items()}
    for row in study.results.to_dict("records"):
        values = {name: float(row[column]) for name, column in _CELL.items()}
        shown = {name: number(value, signed=name.startswith("gain")) for name, value in values.items()}
        shown["p"] = probability(float(row["p_adjusted"]))
        if row["n"]:
            shown["n"] = str(row["n"])
            for name in ("cases", "pairs"):
                shown[name] = "" if pd.isna(row[name]) else str(row[name])
        out |= {f"{row['key']}/{name}": text for name, text in shown.items() if text}
    return out


def numbers_tex(study: Study) -> str:
    r"""A LaTeX file to \input: `\kt{NAME}` gives a number, and an error where there is none of that name."""
    lines = [
        f"{MARK} numbers.tex. \\input it in the preamble; \\kt{{2/scratch/accuracy/mean}} gives a number; written by `python -m analysis STUDY`.",
        r"\makeatletter",
        r"\providecommand{\kt}[1]{\ifcsname kt@#1\endcsname\csname kt@#1\endcsname\else\PackageError{karyotune}{no record gives `#1'}{}\fi}",
    ]
    for name, text in numbers(study).items():
        text = text.replace("-", r"\ensuremath{-}").replace("<", r"\ensuremath{<}").replace("%", r"\%")
        lines.append(rf"\@namedef{{kt@{name}}}{{{text}}}")
    return "\n".join([*lines, r"\makeatother", ""])


# What a value is, which decides what a number of the text may be of it.
_MEAN, _PUBLISHED, _GAIN, _APART, _END, _CHANCE, _P, _ASKED, _OTHER = (
    "mean",
    "published",
    "gain",
    "apart",
    "end",
    "chance",
    "p",
    "asked",
    "other",
)


@dataclass(frozen=True)
class _Value:
    """Of the records: in per cent or points, as a probability, or a setting or a count (`_OTHER`). arm: whose it is, of a gain and a p."""

    value: float
    kind: str
    arm: str = ""
    shown: bool = True  # of a gain: its simultaneous interval leaves 0 out


@dataclass(frozen=True)
class _Typed:
    """A number as the text has it. sign: `-`, `+`, or '' where none is written; unit: `%`, `points`, `end` of a number that is one of an interval
    or stands behind +-, `level` of an interval that is not of 95 %, or ''; relation: `=`, `<` or `>` behind a p."""

    sign: str
    digits: str
    at: int
    unit: str
    relation: str
    said: Sentence


@dataclass(frozen=True)
class Checked:
    """refused: what no record gives, in words with file and line; notes: what is right today and would be safer as a macro."""

    refused: tuple[str, ...]
    notes: tuple[str, ...]
    macros: int
    typed: int


@dataclass(frozen=True)
class _Line:
    place: str
    text: str


def check(paper: Path, study_dir: str | Path | None = None) -> Checked:
    """Hold a LaTeX file and all that it includes against a study: the one given, else the one in whose tables/ the included numbers.tex lies.
    StudyError where a file or the study is missing."""
    lines: list[_Line] = []
    written: list[Path] = []
    own: dict[str, _Own] = {}
    _read(paper, paper.parent, lines, written, own, set())
    study = load(study_dir if study_dir is not None else _study_of(paper, written))
    refused = []
    for path in written:
        now = _now(study, path.name)
        if now != path.read_text(encoding="utf-8"):
            refused.append(f"{path}: not what the records of {study.name} give now; write the report again and copy it anew")
    known = numbers(study)
    values = _values(study)
    arms = sentences.short_names(study.results["arm"].astype(str))
    notes: list[str] = []
    macros = typed = 0
    shown = [_Line(given.place, _expanded(given.text, own).replace("\n", " ")) for given in lines]
    for line in shown:
        for name in re.findall(r"\\kt\s*\{([^}]*)\}", line.text):
            macros += 1
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.4)
                refused.append(f"{line.place}: no record gives \\kt{{{name}}}" + (f"; did you mean \\kt{{{near[0]}}}?" if near else ""))
    for place, one in _placed(shown):  # a number may stand on one line, its unit on the next
        typed += 1
        found, text = _backing(one, values, arms), one.sign + one.digits
        if found is None:
            why = "the intervals of the records are of 95 %" if one.unit == "level" else "no record gives it"
            if one.said.way:
                why += f", said to {'rise' if one.said.way == '+' else 'fall'}"
            refused.append(f"{place}: {text} is typed by hand and {why} (a comment `% {EXEMPT}` exempts a line)")
        else:
            notes.append(f"{place}: {text} is typed by hand; {found} gives it today")
            if not values[found].shown and one.said.claims:
                notes.append(f"{place}: {text} is claimed, and its simultaneous interval holds 0: say that it is undecided")
    return Checked(tuple(refused), tuple(notes), macros, typed)


def _study_of(paper: Path, written: Sequence[Path]) -> Path:
    for path in written:
        if path.name == "numbers.tex" and (path.resolve().parents[1] / "study.json").exists():
            return path.resolve().parents[1]
    raise StudyError(
        f"{paper} includes no numbers.tex out of a study's tables/; name the study: python -m analysis check {paper.name} STUDY_DIR"
    )


@dataclass(frozen=True)
class _Own:
    """A command that the paper defines. arguments: a letter each, `m` in braces, `o` in brackets, `s` a star; default: of the first in brackets."""

    arguments: str
    text: str
    default: str = ""


_BRACED = r"\{(" + r"(?:[^{}]|\{" * 6 + "[^{}]*" + r"\})*" * 6 + r")\}"  # braces within braces, to a depth of six
_CALLED = r"\{?\s*\\([A-Za-z]+)\s*\}?\s*"
_DEFINITION = re.compile(
    rf"\\(?:(?:(?:new|renew|provide)command|DeclareRobustCommand)\*?\s*{_CALLED}(?:\[(\d)\]\s*)?(\[[^\]]*\])?"
    rf"|[gex]?def\s*\\([A-Za-z]+)\s*((?:#\d)*)"
    rf"|(?:New|Renew|Provide|Declare)(?:Expandable)?DocumentCommand\s*{_CALLED}{_BRACED}"
    rf"|(?:(?:cs[gex]?def|@namedef)\s*\{{([^{{}}]+)\}}|pgfmath(?:set|truncate)macro\s*{_CALLED}))\s*{_BRACED}"
)
_LET = re.compile(r"\\let\s*\\([A-Za-z]+)\s*=?\s*(\\[A-Za-z]+)")


def _defined(text: str) -> Iterator[tuple[str, _Own]]:
    """The commands that a text defines, by name."""
    for found in _DEFINITION.finditer(text):
        command, count, default, plain, marks, document, spec, named, computed, said = found.groups()
        default = default[1:-1] if default else ""
        arguments = (
            ("o" if found[3] else "m" if count and int(count) else "") + "m" * (int(count or 0) - 1)
            if command
            else "m" * (marks or "").count("#")
        )
        if document:
            first = re.search(r"[OD]\s*\{([^{}]*)\}", spec)
            kinds = re.sub(r"\{[^{}]*\}", "", spec).replace("+", "").replace("!", "").lower()
            arguments, default = re.sub(r"[^mos]", "", kinds), first[1] if first else ""
        yield command or plain or document or named or computed, _Own(arguments, said, default)


_ARGUMENT = {"m": rf"(?:\s*{_BRACED})?", "o": r"(?:\s*\[([^\]]*)\])?", "s": r"(\*)?"}


def _expanded(text: str, own: Mapping[str, _Own]) -> str:
    """A line with the paper's own commands in their words: a number hides in them as well as in the text."""
    for _ in range(5):  # commands within commands; one that calls itself ends too
        before = text
        for name, one in own.items():
            if name not in text:
                continue
            called = re.escape(name)
            pattern = rf"(?:\\{called}(?![A-Za-z])|\\(?:csuse|@nameuse)\s*\{{{called}\}}|\\csname\s+{called}\s*\\endcsname)"

            def words(found: re.Match[str], one: _Own = one) -> str:
                def argument(at: re.Match[str]) -> str:
                    place = int(at[1]) - 1
                    if place >= len(one.arguments):
                        return ""
                    return found[place + 1] or (one.default if one.arguments[place] == "o" else "")

                return re.sub(r"#(\d)", argument, one.text)

            text = re.sub(pattern + "".join(_ARGUMENT[kind] for kind in one.arguments), words, text)
        if text == before:
            break
    return text


def _read(path: Path, root: Path, lines: list[_Line], written: list[Path], own: dict[str, _Own], seen: set[Path]) -> None:
    """The lines of a file and of those that it includes, and the commands that they define; what was written for a paper goes to `written` and
    is not read."""
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"no file {str(path)!r}; includes are looked for beside the paper") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{str(path)!r} cannot be read as UTF-8 ({error}); save it as UTF-8") from None
    if text.startswith(MARK):
        written.append(path)
        return
    cut = [_cut(raw) for raw in text.splitlines()]
    kept = "\n".join("" if EXEMPT in comment else words for words, _, comment in cut)
    kept = _LET.sub(r"\\def\\\1{\2}", kept)
    style = path.suffix == ".sty"  # of a style only the commands: what else stands in it is no text, and one with @ is the style's own work
    own |= {name: one for name, one in _defined(kept) if not (style and "@" in one.text)}
    if style:
        return
    for found in re.finditer(r"\\(?:usepackage|RequirePackage)\s*(?:\[[^\]]*\]\s*)?\{([^}]*)\}", kept):
        for one in (root / f"{name.strip()}.sty" for name in found[1].split(",")):
            if one.is_file():
                _read(one, root, lines, written, own, seen)
    plain = _shown(_DEFINITION.sub(lambda found: "\n" * found[0].count("\n"), kept)).split("\n")
    for count, ((words, _, _), shown) in enumerate(zip(cut, plain, strict=True), 1):
        if unread := _NOT_READ.search(words):
            raise StudyError(
                f"{path.name}:{count}: what {unread[0]} includes is not read; include it by \\input, so that its numbers are checked"
            )
        for found in _INCLUDE.finditer(words):
            name = f"{found['folder']}/{found['file']}" if found["file"] else found["name"] or found["bare"]
            _read(root / (name if Path(name).suffix else f"{name}.tex"), root, lines, written, own, seen)
        lines.append(_Line(f"{path.name}:{count}", shown))


def _shown(text: str) -> str:
    """What a reader sees of a file without its definitions, in as many lines: of the preamble the title and the like alone."""
    head, begin, body = text.partition("\\begin{document}")
    if not begin:
        return text
    kept, at = [], 0
    for found in _OF_HEAD.finditer(head):
        kept += ["\n" * head.count("\n", at, found.start()), found[1], "\n" * (found[0].count("\n") - found[1].count("\n"))]
        at = found.end()
    return "".join([*kept, "\n" * head.count("\n", at), begin, body])


def _cut(raw: str) -> tuple[str, str, str]:
    """A line before and after the first % that is not escaped and not within \\verb or an address."""
    plain = re.sub(r"\\verb\*?([^A-Za-z\s*]).*?\1|\\(?:url|nolinkurl|href)\s*\{[^{}]*\}", lambda found: "x" * len(found[0]), raw)
    found = re.search(r"(?<!\\)(?:\\\\)*%", plain)
    return (raw[: found.end() - 1], "%", raw[found.end() :]) if found else (raw, "", "")


_SKIPPED = {  # commands whose first arguments are no words of the paper, and how many
    "kt|cite\\w*|ref|eqref|autoref|cref|Cref|label|input|include|subfile|includegraphics|bibliography\\w*|addbibresource|url|href|vspace|hspace"
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
_INCLUDE = re.compile(
    r"\\(?:(?:input|include|subfile)\s*(?:\{(?P<name>[^}]*)\}|\s(?P<bare>[^\s\\{}]+))|(?:sub)?import\*?\s*\{(?P<folder>[^}]*)\}\s*\{(?P<file>[^}]*)\})"
)
_NOT_READ = re.compile(
    r"\\(?:includefrom|subincludefrom|inputfrom|subinputfrom|InputIfFileExists|@@?input|includestandalone|CatchFileDef|verbatiminput|lstinputlisting"
    r"|csvautotabular|csvreader|pgfplotstableread|pgfplotstabletypeset)(?![A-Za-z])"
)
_OF_HEAD = re.compile(r"\\(?:title|subtitle|author|date|thanks|abstract|keywords)\*?\s*(?:\[[^\]]*\]\s*)?" + _BRACED)
_LENGTH = re.compile(r"\d*\.?\d+\s*(?:\\(?:line|text|column)width|(?:pt|cm|mm|em|ex|in|px)\b)")
_UNIT = (
    r"(?:[^\S\n]|\n(?![^\S\n]*\n)|~|-|\\,|\\;|[${}])*(?:(?P<percent>\\%|\\percent\b|per\s?cent\b)"
    r"|(?:percentage[\s-]+)?points?\b(?!\s+(?:scale|Likert))|pp\b)"
)
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-+−]|\$-\$|\\ensuremath\{-\})?(?P<number>\d+(?:\{,\}\d+|,\d+(?!,\d)|\.\d+)?|\.\d+)(?![\w]|\.\d)"
    + f"(?P<unit>{_UNIT})?"
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
_BEHIND_SPREAD = re.compile(r"(?:\\pm(?![A-Za-z])|±)[\s~${]*$")


def _placed(lines: Sequence[_Line]) -> Iterator[tuple[str, _Typed]]:
    """The typed numbers of all lines, each with the place of the line on which it starts."""
    text = "\n".join(line.text for line in lines)
    text = re.sub(r"(?<=\d)\{\.\}(?=\d)", ".", text)
    text = _LENGTH.sub(_newlines, _ARGUMENTS.sub(lambda found: sentences.cited(found[0]), sentences.plain(text)))
    for one in _typed(text):
        yield lines[text.count("\n", 0, one.at)].place, one


def _typed(text: str) -> Iterator[_Typed]:
    """The numbers in a text that look like results: with decimals, with a per cent sign or points behind, or whole ones from 10 to 100 that are a
    cell of a table, as a score is. `95 % interval` and a level of 0.05 are none, and the dash of a range is no sign."""
    for found in _NUMBER.finditer(text):
        before, after = text[: found.start()].rstrip(" ~$"), text[found.end() :].lstrip(" ~-\n")
        digits = found["number"].replace("{,}", ".").replace(",", ".")
        digits = f"0{digits}" if digits.startswith(".") else digits
        confidence = digits in ("90", "95", "99") and re.match(r"(?:simultaneous\s+)?(?:confidence|interval|CI\b|t interval)", after)
        relation, said = _P_BEFORE.search(before[-80:]), Sentence.around(text, found.start(), found.end())
        level = _LEVEL.search(before) or (relation and relation["less"] and said.of_level)
        if (confidence and digits == "95") or level or ("," in found["number"] and not _is_decimal(found)):
            continue
        whole = found["number"].isdigit() and 10 <= int(digits) <= 100
        end = bool(_BEHIND_SPREAD.search(before)) or (found["number"].isdigit() and _is_end(text, found))
        if "." in digits or found["unit"] or end or (whole and _is_cell(text, found)):
            sign = "" if not found["sign"] or before[-1:].isdigit() or before[-1:] in tuple("-–%})/") else found["sign"]
            unit = "level" if confidence else "end" if end else "%" if found["percent"] else "points" if found["unit"] else ""
            yield _Typed(
                "-" if sign and sign != "+" else sign, digits, found.start(), unit,
                "" if not relation else "<" if relation["less"] else ">" if relation["more"] else "=", said,
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


def _values(study: Study) -> Mapping[str, _Value]:
    """Everything that a number of a text may be: cells, settings, facts; by name."""
    out: dict[str, _Value] = {}
    kinds = {"mean": _MEAN, "published": _PUBLISHED, "gain": _GAIN}
    for row in study.results.to_dict("records"):
        arm, shown = str(row["arm"]), bool(row["gain_simultaneous95_low"] > 0 or row["gain_simultaneous95_high"] < 0)
        for name, column in _CELL.items():
            kind = kinds.get(name, _END)
            out[f"\\kt{{{row['key']}/{name}}}"] = _Value(float(row[column]), kind, arm, shown or kind != _GAIN)
        out[f"{row['key']}, difference_to_published"] = _Value(float(row["difference_to_published"]), _APART)
        out[f"\\kt{{{row['key']}/p}}"] = _Value(float(row["p_adjusted"]), _P, arm)
        out[f"{row['key']}, probability_of_other_sign"] = _Value(100 * float(row["probability_of_other_sign"]), _CHANCE)
    others = {f"\\kt{{study/{name}}}": value for name, value in methods.facts(study).items()}
    for name, value in mapping(study.asked.get("baseline")).items():
        others |= {f"the setting {name}": one for one in (value if isinstance(value, list) else [value])}
    for column in (c for c in map(str, study.runs) if c.startswith("param.")):
        others |= {f"a run's {column.removeprefix('param.')} = {value}": value for value in study.runs[column].dropna().unique()}
    for name in ("n", "pairs", "cases", "images"):
        others |= {f"{name} = {int(value)} of a cell": int(value) for value in study.results[name].dropna().unique()}
    known = {n: v for n, v in others.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    out |= {name: _Value(float(value), _OTHER) for name, value in known.items()}
    out["the difference that the report asks more seeds for"] = _Value(WORTH, _ASKED)
    return {name: one for name, one in out.items() if not math.isnan(one.value)}


def _backing(typed: _Typed, values: Mapping[str, _Value], arms: Mapping[str, tuple[str, ...]]) -> str | None:
    """Whose value, rounded as the text rounds, is the text."""
    named = typed.said.named(arms) & {one.arm for one in values.values() if one.kind == _P} if typed.relation in ("<", ">") else set()
    if typed.said.statistic and not any(typed.said.statistic in name.lower() for name in values):
        return None
    for name, one in values.items():
        if (not named or one.arm in named) and typed.unit != "level" and _backs(typed, one, arms):
            return name
    return None


def _backs(typed: _Typed, one: _Value, arms: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a number of the text may be this value. A p is a p, a number with a unit is no setting and no count, what is said to rise or fall
    is a gain or a loss of that arm and not of the one that it is set against, a number of another paper is called so, and only a mean may stand as
    a fraction of 1. A sign that is written must be the value's; without one and without such words -0.94 may stand as 0.94. A number that is
    rounded to less than two decimals is held against means, gains and settings alone: some end of an interval would fit it by chance."""
    places, said = len(typed.digits.partition(".")[2]), typed.said
    if (typed.relation != "") != (one.kind == _P) and (typed.relation or typed.unit or places < 2):
        return False
    if typed.relation in ("<", ">"):
        return one.value < float(typed.digits) if typed.relation == "<" else one.value > float(typed.digits)
    if one.kind == _CHANCE:
        return said.of_chance and (f"{one.value:.{places}f}" == typed.digits or (said.is_below and one.value < float(typed.digits)))
    if one.kind == _PUBLISHED and not (said.of_others or said.in_table):
        return False
    if typed.unit == "points" and said.of_gain and one.kind != _GAIN and not (one.kind == _APART and said.of_others):
        return False
    if one.kind == _ASKED and not said.of_seeds:
        return False
    if typed.unit and one.kind == _OTHER:
        return False
    end = one.kind in (_END, _APART)
    if (not end) if typed.unit == "end" else (end and places < 2):
        return False
    sign = typed.sign
    if one.kind == _GAIN and not sign:
        if not typed.unit and not said.of_difference:
            return False
        sign = {"+": "-", "-": "+"}.get(said.way, "") if one.arm and said.turns(one.arm, arms) else said.way
    if sign and one.value * (1 if sign == "+" else -1) < 0:
        return False
    of = (one.value, one.value / 100) if one.kind in (_MEAN, _PUBLISHED) and not typed.unit else (one.value,)
    return any(f"{abs(v):.{places}f}" == typed.digits for v in of)


def _now(study: Study, name: str) -> str | None:
    """What the study would write today under the name of a file for a paper; None for a file that it does not write."""
    from analysis.report import paper_files

    return paper_files(study).get(name)
