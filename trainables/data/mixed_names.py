"""Names of folders that say something else than a class, or a class and something else.
Comes in: names. Goes out: what they say beside it, in words. Exists because the days of recordings are no classes, and `patient1_normal`
is a patient and a class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PEOPLE = {  # patients and cases in German, French, Spanish, Italian, Russian, Chinese, Japanese, Korean
    "patientin", "patienten", "probandin", "patiente", "malade", "sujet", "paciente", "caso", "sujeto", "paziente", "пациент", "больной",
    "случай", "患者", "病人", "病例", "病患", "受试者", "症例", "환자", "증례",
}  # fmt: skip
PATIENT_WORDS = {
    "p", "pat", "patient", "patients", "case", "subject", "sub", "subj", "id", "slide", "donor", "sample", "individual", "ind",
    "person", "karyotype", "metaphase", "tcga", "cell", "specimen", "fall", "proband", "mouse", "animal", "uid", "pid", *PEOPLE,
}  # fmt: skip
STAIN = r"dapi|hoechst|fitc|e?gfp|rfp|yfp|cfp|m?cherry|tritc|cy\d|bright ?field|bf|dic|merged?|composite"  # or another channel
MARKER = r"p(?:16|21|27|40|53|57|63|120)|ki ?67|cd\d{1,3}|her2|er|pr|pan ?ck|vimentin"  # a protein that is stained for
DATE = re.compile(r"(?:19|20)\d\d([-_. ]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])|(?:[0-3]?\d)([-_. ])(?:[0-3]?\d)\2(?:19|20)\d\d")

YEAR = re.compile(r"(?:19[89]|20[0-3])\d")
ACCESSION = re.compile(  # of a pathologist, H12-10457, CG19-423 or 19.0423 before a point; of a TCGA participant
    r"TCGA-[A-Z\d]+-[A-Z\d]+|(?<![A-Z\d])(?:[A-Z]{0,3}\d{2,4}-\d{4,7}[A-Z]{0,3}|[A-Z]{1,3}\d{2}-\d{3})(?=[ _-]|$)|^\d{2}\.\d{4,6}(?=\.\d)",
    re.IGNORECASE,
)
# A patient's samples: of a TCGA participant (01A is the tumour, 11A normal tissue), sites, sides, times, blocks.
_SAMPLE = re.compile(
    r"(?P<of>TCGA-[A-Z\d]{2}-[A-Z\d]{4})-\d\d.*"
    r"|(?P<also>.*\d.*?)[ _.-]+(?:t|n|tumou?r|normal|healthy|control|pre|post|before|after|left|right|l|r|met|metastas[ie]s|primary|relapse"
    r"|recurrence|diagnosis|remission|follow[ _-]?up|biopsy|resection|(?:sample|block|slide|section|visit|tp|s|v)[ _-]?\d{1,2}|[a-d])",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(.*[^\W\d_])[\W_]*(\d+)")


def said_beside_class(names: set[str]) -> str:
    """What else than a class all names of a level say: a date, or a patient beside the class; ''."""
    if all(DATE.fullmatch(name) for name in names):
        return "as days are, perhaps of recordings, and nothing else says what the classes are"
    if all(re.fullmatch(rf"(?:{DATE.pattern})[\W_]+[^\W\d].*", name) for name in names):
        return "day and class in one name"
    if all(map(ACCESSION.search, names)):
        return "as a pathologist's cases are, and nothing else says what the classes are"
    if len(names) > 1 and all(map(YEAR.fullmatch, names)):
        return "as years are, and nothing else says what the classes are"
    if _numbered(names):
        return "a number behind each of several words: perhaps patients of each class, or batches"
    words = [re.sub(r"[\W_]+", " ", name).strip().casefold().split() or [""] for name in names]  # "?" is no word
    for first, rest in (([w[0] for w in words], [w[1:] for w in words]), ([w[-1] for w in words], [w[:-1] for w in words])):
        kinds = {re.sub(r"\d+", "", word) for word in first}
        numbered = all(re.fullmatch(r"[^\W\d_]+\d+", word) for word in first) and len(kinds) == 1 and kinds <= PATIENT_WORDS
        if numbered and len(set(first)) > 1 and all(re.search(r"[^\W\d_]", " ".join(word)) for word in rest):
            return "patient and class in one name"
    return ""


def _numbered(names: set[str]) -> bool:
    """Whether several words have several numbers each, as AML1, AML2, CTRL1 and CTRL2 have; A1, A2, B3 and B4 are the groups of
    chromosomes, and the T1 and N2 of a tumour its stage."""
    of: dict[str, list[str]] = {}
    for match in map(_NUMBERED.fullmatch, names):
        if match is None:
            return False
        of.setdefault(match[1].casefold(), []).append(match[2])
    return sum(len(numbers) > 1 for numbers in of.values()) > 1 and all(len(word) > 1 for word in of)


def one_patient(names: Sequence[str]) -> dict[str, str]:
    """Name -> patient, of names that are called as samples of one patient are, two of one at least: P01_T and P01_N, or two barcodes of one
    TCGA participant."""
    found = {name: match["of"] or match["also"] for name in set(names) if (match := _SAMPLE.fullmatch(name))}
    several = Counter([*found.values(), *(set(names) & set(found.values()))])
    return {name: of for name, of in found.items() if several[of] > 1}
