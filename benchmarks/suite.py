"""What a whole suite of tables costs against training every row of every table by itself. In: nothing. Out: epochs, and what saved them.

`python -m benchmarks suite [PROCEDURE ...] [--preset paper] [--repeats 5]`: all tables of a procedure, equal rows, equal seeds, in epochs of
all stages: as a script for each table would train them; then without a row that an earlier table has; then without a stage that another row
has. Exact: it is the plan that `python -m search PROCEDURE --tables all` carries out. Early stopping is not in it: tables stop nothing. The
aim for supcam: 0.5."""

import argparse

from search import registry
from search.plan import make_plan
from trainables.parts.execution import stages_of

WIDTH = 40  # signs of the longest bar


def epochs_of(procedure: str, preset: str, repeats: int) -> dict[str, int]:
    """Epochs left after each way to save some, in the order of saving."""
    entry = registry.load(procedure)
    plan = make_plan(entry, preset=preset, data_hash="d", code="c", trials=0, repeats=repeats, tables=["all"])

    def stages(config: object) -> dict[str, int]:
        return {stage.name: int(getattr(config, stage.epochs)) for stage in stages_of(entry.procedure, config)}

    asked = sum(sum(stages(arm.config).values()) for table in plan.tables for arm in table.arms) * len(plan.seeds)
    rows = sum(sum(stages(run.config).values()) for run in plan.runs)
    shared = {run.stages[name]: epochs for run in plan.runs for name, epochs in stages(run.config).items()}
    return {"each row of each table by itself": asked, "a row of several tables once": rows, "an equal stage of several rows once": sum(shared.values())}  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("procedures", nargs="*", metavar="PROCEDURE", default=["supcam", "scl", "ccrl"])
    words.add_argument("--preset", default="paper")
    words.add_argument("--repeats", type=int, default=5)
    given = words.parse_args()
    for procedure in given.procedures:
        left = epochs_of(procedure, given.preset, given.repeats)
        first, *_, last = left.values()
        print(f"\n{procedure}, preset {given.preset}, {given.repeats} seeds: {last / first:.2f} of the epochs")
        for name, epochs in left.items():
            print(f"  {'#' * round(WIDTH * epochs / first):<{WIDTH}} {epochs:>8,}  {name}")


if __name__ == "__main__":
    main()
