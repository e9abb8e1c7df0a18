"""What came out: records to statistics, tables, figures and a report. Needs neither torch nor Ray.

In a notebook: `study = analysis.load("runs/my-study")`, then the typed pandas tables `study.results` (a row for each cell of its tables),
`study.runs`, `study.epochs`, `study.trials` and `study.predictions` (a row for each image and run), and `study.warnings`, `analysis.best(study)`.
`analysis.write_report("runs/my-study")` rewrites tables, figures and report."""

from analysis.choice import Best, best
from analysis.report import Report, write_report
from analysis.study import Arm, Study, StudyError, Table, load
from analysis.summary import summarize

__all__ = ["Arm", "Best", "Report", "Study", "StudyError", "Table", "best", "load", "summarize", "write_report"]
