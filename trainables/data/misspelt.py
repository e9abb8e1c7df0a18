"""Names of classes that differ by a slip of the pen, stand in two ways, or are no names.
Comes in: the classes and how many images each has. Goes out: pairs, in words. Exists because `tumuor` beside `tumor` takes part in every
number of a table as a class of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations

from trainables.data.words import class_order, few, same

SHORTEST, LONG = 5, 9  # letters: shorter words may differ by one and mean two things; in longer ones two slips are no chance
RARE = 1 / 3  # of the other's images, which a slip has at most where another letter stands in a letter's place
OPPOSITES = ("macro micro", "hyper hypo", "inter intra", "para peri", "endo ecto", "pre pro", "anti ante", "mono myo", "poly oligo")


def misspelt(counts: Mapping[str, int]) -> list[str]:
    """`tumuor (3) and tumor (40)` of each two classes that are probably one: words of letters alone, begun alike, with a letter that is
    missing, doubled or changed places with the next; or with another letter, where one of the two is rare."""
    return [f"{a} ({counts[a]:,}) and {b} ({counts[b]:,})" for a, b in combinations(class_order(counts), 2) if _one(a, b, counts)]


def coded(names: Iterable[str]) -> str:
    """That each class may have been written in two ways, by its number and by its word; ''."""
    numbers, words = ([n for n in class_order(names) if n.isdecimal() is wanted] for wanted in (True, False))
    if len(numbers) < 2 or len(numbers) != len(words) or not all(re.search(r"[^\W\d_]{3}", word) for word in words):
        return ""
    if [int(n) - int(numbers[0]) for n in numbers] != list(range(len(numbers))) or int(numbers[0]) > 1:
        return ""
    return (
        f"classes are called by numbers ({few(numbers)}) and as many by words ({few(words)}), as if each stood in two ways; give each "
        "class one name, or call the numbers by words too (grade 1) if they are classes of their own"
    )


def measured(names: Iterable[str]) -> str:
    """That classes may be a measured value or a score; ''."""
    kinds = class_order(names)
    if not kinds or not all(re.fullmatch(r"-?\d*[.,]\d+|-?\d+", name) for name in kinds) or all(re.fullmatch(r"-?\d+", n) for n in kinds):
        return ""
    return (
        f"class names are decimal numbers ({few(kinds)}), as measured values and scores are: each is taken as a class of its own, and "
        "nothing knows which is more; write the class of each image as a word if they are none"
    )


def _one(a: str, b: str, counts: Mapping[str, int]) -> bool:
    words, others = same(a).split(), same(b).split()
    unlike = [(x, y) for x, y in zip(words, others, strict=False) if x != y]
    if len(words) != len(others) or len(unlike) != 1:
        return False
    x, y = sorted(unlike[0], key=len)
    if not all(re.fullmatch(rf"[^\W\d_]{{{SHORTEST},}}", word) for word in (x, y)) or x[0] != y[0] or _opposite(x, y):
        return False
    if x[:-1] == y[:-1] or (y[:-1] == x and y[-1] != "s"):
        return False  # a letter at the end may be the name's number
    slips, replaced = _slips(x, y)
    rare = min(counts[a], counts[b]) <= RARE * max(counts[a], counts[b])
    return (slips == 1 and not replaced) or (rare and (slips == 1 or (slips == 2 and len(x) >= LONG)))


def _opposite(x: str, y: str) -> bool:
    """Whether two words begin with prefixes that mean two things, as macrocyte and microcyte do."""
    pairs = [pair.split() for pair in OPPOSITES]
    return any(y == b + x[len(a) :] for one, other in pairs for a, b in ((one, other), (other, one)) if x.startswith(a))


def _slips(x: str, y: str) -> tuple[int, bool]:
    """(letters missing, too many, replaced or changed with their neighbour, at least; whether one was replaced), of Damerau and
    Levenshtein."""
    table = [[(i + j, False) for j in range(len(y) + 1)] for i in range(len(x) + 1)]
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            before, other = table[i - 1][j - 1], x[i - 1] != y[j - 1]
            ways = [(before[0] + other, before[1] or other)]
            ways += [(n + 1, changed) for n, changed in (table[i - 1][j], table[i][j - 1])]
            if i > 1 and j > 1 and x[i - 1] == y[j - 2] and x[i - 2] == y[j - 1]:
                ways.append((table[i - 2][j - 2][0] + 1, table[i - 2][j - 2][1]))
            table[i][j] = min(ways)
    return table[-1][-1]
