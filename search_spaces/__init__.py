"""What is varied, as data: one module per procedure. A folder `search_spaces` elsewhere on the path may add procedures."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
