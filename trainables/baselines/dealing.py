"""Types dealt out within a karyotype (the last stage of Varifocal-Net, Qin et al. 2019), re-implemented from its description. Comes in:
what a classifier says of each chromosome of one person. Goes out: types of which each is given as often as a person has it. Not what the
tables compare, which is a classifier: a line beside it, of any arm."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from trainables.data.words import KARYOTYPE

WHOLE = 46  # chromosomes. Of a person with more or fewer images nothing says whether they are of one cell: of 42 with fewer, in the G bands
# that this was tried on, 19 have images of two cells or more, and more than two of a type
SEXES = ({"X": 2, "Y": 0}, {"X": 1, "Y": 1})  # places; every other type has two


def dealt(logs: np.ndarray, persons: Sequence[str], classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """logs: (N, C) logarithms of probabilities, of images of these persons. (N,) types, and which of them were dealt out: of a person with
    46 images the likeliest that fill the places of a woman or a man, of others each image's likeliest. None where classes are not the
    24, or no one has 46 images."""
    if set(classes) != set(KARYOTYPE):
        return None
    names = np.asarray(persons)
    found, hit = np.asarray(logs).argmax(1), np.zeros(len(names), bool)
    places = [np.repeat(np.arange(len(classes)), [sex.get(name, 2) for name in classes]) for sex in SEXES]
    for person in np.unique(names):
        own = np.flatnonzero(names == person)
        if len(own) != WHOLE:
            continue
        best = max((_filled(logs[own], place) for place in places), key=lambda pair: pair[0])
        found[own], hit[own] = best[1], True
    return (found, hit) if hit.any() else None


def _filled(logs: np.ndarray, places: np.ndarray) -> tuple[float, np.ndarray]:
    """The logarithm of the probability of the likeliest way to fill places, one a row, and the type of each row."""
    rows, taken = linear_sum_assignment(logs[:, places], maximize=True)  # rows are in order
    return float(logs[:, places][rows, taken].sum()), places[taken]
