"""Fixtures of several tests. What is heavy is imported where it is asked for: the tests of analysis run without torch."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests themselves run side by side


@pytest.hookimpl(trylast=True)  # of what is selected
def pytest_collection_modifyitems(items):
    """Those that start a Ray first, and as many to each process of xdist, which gives each an equal part of the row and moves what is left at
    its end: minutes of one test at the end of all are then nobody's wait."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = [item for item in items if item.get_closest_marker("ray")]
    rest = [item for item in items if not item.get_closest_marker("ray")]
    ends = [len(rest) * number // processes for number in range(processes + 1)]
    items[:] = [item for number in range(processes) for item in (*first[number::processes], *rest[ends[number] : ends[number + 1]])]


@pytest.fixture(scope="session")
def toy():
    """The toy procedure's Entry."""
    from driving import toy_entry

    return toy_entry()


@pytest.fixture(scope="session")
def toy_pack(toy):
    return toy.procedure.synthesize(toy.procedure.config(), images=60, seed=0)


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch takes one thread, as a run's worker does."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture
def inside(toy, tmp_path, monkeypatch):
    """The command line in this process, without Ray."""
    import torch
    from driving import Inside

    torch.set_num_threads(1)
    return Inside(monkeypatch, toy, tmp_path / "runs")


@pytest.fixture(scope="session")
def finished(toy, toy_pack, tmp_path_factory):
    """A study of a network of timm's that has ended: a table, a search, one seed."""
    import torch
    from driving import TIMM, Bench

    torch.set_num_threads(1)
    bench = Bench(toy, tmp_path_factory.mktemp("finished"), toy_pack, **TIMM)
    _, director = bench.open()
    bench.finish(director)
    assert director.complete()
    bench.close()
    return bench.folder


@pytest.fixture
def exported(finished, tmp_path, toy, toy_pack):
    """A copy of it, and a function that exports its best run."""
    import shutil

    from driving import TIMM, Bench

    import analysis
    from search import export as exporting
    from search.study import read_study

    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    bench = Bench(toy, folder, toy_pack, **TIMM)

    def make(change=lambda record: None):
        ledger, _ = bench.open()
        best = analysis.best(analysis.load(folder))
        record = ledger.records[best.key]
        change(record)
        exporting.export(toy, folder, read_study(folder), ledger, toy_pack, record, best.words)
        bench.close()
        return record

    make.folder, make.bench = folder, bench
    yield make
    bench.close()


@pytest.fixture
def known_toy(toy, monkeypatch):
    """The toy procedure is found by name."""
    from search import exported as exporting
    from search import registry

    monkeypatch.setattr(registry, "load", lambda name: toy)
    monkeypatch.setattr(registry, "declared", lambda name: toy.study)
    monkeypatch.setattr(exporting, "load", lambda name: toy)
