"""How a run ends by what it raises: one table, for a run of one process and for a worker group, whose errors come to us as names.
Comes in: nothing. Goes out: exceptions with the ending and the kind of error that they are. Exists so that no error is known in the one
and told as another in the other."""

import torch

from trainables.parts.errors import (
    CardHidden,
    Collapsed,
    Diverged,
    Interrupted,
    Misplaced,
    OtherCode,
    RequestError,
    StorageFault,
    WeightsUnreachable,
)


class Preempted(Exception):
    """A machine of the group is being taken away, as its provider has said beforehand."""


KINDS: tuple[tuple[type[Exception], str, str], ...] = (  # exception, how the run ended, kind of its error; the first that fits
    (Interrupted, "stopped", ""),
    (StorageFault, "stopped", ""),
    (Diverged, "diverged", "not_finite"),
    (Collapsed, "collapsed", "collapsed"),
    (Preempted, "failed", "node_lost"),
    (OtherCode, "misplaced", "other_code"),
    (CardHidden, "misplaced", "card_hidden"),
    (Misplaced, "misplaced", "misplaced"),
    (WeightsUnreachable, "failed", "unreachable_weights"),
    (MemoryError, "failed", "out_of_memory"),
    (torch.cuda.OutOfMemoryError, "failed", "out_of_memory"),
    (RequestError, "failed", "request"),
    (Exception, "failed", "error"),
)
KNOWN = {kind.__name__: kind for kind, *_ in KINDS if kind is not Exception}  # what a worker may say of itself, by name
