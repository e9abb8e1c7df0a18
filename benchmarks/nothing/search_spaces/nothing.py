"""The study of a procedure that trains nothing: 100 arms, and one number to search."""

from optuna.distributions import FloatDistribution

from search_spaces._declare import Arm, Dimension, Preset, Study, Table


def table(arms: int) -> Table:
    return Table("1", "Nothing", "", "0", tuple(Arm(str(number), {"number": number}) for number in range(arms)))


STUDY = Study(
    procedure="nothing",
    objective="val_accuracy",
    intermediate="val_accuracy",
    metrics=("accuracy",),
    space={"x": Dimension("x", FloatDistribution(0.0, 1.0))},
    tables=(table(100),),
    presets={"quick": Preset("nothing", {}, trials=0, repeats=10, tables=("1",), synthetic_images=20)},
)
