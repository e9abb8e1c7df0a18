"""Runs in a worker group of Ray Train: which ones, and what is said of one that broke off; a head that hangs."""

import threading
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from search import cluster, group, machines, trial
from search.group import ProcessDied, _as_exception, _reason
from search.kinds import KINDS, Preempted
from search.machines import GROUP_BYTES, LONG_SECONDS, share_out
from trainables.parts.errors import ClusterLost

HEAD = {"CPU": 0.0, "node:__internal_head__": 1.0, "memory": 2 * GROUP_BYTES}
GPU = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("workers", "running", "seconds", "nodes", "expected"),
    [
        (2, False, 0.0, 2, True),  # several workers are always a group
        (1, False, 1e6, 2, False),  # this machine alone: nobody takes it away beforehand
        (1, True, 0.0, 2, False),  # not known yet
        (1, True, LONG_SECONDS - 1, 2, False),
        (1, True, LONG_SECONDS, 2, True),
        (1, True, LONG_SECONDS, 3, False),  # the head has room for two
    ],
)
def test_a_run_is_a_group_where_it_has_several_workers_or_gains_by_it(
    workers: int, running: bool, seconds: float, nodes: int, expected: bool
) -> None:
    share = share_out(machines.Machines((HEAD, *[GPU] * nodes), running=running), None, workers)
    assert share.in_group(seconds) == expected
    assert share.bundles(True) == [{"node:__internal_head__": 0.001}] and share.bundles(False) == [share.worker]


def group_error(*deaths: bool) -> Any:
    """As Ray Train tells of workers that died; each: whether their machine was taken away."""
    failures = [SimpleNamespace(health_check_failure=SimpleNamespace(preempted=preempted)) for preempted in deaths]
    fault = RuntimeError("Training failed due to worker errors")
    fault.worker_failures = dict(enumerate(failures))  # type: ignore[attr-defined]
    return fault


def test_of_a_death_and_a_known_reason_the_reason_is_told() -> None:
    died, reason = group_error(False), MemoryError("no room for 3 toys")
    assert _reason(died, [RuntimeError("connection closed by peer"), reason]) is reason
    assert isinstance(_reason(died, [RuntimeError("connection closed by peer")]), ProcessDied)
    assert isinstance(_reason(group_error(False, True), [RuntimeError("connection closed by peer")]), Preempted)
    assert _reason(RuntimeError("?"), [ours := KeyError("toy box")]) is ours


def test_every_ending_that_a_run_may_have_is_known_by_its_name_in_a_group_too() -> None:
    for known, end, kind in KINDS:
        told = _as_exception({"raised": known.__name__, "message": "words"})
        assert (end, kind) == next((end, kind) for one, end, kind in KINDS if isinstance(told, one)) and "words" in str(told)


@pytest.mark.parametrize("size", [1, 2])
def test_whether_a_group_of_one_has_neighbours_on_its_card_is_said_by_its_worker_and_not_by_the_head(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 24 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    full, rows = torch.cuda.OutOfMemoryError("full"), Queue()
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: size)
    monkeypatch.setattr(group.train, "get_context", lambda: context)

    def work(*_: Any) -> None:
        raise full

    job = {"workers": size, "group": True, "gpus": 0}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        group._group_worker({"job": job, "work": work, "who": lambda job: {"host": "far"}, "rows": rows, "taken": Queue()})
    seen = {"device_memory": 24 << 30, "neighbours": True} if size == 1 else {}
    assert rows.get_nowait() == {"raised": "OutOfMemoryError", "message": "full", "origin": {"host": "far"} | seen}
    assert "neighbours" not in trial._ending(job, full) and trial._ending(job | {"group": False}, full)["neighbours"]


def test_a_head_that_hangs_is_asked_once_and_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    hold, asked = threading.Event(), []

    def nodes() -> list[dict[str, Any]]:
        asked.append(1)
        hold.wait(20)
        return [{"NodeID": "a", "Alive": True}, {"NodeID": "b", "Alive": False}]

    monkeypatch.setattr(cluster.ray, "nodes", nodes)
    head = cluster.Head()
    for _ in range(3):
        with pytest.raises(ClusterLost, match=r"did not say within 0\.05 s"):
            head.nodes(0.05)
    assert len(asked) == 1
    hold.set()
    assert [node["NodeID"] for node in head.nodes(20)] == ["a"]
    assert [node["NodeID"] for node in head.nodes(20)] == ["a"] and len(asked) == 2


def test_no_run_is_blamed_and_none_waits_in_vain_while_the_head_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> list[dict[str, Any]]:
        raise ClusterLost("silent")

    monkeypatch.setattr(cluster, "alive", silent)
    assert not cluster.lives("a") and cluster.lives("") and cluster.elsewhere(["a"]) is None
