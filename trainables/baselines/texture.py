"""One SIFT descriptor and local binary patterns of a cell ("manual features" of CCRL's table 2), re-implemented from their descriptions.
Comes in: crops. Goes out: a row a crop. The paper gives no detail: sizes, radii and the units are a choice."""

import numpy as np

from trainables.parts.libraries import library

ENLARGED = 48  # pixels: the crop's side when the descriptor is taken
DESCRIBED = 2 / 3  # of the side: what the descriptor covers
SPANNED = 6  # what it covers in sizes of its keypoint, as OpenCV has it: four bins, each of three radii
PATTERNS = ((8, 1), (16, 2))  # neighbours, radius; uniform and invariant to rotation
WIDTH = 128 + sum(neighbours + 2 for neighbours, _ in PATTERNS)


def textures(images: np.ndarray) -> np.ndarray:
    """(N, 156) float64 of crops (N, S, S, 3) uint8: SIFT (128) around the middle at angle 0, histograms of the patterns (10 + 18); each
    of the three blocks of unit length."""
    cv2, feature = library("cv2"), library("skimage.feature")
    sift = cv2.SIFT_create()
    middle = [cv2.KeyPoint(ENLARGED / 2, ENLARGED / 2, ENLARGED * DESCRIBED / SPANNED, 0)]
    rows = np.zeros((len(images), WIDTH))
    for row, image in zip(rows, images, strict=True):
        gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        _, described = sift.compute(cv2.resize(gray, (ENLARGED, ENLARGED), interpolation=cv2.INTER_LINEAR), middle)
        blocks = [described[0].astype(np.float64)]
        for neighbours, radius in PATTERNS:
            patterns = feature.local_binary_pattern(gray, neighbours, radius, "uniform").astype(np.int64)
            blocks.append(np.bincount(patterns.ravel(), minlength=neighbours + 2).astype(np.float64))
        row[:] = np.concatenate([block / max(float(np.linalg.norm(block)), 1e-12) for block in blocks])
    return rows
