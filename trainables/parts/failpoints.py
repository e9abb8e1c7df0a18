"""Named places at which a process can be made to die, to prove that a study loses nothing there.
Comes in: the variable KARYOTUNE_FAILPOINT, names with a comma between, `name` or `name:n` for the n-th pass in a process. Goes out: SIGKILL
of the own process. Off, and almost free, unless the variable is set. KARYOTUNE_FAILPOINT_FIRED names a folder in which each leaves a file
as it fires, and that keeps it from firing again: the process that comes next goes on."""

import os
import signal
from pathlib import Path

VARIABLE, FIRED = "KARYOTUNE_FAILPOINT", "KARYOTUNE_FAILPOINT_FIRED"

IN_A_RUN = (  # passed by the process that trains
    "run.started",
    *(f"{file}.{moment}" for file in ("checkpoint", "stage", "model", "artefacts", "result") for moment in ("written", "renamed")),
)
IN_THE_DRIVER = (  # passed by the command's own process
    "data.written", "data.renamed", "splits.written", "splits.renamed", "study.written", "study.renamed",
    "optuna.ask", "optuna.asked", "optuna.filled", "ledger.append", "ledger.half", "ledger.written", "ledger.synced",
    "optuna.tell", "optuna.told",
    "files.freed", "report.begun", "report.written", "export.written", "export.moved", "export.renamed",
)  # fmt: skip
NAMES = (*IN_A_RUN, *IN_THE_DRIVER)

_passes: dict[str, int] = {}


def asked() -> dict[str, int]:
    """Failpoint -> the pass at which it fires, as the variable says it. ValueError for a name that is none."""
    wanted: dict[str, int] = {}
    for word in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, number = word.strip().partition(":")
        if name not in NAMES or not (number or "1").isdecimal() or int(number or 1) < 1:
            raise ValueError(f"{VARIABLE} takes names of failpoints, name or name:n, got {word!r}; known: {', '.join(NAMES)}")
        wanted[name] = int(number or 1)
    return wanted


def armed(name: str) -> bool:
    """Count a pass; whether this is the one at which the process is to die."""
    if not os.environ.get(VARIABLE):
        return False
    wanted = asked().get(name)
    if wanted is None:
        return False
    _passes[name] = _passes.get(name, 0) + 1
    fired = os.environ.get(FIRED)
    return _passes[name] == wanted and not (fired and (Path(fired) / name).exists())


def die(name: str) -> None:
    """SIGKILL, which no handler sees."""
    if fired := os.environ.get(FIRED):
        (Path(fired) / name).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def failpoint(name: str) -> None:
    """The process ends here where the environment says so."""
    if armed(name):
        die(name)
