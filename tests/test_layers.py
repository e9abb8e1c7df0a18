"""Nothing points up or sideways: who may import what, as the design has it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWN = ("search", "search_spaces", "trainables", "analysis", "benchmarks", "tests")
HEAVY = ("torch", "torchvision", "timm", "ray", "optuna", "safetensors")
FORBIDDEN = {  # folder: what no file of it may import
    "search_spaces": (*(name for name in OWN if name != "search_spaces"), "torch", "ray", "timm", "numpy", "pandas"),
    "trainables": (*(name for name in OWN if name != "trainables"), "ray", "optuna", "pandas"),
    "analysis": (*(name for name in OWN if name != "analysis"), *HEAVY),
    "search": ("benchmarks", "tests"),
}
RAY = (
    "search/admission.py",
    "search/tryout.py",
    "search/cluster.py",
    "search/group.py",
    "search/metrics.py",
    "search/place.py",
    "search/trial.py",
    "search/tune.py",
    "search/watch.py",
)
FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FORBIDDEN for path in (ROOT / folder).rglob("*.py"))


def imports(path: str) -> set[str]:
    """First words of all that a file imports, inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").split(".")[0])
    return found


def modules(path: str) -> set[str]:
    """Whole names of the own modules that a file imports."""
    return {
        node.module or ""
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN
    }


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_lies_below_it(path):
    assert imports(path).isdisjoint({*FORBIDDEN[path.split("/")[0]], "."})


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("search/") and path not in RAY])
def test_ray_is_known_to_the_bridge_alone(path):
    assert "ray" not in imports(path)


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("search/")])
def test_the_engine_names_no_procedure(path):
    procedures = {file.stem for file in (ROOT / "trainables").glob("*.py") if not file.stem.startswith("_")}
    assert not {name for name in modules(path) if name.split(".")[-1] in procedures}
    code = ast.parse((ROOT / path).read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(code)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr)
    }
    words = {
        node.value
        for node in ast.walk(code)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }
    assert not procedures & words


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("trainables/") and path.count("/") == 1])
def test_a_procedure_does_not_import_another(path):
    assert {name for name in modules(path) if name.startswith("trainables") and not name.startswith("trainables.data.")} <= {
        f"trainables.parts.{file.stem}" for file in (ROOT / "trainables" / "parts").glob("*.py")
    } | {"trainables.parts", "trainables.baselines"} | {
        f"trainables.baselines.{file.stem}" for file in (ROOT / "trainables" / "baselines").glob("*.py")
    }


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("trainables/baselines/")])
def test_a_baseline_imports_no_procedure(path):
    assert not {name for name in modules(path) if name.startswith("trainables.") and name.count(".") == 1} - {"trainables.parts"}


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("search_spaces/") and not path.endswith("__init__.py")])
def test_a_search_space_is_data_without_an_if_or_a_function(path):
    kinds = (ast.If, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.While, ast.Try)
    assert not [node.lineno for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", FILES)
def test_nothing_is_pickled_or_evaluated(path):
    assert imports(path).isdisjoint({"pickle", "marshal", "shelve", "dill", "cloudpickle"})
    calls = {
        node.func.id
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls.isdisjoint({"eval", "exec", "__import__"})
