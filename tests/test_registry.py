"""Procedures are found by their files; a name that is not known is answered at once."""

import subprocess
import sys

import pytest

from search import registry
from trainables.parts.errors import RequestError


def test_a_procedure_is_known_when_it_has_both_files():
    assert "supcam" in registry.names()
    assert not any(name.startswith("_") or name == "parts" for name in registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_a_loaded_procedure_is_the_one_that_was_named(name):
    entry = registry.load(name)
    assert entry.study.procedure == entry.procedure.name == name


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_ones():
    with pytest.raises(RequestError) as caught:
        registry.load("supcan")
    assert caught.value.faults == [f"no procedure 'supcan'. Did you mean 'supcam'? Known: {', '.join(registry.names())}."]
    assert "Did you mean" not in registry.unknown("procedure", "zzz", ["supcam"])


@pytest.mark.parametrize("name", ["_declare", "parts", "os", "../supcam", ""])
def test_nothing_but_a_procedure_is_imported_by_name(name):
    with pytest.raises(RequestError):
        registry.load(name)


@pytest.mark.parametrize("words", [[], ["--help"], ["supcan"], ["supcam", "--help"], ["evaluate"]])
def test_help_and_a_misspelt_name_are_answered_without_torch_or_optuna(words):
    program = (
        "import sys\nfrom search.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'optuna', 'ray', 'timm') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
