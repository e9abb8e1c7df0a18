"""Names as they are written, compared and counted.
Comes in: names of files, classes, patients, parts. Goes out: pieces of sentences, and what two spellings have in common. Exists so that one
thing in two spellings is one, wherever names meet, and so that a name of any bytes can be printed and written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

KARYOTYPE = (*map(str, range(1, 23)), "X", "Y")
MISSING = frozenset((
    "", "nan", "na", "n a", "n/a", "#n/a", "<na>", "n.a.", "n.a", "n.d.", "n.d", "nd", "k.a.", "k.a", "k. a.", "unknown", "unk", "none",
    "null", "missing", "not available", "not applicable", "not known", "unspecified", "undefined", "unbekannt", "inconnu", "desconocido",
    "?", "??", "-", "--", "–", ".", "#ref!", "#value!", "#name?", "#null!", "#num!", "#div/0!",
))  # fmt: skip
PARTS = ("train", "val", "test")
_PART = {
    "train": "train", "training": "train", "trn": "train", "tr": "train", "trainset": "train", "trainingset": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "valset": "val", "validationset": "val", "dev": "val",
    "test": "test", "testing": "test", "tst": "test", "testset": "test", "holdout": "test", "eval": "test", "evaluation": "test",
    # German, French, Spanish, Italian, Portuguese, Russian, Chinese, Japanese, without their accents
    **dict.fromkeys(("trainings", "entrainement", "apprentissage", "entrenamiento", "addestramento", "treino", "treinamento", "обучение",
                     "训练", "訓練", "学習"), "train"),
    **dict.fromkeys(("validierung", "validierungs", "validacion", "validazione", "validacao", "валидация", "验证", "驗證", "検証"), "val"),
    **dict.fromkeys(("essai", "prueba", "pruebas", "teste", "testes", "тест", "测试", "測試", "テスト"), "test"),
}  # fmt: skip
_BESIDE_PART = {
    "set", "data", "dataset", "images", "image", "imgs", "img", "split", "part", "files",
    "daten", "datensatz", "bilder", "donnees", "datos",
}  # fmt: skip
_SET_BEHIND = r"(?<=.)(?:daten(?:satz)?|bilder|数据集|数据|[集组組]|セット|データ)$"  # Testdaten, 训练集
_ONE_SIGN = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63", "-"),
        **dict.fromkeys("\u2018\u2019\u02bc\u00b4`\u2032", "'"),
    }
)
MOST_OF_A_KARYOTYPE = 12
_HOMOLOGUE = re.compile(r"(.+?)(?:[ ._]?[ab]|[ ._-][12lr])")
_BESIDE_CHROMOSOME = r"(?:chr|chrom|chromosome|chromosom)"


def count(number: int, noun: str = "image") -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def few(names: Sequence[str], shown: int = 5) -> str:
    """The first few of a long list and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def them(names: Sequence[str]) -> str:
    """The pronoun for a list."""
    return "it" if len(names) == 1 else "them"


def shown(name: str) -> str:
    """A name as it is printed and written: bytes that are no UTF-8 become \\xfc, line breaks and other controls \\n or \\x1b."""
    if name.isprintable():  # nearly all: a table is read with some twenty looks at each name
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def seen(name: str) -> str:
    """A name without marks that nobody sees: of no width, or of the direction of writing."""
    return name if name.isascii() else "".join(c for c in name if unicodedata.category(c) != "Cf")


def same(name: str) -> str:
    """What two spellings of one name have in common: Unicode's form, marks that nobody sees, case, kinds of dashes and apostrophes, spaces,
    hyphens and underscores, zeros before a number, .0 behind it, and `chr` before a chromosome. A sign stays: -1 is not 1, and CD4- is not
    CD4."""
    if not name.isascii():
        name = seen(unicodedata.normalize("NFKC", name)).translate(_ONE_SIGN)
    text = shown(name).casefold().strip()
    text = re.sub(r"(?<=[^\W_])[\s_\-]+(?=[^\W_])|[\s_]+", " ", text).strip()
    text = re.sub(r"(?<=[^\W\d_]) (?=\d)| (?=[+-]+$)|(?<=[,;/+]) | (?=[,;/])", "", text)  # cin 1, her2 +, 46, xx
    text = re.sub(rf"^{_BESIDE_CHROMOSOME}[ .]*(?=(?:\d{{1,2}}(?:\.0+)?|x|y)$)", "", text)
    text = re.sub(r"^(-?\d+)\.0+$", r"\1", text)
    return re.sub(r"(?<!\d)(?<!\d[.,])0+(?=\d)", "", text)


def is_missing(word: str) -> bool:
    """Whether a table's cell says that nothing is known."""
    return word.strip().casefold() in MISSING or same(word) in MISSING


def part_of(name: str) -> str:
    """train, val or test, where a name says so ("Validation", "train_set", "01_TEST"); '' where it does not."""
    if not name.isascii():
        plain = unicodedata.normalize("NFKD", name)
        name = unicodedata.normalize("NFC", "".join(c for c in plain if not "\u0300" <= c <= "\u036f"))  # a kana's mark is no accent
    words = [re.sub(_SET_BEHIND, "", word) for word in re.split(r"[\W\d_]+", name.casefold()) if word and word not in _BESIDE_PART]
    return _PART.get(words[0], "") if len(words) == 1 else ""


def part_in(name: str) -> str:
    """The part that a name is, or begins or ends with, as train_normal, normal_test and TrainNormal do; ''."""
    words = re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", name).split()
    return part_of(name) or (part_of(words[0]) or part_of(words[-1]) if words else "")


def class_order(names: Iterable[str]) -> list[str]:
    """Numbers by value, then names: 1 .. 22, X, Y."""
    return sorted(set(names), key=lambda name: (0, int(name), name) if name.removeprefix("-").isdecimal() else (1, 0, name))


def united(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names with each spelling replaced by the most frequent of its kind (of equals the first); and the kinds that had several, in
    words."""
    numbers = Counter(names)
    kinds: dict[str, list[str]] = {}
    for name in sorted(numbers, key=lambda name: (-numbers[name], name)):
        kinds.setdefault(same(name), []).append(name)
    chosen = {name: spellings[0] for spellings in kinds.values() for name in spellings}
    several = [f"{', '.join(_unlike(name, s[0]) for name in s[1:])} = {s[0]}" for s in kinds.values() if len(s) > 1]
    return [chosen[name] for name in names], sorted(several)


def _unlike(name: str, other: str) -> str:
    """A spelling as it is told from another one; two Unicode forms of one word look the same."""
    alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return f"{name} (in another Unicode form)" if alike else name


def as_karyotype(names: Iterable[str]) -> dict[str, str]:
    """Name -> the karyotype's (1 .. 22, X, Y), where all names are spellings of these, or of their two homologues (7a and 7b); empty
    where one is not."""
    known = {same(name): name for name in KARYOTYPE}
    found = {name: known.get(same(name), "") for name in names}
    if all(found.values()) and any(known.isdecimal() for known in found.values()):
        return found
    pairs = {name: match for name in found if (match := _HOMOLOGUE.fullmatch(same(name)))}
    both = Counter(known.get(same(match[1]), "") for match in pairs.values())
    if len(pairs) == len(found) and not both[""] and sum(number == 2 for number in both.values()) >= MOST_OF_A_KARYOTYPE:
        return {name: known[same(match[1])] for name, match in pairs.items()}
    return {}
