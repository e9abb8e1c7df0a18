"""Whose ending it was: the configuration's, the machine's, or not known.
Comes in: what a worker said last, or that it died; how often its run broke off before. Goes out: record it, or place the run again, and
where. Pure. Exists so that a machine's fault (a node without the shared folder, a stuck driver, a neighbour on the card, a preemption)
never stands in a table as a configuration's result.

The configuration's: completed, not finite, collapsed, a request that cannot be trained, out of memory alone on the largest device.
The machine's: its node is gone, it does not see the storage or runs other code, its GPU is hidden, memory that a neighbour or a smaller
card lacks. Such a run is placed again, elsewhere where there is an elsewhere, and goes on from its checkpoint; never recorded.
Not known: any other exception, an error of the device (it sticks to the process), a process that died while its node lives. In a fresh
process again; recorded as failed when it comes again (a process that died: DEATHS times without an epoch between), its checkpoint kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Whose = Literal["configuration", "machine", "unknown"]

CONFIGURATION = ("not_finite", "request", "unreachable_weights")
UNKNOWN = 1  # exceptions of a run, after which the next one is recorded
ELSEWHERE = (
    "unreachable_weights",
    "error",
    "out_of_memory",
    "device",
    "worker_killed",
)  # after which a run is tried on another machine first
OF_A_CARD = ("device", "card_hidden")  # where a machine has several: a fault of one of them
DEATHS = 3  # of a run's processes, one after the other without an epoch between, after which the next one is recorded


@dataclass
class Breaks:
    """How often a run broke off since its last epoch, and where it is not placed any more."""

    errors: int = 0
    deaths: int = 0
    alone: bool = False  # it runs when nothing else does
    avoid: set[str] = field(default_factory=set)  # nodes
    cards: set[str] = field(default_factory=set)  # of nodes that have several
    sent: set[str] = field(default_factory=set)  # kinds of faults for which it was sent to another machine or card
    suspects: dict[str, str] = field(
        default_factory=dict
    )  # nodes that it broke off on, and with what; nobody's fault until it does well elsewhere

    def progress(self, node: str = "") -> dict[str, str]:
        """An epoch has ended on a node: what came before was no fault of the run's, but of the nodes that are given back, with what it
        was."""
        self.errors = self.deaths = 0
        proven = {one: why for one, why in self.suspects.items() if node and one != node}
        self.suspects.clear()
        return proven


def whose(ending: Mapping[str, Any], breaks: Breaks, largest: float = 0.0, machines: int = 1, several: bool = False) -> Whose:
    """Of an ending {"end", "kind", "device_memory", "neighbours"}; largest: bytes of the largest device of the study so far; machines:
    there are so many; several: the one at hand has more than one card. Where there are several, weights that cannot be had and memory that
    lacks are tried on another one once: that machine may have no way out, and the largest device may not have spoken yet."""
    kind = ending.get("kind")
    elsewhere = machines > 1 or (several and kind == "out_of_memory" and "neighbours" in ending)
    if elsewhere and kind in ("unreachable_weights", "out_of_memory") and not ending.get("neighbours") and kind not in breaks.sent:
        return "unknown"
    if ending["end"] in ("completed", "pruned", "diverged", "collapsed") or kind in CONFIGURATION:
        return "configuration"
    if ending["end"] == "misplaced" or kind == "node_lost":
        return "machine"
    if kind == "out_of_memory" and "neighbours" in ending:  # of a device; that of the host has no such word
        if _small(ending, largest):
            known = ending.get("node") in breaks.avoid or ending.get("card") in breaks.cards
            return "unknown" if known else "machine"  # there was no other to place it on
        if ending["neighbours"]:
            return "unknown" if breaks.alone else "machine"  # others than ours
        return "configuration"
    return "unknown"


def _small(ending: Mapping[str, Any], largest: float) -> bool:
    return bool(ending["device_memory"] < 0.98 * largest)  # two cards of one kind differ by megabytes


def again(judged: Whose, ending: Mapping[str, Any], breaks: Breaks, largest: float = 0.0, several: bool = False) -> bool:
    """Whether the run is placed again; `breaks` is brought up to date. judged: see `whose`; several: as there."""
    kind, node = ending.get("kind"), ending.get("node")
    small = kind == "out_of_memory" and "neighbours" in ending and _small(ending, largest)
    if judged == "machine" and kind == "out_of_memory" and not small:
        breaks.alone = True
    if several and ending.get("card") and (kind in OF_A_CARD or (kind == "out_of_memory" and "neighbours" in ending)):
        breaks.cards.add(str(ending["card"]))
        breaks.sent.add(str(kind))
    elif node and kind in ELSEWHERE:
        breaks.avoid.add(node)  # elsewhere, where there is an elsewhere
        breaks.sent.add(str(kind))
        if kind in ("unreachable_weights", "error", "out_of_memory"):
            breaks.suspects[node] = str(ending.get("message", kind))
    if judged != "unknown":
        return judged == "machine"
    if kind == "worker_killed":
        breaks.deaths += 1
        return breaks.deaths <= DEATHS
    breaks.errors += 1
    return breaks.errors <= UNKNOWN
