"""Types dealt out within a karyotype (the last stage of Varifocal-Net, Qin et al. 2019), re-implemented from its description. Comes in:
what a classifier says of each chromosome of one person. Goes out: types of which each is given as often as a person has it. Not what the
tables compare, which is a classifier: a line beside it, of any arm."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from trainables.data.words import KARYOTYPE

WHOLE = (
    46  # chromosomes of a cell. Of a person with more or fewer images whose metaphases are not told apart nothing says whether they are of
)
# one cell: of 42 with fewer, in the G bands that this was tried on, 19 have images of two cells or more, and more than two of a type
SEXES = ({"X": 2, "Y": 0}, {"X": 1, "Y": 1})  # places; every other type has two


def dealt(
    logs: np.ndarray, persons: Sequence[str], classes: tuple[str, ...], metaphases: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """logs: (N, C) logarithms of probabilities, of images of these persons and their metaphases ('' where one is not known). (N,) types,
    and which of them were dealt out: of a metaphase of 2 to 46 images, for touching chromosomes may be missing, and of a person with 46 the
    likeliest that are at most those of a woman or a man; of others each image's likeliest. None where classes are not the 24, or nothing
    is dealt."""
    if set(classes) != set(KARYOTYPE):
        return None
    cells = metaphases if metaphases is not None else [""] * len(persons)
    units = [*zip(persons, cells, strict=True)]
    found, hit = np.asarray(logs).argmax(1), np.zeros(len(units), bool)
    members: dict[tuple[str, str], list[int]] = {}
    for i, unit in enumerate(units):
        members.setdefault(unit, []).append(i)
    places = [np.repeat(np.arange(len(classes)), [sex.get(name, 2) for name in classes]) for sex in SEXES]
    for (_, cell), own in members.items():
        if not 1 < len(own) <= WHOLE or (not cell and len(own) < WHOLE):  # one image alone has its likeliest type in any case
            continue
        best = max((_filled(logs[own], place) for place in places), key=lambda pair: pair[0])
        found[own], hit[own] = best[1], True
    return (found, hit) if hit.any() else None


def crowded(labels: Sequence[str], persons: Sequence[str], metaphases: Sequence[str]) -> tuple[int, int]:
    """How many metaphases of a person hold more images of a type than `dealt` gives (a trisomy, or several cells under one name), and how
    many there are that have a name."""
    counts = Counter((person, cell, label) for label, person, cell in zip(labels, persons, metaphases, strict=True) if cell)
    sexes = [{unit[:2] for unit in counts if sum(counts[*unit[:2], name] > sex[name] for name in sex)} for sex in SEXES]
    full = {unit[:2] for unit, count in counts.items() if count > 2} | (sexes[0] & sexes[1])
    return len(full), len({unit[:2] for unit in counts})


def _filled(logs: np.ndarray, places: np.ndarray) -> tuple[float, np.ndarray]:
    """The logarithm of the probability of the likeliest places of the rows, one each, and the type of each row."""
    rows, taken = linear_sum_assignment(logs[:, places], maximize=True)  # rows are in order
    return float(logs[:, places][rows, taken].sum()), places[taken]
