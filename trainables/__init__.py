"""How to train: one module per procedure, shared pieces in parts. A folder `trainables` elsewhere on the path may add procedures."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
