"""`python -m analysis STUDY_DIR`: rewrites a study's tables, figures and report from its records. Needs neither torch nor Ray."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from analysis.report import write_report
from analysis.study import StudyError, plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once every file is written, 2 where there is no study."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("study_dir", metavar="STUDY_DIR", help="folder of a study")
    parser.add_argument(
        "--price-per-hour", type=float, metavar="PRICE", help="of one GPU (or worker, without GPUs): the report states the money spent"
    )
    given = parser.parse_args(arguments)
    if given.price_per_hour is not None and not 0 <= given.price_per_hour < math.inf:
        parser.error(f"--price-per-hour must be 0 or more, got {given.price_per_hour}")
    try:
        report = write_report(given.study_dir, price_per_hour=given.price_per_hour)
    except (StudyError, OSError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    for warning in report.warnings:
        print(f"note: {warning}", file=sys.stderr)
    page = next(p for p in report.paths if p.name == "report.html")
    print(f"{page} and {plural(len(report.paths) - 1, 'other file')} written in {report.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
