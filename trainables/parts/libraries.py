"""The optional libraries of classic features (scikit-image, OpenCV), how an extra is installed, and what to do where they are missing.
Comes in: nothing. Goes out: faults in words, the modules. Exists so that whoever asks for no such row needs neither."""

import importlib
import importlib.util
from types import ModuleType

from trainables.parts.errors import RequestError

NEEDED = {"skimage": "scikit-image", "cv2": "opencv-python-headless"}
EXTRA = "classic"  # of the package


def install(extra: str) -> str:
    """How an extra of this package is installed, with the versions that were tested."""
    return f"in this project's folder: pip install -c constraints.txt -e '.[{extra}]'"


def missing() -> str:
    """What is not installed and how to install it; empty: nothing is missing."""
    gone = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    return f"{' and '.join(gone)} must be installed: python -m pip install 'karyotune[{EXTRA}]', or {' '.join(gone)} alone" if gone else ""


def library(name: str) -> ModuleType:
    """`cv2`, `skimage.measure`, ...; RequestError where it is not installed."""
    if words := missing():
        raise RequestError(f"classic features: {words}")
    return importlib.import_module(name)
