"""Drawn karyotypes of 24 classes, from two hospitals.
Comes in: numbers and a seed. Goes out: a `Pack` like that of a folder of images. Exists so that everything runs without data that cannot be
shared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from trainables.data.ground import TOLERANCE
from trainables.data.normal import AS_IT_IS, Normal, brought
from trainables.data.pack import Pack, make_pack
from trainables.data.synthetic import Chromosome, draw
from trainables.data.words import KARYOTYPE
from trainables.parts.errors import RequestError

# Relative length (parts in a hundred of the haploid autosomes) and centromere (short arm / whole), near the Paris Conference's (1971).
_FORM = {
    "1": (8.44, 0.48), "2": (8.02, 0.39), "3": (6.83, 0.47), "4": (6.30, 0.29), "5": (6.08, 0.29), "6": (5.90, 0.39), "7": (5.36, 0.39),
    "8": (4.93, 0.34), "9": (4.80, 0.35), "10": (4.59, 0.34), "11": (4.61, 0.40), "12": (4.66, 0.30), "13": (3.74, 0.17),
    "14": (3.56, 0.19),
    "15": (3.46, 0.20), "16": (3.36, 0.41), "17": (3.25, 0.34), "18": (2.93, 0.31), "19": (2.67, 0.47), "20": (2.56, 0.45),
    "21": (1.90, 0.31),
    "22": (2.04, 0.30), "X": (5.12, 0.40), "Y": (2.15, 0.27),
}  # fmt: skip


@dataclass(frozen=True)
class Hospital:
    """How a laboratory's images look, beside their individuals."""

    scale: float = 1.0  # factor on sizes
    reverse: bool = False  # dark bands are pale and pale ones dark (R-banding)
    contrast: float = 0.55  # of the bands, 0..1
    stain: tuple[float, float] = (140.0, 200.0)  # gray values, 0..255, from individual to individual
    blur: tuple[float, float] = (0.6, 1.1)  # px


HOSPITALS = {
    "g_bands": Hospital(),
    "reverse_stain": Hospital(scale=0.8, reverse=True, contrast=0.4, stain=(90.0, 150.0), blur=(0.9, 1.4)),
}


def karyotype_bands(name: str) -> tuple[tuple[float, float], ...]:
    """(end along the axis 0..1, darkness 0..1) of a class's bands, the same in every individual and hospital; drawn, not those of
    nature."""
    rng = np.random.default_rng([24, KARYOTYPE.index(name)])
    edges, dark, bands = 0.0, int(rng.integers(2)), []
    while edges < 1:
        edges = min(1.0, edges + float(rng.uniform(0.3, 0.85)) / _FORM[name][0])
        bands.append((edges, float(rng.uniform(0.7, 1.0) if dark else rng.uniform(0.0, 0.3))))
        dark = 1 - dark
    return tuple(bands)


def draw_karyotype_chromosome(
    name: str, rng: np.random.Generator, hospital: Hospital, unit: float, stain: float, blur: float, squeeze: float
) -> np.ndarray:
    """uint8 (h, w) of one chromosome on black, cropped. unit: factor on sizes in px; squeeze: factor on length, of the metaphase."""
    relative, centromere = _FORM[name]
    length, width = 16.0 * relative * squeeze * unit * rng.lognormal(0, 0.04), 17.0 * unit * rng.uniform(0.92, 1.08)
    bands = karyotype_bands(name)
    ends = [*np.sort(np.clip([end + rng.normal(0, 0.008) for end, _ in bands[:-1]], 0.005, 0.995)).tolist(), 1.0]
    levels = [(1 - dark if hospital.reverse else dark) + rng.normal(0, 0.04) for _, dark in bands]
    slack = min(1.0, max(0.0, (length / width - 1.5) / 4))  # a short one cannot bend much without folding
    turns = rng.normal(0, 0.35 * slack, 3)
    described = Chromosome(
        length=length,
        width=width,
        centromere=centromere,
        waist=0.6,
        bands=tuple((end, float(np.clip(1 - hospital.contrast * (1 - level), 0.1, 1))) for end, level in zip(ends, levels, strict=True)),
        bend=tuple(np.clip(turns, -1.6, 1.6).tolist()),
        intensity=stain * rng.uniform(0.93, 1.07),
        cleft=rng.uniform(0, 0.25),
    )
    values = np.pad(draw(described, rng.uniform(0, 2 * math.pi)).values, 4)
    part = gaussian_filter(values, blur * max(unit, 0.5), truncate=3)
    part *= 1 + 0.05 * gaussian_filter(rng.standard_normal(part.shape, np.float32), 0.6, truncate=3)
    gray = np.where(part > TOLERANCE + 1, np.clip(part, 0, 255), 0).astype(np.uint8)
    rows, columns = np.flatnonzero(gray.any(1)), np.flatnonzero(gray.any(0))
    return np.asarray(gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def karyotype_set(
    individuals: int = 24,
    *,
    homologues: int = 2,
    size: int = 224,
    canvas: int = 256,
    seed: int = 0,
    hospital: str = "g_bands",
    normal: Normal = AS_IT_IS,
) -> Pack:
    """Chromosomes of the 24 classes as a `Pack`, the same for equal arguments: of each individual 1-22, X, X or X, Y (every second one
    has a Y, the first too), two of each autosome or, with homologues=1, one of each kind. Each class has its own length, centromere and
    bands in all sets; an individual has a scale, a condensation, a stain and a blur. hospital: a word of HOSPITALS. normal: what each
    image is brought to, as if it was read."""
    faults = []
    if not isinstance(individuals, int) or individuals < 2:
        faults.append(f"a set needs at least 2 individuals, got {individuals}; for example 24")
    if homologues not in (1, 2):
        faults.append(f"homologues must be 1 or 2, got {homologues}")
    if not 16 <= size <= canvas:
        faults.append(f"size must lie between 16 and the canvas ({canvas}), got {size}; choose a smaller size or a larger canvas")
    if hospital not in HOSPITALS:
        faults.append(f"hospital must be one of {', '.join(HOSPITALS)}, got {hospital!r}")
    if faults:
        raise RequestError(*faults)
    style = HOSPITALS[hospital]
    rng = np.random.default_rng([seed, list(HOSPITALS).index(hospital)])
    scales, squeezes = np.clip(rng.lognormal(0, 0.06, individuals), 0.85, 1.15), np.clip(rng.lognormal(0, 0.08, individuals), 0.8, 1.2)
    stains, blurs = rng.uniform(*style.stain, individuals), rng.uniform(*style.blur, individuals)
    entries = []  # (class, individual, number of the homologue)
    for who in range(individuals):
        for label, name in enumerate(KARYOTYPE):
            male = who % 2 == 0
            copies = {"X": 1 if male else homologues, "Y": int(male)}.get(name, homologues)
            entries += [(label, who, copy) for copy in range(copies)]
    entries.sort(key=lambda entry: (KARYOTYPE[entry[0]], entry[1:]))
    drawn = []
    for label, who, copy in entries:
        own = np.random.default_rng([seed, list(HOSPITALS).index(hospital), label, who, copy])
        unit = style.scale * scales[who]
        drawn.append(draw_karyotype_chromosome(KARYOTYPE[label], own, style, unit, stains[who], blurs[who], squeezes[who]))
    areas = np.array([(gray.size, np.count_nonzero(gray)) for gray in drawn], np.float64)
    images = np.stack([brought(gray, normal, canvas, size)[0] for gray in drawn])
    files = [f"{KARYOTYPE[label]}/p{who:05d}_{copy}.png" for label, who, copy in entries]
    notes = [f"synthetic: hospital {hospital}, seed {seed}, drawn at {canvas} px"]
    notes += [normal.words] if normal.words else []
    return make_pack(images, [label for label, _, _ in entries], KARYOTYPE, files, [f"p{who:05d}" for _, who, _ in entries], areas, notes)
