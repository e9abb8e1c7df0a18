"""The shape of a nucleus in thirty numbers (after Bhaskar et al., bioRxiv 623793), re-implemented from its description.
Comes in: masks. Goes out: a row a mask. CCRL's table 2 has "morphological" features and does not say which thirty: these are a choice,
of those that mean the same however a cell lies."""

from collections.abc import Iterable

import numpy as np
from scipy.interpolate import splev, splprep

from trainables.parts.libraries import library

SMALLEST = 12  # pixels; a smaller mask has no shape to speak of
SMOOTHING = 0.25  # of the outline's spline: the mean squared distance, in pixels, that it may keep from the outline's points
PLACES = 100  # at which the spline's curvature is taken
NAMES = (
    "area", "perimeter", "equivalent diameter",
    "Feret diameter, largest", "Feret diameter, smallest",
    "ellipse: eccentricity", "ellipse: major axis", "ellipse: minor axis", "ellipse: variance of the fit",
    "circle: radius", "circle: variance of the fit",
    "extent", "solidity", "compactness", "elongation", "convexity", "circularity",
    "curvature: mean", "curvature: deviation", "curvature: largest", "curvature: smallest", "protrusions", "indentations",
    *(f"Hu moment {number}" for number in range(1, 8)),
)  # fmt: skip


def morphological(masks: Iterable[np.ndarray]) -> np.ndarray:
    """(N, 30) float64, NAMES in order; lengths in pixels, curvature in 1 / pixel. masks: of (height, width) bool each. A row of nan where
    a mask has fewer than 12 pixels."""
    rows = [shape_of(mask) if mask.sum() >= SMALLEST else np.full(len(NAMES), np.nan) for mask in masks]
    return np.array(rows, np.float64).reshape(-1, len(NAMES))


def shape_of(mask: np.ndarray) -> np.ndarray:
    """(30,) of one mask."""
    cv2, measure = library("cv2"), library("skimage.measure")
    padded = np.pad(np.asarray(mask, np.uint8), 1)
    [props] = measure.regionprops(padded)
    outline = max(measure.find_contours(padded, 0.5), key=len)[:-1]  # (n, 2), the last point is the first
    area, perimeter = float(props.area), float(props.perimeter)
    hull = cv2.convexHull(outline.astype(np.float32))
    across = sorted(cv2.minAreaRect(hull)[1])  # the sides of the smallest rectangle around it
    feret = float(props.feret_diameter_max)
    convex = cv2.arcLength(hull, True)
    curvature = curvature_of(outline)
    high = curvature > curvature.mean() + curvature.std()
    hu = props.moments_hu
    return np.array(
        [
            area, perimeter, props.equivalent_diameter_area,
            feret, across[0],
            props.eccentricity, props.axis_major_length, props.axis_minor_length, _off_ellipse(outline, props),
            *_circle(outline),
            props.extent, props.solidity, np.sqrt(4 * area / np.pi) / feret, 1 - across[0] / across[1],
            convex / cv2.arcLength(outline.astype(np.float32), True), 4 * np.pi * area / perimeter**2,
            curvature.mean(), curvature.std(), curvature.max(), curvature.min(), runs(high), runs(curvature < 0),
            *(np.sign(hu) * np.log10(np.maximum(np.abs(hu), 1e-30))),
        ]
    )  # fmt: skip


def curvature_of(outline: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """(100,) of a closed spline through an outline (n, 2), n at least 4; above 0 where it bulges outwards."""
    points = np.vstack([outline, outline[:1]])
    spline, _ = splprep(points.T, s=len(outline) * smoothing, per=1)
    places = np.arange(PLACES) / PLACES
    (y, x), (dy, dx), (ddy, ddx) = (splev(places, spline, der=order) for order in range(3))
    turn = (dx * ddy - dy * ddx) / np.maximum((dx**2 + dy**2) ** 1.5, 1e-12)
    return np.asarray(turn * np.sign((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))  # whichever way it runs


def runs(hit: np.ndarray) -> int:
    """Runs of True around a circle."""
    return int(hit.all()) or int((hit & ~np.roll(hit, 1)).sum())


def _circle(outline: np.ndarray) -> tuple[float, float]:
    """Radius of the circle of least squares (Kasa), and the variance of its distance to the outline."""
    middle = outline.mean(0)
    x, y = (outline - middle).T
    found, *_ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones(len(x))], 1), x**2 + y**2, rcond=None)
    far = np.hypot(x - found[0], y - found[1])
    return float(far.mean()), float(far.var())


def _off_ellipse(outline: np.ndarray, props) -> float:  # type: ignore[no-untyped-def]
    """Variance of the outline's distance to the ellipse of the mask's second moments along the ray from its middle, in mean radii."""
    y, x = (outline - props.centroid).T
    along, across = (
        y * np.cos(props.orientation) + x * np.sin(props.orientation),
        x * np.cos(props.orientation) - y * np.sin(props.orientation),
    )
    ratio = np.hypot(along / max(props.axis_major_length / 2, 0.5), across / max(props.axis_minor_length / 2, 0.5))
    return float(ratio.var())
