"""Who is admitted, how long is waited, and whether runs use GPUs: what a study decides about a cluster's machines, without one."""

from types import SimpleNamespace
from typing import Any

import pytest

from search import admission, cluster, watch
from search.admission import Admission, gather, takes
from search.examine import Fault, Findings
from search.machines import Machines, gpus_of, idle, share_out
from search.nodes import Nodes
from search.request import Request
from trainables.parts.errors import ClusterLost, RequestError

CPU, GPU = {"CPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}


def node(name: str, has: dict[str, float]) -> dict[str, Any]:
    return {"NodeID": name, "NodeManagerHostname": f"host {name}", "Resources": has}


class Examined(Admission):
    """An admission whose findings are given; what is not among them does not answer."""

    def __init__(self, faults: dict[str, list[Fault]]) -> None:
        self.faults, self.found, self._asked = faults, {}, {}
        self.said: list[str] = []
        self.say = self.said.append

    def begin(self, nodes: Any) -> None:
        for one in nodes:
            if one["NodeID"] not in self.found:
                self._asked.setdefault(one["NodeID"], (None, one, 0.0, 0.0))

    def look(self, seconds: float = 0.0) -> list[Findings]:
        new = [name for name in self._asked if name in self.faults]
        return [self._keep(name, Findings(f"host {name}", self.faults[name])) for name in new]


@pytest.fixture
def director() -> Any:
    return SimpleNamespace(nodes=Nodes(), notes=[], machines="", slots=1, finished=lambda: False)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """What the cluster says each time it is asked; the last for ever."""
    told: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(cluster, "alive", lambda: told.pop(0) if len(told) > 1 else told[0])
    monkeypatch.setattr(cluster, "still_to_come", lambda here: ())
    monkeypatch.setattr(admission, "LOOK_SECONDS", 0.0)
    return told


def test_a_study_begins_with_the_machines_that_are_sound_and_names_the_others(director: Any, there: list[Any]) -> None:
    there.append([node("a", CPU), node("b", GPU), node("c", GPU)])
    opened = Examined({"a": [], "b": [Fault("disk", "b is full")], "c": [Fault("clock", "c is late", bars=False)]})
    machines = gather(opened, director, Request("toy", address="x"), None)
    assert machines == Machines((CPU, GPU), (), True)
    assert director.nodes.aside == {"b": "b is full"}
    assert opened.said == ["machine host b was set aside: b is full", "c is late"] and director.machines == ""


def test_a_wait_counts_machines_that_could_take_a_run_and_says_so_each_time_that_changes(director: Any, there: list[Any]) -> None:
    a, b, c, d = node("a", CPU), node("b", GPU), node("c", GPU), node("d", GPU)
    there += [[a], [a], [a, b], [a, b, c], [a, b, c, d]]
    opened = Examined({"a": [], "b": [], "c": [Fault("gpu", "c hides it")], "d": []})
    machines = gather(opened, director, Request("toy", address="x", wait_for=2), None)
    assert [line for line in opened.said if "c hides it" not in line] == [
        "waiting for machines: 0 of 2 with a GPU are here (1 without; --gpus-per-run 0 would use them)",
        "waiting for machines: 1 of 2 with a GPU are here (1 without; --gpus-per-run 0 would use them)",
    ]
    assert machines.here == (CPU, GPU, GPU) and share_out(machines, None, 1).slots == 2


def test_machines_that_the_autoscaler_may_add_are_asked_for_while_they_are_awaited_and_no_longer(
    director: Any, there: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there += [[node("a", CPU)], [node("a", CPU), node("b", GPU)]]
    asked: list[Any] = []
    monkeypatch.setattr(admission, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(cluster, "still_to_come", lambda here: (GPU,) * (4 - len(here)))
    gather(Examined({"a": [], "b": []}), director, Request("toy", address="x", wait_for=1), None)
    assert asked == [[GPU], []]


def test_a_wait_ends_where_the_study_is_told_to(director: Any, there: list[Any]) -> None:
    there.append([node("a", CPU)])
    asked = iter([False, False, True])
    director.finished = lambda: next(asked, True)
    gather(Examined({"a": []}), director, Request("toy", address="x", wait_for=9), 0.0)


def test_a_machine_that_does_not_answer_keeps_a_study_from_its_start_for_a_while_only(
    director: Any, there: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there.append([node("a", CPU), node("mute", CPU)])
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(admission.time, "monotonic", lambda: float(next(clock)))
    opened = Examined({"a": []})
    machines = gather(opened, director, Request("toy", address="x"), None)
    assert machines.here == (CPU,) and opened.pending() == ["host mute"] and director.nodes.aside == {}


def test_no_sound_machine_is_refused_with_every_reason_and_a_head_that_is_gone_is_said(director: Any, there: list[Any]) -> None:
    there.append([node("a", CPU), node("b", CPU)])
    opened = Examined({"a": [Fault("code", "a has other code")], "b": [Fault("disk", "b is full")]})
    with pytest.raises(RequestError) as refused:
        gather(opened, director, Request("toy", address="x"), None)
    assert refused.value.faults == ["a has other code", "b is full"]


@pytest.mark.slow
def test_a_head_that_does_not_answer_while_machines_are_awaited_ends_the_study(director: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def alive() -> list[dict[str, Any]]:
        asked.append(1)
        raise ClusterLost("no answer")

    monkeypatch.setattr(cluster, "alive", alive)
    with pytest.raises(ClusterLost):
        gather(Examined({}), director, Request("toy", address="x"), None)
    assert len(asked) == admission.MISSED


def test_whether_runs_have_a_gpu_is_as_it_was_for_the_study_unless_it_is_said() -> None:
    on_cpu = {"a": {"status": "completed", "device": "cpu"}, "b": {"status": "failed", "device": "NVIDIA H100"}}
    on_gpu = {"a": {"status": "completed", "device": "NVIDIA H100"}}
    assert gpus_of({}, None, 2) is None and gpus_of(on_cpu, None, 2) == 0.0 and gpus_of(on_gpu, None, 2) == 2.0
    assert gpus_of(on_cpu, 0.5, 1) == 0.5 and gpus_of(on_gpu, 0.0, 1) == 0.0
    assert takes(GPU, None, 1) and takes(CPU, 0.0, 1) and not takes(CPU, None, 1) and not takes(GPU, 2.0, 1)


def test_gpus_that_join_a_study_without_any_stay_idle_and_it_is_said_once(director: Any, there: list[Any]) -> None:
    share = share_out(Machines((CPU,), (), True), None, 1)
    nodes = [node("a", CPU), node("b", GPU)]
    for _ in range(2):
        watch._follow(director, share, (CPU, GPU), nodes)
    words = idle(0.0, (CPU, GPU))
    assert director.notes == [words] and director.machines == words and words.startswith("1 GPU(s) stay idle: ")
    assert director.slots == 12, "its CPUs are used"
    assert idle(1.0, (GPU,)) == "" and idle(0.0, (CPU,)) == ""


def test_machines_that_are_not_examined_yet_or_set_aside_give_no_slots(director: Any) -> None:
    opened = Examined({"a": [], "b": [Fault("disk", "full")]})
    nodes = [node(name, CPU) for name in "abc"]
    opened.follow(director, nodes)
    assert opened.sound(director, nodes) == (CPU,)


def test_a_study_ends_where_every_machine_that_is_there_was_set_aside_and_waits_where_none_is(director: Any) -> None:
    director.nodes.aside, director.halt, ended = {"bad": "it is full"}, None, []
    director.stop = ended.append
    resources = share_out(Machines((GPU,), (), True), 1.0, 1)
    for there in ([], [node("head", {"CPU": 0.0})], [node("bad", GPU), node("good", GPU)]):
        watch._all_aside(director, resources, there)
    assert ended == [], "the machines that were taken away may come back"
    watch._all_aside(director, resources, [node("head", {"CPU": 0.0}), node("bad", GPU)])
    assert ended == ["every machine was set aside: it is full"]
