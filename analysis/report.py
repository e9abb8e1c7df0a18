"""Writes tables, report.html and report.md of a study, and its figures on demand. In: a study folder. Out: files in it, each written whole or not at all.

The report is rewritten after every ended run, so it must be quick, and a reader must never meet half a file: every file is written under
a temporary name and renamed. Nothing of the clock goes into it: the same records give the same bytes."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis import frames, methods, page, paper
from analysis import tables as tb
from analysis.study import Study, load


@dataclass(frozen=True)
class Report:
    """The files written, and how long it took."""

    paths: tuple[Path, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles meanwhile: among millions of small values it finds none, and costs a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_uncollected()
def write_report(
    study_dir: str | Path, figures: Literal["full", "light"] = "full", price_per_hour: float | None = None, pdf: bool = False
) -> Report:
    """Reads STUDY_DIR and writes tables/, methods.md, report.html and report.md into it. `light` computes no embedding map: for a
    report while the study runs, whose page then looks for news by itself. pdf: the figures for a paper too, each as PDF, also at the width
    of a column where it can live there. price_per_hour: of one GPU, or of one worker where no run used a GPU; in any currency.

    StudyError where there is no study. What is wrong inside it stands in the report and in `Report.warnings`."""
    began = time.perf_counter()
    study = load(study_dir)
    _sweep(study.folder)
    files = {f"tables/{name}": encoded(text) for name, text in paper_files(study).items()}
    files["methods.md"] = encoded(methods.methods_md(study))
    given = page.context(study, price_per_hour, figures == "light")
    beside = given["beside"]
    files["tables/per-class.csv"] = encoded(tb.classes_to_csv(beside.pairing, beside.classes))
    for name in ("report.html", "report.md"):
        files[name] = encoded(page.templates().get_template(f"{name}.j2").render(given))
    if pdf:
        from analysis import figures as drawn  # here: matplotlib alone takes a second to import

        files |= {f"figures/{name}": content for name, content in drawn.pdfs(study, beside)}
    paths = tuple(write_file(study.folder / name, content) for name, content in files.items())
    return Report(paths, time.perf_counter() - began, study.warnings)


def paper_files(study: Study) -> dict[str, str]:
    """What is written into tables/ for a paper and for programs, by file name."""
    files = {"numbers.tex": paper.numbers_tex(study)}
    for summary in study.summaries:
        cells, name = study.results[study.results["table"] == summary.table.number], f"table-{summary.table.slug}"
        files |= {f"{name}.csv": cells.to_csv(index=False, lineterminator="\n"), f"{name}.md": tb.to_markdown(summary)}
        for metric in summary.table.metrics if summary.rows else ():
            ending = "" if metric == summary.table.metric else f"-{frames.slug(metric.removeprefix('test_'))}"
            files[f"{name}{ending}.tex"] = f"{paper.MARK} {name}{ending}.tex\n{tb.to_tex(summary, cells, metric)}"
    return files


def encoded(text: str) -> bytes:
    """UTF-8; half a character, which JSON can hold and a file name can be read as, becomes a question mark."""
    return text.encode(errors="replace")


def _sweep(folder: Path) -> None:
    """Remove what reports that were killed left half written."""
    for path in [*folder.glob(".*.partial"), *folder.glob("tables/.*.partial"), *folder.glob("figures/.*.partial")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 60:  # else another report may be at it
                path.unlink()


def write_file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
