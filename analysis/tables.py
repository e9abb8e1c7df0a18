"""A table on paper: Markdown for a page, LaTeX (pandas' Styler, siunitx) for an article. In: a `Summary` and its rows of `results`. Out: text.

Per cent with two decimals. What was not measured is a word, never a number; the csv for programs is `results` itself, in full precision."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.beside import ClassRow, Pairing
from analysis.frames import over, slug
from analysis.numbers import interval, number
from analysis.summary import Cell, Row, Summary, title


def classes_to_csv(pairing: Pairing, rows: Sequence[ClassRow]) -> str:
    """Recall by class of the comparison arm and the winner, per cent, in full precision; the intervals of the changes hold together. Only the head
    where no run recorded a confusion matrix."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    reference, other = (side.name if side else "" for side in (pairing.reference, pairing.other))
    columns = ["class", "images", "reference_arm", "reference_recall", "arm", "recall", "change"]
    writer.writerow([*columns, "change_simultaneous95_low", "change_simultaneous95_high"])
    for r in rows:
        values = ["" if math.isnan(v) else repr(float(v)) for v in (r.reference, r.other, r.change, *r.interval)]
        writer.writerow([r.name, r.images, reference, values[0], other, *values[1:]])
    return out.getvalue()


def to_markdown(summary: Summary) -> str:
    """Two tables: every metric as mean ± standard deviation; the ranking metric with intervals, published value and differences."""
    metrics, against, published_head = summary.table.metrics, summary.against_paper, published_title(summary).lower()
    lines = [f"### {markdown(heading(summary))}", ""]
    lines += _markdown_row(
        ["Arm", "n", *(f"{markdown(title(m))} %" for m in metrics), *(["Not completed"] if _any_reason(summary) else [])]
    )
    lines += _markdown_row(["---", *["---:"] * (1 + len(metrics)), *(["---"] if _any_reason(summary) else [])])
    for row in summary.rows:
        cells = [
            markdown(row.arm.name),
            str(row.counts["completed"]),
            *(_marked(row.cells[m]) or markdown(row.state) or "–" for m in metrics),
        ]
        lines += _markdown_row([*cells, *([markdown("; ".join(row.reasons))] if _any_reason(summary) else [])])
    name = markdown(title(summary.table.metric))
    lines += [
        "",
        *_markdown_row(
            [
                f"{name} %",
                "mean",
                "95 % interval",
                *([published_head] if published_head else []),
                *(["ours − published"] if against else []),
                _gain_title(summary),
                "p",
                *(["against the paper"] if summary.judged else []),
            ]
        ),
    ]
    lines += _markdown_row(["---", *["---:"] * (4 + bool(published_head) + against), *(["---"] if summary.judged else [])])
    for row in summary.rows:
        cell = row.cells[summary.table.metric]
        lines += _markdown_row(
            [
                markdown(row.arm.name),
                number(cell.mean) or markdown(row.state) or "–",
                interval(cell.interval) or "–",
                *([markdown(published(cell)) or "–"] if published_head else []),
                *([number(cell.difference, signed=True) or "–"] if against else []),
                gain(row, cell),
                probability(cell.p) or "–",
                *([markdown(cell.verdict) or "–"] if summary.judged else []),
            ]
        )
    said = [*(f"- {markdown(words)}" for words in summary.claims), ""] if summary.claims else []
    said = ["What may be said:", "", *said] if said else []
    if summary.commands:
        said += [
            "More seeds, from the folder that holds the study:",
            "",
            "```",
            *(line for words, price in summary.commands for line in (f"# {price}", words)),
            "```",
            "",
        ]
    return "\n".join([*lines, "", *said, *(f"- {markdown(note)}" for note in summary.notes), *([""] if summary.notes else [])])


def to_tex(summary: Summary, cells: pd.DataFrame, metric: str) -> str:
    """A `table` environment for an article of one column, of one metric: n, mean and gain over the baseline arm, each with its interval. cells:
    the rows of `results` of this table. Needs booktabs, siunitx (numbers stand under each other) and threeparttable (notes)."""
    cells = cells[cells["metric"] == metric]
    ranks = metric == summary.table.metric
    marked = ["\\tnote{$\\dagger$}" if isinstance(mark, str) else "" for mark in cells["shown"]]
    several = bool((cells["comparisons"].fillna(0) > 1).any())
    together = "sim.\\ 95 \\% interval" if several else "95 \\% interval "  # of the gains
    name, over_baseline = tex(title(metric)), f"Gain over {tex(summary.baseline or '')}"
    body = pd.DataFrame(
        {
            ("", "Arm"): [tex(arm) for arm in cells["arm"]],
            ("", "$n$"): cells["n"].to_numpy(dtype=np.int64),
            (f"{name}, \\%", "mean"): cells["mean"].to_numpy(),
            (f"{name}, \\%", "95 \\% interval"): list(map(_between, cells["ci95_low"], cells["ci95_high"])),
            (over_baseline, "points"): cells["gain_over_baseline"].to_numpy(),
            (over_baseline, together): [
                _between(low, high, signed=True) + mark
                for low, high, mark in zip(cells["gain_simultaneous95_low"], cells["gain_simultaneous95_high"], marked, strict=True)
            ],
        }
    )
    if summary.baseline is None:
        body = body.iloc[:, :4]
    best = cells["best"].to_numpy()

    def shown_as(signed: bool) -> Callable[[Any], str]:
        return lambda value: number(value, signed) or "{--}"

    formats: dict[Any, Any] = {body.columns[2]: shown_as(False)} | ({body.columns[4]: shown_as(True)} if summary.baseline else {})
    styler = body.style.hide(axis="index").format(formats)
    styler = styler.apply(lambda _: ["bfseries: ;" if one else "" for one in best], subset=[body.columns[2]])
    whole = max((len(number(v).partition(".")[0]) for v in body.iloc[:, 2] if not math.isnan(v)), default=2)
    wide = "p{0.25\\linewidth}" if max(map(len, cells["arm"])) > 18 else "l"
    columns = f"{wide}rS[table-format={whole}.2]l" + ("S[table-format=+2.2, retain-explicit-plus]l" if summary.baseline else "")
    tabular = styler.to_latex(hrules=True, siunitx=True, column_format=columns, multicol_align="c").rstrip("\n")
    label = f"tab:{summary.table.slug}" + ("" if ranks else f":{slug(metric.removeprefix('test_'))}")
    notes = (
        f"n: seeds that ended{'; sim.: simultaneous, all of them hold together' if several else ''}.{_pairs_note(cells)}",
        *_published_note(cells),
        *(f"{row.arm.name}: {row.state or '; '.join(row.reasons)}." for row in summary.rows if row.state or row.reasons),
    )
    others = tuple(f"{title(m)}: " for m in summary.table.metrics if m != metric)
    own = tuple(note for note in summary.notes if not note.startswith(others)) if ranks else _how_known(cells)
    notes = (*notes, *own, *(n for n in summary.notes if not ranks and n.startswith(f"{title(metric)}: ")))
    lines = [
        "% needs \\usepackage{booktabs,siunitx,threeparttable}",
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
    ]
    lines += ["\\sisetup{detect-weight=true, mode=text}", "\\begin{threeparttable}"]
    lines += [f"\\caption{{{tex(summary.table.title)}: {tex(title(metric))}.}}", f"\\label{{{label}}}", tabular]
    below = ["\\begin{tablenotes}\\footnotesize", *(f"\\item {tex(note)}" for note in notes), "\\end{tablenotes}"]
    return "\n".join([*lines, *(below if notes else []), "\\end{threeparttable}", "\\end{table}", ""])


def _between(low: float, high: float, signed: bool = False) -> str:
    return "" if math.isnan(low) else f"({tex(number(low, signed).replace('-', '−'))} to {tex(number(high, signed).replace('-', '−'))})"


def _pairs_note(cells: pd.DataFrame) -> str:
    """Where a gain is of fewer seeds than one of its means: of how many, or a reader takes the difference of the means for it."""
    base = cells.loc[cells["is_baseline"], "n"].max()
    fewer = [
        f"{arm} {pairs}"
        for arm, n, pairs in zip(cells["arm"], cells["n"], cells["pairs"], strict=True)
        if not pd.isna(pairs) and pairs < max(n, base)
    ]
    return f" A gain is over the seeds that both arms have: {'; '.join(fewer)}." if fewer else ""


def _published_note(cells: pd.DataFrame) -> tuple[str, ...]:
    """What the paper has for these rows, in one sentence."""
    said = []
    other = "" if cells["published_is_compared"].any() else ", on other images than these, so not compared with them"
    for arm, mean, std, word in zip(cells["arm"], cells["published_mean"], cells["published_std"], cells["published_word"], strict=True):
        if isinstance(word, str) or not math.isnan(mean):
            said.append(f"{arm} {word if isinstance(word, str) else number(mean) + (f' ± {number(std)}' if not math.isnan(std) else '')}")
    return (f"Published{other}: {'; '.join(said)}.",) if said else ()


def _how_known(cells: pd.DataFrame) -> tuple[str, ...]:
    """What the intervals of a metric that does not rank the table hold for."""
    count, words = cells["comparisons"].max(), sorted(set(cells["interval_over"].dropna()))
    said = [f"Intervals over {' or '.join(words)}."] if words else []
    said += [f"Those of the {count} differences hold together (Bonferroni)."] if not pd.isna(count) and count > 1 else []
    return (" ".join([*said, "Not tested: the table's claims rest on another metric."]),) if said else ()


def intervals_over(summary: Summary, metric: str) -> str:
    """What the intervals of a column are over: `seeds and patients`; '' where there is none."""
    levels = [row.cells[metric].level for row in summary.rows]
    return " or ".join(dict.fromkeys(over(level) for level in levels if level.error > 0))


def _marked(cell: Cell) -> str:
    words = f"**{plus_minus(cell)}**" if cell.bold else plus_minus(cell)
    return words + (" †" if cell.shown else "")


def heading(summary: Summary) -> str:
    """`Table 5. Angular margin of the self-margin loss`; a table without a paper's number goes by its title."""
    table = summary.table
    return table.title if table.number == "search" else f"Table {table.number}. {table.title}"


def plus_minus(cell: Cell) -> str:
    """`93.56 ± 0.18`; the mean alone for one seed; '' for none."""
    return f"{number(cell.mean)} ± {number(cell.std)}" if cell.n > 1 else number(cell.mean)


def published(cell: Cell) -> str:
    """The paper's cell: `93.56 ± 0.18`, its word, or ''."""
    if cell.published is None:
        return ""
    std = number(cell.published.std)
    return cell.published.word or number(cell.published.mean) + (f" ± {std}" if std else "")


def published_title(summary: Summary, metrics: Sequence[str] = ()) -> str:
    """The head of a column of the paper's values; '' where it has none of these metrics (of no metric of the table)."""
    if not any(row.cells[metric].published for row in summary.rows for metric in metrics or summary.table.metrics):
        return ""
    return "Published" if summary.against_paper else "Published, other images"


def probability(p: float) -> str:
    """Four decimals, `<0.0001` below that, '' for nan."""
    return "" if math.isnan(p) else "<0.0001" if p < 1e-4 else f"{p:.4f}"


def gain(row: Row, cell: Cell) -> str:
    """The paired difference to the baseline arm: `+1.20 (0.40 to 2.00; 3 pairs)`."""
    if row.is_baseline:
        return "baseline"
    if not cell.pairs:
        return "–"
    shown = interval(cell.gain_interval, signed=True)
    return f"{number(cell.gain, signed=True)} ({shown + '; ' if shown else ''}{cell.pairs} {'pair' if cell.pairs == 1 else 'pairs'})"


def _gain_title(summary: Summary) -> str:
    return f"difference to {markdown(summary.baseline)}, paired by seed" if summary.baseline else "difference to a baseline"


def _any_reason(summary: Summary) -> bool:
    return any(row.reasons for row in summary.rows)


def _markdown_row(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def markdown(text: str) -> str:
    """Text whose every character is shown as it is: markup, HTML and column marks are escaped."""
    text = " ".join(text.split())
    for mark in "\\`*_{}[]<>|#~$":
        text = text.replace(mark, "\\" + mark)
    return text.replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


_TEX = {
    "[": "{[}",  # the first of a row would be an option of the \\ or \midrule before it
    "*": "{*}",
    "\\": "\\textbackslash{}",
    "{": "\\{",
    "}": "\\}",
    "$": "\\$",
    "&": "\\&",
    "#": "\\#",
    "%": "\\%",
    "_": "\\_",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",
    "±": "$\\pm$",
    "«": "$\\ll$",
    "»": "$\\gg$",
    **dict.fromkeys("ÐðÞþĐđĄąĘęĮįŲųĦħĸĿŀŉŊŋŦŧ", "?"),  # not in OT1, pdfLaTeX's own encoding of fonts
    "−": "$-$",
    "–": "--",
    "—": "---",
    "×": "$\\times$",
    "≥": "$\\geq$",
    "≤": "$\\leq$",
    "→": "$\\to$",
    "†": "$\\dagger$",
    "…": "\\dots{}",
    "µ": "$\\mu$",
    "α": "$\\alpha$",
    "β": "$\\beta$",
    "γ": "$\\gamma$",
    "λ": "$\\lambda$",
    "θ": "$\\theta$",
    "τ": "$\\tau$",
    "π": "$\\pi$",
    "μ": "$\\mu$",
    "σ": "$\\sigma$",
}


def tex(text: str) -> str:
    """Text with every character that LaTeX takes for a command escaped; what pdfLaTeX has no sign for becomes a question mark."""
    return "".join(_TEX.get(c, c if c.isascii() and c.isprintable() else (c if "\xa0" < c < "ſ" else "?")) for c in " ".join(text.split()))
