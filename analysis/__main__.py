"""`python -m analysis STUDY_DIR`: rewrites a study's tables, figures and report from its records. Needs neither torch nor Ray.

Several STUDY_DIRs of one procedure and data set are merged into one report in --out; --compare sets two side by side instead."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence

from analysis.report import write_report
from analysis.several import write_comparison, write_merged
from analysis.study import StudyError, plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once every file is written, 2 where there is no study or the request cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("studies", metavar="STUDY_DIR", nargs="*", help="folder of a study; several are merged")
    parser.add_argument("--compare", nargs=2, metavar=("STUDY_A", "STUDY_B"), help="two data sets or two commits, arm by arm")
    parser.add_argument("--out", metavar="DIR", help="folder for a merged report (default: merged) or a comparison (default: comparison)")
    parser.add_argument(
        "--price-per-hour", type=float, metavar="PRICE", help="of one GPU (of one worker, without GPUs): the report states the money spent"
    )
    parser.add_argument("--light", action="store_true", help="leave the PNG files as they are: for a report while the study runs")
    given = parser.parse_args(arguments)
    if given.price_per_hour is not None and not 0 <= given.price_per_hour < math.inf:
        parser.error(f"--price-per-hour must be 0 or more, got {given.price_per_hour}")
    if bool(given.studies) == bool(given.compare):
        parser.error("give one or more STUDY_DIR, or --compare STUDY_A STUDY_B")
    if given.light and len(given.studies) != 1:
        parser.error("--light is for the report of one study; leave it out for merged studies and comparisons")
    if given.price_per_hour is not None and given.compare:
        parser.error("--price-per-hour is for a report: a comparison states no money; leave it out")
    if given.out and len(given.studies) == 1:
        parser.error("--out is for merged studies and comparisons; the report of one study is written into its own folder")
    try:
        if given.compare:
            first, second = given.compare
            paths = write_comparison(first, second, given.out or "comparison")
            print(f"{paths[-1]} and {plural(len(paths) - 1, 'other file')} written")
            return 0
        if len(given.studies) > 1:
            report = write_merged(given.studies, given.out or "merged", given.price_per_hour)
        else:
            report = write_report(given.studies[0], figures="light" if given.light else "full", price_per_hour=given.price_per_hour)
    except (StudyError, OSError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    for warning in report.warnings:
        print(f"note: {warning}", file=sys.stderr)
    page = next(p for p in report.paths if p.name == "report.html")
    print(f"{page} and {plural(len(report.paths) - 1, 'other file')} written in {report.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may have no sign for what a folder is called
    sys.exit(main())
