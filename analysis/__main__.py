"""`python -m analysis STUDY_DIR`: rewrites a study's tables, figures and report from its records. Needs neither torch nor Ray.

Several STUDY_DIRs of one procedure and data set are merged into one report in --out; --compare sets two side by side instead; --forest pools
those of several laboratories. `python -m analysis check PAPER.tex [STUDY_DIR]` holds the numbers of a paper against the records."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.bundle import write_bundle
from analysis.methods import CHECKLISTS, checklist_md
from analysis.paper import check
from analysis.pooled import write_forest
from analysis.report import write_file, write_report
from analysis.several import write_comparison, write_merged
from analysis.study import StudyError, load, plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once every file is written, 1 where `check` refuses a number, 2 where there is no study or the request cannot be met."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["check"]:
        return _check(words[1:])
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("studies", metavar="STUDY_DIR", nargs="*", help="folder of a study; several are merged")
    parser.add_argument("--compare", nargs=2, metavar=("STUDY_A", "STUDY_B"), help="two data sets or two commits, arm by arm")
    parser.add_argument("--out", metavar="DIR", help="folder for a merged report (default: merged) or a comparison (default: comparison)")
    parser.add_argument(
        "--price-per-hour", type=float, metavar="PRICE", help="of one GPU (of one worker, without GPUs): the report states the money spent"
    )
    parser.add_argument("--light", action="store_true", help="without the embedding map: for a report while the study runs")
    parser.add_argument("--figures", action="store_true", help="each figure as PDF too, for a paper; also at the width of one column")
    parser.add_argument(
        "--checklist", choices=list(CHECKLISTS), help="only checklist-NAME.md: what the study fills of it, and what a person must"
    )
    parser.add_argument(
        "--bundle", metavar="FILE.zip", help="only a zip file for others: settings, records, predictions, splits, hashes; no images"
    )
    parser.add_argument("--forest", nargs="+", metavar="BUNDLE", help="bundles or studies of several laboratories: their gains, pooled")
    given = parser.parse_args(words)
    if given.price_per_hour is not None and not 0 <= given.price_per_hour < math.inf:
        parser.error(f"--price-per-hour must be 0 or more, got {given.price_per_hour}")
    if bool(given.studies) + bool(given.compare) + bool(given.forest) != 1:
        parser.error("give one or more STUDY_DIR, or --compare STUDY_A STUDY_B, or --forest BUNDLE BUNDLE...")
    if (given.checklist or given.bundle) and len(given.studies) != 1:
        parser.error("--checklist and --bundle are of one STUDY_DIR")
    if given.figures and not given.studies:
        parser.error("--figures is for a report; leave it out for comparisons and forest plots")
    if given.light and len(given.studies) != 1:
        parser.error("--light is for the report of one study; leave it out for merged studies and comparisons")
    if given.price_per_hour is not None and not given.studies:
        parser.error("--price-per-hour is for a report: comparisons and forest plots state no money; leave it out")
    if given.out and len(given.studies) == 1:
        parser.error("--out is for merged studies and comparisons; the report of one study is written into its own folder")
    try:
        if given.checklist or given.bundle:
            study = load(given.studies[0])
            if given.bundle:
                path, count = write_bundle(study, Path(given.bundle))
                print(f"{path} written: {plural(count, 'file')}, no images")
            if given.checklist:
                content = checklist_md(study, given.checklist).encode(errors="replace")
                print(f"{write_file(study.folder / f'checklist-{given.checklist}.md', content)} written")
            return 0
        if given.compare or given.forest:
            if given.forest:
                paths = write_forest(given.forest, given.out or "forest")
            else:
                first, second = given.compare
                paths = write_comparison(first, second, given.out or "comparison")
            print(f"{paths[-1]} and {plural(len(paths) - 1, 'other file')} written")
            return 0
        if len(given.studies) > 1:
            report = write_merged(given.studies, given.out or "merged", given.price_per_hour, given.figures)
        else:
            report = write_report(given.studies[0], "light" if given.light else "full", given.price_per_hour, given.figures)
    except (StudyError, OSError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    for warning in report.warnings:
        print(f"note: {warning}", file=sys.stderr)
    page = next(p for p in report.paths if p.name == "report.html")
    print(f"{page} and {plural(len(report.paths) - 1, 'other file')} written in {report.seconds:.1f} s")
    return 0


def _check(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis check", description="Hold the numbers of a paper against the records of a study."
    )
    parser.add_argument("paper", metavar="PAPER.tex", type=Path, help="what it includes is read too")
    parser.add_argument("study", metavar="STUDY_DIR", nargs="?", help="default: the one in whose tables/ the included numbers.tex lies")
    given = parser.parse_args(arguments)
    try:
        found = check(given.paper, given.study)
    except (StudyError, OSError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    for words in found.notes:
        print(f"note: {words}")
    for words in found.refused:
        print(f"refused: {words}", file=sys.stderr)
    print(f"{given.paper}: {plural(found.macros, 'macro')}, {plural(found.typed, 'typed number')}, {len(found.refused)} refused")
    return 1 if found.refused else 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may have no sign for what a folder is called
    sys.exit(main())
