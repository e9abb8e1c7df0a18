"""What is known of the machines and their cards by how runs fared on them.
Comes in: what processes say of where they are, faults, epochs that ended. Goes out: which machine or card gets no further run, and in what
words; what a run is kept from. Pure. Exists beside `verdict`, which judges one ending: a machine is judged by several."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.verdict import OF_A_CARD, Breaks

IN_A_ROW = 2  # faults of a machine or card, no epoch between, after which it is set aside
COUNTED = ("misplaced", "card_hidden", "device", "worker_killed", "stillborn")


class Nodes:
    """Machines by Ray's id; cards by their UUID, all over the cluster."""

    def __init__(self) -> None:
        self.aside: dict[str, str] = {}  # node -> why it gets no further run
        self.cards_aside: dict[str, tuple[str, str]] = {}  # the same of cards: words that name one, and why
        self.names: dict[str, str] = {}
        self.machines = 1  # so many are there that could take a run
        self.able: set[str] = set()  # those nodes
        self.cards: dict[str, int] = {}  # node -> how many Ray counts there
        self.largest = 0.0  # bytes of the largest device that a worker has named
        self._begun: set[str] = set()  # nodes on which a process has come to its run
        self._seen: dict[str, dict[str, str]] = {}  # node -> card -> its place in the node
        self._faults: dict[tuple[str, str], dict[str, str]] = {}  # (node, card, or "" for the whole of it) -> run -> why

    def count(self, there: Sequence[Mapping[str, Any]], worker: Mapping[str, float] | None = None) -> None:
        """The nodes that are there, as Ray tells of them. worker: what one of a run takes; a cluster's head may have nothing to give."""
        needed = (worker or {}).items()
        self.able = {node["NodeID"] for node in there if all(node["Resources"].get(unit, 0.0) >= amount for unit, amount in needed)}
        self.machines = max(1, len(self.able))
        self.cards = {node["NodeID"]: int(node["Resources"].get("GPU", 0.0)) for node in there}

    def met(self, facts: Mapping[str, Any]) -> None:
        """A worker has said where it works."""
        node = str(facts.get("node", ""))
        if not node:
            return  # the first word of a group's workers may be their last
        self.names[node] = str(facts.get("host", ""))
        self._begun.add(node)
        self.largest = max(self.largest, float(facts.get("device_memory") or 0.0))
        if facts.get("card"):
            self._seen.setdefault(node, {})[str(facts["card"])] = str(facts.get("card_index", ""))

    def several(self, node: str) -> bool:
        """Whether a machine has several cards, so that one may be set aside without it."""
        return self.cards.get(node, 1) > 1

    def well(self, node: str, card: str = "") -> None:
        """An epoch has ended there."""
        for place in {"", card}:
            self._faults.pop((node, place), None)

    def fault(self, node: str, key: str, kind: str, why: str, card: str = "") -> str | None:
        """A fault there in the run `key`; words when a machine, or a card of one that has several, is set aside for it. kind: `misplaced`
        (a run cannot work there), `card_hidden`, `device`, `worker_killed` or `stillborn` (a process died before it came to its run); a run
        may itself be why a device fails or a process dies again and again: different ones must have met it. Other errors count as
        `misplaced` once the run that met them does well elsewhere (`Breaks.progress`). A machine on which processes die as they start is
        set aside where they come to their runs on another: else the code may be why."""
        card = card if kind in OF_A_CARD and self.several(node) else ""
        if not node or node in self.aside or card in self.cards_aside or kind not in COUNTED:
            return None
        if kind == "worker_killed" and not (self.able or self.names.keys()) - {node} - self.aside.keys():
            return None  # the only machine that there is: its memory may be short
        faults = self._faults.setdefault((node, card), {})
        faults[key if kind in ("device", "worker_killed") else f"{key} {len(faults)}"] = why
        if len(faults) < IN_A_ROW or (kind == "stillborn" and not self._begun - {node}):
            return None
        what = f"machine {self._name(node)}"
        if card:
            what = f"card {self._seen[node].get(card, '?')} ({card}) of {what}"
            self.cards_aside[card] = f"{self._name(node)}, {what.partition(' of ')[0]}", why
        if not card or len(self._seen[node].keys() & self.cards_aside.keys()) >= self.cards[node]:
            self.aside[node] = why
        return f"{what} was set aside after {len(faults)} faults in a row: {why}"

    def shunned(self, breaks: Breaks) -> tuple[set[str], set[str]]:
        """(nodes, cards) that a run is kept from: what was set aside, and where it broke off itself as long as there is another."""
        cards, nodes = breaks.cards | self.cards_aside.keys(), breaks.avoid | self.aside.keys()
        nodes |= {node for node, seen in self._seen.items() if self.several(node) and len(seen.keys() & cards) >= self.cards[node]}
        another = any(count and node not in nodes for node, count in self.cards.items())
        nodes = set(self.aside) if self.able and self.able <= nodes else nodes
        return nodes, cards if another else set(self.cards_aside)

    def lines(self) -> list[str]:
        """What was set aside, and why."""
        return [f"{place}: {why}" for place, why in self._places()]

    def words(self) -> list[str]:
        """The same as sentences."""
        return [f"machine {place} was set aside: {why}" for place, why in self._places()]

    def _places(self) -> list[tuple[str, str]]:
        return [(self._name(node), why) for node, why in self.aside.items()] + list(self.cards_aside.values())

    def _name(self, node: str) -> str:
        return self.names.get(node) or node[:12]
