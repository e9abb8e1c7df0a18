"""What lies between a patient and an image, in a table without patients: slides, specimens, blocks, metaphases.
Comes in: a table's columns. Goes out: ties, and what to say of them. Exists because images of one slide have stain, scanner and tissue in
common: where nobody names the patients, a split keeps at least a slide on one side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trainables.data.listing import FEWEST, Listing
from trainables.data.table import METAPHASES
from trainables.data.words import class_order, count, few, is_missing, same, shown

BETWEEN = (
    "slide", "wsi", "specimen", "sample", "block", "section", "biopsy", "scan", "culture", "core", "smear", "preparation",
    "präparat", "objektträger", "schnitt",
)  # fmt: skip
NUMBER = re.compile(r"\d")
HEADS = frozenset(
    f"{word}{more}" for word in BETWEEN for more in ("", "s", "id", " id", " name", " no", " nr", " number", " code", " barcode")
)


def tied_by_slide(title: str, columns: Mapping[str, Sequence[str]], listing: Listing) -> bool:
    """Ties what one column of slides or the like calls one, and warns that patients are not known; whether there is such a column: of
    several the one with the fewest kinds. columns: by their heads, a cell of each image of the listing."""
    found: list[tuple[int, str, Sequence[str], dict[str, list[int]]]] = []
    for head, cells in columns.items():
        of: dict[str, list[int]] = {}
        for i, cell in enumerate(cells):
            if not is_missing(cell):
                of.setdefault(same(cell), []).append(i)
        known = same(head) in HEADS or METAPHASES.fullmatch(same(head))
        if known and len(of) > 1 and any(map(NUMBER.search, of)):  # tumour and normal are no slides
            found.append((len(of), head, cells, of))
    if not found:
        return False
    number, head, cells, of = min(found, key=lambda one: one[0])
    said = f"{title} names no patients, and its column {head} {count(number, 'kind')}"
    kinds: dict[str, set[str]] = {label: set() for label in listing.labels}
    for name, own in of.items():
        for i in own:
            kinds[listing.labels[i]].add(name)
    step = "write the patients into a column patient"
    if listing.parts is not None:
        parts = listing.parts
        torn = [shown(cells[own[0]]) for own in of.values() if len({same(parts[i]) for i in own}) > 1]
        of_these = f": its split parts {len(torn)} of these ({few(torn, 3)})" if torn else ", of which its split parts none"
        listing.warnings.append(f"{said}{of_these}; a patient may stand on two sides: {step}")
    elif scarce := class_order(label for label, some in kinds.items() if len(some) < FEWEST):
        listing.warnings.append(
            f"{said}, fewer than {FEWEST} in {few(scarce)}, so that no split can keep each on one side: they are parted, and scores are "
            f"better than they should be; {step}"
        )
    else:
        listing.slides = [(own[i], own[i + 1]) for own in of.values() for i in range(len(own) - 1)]
        listing.warnings.append(
            f"{said}: each stays on one side of a split, and a patient who has several may stand on two: {step}, or call {head} so if "
            "each patient has one"
        )
    return True
