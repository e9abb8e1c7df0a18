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

from analysis import methods
from analysis.numbers import number
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


_MEAN, _GAIN, _END, _P, _OTHER = (
    "mean",
    "gain",
    "end",
    "p",
    "other",
)  # what a value is, which decides what a number of the text may be of it


@dataclass(frozen=True)
class _Value:
    """Of the records: in per cent or points, as a probability, or a setting or a count (`_OTHER`)."""

    value: float
    kind: str


@dataclass(frozen=True)
class _Typed:
    """A number as the text has it. sign: `-`, `+`, or '' where none is written; unit: `%`, `points`, `end` of a whole number that is one of an
    interval, or ''; relation: `=` or `<` behind a p;
    verb: `+` behind `gains`, `-` behind `loses`."""

    sign: str
    digits: str
    at: int
    unit: str = ""
    relation: str = ""
    verb: str = ""


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
        found, text = _backing(one, values), one.sign + one.digits
        if found is None:
            refused.append(f"{place}: {text} is typed by hand and no record gives it (a comment `% {EXEMPT}` exempts a line)")
        else:
            notes.append(f"{place}: {text} is typed by hand; {found} gives it today")
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
    """A command that the paper defines: how many arguments, and its text."""

    arguments: int
    text: str


_BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_DEFINITION = re.compile(
    r"\\(?:(?:new|renew|provide)command\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?\s*(?:\[(\d)\])?(?:\[[^\]]*\])?|[gex]?def\s*\\([A-Za-z]+)\s*((?:#\d)*))\s*"
    + _BRACED
)


def _expanded(text: str, own: Mapping[str, _Own]) -> str:
    """A line with the paper's own commands in their words: a number hides in them as well as in the text."""
    for _ in range(5):  # commands within commands; one that calls itself ends too
        before = text
        for name, one in own.items():
            pattern = rf"\\{name}(?![A-Za-z])" + rf"(?:\s*{_BRACED})?" * one.arguments

            def words(found: re.Match[str], one: _Own = one) -> str:
                return re.sub(r"#(\d)", lambda at: (found[int(at[1])] or "") if int(at[1]) <= one.arguments else "", one.text)

            text = re.sub(pattern, words, text)
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
    for name, count_, other, marks, said in _DEFINITION.findall(kept):
        own[name or other] = _Own(int(count_ or 0) if name else marks.count("#"), said)
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
_P_BEFORE = re.compile(r"(?<![A-Za-z])[pP][}$\s]*(=|<|\\leq?\b|\\lt\b|\\approx\b)[{$\s]*$")
_VERB = re.compile(
    r"\b(?:(?P<up>gain(?:s|ed|ing)?|improv(?:es|ed|ing)|improve)|los(?:es?|t|ing)|drop(?:s|ped)?|falls?|fell)(?:\s+(?:by|about|only|some|up\s+to|of))*[{$\s~]*$"
)
_CELL_BEFORE = re.compile(r"(?<!\\)&(?:[\s{$~]|\\(?:text(?:bf|it)|emph|underline|num|bfseries|bf|boldmath|mathbf)(?![A-Za-z]))*$")
_CELL_AFTER = re.compile(r"[}\s$~]*(?:(?:\$?\^|\\tnote|\\textsuperscript)[^&]*?)?(?:&|\\\\|\\tabularnewline)")
_TO = r"[\s~$]*(?:to\b|-+|–|,)[\s~$]*"
_INTERVAL = r"(?:\bCI|\b[Ii]ntervals?)\b[\s~$:=(\[{]*(?:(?:from|of)\s+)?"
_LOW = re.compile(_INTERVAL + r"[-+−]?$"), re.compile(_TO + r"[-+−]?\d")
_HIGH = re.compile(_INTERVAL + r"[-+−]?\d+(?:\.\d+)?" + _TO + "$")
_LEVEL = re.compile(r"(?:[pP]\$?\s*(?:<|\\leq?\b|\\lt\b)|\\alpha\$?\s*=|level\s+of)\s*\$?\s*$")


def _placed(lines: Sequence[_Line]) -> Iterator[tuple[str, _Typed]]:
    """The typed numbers of all lines, each with the place of the line on which it starts."""
    text = "\n".join(line.text for line in lines)
    text = re.sub(r"(?<=\d)\{\.\}(?=\d)", ".", text)
    text = _LENGTH.sub(_newlines, _ARGUMENTS.sub(_newlines, text))
    for one in _typed(text):
        yield lines[text.count("\n", 0, one.at)].place, one


def _typed(text: str) -> Iterator[_Typed]:
    """The numbers in a text that look like results: with decimals, with a per cent sign or points behind, or whole ones from 10 to 100 that are a
    cell of a table, as a score is. `95 % interval` and `p < 0.05` are none, and the dash of a range is no sign."""
    for found in _NUMBER.finditer(text):
        before, after = text[: found.start()].rstrip(" ~$"), text[found.end() :].lstrip(" ~-\n")
        digits = found["number"].replace("{,}", ".").replace(",", ".")
        digits = f"0{digits}" if digits.startswith(".") else digits
        confidence = digits in ("90", "95", "99") and re.match(r"(?:simultaneous\s+)?(?:confidence|interval|CI\b|t interval)", after)
        if confidence or (digits == "0.05" and _LEVEL.search(before)) or ("," in found["number"] and not _is_decimal(found)):
            continue
        whole = found["number"].isdigit() and 10 <= int(digits) <= 100
        end = found["number"].isdigit() and _is_end(text, found)
        if "." in digits or found["unit"] or end or (whole and _is_cell(text, found)):
            sign = "" if not found["sign"] or before[-1:].isdigit() or before[-1:] in tuple("-–%})/") else found["sign"]
            relation, verb = _P_BEFORE.search(before), _VERB.search(before)
            yield _Typed(
                "-" if sign and sign != "+" else sign, digits, found.start(), "end" if end else "%" if found["percent"] else "points" if found["unit"] else "",
                "" if not relation else "=" if relation[1] in ("=", "\\approx") else "<", "" if not verb else "+" if verb["up"] else "-",
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
    kinds = {"mean": _MEAN, "published": _MEAN, "gain": _GAIN}
    for row in study.results.to_dict("records"):
        out |= {f"\\kt{{{row['key']}/{name}}}": _Value(float(row[column]), kinds.get(name, _END)) for name, column in _CELL.items()}
        out[f"{row['key']}, difference_to_published"] = _Value(float(row["difference_to_published"]), _END)
        out[f"\\kt{{{row['key']}/p}}"] = _Value(float(row["p_adjusted"]), _P)
        out[f"{row['key']}, probability_of_other_sign"] = _Value(100 * float(row["probability_of_other_sign"]), _END)
    others = {f"\\kt{{study/{name}}}": value for name, value in methods.facts(study).items()}
    for name, value in mapping(study.asked.get("baseline")).items():
        others |= {f"the setting {name}": one for one in (value if isinstance(value, list) else [value])}
    for column in (c for c in map(str, study.runs) if c.startswith("param.")):
        others |= {f"a run's {column.removeprefix('param.')} = {value}": value for value in study.runs[column].dropna().unique()}
    for name in ("n", "pairs", "cases", "images"):
        others |= {f"{name} = {int(value)} of a cell": int(value) for value in study.results[name].dropna().unique()}
    known = {n: v for n, v in others.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    out |= {name: _Value(float(value), _OTHER) for name, value in known.items()}
    return {name: one for name, one in out.items() if not math.isnan(one.value)}


def _backing(typed: _Typed, values: Mapping[str, _Value]) -> str | None:
    """Whose value, rounded as the text rounds, is the text. A p is a p, a number with a unit is no setting and no count, what `gains` or `loses`
    is a gain or a loss, and only a mean may stand as a fraction of 1. A sign that is written must be the value's; without one and without a
    verb -0.94 may stand as 0.94. A number that is rounded to less than two decimals is held against means, gains and settings alone: some end
    of an interval would fit it by chance."""
    places = len(typed.digits.partition(".")[2])
    for name, one in values.items():
        if (typed.relation != "") != (one.kind == _P) and (typed.relation or typed.unit or places < 2):
            continue
        if typed.relation == "<" and one.value < float(typed.digits):
            return name
        if (typed.verb and typed.unit == "points" and one.kind != _GAIN) or (typed.unit and one.kind == _OTHER):
            continue
        if (one.kind != _END) if typed.unit == "end" else (one.kind == _END and places < 2):
            continue
        sign = typed.sign or (typed.verb if one.kind == _GAIN else "")
        if sign and one.value * (1 if sign == "+" else -1) < 0:
            continue
        of = (one.value, one.value / 100) if one.kind == _MEAN and not typed.unit else (one.value,)
        if any(f"{abs(v):.{places}f}" == typed.digits for v in of):
            return name
    return None


def _now(study: Study, name: str) -> str | None:
    """What the study would write today under the name of a file for a paper; None for a file that it does not write."""
    from analysis.report import paper_files

    return paper_files(study).get(name)
