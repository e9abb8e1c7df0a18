"""Types dealt out within a karyotype (the last stage of Varifocal-Net, Qin et al. 2019), re-implemented from its description. Comes in:
what a classifier says of each chromosome of one person. Goes out: types of which each is given as often as a person has it. Not what the
tables compare, which is a classifier: a line beside it, of any arm."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from trainables.data.words import KARYOTYPE

WHOLE = 46  # chromosomes; of a person with more images several cells were photographed, and nothing says which image is of which
SEXES = ({"X": 2, "Y": 0}, {"X": 1, "Y": 1})  # places; every other type has two


def dealt(logs: np.ndarray, persons: Sequence[str], classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """logs: (N, C) logarithms of probabilities, of images of these persons. (N,) types, and which of them were dealt out: of a person with
    at most 46 images the likeliest that fit into the places, of others each image's likeliest. None where classes are not the 24, or no one
    has so few images."""
    if set(classes) != set(KARYOTYPE):
        return None
    names = np.asarray(persons)
    found, hit = np.asarray(logs).argmax(1), np.zeros(len(names), bool)
    places = [np.repeat(np.arange(len(classes)), [sex.get(name, 2) for name in classes]) for sex in SEXES]
    for person in np.unique(names):
        own = np.flatnonzero(names == person)
        if len(own) > WHOLE:
            continue
        best = max((_filled(logs[own], place) for place in places), key=lambda pair: pair[0])
        found[own], hit[own] = best[1], True
    return (found, hit) if hit.any() else None


def _filled(logs: np.ndarray, places: np.ndarray) -> tuple[float, np.ndarray]:
    """The logarithm of the probability of the likeliest way to fill places (P,), each once at most, and the type of each row."""
    rows, taken = linear_sum_assignment(logs[:, places], maximize=True)  # rows are in order, all of them: there are no fewer places
    return float(logs[:, places][rows, taken].sum()), places[taken]
