"""A table on paper: csv for programs, Markdown for a page, LaTeX (booktabs) for an article. In: a `Summary`. Out: text.

Per cent with two decimals. What was not measured is an empty cell in the csv and a word elsewhere, never a number."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from analysis.beside import ClassRow, Pairing
from analysis.crossed import Estimate
from analysis.statistics import Interval
from analysis.summary import Cell, Row, Summary, title


def number(value: float, signed: bool = False) -> str:
    """Two decimals; '' for nan; no minus before a zero."""
    if math.isnan(value):
        return ""
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def to_csv(summary: Summary) -> str:
    """One line per arm and metric, with everything that is known about it."""
    lines = [_line(summary, row, cell) for row in summary.rows for cell in row.cells.values()]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["table", "arm", "metric"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _line(summary: Summary, row: Row, cell: Cell) -> dict[str, object]:
    theirs = cell.published
    line: dict[str, object] = {"table": summary.table.number, "arm": row.arm.name, "metric": cell.metric, "unit": "%", "n": cell.n}
    line |= {"mean": number(cell.mean), "std": number(cell.std)}
    line |= dict(zip(("ci95_low", "ci95_high"), _ends(cell.interval), strict=True))
    line |= {"interval_over": over(cell.level), "cases": cell.level.cases or "", "best": "yes" if cell.bold else ""}
    line |= {"published_mean": number(theirs.mean) if theirs else "", "published_std": number(theirs.std) if theirs else ""}
    line |= {"published_word": theirs.word if theirs else "", "difference_to_published": number(cell.difference, signed=True)}
    line |= {"verdict": cell.verdict, "baseline_arm": summary.baseline or "", "pairs": cell.pairs or ""}
    low, high = _ends(cell.gain_interval, signed=True)
    gained = cell.difference_to
    line |= {"gain_over_baseline": number(cell.gain, signed=True), "gain_simultaneous95_low": low, "gain_simultaneous95_high": high}
    line |= {"gain_interval_over": over(gained) if gained else "", "comparisons": cell.comparisons or "", "p_adjusted": probability(cell.p)}
    line |= {"shown": shown(summary, cell), "probability_of_other_sign": probability(gained.wrong) if gained else ""}
    return line | dict(row.counts) | {"waiting": row.waiting, "reason": "; ".join(row.reasons)}


def over(level: Estimate) -> str:
    """What an interval is over; '' where there is none."""
    if level.seeds < 2:
        return ""
    return "seeds" if not level.cases else f"seeds and {level.unit}"


def shown(summary: Summary, cell: Cell) -> str:
    """`better` or `worse` than the baseline arm where it is shown, by the metric that ranks the table alone: one test a claim."""
    return cell.shown if cell.metric == summary.table.metric else ""


def classes_to_csv(pairing: Pairing, rows: Sequence[ClassRow]) -> str:
    """Recall by class of the comparison arm and the winner, per cent; only the head where no run recorded a confusion matrix."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    reference, other = (side.name if side else "" for side in (pairing.reference, pairing.other))
    writer.writerow(["class", "images", "reference_arm", "reference_recall", "arm", "recall", "change"])
    for r in rows:
        writer.writerow([r.name, r.images, reference, number(r.reference), other, number(r.other), number(r.change, True)])
    return out.getvalue()


def to_markdown(summary: Summary) -> str:
    """Two tables: every metric as mean ± standard deviation; the ranking metric with intervals, published value and differences."""
    metrics = summary.table.metrics
    lines = [f"### {markdown(heading(summary))}", ""]
    lines += _markdown_row(
        ["Arm", "n", *(f"{markdown(title(m))} %" for m in metrics), *(["Not completed"] if _any_reason(summary) else [])]
    )
    lines += _markdown_row(["---", *["---:"] * (1 + len(metrics)), *(["---"] if _any_reason(summary) else [])])
    for row in summary.rows:
        cells = [
            markdown(row.arm.name),
            str(row.counts["completed"]),
            *(_marked(summary, row.cells[m]) or markdown(row.state) or "–" for m in metrics),
        ]
        lines += _markdown_row([*cells, *([markdown("; ".join(row.reasons))] if _any_reason(summary) else [])])
    name = markdown(title(summary.table.metric))
    lines += [
        "",
        *_markdown_row(
            [f"{name} %", "mean", "95 % interval", "published", "ours − published", _gain_title(summary), "p", "against the paper"]
        ),
    ]
    lines += _markdown_row(["---", *["---:"] * 6, "---"])
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
                probability(cell.p) or "–",
                markdown(cell.verdict) or "–",
            ]
        )
    said = [*(f"- {markdown(words)}" for words in summary.claims), ""] if summary.claims else []
    said = ["What may be said:", "", *said] if said else []
    return "\n".join([*lines, "", *said, *(f"- {markdown(note)}" for note in summary.notes), *([""] if summary.notes else [])])


def to_tex(summary: Summary) -> str:
    r"""A `table` environment for \usepackage{booktabs,graphicx}; below each arm the published values where the paper has them.

    A table that would be wider than a page is scaled down to the line."""
    metrics = summary.table.metrics
    body = ["\\toprule", "Arm & $n$ & " + " & ".join(tex(title(m)) for m in metrics) + " \\\\", "\\midrule"]
    for row in summary.rows:
        cells = [row.cells[m] for m in metrics]
        given = [_across(row.state, len(metrics))] if row.state else [_tex_cell(summary, c) for c in cells]
        body.append(" & ".join([tex(row.arm.name), str(row.counts["completed"]), *given]) + " \\\\")
        if any(c.published for c in cells):
            words = {c.published.word for c in cells if c.published}
            if len(words) == 1 and "" not in words:
                theirs = [_across(words.pop(), len(metrics))]
            else:
                theirs = [f"\\footnotesize {tex(published(c))}" if published(c) else "--" for c in cells]
            body.append(" & ".join(["\\quad\\footnotesize published", "", *theirs]) + " \\\\")
    body.append("\\bottomrule")
    tabular = [f"\\begin{{tabular}}{{lr{'c' * len(metrics)}}}", *(f"  {line}" for line in body), "\\end{tabular}"]
    # about 60 characters and the space between columns fit on the line of a single-column article
    widest = max((len(r.arm.name) for r in summary.rows), default=0) + max(14 * len(metrics), *(len(r.state) for r in summary.rows), 0)
    if widest + 4 > 60:
        tabular = ["\\resizebox{\\linewidth}{!}{%", *(f"  {line}" for line in tabular), "}"]
    lines = ["% needs \\usepackage{booktabs,graphicx}", "\\begin{table}", "  \\centering"]
    lines += [
        f"  \\caption{{{tex(summary.table.title)}. Mean $\\pm$ sample standard deviation, \\%.}}",
        f"  \\label{{tab:{summary.table.slug}}}",
    ]
    remarks = [f"{row.arm.name}: {'; '.join(row.reasons)}." for row in summary.rows if row.reasons and not row.state] + list(summary.notes)
    below = ["  \\par\\smallskip\\begin{minipage}{\\linewidth}\\footnotesize", *(f"  {tex(r)}" for r in remarks), "  \\end{minipage}"]
    return "\n".join([*lines, *(f"  {line}" for line in tabular), *(below if remarks else []), "\\end{table}", ""])


def _tex_cell(summary: Summary, cell: Cell) -> str:
    words = f"\\textbf{{{tex(plus_minus(cell))}}}" if cell.bold else tex(plus_minus(cell)) or "--"
    return words + ("$^\\dagger$" if shown(summary, cell) else "")


def _across(words: str, columns: int) -> str:
    return f"\\multicolumn{{{columns}}}{{c}}{{{tex(words)}}}"


def _marked(summary: Summary, cell: Cell) -> str:
    words = f"**{plus_minus(cell)}**" if cell.bold else plus_minus(cell)
    return words + (" †" if shown(summary, cell) else "")


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
