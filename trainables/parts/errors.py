"""What can go wrong by a user's request or by the numbers, as exceptions that the command line and the ledger know.
Comes in: words. Goes out: exceptions. Exists so that a fault is told apart from a bug."""


class RequestError(ValueError):
    """A request that cannot be carried out. `faults`: one line each: the rule, what was given, the next step."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class Diverged(ArithmeticError):
    """A value that is not finite; ends the run where it arises, with status `diverged`."""


class Collapsed(ArithmeticError):
    """A stage whose result says the same of every image; it ends the run with status `collapsed`, for its score is no result."""


class StorageFault(OSError):
    """A file that the disk or the folder's permissions did not let us write; nothing that was written before it is lost."""


class ClusterLost(RuntimeError):
    """Processes that runs are placed by have ended under the study."""


class Misplaced(RuntimeError):
    """A machine on which a run cannot be done, whatever its configuration: it lacks the study's folder, or the GPU that was promised."""


class CardHidden(Misplaced):
    """The machine does not show the GPU that it promised."""


class OtherCode(RuntimeError):
    """A worker's code is not that of the command that sent the run: what it trained would bear the wrong key."""


class NotProven(RuntimeError):
    """Exported files that do not give the recorded numbers, by more than another processor explains."""


class Interrupted(Exception):
    """A run that was asked to stop has saved its checkpoint."""


class WeightsUnreachable(RuntimeError):
    """Published weights that cannot be had from this machine; the row says so and the study goes on."""
