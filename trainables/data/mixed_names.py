"""Names of folders that say something else than a class, or a class and something else.
Comes in: names. Goes out: what they say beside it, in words. Exists because the days of recordings are no classes, and `patient1_normal`
is a patient and a class."""

from __future__ import annotations

import re

PATIENT_WORDS = {
    "p", "pat", "patient", "patients", "case", "subject", "sub", "subj", "id", "slide", "donor", "sample", "individual", "ind",
    "person", "karyotype", "metaphase", "tcga", "cell", "specimen", "fall", "proband", "mouse", "animal",
}  # fmt: skip
DATE = re.compile(r"(?:19|20)\d\d([-_. ]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])|(?:[0-3]?\d)([-_. ])(?:[0-3]?\d)\2(?:19|20)\d\d")


def said_beside_class(names: set[str]) -> str:
    """What else than a class all names of a level say: a date, or a patient beside the class; ''."""
    if all(DATE.fullmatch(name) for name in names):
        return "as days are, perhaps of recordings, and nothing else says what the classes are"
    if all(re.fullmatch(rf"(?:{DATE.pattern})[\W_]+[^\W\d].*", name) for name in names):
        return "day and class in one name"
    words = [re.sub(r"[\W_]+", " ", name).strip().casefold().split() for name in names]
    for first, rest in (([w[0] for w in words], [w[1:] for w in words]), ([w[-1] for w in words], [w[:-1] for w in words])):
        kinds = {re.sub(r"\d+", "", word) for word in first}
        numbered = all(re.fullmatch(r"[a-z]+\d+", word) for word in first) and len(kinds) == 1 and kinds <= PATIENT_WORDS
        if numbered and len(set(first)) > 1 and all(re.search(r"[a-z]", " ".join(word)) for word in rest):
            return "patient and class in one name"
    return ""
