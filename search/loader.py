"""The file loader.py of an export: `trainables.data.alone` with all that it needs of this package, for people who have timm alone.
Comes in: nothing. Goes out: the text of a Python file. Exists so that they read images as training does, by the same lines: nothing is
written a second time that could come to differ."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from functools import cache

NAME = "loader.py"
ASKED = ("load", "predict")  # of `trainables.data.alone`
HEAD = '''"""Images for the model beside this file, as it was trained on them: needs numpy, Pillow, scipy and torch.

    import timm, loader
    model = timm.create_model("local-dir:FOLDER", pretrained=True)
    probabilities = loader.predict(model, ["a.png", "b.tif"])  # (N, C), classes as in model.pretrained_cfg["label_names"]

`load` gives the network's input alone. Written by karyotune from its own source; the settings are those of config.json."""

from __future__ import annotations
'''


class _Pieces:
    """Top-level statements of modules of this package, and what they import from elsewhere."""

    def __init__(self) -> None:
        self.imports: dict[str, str] = {}  # name -> its line
        self.texts: dict[str, str] = {}  # name that is defined -> the statement
        self.uses: dict[str, set[str]] = {}  # name that is defined -> names that its statement has
        self.modules: set[str] = set()

    def take(self, name: str) -> None:
        """A module, after the modules that it imports from."""
        if name in self.modules:
            return
        self.modules.add(name)
        source = inspect.getsource(importlib.import_module(name))
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainables."):
                self.take(str(node.module))
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                self.imports |= {alias.name: f"from {node.module} import {alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
            for defined in _names(node):
                first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
                text = "\n".join(lines[first - 1 : node.end_lineno])
                if self.texts.setdefault(defined, text) != text:
                    self.texts[defined] = ""  # two modules mean two things by it: `gathered` refuses it where it is wanted
                self.uses[defined] = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}

    def gathered(self, wanted: Iterable[str]) -> str:
        """What `wanted` and all that they use is, in an order in which it can be run."""
        needed: set[str] = set()
        queue = list(wanted)
        while queue:
            name = queue.pop()
            if name not in needed:
                needed.add(name)
                queue += self.uses.get(name, ())
        if twice := sorted(name for name in needed if self.texts.get(name) == ""):
            raise RuntimeError(f"two modules define {', '.join(twice)}: rename one, loader.py can hold one of a name")
        imports = sorted({self.imports[name] for name in needed & self.imports.keys()}, key=lambda line: (line.startswith("from"), line))
        parts = dict.fromkeys(text for name, text in self.texts.items() if name in needed)
        return "\n".join(imports) + "\n\n" + "\n\n\n".join(parts) + "\n"


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


@cache
def source() -> str:
    """The text of loader.py."""
    pieces = _Pieces()
    pieces.take("trainables.data.alone")
    return f"{HEAD}\n{pieces.gathered(ASKED)}"
