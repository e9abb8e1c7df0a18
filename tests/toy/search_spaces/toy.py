"""A fourth procedure's study: two tables that share an arm, a conditional space, one preset of seconds."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from search_spaces._declare import Arm, Dimension, Preset, Study, Table

STUDY = Study(
    procedure="toy",
    objective="val_accuracy",
    intermediate="val_early",
    metrics=("accuracy",),
    space={
        "form": Dimension("form", CategoricalDistribution(("plain", "bent"))),
        "bend": Dimension("bend", FloatDistribution(0.1, 0.9), {"form": ("bent",)}),
        "rate": Dimension("rate", FloatDistribution(0.001, 0.1, log=True)),
    },
    tables=(
        Table("1", "Form", "Toys", "plain", (Arm("plain", {}), Arm("bent, a little", {"form": "bent"}), Arm("slow", {"rate": 0.01}))),
        Table("2", "Bend", "Toys", "none", (Arm("none", {"bend": 0.3}), Arm("a little", {"form": "bent", "bend": 0.2}))),
        Table(
            "T",
            "Trouble",
            "Toys",
            "fine",
            (
                Arm("fine", {}),
                *(Arm(trouble, {"trouble": trouble}) for trouble in ("memory", "error", "nan", "exit", "weights")),
            ),
        ),
        Table(
            "M", "Machines", "Toys", "fine",
            (
                Arm("preempted", {"warm_epochs": 130}),
                Arm("device", {"trouble": "device"}),
                Arm("late", {"trouble": "late", "epochs": 30}),
                Arm("fine", {}),
                Arm("bent", {"form": "bent"}),
            ),
        ),
    ),
    presets={"quick": Preset("seconds", {}, trials=2, repeats=2, tables=("1", "2"), synthetic_images=60)},
)  # fmt: skip
