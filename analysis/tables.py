"""A table on paper: csv for programs, Markdown for a page, LaTeX (booktabs) for an article. In: a `Summary`. Out: text.

Per cent with two decimals. What was not measured is an empty cell in the csv and a word elsewhere, never a number."""

from __future__ import annotations

import csv
import io
import math

from analysis.statistics import Interval
from analysis.summary import Cell, Row, Summary, title

COLUMNS = (
    "table",
    "arm",
    "metric",
    "unit",
    "n",
    "mean",
    "std",
    "ci95_low",
    "ci95_high",
    "published_mean",
    "published_std",
    "published_word",
    "difference_to_published",
    "baseline_arm",
    "pairs",
    "gain_over_baseline",
    "gain_ci95_low",
    "gain_ci95_high",
    "completed",
    "pruned",
    "diverged",
    "failed",
    "waiting",
    "reason",
)


def number(value: float, signed: bool = False) -> str:
    """Two decimals; '' for nan; no minus before a zero."""
    if math.isnan(value):
        return ""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def to_csv(summary: Summary) -> str:
    """One line per arm and metric; the columns are `COLUMNS`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in summary.rows:
        for cell in row.cells.values():
            published = cell.published
            writer.writerow(
                [
                    summary.table.number,
                    row.arm.name,
                    cell.metric,
                    "%",
                    cell.n,
                    number(cell.mean),
                    number(cell.std),
                    *_ends(cell.interval),
                    number(published.mean) if published else "",
                    number(published.std) if published else "",
                    published.word if published else "",
                    number(cell.difference, signed=True),
                    summary.baseline or "",
                    cell.pairs or "",
                    number(cell.gain, signed=True),
                    *_ends(cell.gain_interval, signed=True),
                    *row.counts.values(),
                    row.waiting,
                    "; ".join(row.reasons),
                ]
            )
    return out.getvalue()


def to_markdown(summary: Summary) -> str:
    """Two tables: every metric as mean ± standard deviation; the ranking metric with intervals, published value and differences."""
    metrics = summary.table.metrics
    lines = [f"### {markdown(heading(summary))}", ""]
    lines += _markdown_row(["Arm", "n", *(f"{title(m)} %" for m in metrics), *(["Not completed"] if _any_reason(summary) else [])])
    lines += _markdown_row(["---", *["---:"] * (1 + len(metrics)), *(["---"] if _any_reason(summary) else [])])
    for row in summary.rows:
        cells = [
            markdown(row.arm.name),
            str(row.counts["completed"]),
            *(plus_minus(row.cells[m]) or markdown(row.state) or "–" for m in metrics),
        ]
        lines += _markdown_row([*cells, *([markdown("; ".join(row.reasons))] if _any_reason(summary) else [])])
    name = title(summary.table.metric)
    lines += ["", *_markdown_row([f"{name} %", "mean", "95 % interval", "published", "ours − published", _gain_title(summary)])]
    lines += _markdown_row(["---", *["---:"] * 5])
    for row in summary.rows:
        cell = row.cells[summary.table.metric]
        lines += _markdown_row(
            [
                markdown(row.arm.name),
                number(cell.mean) or markdown(row.state) or "–",
                interval(cell.interval) or "–",
                markdown(published(cell)) or "–",
                number(cell.difference, signed=True) or "–",
                gain(row, cell),
            ]
        )
    return "\n".join([*lines, "", *(f"{markdown(note)}  " for note in summary.notes), *([""] if summary.notes else [])])


def to_tex(summary: Summary) -> str:
    r"""A `table` environment for \usepackage{booktabs}; below each arm the published values where the paper has them."""
    metrics = summary.table.metrics
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{tex(heading(summary))}. Mean $\\pm$ sample standard deviation, \\%.}}",
        f"  \\label{{tab:{summary.table.slug}}}",
        f"  \\begin{{tabular}}{{lr{'c' * len(metrics)}}}",
        "    \\toprule",
        "    Arm & $n$ & " + " & ".join(tex(title(m)) for m in metrics) + " \\\\",
        "    \\midrule",
    ]
    for row in summary.rows:
        if row.state:
            shown = [f"\\multicolumn{{{len(metrics)}}}{{c}}{{{tex(row.state)}}}"]
        else:
            shown = [tex(plus_minus(row.cells[m])) or "--" for m in metrics]
        lines.append("    " + " & ".join([tex(row.arm.name), str(row.counts["completed"]), *shown]) + " \\\\")
        cells = [row.cells[m] for m in metrics]
        if any(c.published for c in cells):
            words = {c.published.word for c in cells if c.published}
            if len(words) == 1 and "" not in words:
                theirs = [f"\\multicolumn{{{len(metrics)}}}{{c}}{{{tex(words.pop())}}}"]
            else:
                theirs = [tex(published(c)) or "--" for c in cells]
            small = [t if t.startswith("\\") else f"\\footnotesize {t}" for t in theirs]
            lines.append("    " + " & ".join(["\\quad\\footnotesize published", "", *small]) + " \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    remarks = [f"{row.arm.name}: {'; '.join(row.reasons)}." for row in summary.rows if row.reasons and not row.state] + list(summary.notes)
    if remarks:
        lines.append("  \\par\\smallskip\\footnotesize " + " ".join(tex(r) for r in remarks))
    return "\n".join([*lines, "\\end{table}", ""])


def heading(summary: Summary) -> str:
    """`Table 5. Angular margin of the self-margin loss`; a table without a paper's number goes by its title."""
    table = summary.table
    return table.title if table.number == "search" else f"Table {table.number}. {table.title}"


def plus_minus(cell: Cell) -> str:
    """`93.56 ± 0.18`; the mean alone for one seed; '' for none."""
    return f"{number(cell.mean)} ± {number(cell.std)}" if cell.n > 1 else number(cell.mean)


def interval(given: Interval, signed: bool = False) -> str:
    """`93.11 to 94.01`; '' for none. `to`, because a dash before a negative number misleads."""
    return " to ".join(_ends(given, signed)) if not math.isnan(given.low) else ""


def published(cell: Cell) -> str:
    """The paper's cell: `93.56 ± 0.18`, its word, or ''."""
    if cell.published is None:
        return ""
    std = number(cell.published.std)
    return cell.published.word or number(cell.published.mean) + (f" ± {std}" if std else "")


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


def _ends(given: Interval, signed: bool = False) -> tuple[str, str]:
    return number(given.low, signed), number(given.high, signed)


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
    "−": "$-$",
    "–": "--",
    "—": "---",
    "×": "$\\times$",
    "≥": "$\\geq$",
    "≤": "$\\leq$",
    "→": "$\\to$",
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
