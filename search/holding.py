"""Runs and the cards that they are kept from.
Comes in: a Director, its lock held, and what a process says of its card. Goes out: whether the process is stopped. Ray places a run by what
it needs, not by card: a process on the wrong one hands its run back and holds the card, until another run may have it."""

from typing import TYPE_CHECKING

from search.queue import Active

if TYPE_CHECKING:
    from search.director import Director


def begun(director: "Director", active: Active) -> bool:
    """A process has said where it is. On a card that its run is to be kept from, the run goes back. The process holds the card where it was
    told of it with the run; else it is stopped, and told with its next one."""
    card = str(active.facts.get("card", ""))
    if not card or card not in director.nodes.shunned(active.breaks)[1] | active.shunned:
        return False
    director.queue.again(active, last=True)
    return card not in active.shunned


def spares(director: "Director", card: str) -> bool:
    """Whether a card that is held may be given back: it was not set aside, and a run that may be there waits; or nothing more is run."""
    waits = any(active.began is None and card not in active.shunned for active in director.queue.active.values())
    return (waits and card not in director.nodes.cards_aside) or director.stopping or director.finished()
