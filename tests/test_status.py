"""What a watcher sees of a study that another command is at work on, and what a budget of money ends."""

import json
from types import SimpleNamespace

import pytest

from search import cli, show, status
from search.budget import Budget
from search.folders import overview
from search.status import lines_of, read_status, status_of, telling


@pytest.fixture
def director(bench):
    _, made = bench(tables=["1"], repeats=1).open(with_search=False)
    return made


def test_a_watcher_on_another_machine_sees_progress_machines_failures_and_cost(bench, director, monkeypatch):
    one = bench()  # the same folder
    first = director.next()
    one.train(director, first)
    second = director.next()
    director.row(second.run.key, {"origin": {"host": "node-7", "device": "H100", "node": "n"}}, second.placement)
    director.nodes.aside["m"] = "m is full"
    director.ledger.records[first.run.key]["host"] = "node-3"
    director.budget.spent = 7200.0
    told = []
    monkeypatch.setattr(status, "SECONDS", 0.01)
    with telling(director, 2.5, told.append):
        pass
    assert told and told[-1]["running"] == 1 and told[-1]["counts"] == {"completed": 1}
    found = overview(director.folder)
    seen = "\n".join(lines_of(found.status, True))
    assert "1 running, 0 waiting for a machine" in seen and "machine  node-7 (H100): 1 running, 0 ended" in seen
    assert "machine  node-3" in seen and "0 running, 1 ended" in seen and "aside    m: m is full" in seen
    assert "spent    2.00 hours of GPUs (of workers, where there is none), 5.00 at 2.5 an hour" in seen
    after = "\n".join(lines_of(found.status, False))
    assert "running" not in after and "spent    2.00 hours" in after
    assert json.loads(json.dumps(found.json(), default=str))["status"]["spent_hours"] == pytest.approx(2.0, abs=0.01)


def test_a_failure_is_told_once_with_how_many_runs_met_it(director):
    for key in "ab":
        director.ledger.records[key] = {"status": "failed", "error": {"message": "no weights"}, "metrics": {}, "host": "h", "device": "cpu"}
    assert status_of(director, None)["failures"] == {"no weights": 2}
    assert "  failed   2 x no weights" in lines_of(status_of(director, None), False)
    assert "at" not in lines_of(status_of(director, None), False)[-1].split("none)")[1], "no price, no cost"


def test_a_status_that_is_not_there_or_damaged_is_none(tmp_path):
    assert read_status(tmp_path) == {}
    (tmp_path / "status.json").write_text("[1")
    assert read_status(tmp_path) == {} and lines_of({}, True) == []


@pytest.mark.parametrize(
    ("budget", "over", "paid"),
    [
        (Budget(spent=10, paid=10), True, True),
        (Budget(spent=9, paid=10), False, False),
        (Budget(spent=10, paid=20, seconds=10), True, False),
        (Budget(spent=10, paid=10, seconds=20), True, True),
        (Budget(spent=10), False, False),
    ],
)
def test_the_lower_of_two_limits_ends_a_study_and_is_named(budget, over, paid):
    assert budget.over([]) is over and budget.all_paid([]) is paid


def test_what_is_gone_is_told_as_none_of_it(monkeypatch):
    """Prometheus would else show the last number for ever."""
    from search import cluster, metrics  # isort: skip  # in this order: the first sets what Ray reads as it is imported

    assert cluster
    shown = {}
    monkeypatch.setattr(
        metrics, "Gauge", lambda name, *_: SimpleNamespace(set=lambda value, tags: shown.update({(name, *tags.values()): value}))
    )
    tell = metrics.gauges("s")
    plain = dict.fromkeys(key for key, _ in metrics.GAUGES.values()) | {"aside": [], "best": None}
    tell(plain | {"counts": {"failed": 2, "completed": 1}, "machines": {"a": {"running": 1}, "b": {"running": 1}}})
    tell(plain | {"counts": {"completed": 3}, "machines": {"a": {"running": 1}}})
    assert shown["karyotune_runs_ended", "s", "failed"] == 0 and shown["karyotune_runs_ended", "s", "completed"] == 3
    assert shown["karyotune_machine_runs", "s", "b"] == 0 and shown["karyotune_machine_runs", "s", "a"] == 1


def test_a_budget_of_money_ends_a_study_as_a_limit_does_and_says_so(inside, capsys):
    words = ("--trials", "0", "--repeats", "1", "--tables", "1", "--arms", "plain,slow")
    assert inside(*words, "--max-cost", "5") == 2
    assert "--max-cost 5 needs --price-per-hour" in capsys.readouterr().err
    assert inside(*words, "--price-per-hour", "3600", "--max-cost", "1e-9") == 3
    assert len(inside.trained) == 1
    assert "what --max-cost pays for is spent; the same command with more goes on" in capsys.readouterr().out
    assert cli.main(["resume", str(inside.study), "--max-cost", "100"]) == 0 and len(inside.trained) == 2


def test_a_terminal_shows_all_lines_and_a_pipe_those_of_each_change(capsys):
    found = SimpleNamespace(
        name="s", state="at work", runs={"completed": 1}, best=None, metric="m", begun=1, waiting=2, status={}, folder=None
    )
    with show.watching(show.console()) as look:
        look(found)
        look(found)
    assert capsys.readouterr().out.count("s: at work") == 1
