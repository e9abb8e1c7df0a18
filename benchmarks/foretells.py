"""What foretells a run's end: the rank correlation of each score on the way with the score that a search is after, over a study's runs.
In: studies that have ended. Out: for each stage and score its correlation after a quarter, a half and all of the stage's epochs.

`python -m benchmarks foretells STUDY [STUDY ...] [--of METRIC]`; without it the score is the one that the study's search is after. Scores on
the way are the loss, validation scores and those of the pretext (`pretext_`). Status 2 where a study has nothing to tell. Runs that share a stage have one score of it on the way: they are told from
each other by nothing there and count as one, with their mean end. The interval is a bootstrap over configurations (95 %)."""

import argparse
import sys

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from analysis.study import Study, StudyError, load

FEWEST = 5  # stages of different settings; fewer have no order to speak of
SHARES = (0.25, 0.5, 1.0)  # of a stage's epochs
DRAWS = 1000


def trained(study: Study) -> pd.DataFrame:
    """Completed runs, without those of yardsticks."""
    yardsticks = {arm.config_hash for table in study.tables for arm in table.arms if arm.yardstick}
    runs = study.usable
    return runs[(runs["status"] == "completed") & ~runs["config_hash"].isin(yardsticks)]


def ways(study: Study, metric: str) -> pd.DataFrame:
    """A row for each stage, score and share of its epochs of each stage that was trained: the score there, and the mean end of its runs.
    Yardsticks are left out: they train nothing."""
    runs = trained(study)
    runs = runs[runs[metric].notna()] if metric in runs else runs[:0]
    rows = []
    for run in runs.to_dict("records"):
        history = study.history([run["key"]])
        for stage, epochs in history.groupby("stage", sort=False):
            total = epochs["epoch"].max()
            for score in (name for name in epochs if name == "loss" or name.startswith(("val_", "pretext_"))):
                known = epochs[epochs[score].notna()].sort_values("epoch")
                for share in SHARES:
                    if len(seen := known[known["epoch"] <= share * total]):
                        one = (str(run["stage_hashes"].get(stage, run["key"])), run["config_hash"], run["seed"])
                        rows.append((stage, score, share, *one, float(seen[score].iloc[-1]), run[metric]))
    frame = pd.DataFrame(rows, columns=["stage", "score", "share", "shared", "config", "seed", "value", "end"])
    ends = ("stage", "score", "share", "shared", "value")
    return frame.groupby(list(ends), sort=False).agg(config=("config", "first"), end=("end", "mean")).reset_index()


def correlation(value: np.ndarray, end: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Spearman's, and its interval over groups drawn with replacement; nan where one side does not vary."""
    names, chance, drawn = np.unique(groups), np.random.default_rng(seed), []
    if len(np.unique(value)) < 2 or len(np.unique(end)) < 2:
        return float("nan"), float("nan"), float("nan")
    for _ in range(DRAWS):
        some = np.concatenate([np.flatnonzero(groups == name) for name in chance.choice(names, len(names))])
        if len(np.unique(value[some])) > 1 and len(np.unique(end[some])) > 1:
            drawn.append(spearmanr(value[some], end[some]).statistic)
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (float("nan"), float("nan"))
    return float(spearmanr(value, end).statistic), float(low), float(high)


HEAD = (
    "| study | of | stage | score | runs | after 1/4 | after 1/2 | at its end |",
    "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
)


def lines(study: Study, metric: str) -> list[str]:
    """Rows of a Markdown table. StudyError with what the study lacks, where there is none."""
    table, out = ways(study, metric), []
    for (stage, score), part in table.groupby(["stage", "score"], sort=False):
        cells, count = [], 0
        for share in SHARES:
            some = part[part["share"] == share]
            count = max(count, len(some))
            if len(some) < FEWEST:
                cells.append("–")
                continue
            rho, low, high = correlation(*(some[name].to_numpy() for name in ("value", "end", "config")))
            cells.append("–" if np.isnan(rho) else f"{rho:+.2f} ({low:+.2f} to {high:+.2f})")
        if count >= FEWEST:
            out.append(f"| {study.name} | {metric} | {stage} | {score} | {count} | {' | '.join(cells)} |")
    if not out:
        raise StudyError(f"{study.name}: {_lacking(study, metric, table)}")
    return out


def _lacking(study: Study, metric: str, table: pd.DataFrame) -> str:
    ended = trained(study)
    if ended.empty:
        return "no run of it has been completed; ask again when some have"
    if metric not in ended or ended[metric].isna().all():
        known = ", ".join(sorted(name for name in ended if name.startswith("val_"))) or "none"
        return f"none of its {len(ended)} completed runs has {metric}; --of takes one that they have: {known}"
    if table.empty:
        return "none of its runs reported a loss or a validation on the way: there is nothing that could foretell"
    most = table.groupby(["stage", "score", "share"]).size().max()
    return (
        f"an order needs {FEWEST} trainings or more, each with scores on the way, it has {most}; give a study of more arms, seeds or trials"
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("studies", nargs="*", help="folders of studies")
    asked.add_argument("--of", help="the score at a run's end (default: the one that the study's search is after)")
    given = asked.parse_args()
    if not given.studies:
        print("foretells: name a study that has ended, `python -m benchmarks foretells runs/STUDY`")
        return
    faults = []
    print("\n".join(HEAD))
    for folder in given.studies:
        try:
            study = load(folder)
            print("\n".join(lines(study, given.of or study.metric)))
        except StudyError as fault:
            faults.append(f"foretells: {fault}")
    if faults:
        print("\n".join(faults), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
