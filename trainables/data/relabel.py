"""Labels that somebody doubts, as the report's page exports them: relabelling.csv.
Comes in: a `Pack` and that table (file, label, new_label, mark). Goes out: the set with those labels and without those images, which is
another set with another hash. Exists so that a mark in the image ledger can be trained on, and nobody takes the result for one of the old
labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainables.data.pack import Masks, Pack, make_pack
from trainables.data.table import TableError, heads, read_cells
from trainables.data.words import count, few, same, them
from trainables.parts.errors import RequestError

RELABEL, LEAVE_OUT = "relabel", "leave out"
COLUMNS = ("file", "label", "new_label", "mark")
DATA = "data"  # a column that a report of today adds: of which set it is


@dataclass(frozen=True)
class Relabelling:
    """The lines of a table: file, label as it was when the mark was set, new label ('' to leave the image out)."""

    name: str
    digest: str
    lines: tuple[tuple[str, str, str], ...]
    data: tuple[str, ...] = ()  # the beginning of the hash of the set that was looked at, where the table names it

    @classmethod
    def read(cls, path: Path) -> Relabelling:
        """RequestError with all that is wrong with the table itself."""
        try:
            rows, digest = read_cells(path), hashlib.sha256(path.read_bytes()).hexdigest()
        except (TableError, OSError) as fault:
            raise RequestError(f"--relabel '{path}' {fault if isinstance(fault, TableError) else f'cannot be read ({fault})'}") from None
        meant = {same(name): name for name in COLUMNS}
        columns = [meant.get(same(name), name) for name in heads(rows[0])] if rows else []
        if missing := [name for name in COLUMNS if name not in columns]:
            raise RequestError(
                f"--relabel '{path}' must be a relabelling.csv of the report's image ledger, with the columns {', '.join(COLUMNS)}; "
                f"{', '.join(missing)} missing"
            )
        faults, lines, data = [], [], []
        for number, row in enumerate(rows[1:], 2):
            cells = dict(zip(columns, row, strict=False))
            file, (label, new, mark) = cells.get("file", ""), (cells.get(name, "").strip() for name in COLUMNS[1:])
            if same(mark) not in (RELABEL, LEAVE_OUT) or (same(mark) == RELABEL) != bool(new):
                faults.append(
                    f"line {number}: mark must be '{RELABEL}' with a new_label, or '{LEAVE_OUT}' without one, got '{mark}', '{new}'"
                )
            elif same(new) == same(label):
                faults.append(f"line {number}: new_label is the label that the image has, '{label}'; remove the line or give another one")
            lines.append((file, label, new))
            data.append(cells.get(DATA, "").strip())
        if not lines:
            faults.append("it has a head and no line; mark images in the report's ledger, or leave --relabel out")
        if faults:
            raise RequestError(*(f"--relabel '{path}': {fault}" for fault in faults))
        return cls(path.name, digest, tuple(lines), tuple(dict.fromkeys(filter(None, data))))

    def of(self, pack: Pack) -> Pack:
        """The set with the new labels. RequestError with every line that does not fit it."""
        place = {file: i for i, file in enumerate(pack.files)}
        number = {same(name): i for i, name in enumerate(pack.classes)}
        lines = [(file if file in place else file.strip(), *labels) for file, *labels in self.lines]  # a name may begin with a space
        files = [file for file, *_ in lines]
        faults = _faults("names files that the data have not", [file for file in files if file not in place], "correct or remove {}")
        faults += _faults("names files twice", [file for file, times in Counter(files).items() if times > 1], "keep one line of each")
        known = [(place[file], same(label), same(new), file) for file, label, new in lines if file in place]
        unknown = [new for _, _, new, _ in known if new and new not in number]
        faults += _faults("names labels that are no class", list(dict.fromkeys(unknown)), f"the classes are {few(pack.classes, 12)}")
        moved = [file for i, label, _, file in known if number.get(label) != pack.labels[i]]
        faults += _faults(
            "was made of other labels than these data have now", moved, "make it again from a report of these data, or undo what changed {}"
        )
        if faults:
            raise RequestError(*(f"--relabel {self.name} {fault}" for fault in faults))
        labels = pack.labels.copy()
        for i, _, new, _ in known:
            labels[i] = number[new] if new else -1
        if gone := [name for c, name in enumerate(pack.classes) if (pack.labels == c).any() and not (labels == c).any()]:
            raise RequestError(f"--relabel {self.name} leaves no image of {few(gone)}; a class needs images")
        return replace(_with(pack, labels), notes=(*pack.notes, self._words(pack, labels)))

    def json(self) -> dict[str, object]:
        """As study.json keeps it."""
        return {"file": self.name, "sha256": self.digest, "images": [list(line) for line in self.lines]}

    def _words(self, pack: Pack, labels: np.ndarray) -> str:
        """What it changes, in words."""
        ways = Counter(
            f"{pack.classes[was]} to {pack.classes[now]}"
            for was, now in zip(pack.labels.tolist(), labels.tolist(), strict=True)
            if now not in (-1, was)
        )
        said = [f"gives {count(ways.total())} another label ({few([f'{way} {n}' for way, n in ways.most_common()], 6)})"] if ways else []
        said += [f"leaves out {count(out)}"] if (out := int((labels < 0).sum())) else []
        drawn = "" if pack.parts else "; the split is drawn anew"
        if other := [hash_ for hash_ in self.data if not pack.hash.startswith(hash_)]:
            drawn += f"; it was made beside a set of hash {few(other)}, and this one has {pack.hash[: len(other[0])]}, "
            drawn += "the same files and labels, read otherwise"
        return (
            f"labels: {self.name} {' and '.join(said)}, which a person marked beside the mistakes of runs{drawn}: "
            "scores are of these labels, and do not compare with those of the data as they came"
        )


def _faults(what: str, names: Sequence[str], step: str) -> list[str]:
    return [f"{what}, {len(names)}: {few(names)}; {step.format(them(names))}"] if names else []


def _with(pack: Pack, labels: np.ndarray) -> Pack:
    """The pack by these labels; an image of -1 is left out."""
    kept = np.flatnonzero(labels >= 0)
    place = {int(i): new for new, i in enumerate(kept)}
    masks = pack.masks
    if masks is not None and len(kept) < len(pack):
        masks = Masks.of(list(masks.each(kept)))
    made = make_pack(
        pack.images if len(kept) == len(pack) else pack.images[kept], labels[kept], pack.classes, [pack.files[i] for i in kept],
        None if pack.patients is None else [pack.patients[i] for i in kept], pack.areas[kept],
        parts=None if pack.parts is None else [pack.parts[i] for i in kept], masks=masks,
    )  # fmt: skip
    cells = None if pack.metaphases is None else tuple(pack.metaphases[i] for i in kept)
    return replace(made, metaphases=cells, ties=tuple((place[i], place[j]) for i, j in pack.ties if i in place and j in place))
