"""The numbers of a study in the text of a paper. In: a Study, a LaTeX file. Out: numbers.tex, one macro a number, and what is wrong in the text.

A number that is typed by hand goes stale without a word. `\\kt{2/scratch/accuracy/mean}` is looked up in numbers.tex, which is written from
the records; the check reads the paper with all that it includes, and holds every macro and every number that looks like a result against the records."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import methods, sentences
from analysis.backing import CELL, backing, names_of, values_of
from analysis.claimed import not_borne
from analysis.headline import headline, other_card
from analysis.numbers import number
from analysis.study import Study, StudyError, load
from analysis.tables import probability
from analysis.typed import placed, prepared

MARK = "% karyotune:"  # the first line of what is written for a paper: the check compares such a file as a whole
EXEMPT = "not a result"  # in a comment of a line whose numbers are none


def numbers(study: Study) -> dict[str, str]:
    """Each number under its name: `2/scratch/accuracy/mean`, `.../low`, `.../gain`, `.../p`, `.../n`, and `study/images` and the like."""
    out = {f"study/{name}": str(value) for name, value in methods.facts(study).items()}
    for row in study.results.to_dict("records"):
        values = {name: float(row[column]) for name, (column, _, _) in CELL.items()}
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
    names = names_of(study)
    values = values_of(study, names.same)
    notes: list[str] = []
    macros, by_hand, own_words = 0, 0, None
    shown = [(given.place, _expanded(given.text, own).replace("\n", " ")) for given in lines]
    for place, text in shown:
        for name in re.findall(r"\\kt\s*\{([^}]*)\}", text):
            macros += 1
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.4)
                refused.append(f"{place}: no record gives \\kt{{{name}}}" + (f"; did you mean \\kt{{{near[0]}}}?" if near else ""))
    for place, one in placed(shown, known):  # a number may stand on one line, its unit on the next
        by_hand += not one.name
        (found, why), text = backing(one, values, names), one.sign + one.digits
        text = f"\\kt{{{one.name}}}" if one.name else f"{text} is typed by hand and"
        if found is None and not one.name:
            own_words = _own_words(study) if own_words is None else own_words
            if sentences.bare(one.said.text) in own_words:
                found = "a sentence of the report"
        if found is None:
            why = why or ("the intervals of the records are of 95 %" if one.unit == "level" else "no record gives it")
            if one.said.way and not one.said.bound[0]:
                why += f", said to {'rise' if one.said.way == '+' else 'fall'}"
            refused.append(f"{place}: {text} {why} (a comment `% {EXEMPT}` exempts a line)")
        elif why:
            notes.append(f"{place}: {text.removesuffix(' is typed by hand and')} {why}")
        elif not one.name:
            text = text.removesuffix(" and")
            notes.append(f"{place}: {text}; {found} gives it today")
            if found in values and not values[found].shown and one.said.claims:
                notes.append(f"{place}: {text.split()[0]} is claimed, and its simultaneous interval holds 0: say that it is undecided")
    for given, more in zip((refused, notes), not_borne(study, names, values, shown), strict=True):
        given += more
    return Checked(tuple(refused), tuple(notes), macros, by_hand)


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


_INCLUDE = re.compile(
    r"\\(?:(?:input|include|subfile)\s*(?:\{(?P<name>[^}]*)\}|\s(?P<bare>[^\s\\{}]+))|(?:sub)?import\*?\s*\{(?P<folder>[^}]*)\}\s*\{(?P<file>[^}]*)\})"
)
_NOT_READ = re.compile(
    r"\\(?:includefrom|subincludefrom|inputfrom|subinputfrom|InputIfFileExists|@@?input|includestandalone|CatchFileDef|verbatiminput|lstinputlisting"
    r"|csvautotabular|csvreader|pgfplotstableread|pgfplotstabletypeset)(?![A-Za-z])"
)
_OF_HEAD = re.compile(r"\\(?:title|subtitle|author|date|thanks|abstract|keywords)\*?\s*(?:\[[^\]]*\]\s*)?" + _BRACED)


def _own_words(study: Study) -> set[str]:
    """The sentences that the report, the methods and the model card say of the records of now."""
    from analysis import page

    given = page.context(study, None, True)
    texts = [page.templates().get_template("report.md.j2").render(given), methods.methods_md(study)]
    card = study.folder / "best" / "README.md"
    if card.is_file() and not other_card(study, headline(study)):
        texts.append(card.read_text(encoding="utf-8", errors="replace"))
    out = set()
    for text in texts:
        lines = [line.lstrip("- ") for line in re.sub(r"\\(?=_)|\*\*|`", "", text).split("\n")]
        tex = re.sub(r"([%_#&])", r"\\\1", "\n\n".join(line for line in lines if not line.startswith("|")))
        out |= {sentences.bare(words) for _, words, _ in sentences.split(prepared(tex))}
    return out


def _now(study: Study, name: str) -> str | None:
    """What the study would write today under the name of a file for a paper; None for a file that it does not write."""
    from analysis.report import paper_files

    return paper_files(study).get(name)
