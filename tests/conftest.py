"""Fixtures of several tests. What is heavy is imported where it is asked for: the tests of analysis run without torch."""

import pytest


@pytest.fixture(scope="session")
def toy():
    """The toy procedure's Entry."""
    from driving import toy_entry

    return toy_entry()


@pytest.fixture(scope="session")
def toy_pack(toy):
    return toy.procedure.synthesize(toy.procedure.config(), images=60, seed=0)


@pytest.fixture
def bench(toy, toy_pack, tmp_path):
    """Makes studies, of the toy procedure unless told otherwise, that a test drives by hand."""
    from driving import Bench

    made = []

    def make(*, entry=toy, folder=tmp_path / "bench", pack=toy_pack, **request):
        made.append(Bench(entry, folder, pack, **request))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def shell(tmp_path):
    """The command line, in a folder that adds the toy procedure."""
    from driving import Shell

    return Shell(tmp_path / "home")
