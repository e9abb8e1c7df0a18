"""How many runs share a GPU: measured once, kept, and never a reason for a study to fail. No GPU: what one would say is pretended."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import torch
from test_cards import on
from test_director import END, end, lines, row, study  # noqa: F401 (a fixture)

from search import options, outlook, place, sharing, trial, tryout
from search.examine import PRETEND
from search.machines import Machines, share_out
from search.request import Request
from search.sharing import Trial, divide, first_steps, part
from search.status import STATUS
from trainables.parts import replay
from trainables.parts.errors import RequestError

import ray  # isort: skip  # after search.cluster, which sets what it reads

H100, SMALLER = "accelerator_type:H100", "accelerator_type:T4"
GB = 1e9


def took(need: float = 1.7, busy: float = 0.23, memory: float = 80, gpu: str = "NVIDIA H100", host: float = 2.0) -> Trial:
    return Trial(gpu, memory * GB, need * GB, busy, host * GB)


@pytest.mark.parametrize(
    ("trial", "runs"),
    [
        (took(), 5),  # five times 23 % is the first that fills it
        (took(busy=0.5), 2),
        (took(busy=0.97), 1),  # a second run would have the last three per cent
        (took(busy=0.001), 8),
        (took(busy=0.0), 8),
        (took(need=20), 3),  # a tenth of the memory stays free
        (took(need=79), 1),
        (took(need=90), 1),
    ],
)
def test_so_many_runs_share_a_gpu_as_have_room_and_keep_it_busy(trial: Trial, runs: int) -> None:
    assert trial.runs == runs
    assert runs * part(runs) <= 1 and int(1 / part(runs)) == runs


@pytest.mark.parametrize(
    ("nodes", "wanted", "runs", "words"),
    [
        (
            [{"CPU": 16.0, "GPU": 1.0}],
            50,
            5,
            "5 runs share a GPU: one takes 1.7 of 80 GB of NVIDIA H100 and keeps it busy for 23% of a step",
        ),
        ([{"CPU": 3.0, "GPU": 1.0}], 50, 3, "; 5 by that, 3 by CPU cores"),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}], 50, 2, "; 5 by that, 2 by CPU cores"),
        ([{"CPU": 16.0, "GPU": 1.0, "memory": 5 * GB}], 50, 2, "; 5 by that, 2 by the machine's memory"),
        ([{"CPU": 16.0, "GPU": 4.0}], 5, 2, "; 5 by that, 2 by the runs that there are to do"),  # not all five on the first
        ([{"CPU": 16.0, "GPU": 4.0}], 1, 1, "a run has a GPU to itself: "),
        ([{"CPU": 1.0, "GPU": 4.0}], 9, 1, "a run has a GPU to itself: "),
    ],
)
def test_machines_and_the_work_that_is_left_may_allow_fewer(nodes: list[dict[str, float]], wanted: int, runs: int, words: str) -> None:
    found = divide({H100: took()}, Machines(tuple(nodes)), wanted, GB)
    assert found[0] == runs and words in found[1]
    if nodes[0]["CPU"] > 1:
        slots = share_out(Machines(tuple(nodes)), part(runs), 1, 2 * GB).slots
        assert slots == runs * sum(node["GPU"] for node in nodes)


def test_of_unlike_gpus_the_least_decides() -> None:
    nodes = Machines(({"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}))
    runs, words = divide({H100: took(), SMALLER: took(memory=5, gpu="T4")}, nodes, 50, GB)
    assert runs == 2 and "of 5 GB of T4" in words


def test_a_part_of_a_gpu_is_of_one_gpu() -> None:
    assert share_out(Machines(({"CPU": 16.0, "GPU": 2.0},)), 0.4, 1).slots == 4, "and no fifth out of two remainders"


# -- the trial ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A GPU that says of a step what is written here; what was asked, in order."""
    asked: list[str] = []

    def recorded(step: Any, device: torch.device) -> Any:
        asked.append("record")
        return step

    def seconds(step: Any, device: torch.device) -> float:
        asked.append("time")
        step()
        return 1e-9

    monkeypatch.setattr(replay, "recordable", lambda device: True)
    monkeypatch.setattr(replay, "record", recorded)
    monkeypatch.setattr(sharing, "free_bytes", lambda device: asked.append("free") or int(80 * GB))
    monkeypatch.setattr(sharing, "taken_bytes", lambda before, device: asked.append("taken") or int(before / 40))
    monkeypatch.setattr(sharing, "device_seconds", seconds)
    judge = sharing.Fitting.validate
    monkeypatch.setattr(sharing.Fitting, "validate", lambda fitting, last: asked.append("judge") or judge(fitting, last))
    return asked


def test_a_trial_records_a_step_of_the_baseline_times_it_and_judges_once(pretended: list[str], toy: Any, toy_pack: Any) -> None:
    found = first_steps(toy.procedure, toy.procedure.config(), toy_pack, 0, torch.device("cpu"))
    assert pretended == ["free", "record", "time", "judge", "taken"]
    assert found.need == pytest.approx(sharing.LATER * 2 * GB) and 0 < found.busy < 0.01 and found.runs == 8
    assert Trial(**json.loads(json.dumps(found.json()))) == found


def test_a_trial_reads_what_a_run_of_the_study_would_and_a_gpu_that_is_too_small_is_a_reason(
    pretended: list[str], finished: Path, known_toy: Any, one_thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = json.loads((finished / "study.json").read_text())["baseline"]
    job = {"procedure": "toy", "study": str(finished), "config": config, "seed": 0, "gpus": 1}
    with pytest.raises(RequestError, match="PyTorch sees none there"):
        tryout.tried(job)
    monkeypatch.setenv(PRETEND, "1")
    assert Trial(**tryout.tried(job)).runs == 8

    def full(fitting: Any, epoch: int, rates: list[float]) -> Any:
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(sharing.Fitting, "_epoch", full)
    with pytest.raises(RequestError, match="memory is not enough for one run"):
        tryout.tried(job)


def test_a_step_that_cannot_be_recorded_tells_nothing_of_the_device_s_part(
    pretended: list[str], toy: Any, toy_pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "recordable", lambda device: False)
    with pytest.raises(RequestError, match="could not be recorded"):
        first_steps(toy.procedure, toy.procedure.config(), toy_pack, 0, torch.device("cpu"))


# -- a study ------------------------------------------------------------------------------------------------------------------------------


class Asked:
    """A study at work, as far as the question goes: machines, what was measured before, what a trial would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any], kept: dict[str, Any], says: dict[str, Trial]) -> None:
        resources = [{"CPU": 16.0, "GPU": 1.0, kind: 1.0} for kind in (H100, SMALLER)]
        nodes = [{"NodeID": str(number), "Resources": one} for number, one in enumerate([{"CPU": 4.0}, *resources])]
        monkeypatch.setattr(tryout.cluster, "alive", lambda: nodes)
        monkeypatch.setattr(tryout, "write_study", lambda folder, kept: self.written.append(kept))
        monkeypatch.setattr(tryout, "_job", lambda work: {})
        monkeypatch.setattr(
            tryout, "ask", lambda nodes, *_: (self.tried.append(dict(nodes)), (says, ["full"] * (nodes.keys() > says.keys())))[1]
        )
        self.work = SimpleNamespace(prepared=SimpleNamespace(request=Request("toy", **request)), study={"study": "x"} | kept, folder=None)
        queue = SimpleNamespace(tabled=range(20), resumed=[])
        self.director = SimpleNamespace(queue=queue, searches=[], finished=lambda: False, nodes=SimpleNamespace(aside={}), machines="")
        self.machines = Machines(tuple(node["Resources"] for node in nodes))
        self.tried: list[dict[str, str]] = []
        self.said: list[str] = []
        self.written: list[dict[str, Any]] = []

    def __call__(self, gpus: float | None) -> float | None:
        return tryout.share(self.work, self.director, self.machines, gpus, GB, self.said.append).gpus


def test_each_kind_of_gpu_is_tried_once_and_the_same_command_later_shares_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Asked(monkeypatch, {}, {}, {H100: took(), SMALLER: took(busy=0.5)})
    assert first(None) == 0.5 and first.tried == [{H100: "1", SMALLER: "2"}]
    assert first.said == [f"2 runs share a GPU: {took(busy=0.5).words} (--gpus-per-run 1: each has its own)"]
    (kept,) = first.written
    again = Asked(monkeypatch, {}, json.loads(json.dumps(kept)), {})
    assert again(1.0) == 0.5 and not again.tried and not again.written
    assert again.said[0].endswith("as was measured before")
    joined = Asked(monkeypatch, {}, {"sharing": {H100: took().json()}}, {SMALLER: took(busy=0.9)})
    assert joined(1.0) == 0.5 and joined.tried == [{SMALLER: "2"}], "a kind that is new in the cluster"


@pytest.mark.parametrize(
    ("request_", "gpus", "kept"),
    [
        ({"gpus_per_run": 1.0}, 1.0, {"sharing": {H100: took().json(), SMALLER: took().json()}}),  # as it is asked for
        ({"gpus_per_run": 0.5}, 0.5, {}),
        ({"workers_per_run": 2}, None, {}),
        ({}, 0.0, {}),  # the runs of the study have none
        ({}, 1.0, {}),  # they had one each
    ],
)
def test_nothing_is_measured_where_it_is_known_what_a_run_gets(
    monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], gpus: float | None, kept: dict[str, Any]
) -> None:
    asked = Asked(monkeypatch, request_, kept, {})
    assert asked(gpus) == gpus and not asked.tried and not asked.said and not asked.written


def test_a_trial_that_tells_nothing_costs_no_more_than_the_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, {}, {}, {H100: took()})
    assert asked(None) is None and not asked.written
    assert asked.said == ["each run has a GPU to itself, for it could not be measured how many share one: full"]


@pytest.mark.parametrize(
    ("request_", "gpus", "kept", "expected"),
    [
        ({}, None, True, (10, 1 / 0.23, 2 / 0.23)),  # five on each of two, which are as fast as the device
        ({}, 1.0, True, (10, 1 / 0.23, 2 / 0.23)),
        ({"slots": 3}, None, True, (4, 2.0, 3.0)),
        ({}, 1.0, False, (2, 1.0, 2)),
        ({"gpus_per_run": 1.0}, 1.0, True, (2, 1.0, 2)),
        ({"gpus_per_run": 0.5}, 0.5, True, (4, 2.0, 4.0)),
        ({"workers_per_run": 2}, None, True, (1, 1.0, 1)),
        ({}, None, False, (2, 1.0, 2)),  # the trial fails here
    ],
)
def test_a_plan_counts_what_a_gpu_does_by_the_runs_that_share_it(
    monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], gpus: float | None, kept: bool, expected: tuple[int, float, float]
) -> None:
    def full(*_: Any) -> Trial:
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(outlook, "cpus", lambda: 16)
    monkeypatch.setattr(outlook, "first_steps", full)
    of = SimpleNamespace(
        request=Request("toy", **request_), old={"sharing": {H100: took().json()}} if kept else {}, plan=SimpleNamespace(baseline=None, seeds=[0]),
        entry=SimpleNamespace(procedure=None), source=SimpleNamespace(pack=None),
    )  # fmt: skip
    slots, gain, speed = outlook._pace(of, gpus, 40, torch.device("cuda"))  # type: ignore[arg-type]
    assert slots == min(expected[0], request_.get("slots", 99))
    assert (gain, speed) == pytest.approx(expected[1:])


def test_auto_is_a_word_of_the_option_and_the_default() -> None:
    assert options.GPUS.convert("auto", None, None) is None is Request("toy").gpus_per_run
    with pytest.raises(click.BadParameter, match=r"must not be below 0, got -1"):
        options.GPUS.convert("-1", None, None)


# -- memory beside neighbours -------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_short_of_memory_beside_another_of_the_study_is_tried_alone_before_it_is_written_down(study: Any) -> None:  # noqa: F811
    bench = study(trials=0, repeats=1, tables=["1"])
    _, c = bench.open(slots=2)
    c.nodes.count([{"NodeID": "box", "Resources": {"GPU": 1.0}}])
    one, other = c.next(), c.next()
    for active in (one, other):
        c.row(active.run.key, {"origin": on(0)})
    # both fill the card at one moment, and the second finds that the first has left it
    full = {"end": "failed", "kind": "out_of_memory", "message": "full", "neighbours": False} | END | on(0)
    c.row(one.run.key, full)
    c.row(other.run.key, full)
    assert not lines(bench)
    for active in (one, other):
        alone = c.next()
        assert alone.run.key in (one.run.key, other.run.key) and c.next() is None, "it has the card to itself"
        c.row(alone.run.key, {"origin": on(0)})
        if active is one:
            c.row(alone.run.key, row())
            end(bench, c, alone)
        else:
            c.row(alone.run.key, full)
    assert [record["status"] for record in lines(bench)] == ["completed", "failed"], "alone on its card it is the configuration's"


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"]
)
def test_memory_that_cuda_itself_or_its_libraries_lack_is_a_lack_of_memory_too(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def full() -> tuple[int, int]:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=80))
    assert place.unusable({"gpus": 0.5}) == "", "the card is there; the run says itself that it is full"
    found = trial._ending({"study": "/nowhere", "folder": "x"}, RuntimeError(words))
    assert found["kind"] == "out_of_memory" and found["neighbours"] and found["device_memory"] == 80


# -- with Ray -----------------------------------------------------------------------------------------------------------------------------

STUDY = """
import os
import sys
from contextlib import contextmanager


def tried(job):
    assert job["gpus"] == 1 and job["config"]["rate"] == 0.02
    with open(os.environ["TOY_LOG"] + ".tried", "a") as file:
        file.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
    return {"gpu": "a pretended GPU", "memory": 80e9, "need": 4e9, "busy": 0.3, "host": 1e6}


@contextmanager
def free_gpus(wanted, say):
    yield 2


if __name__ == "__main__":
    from search import cli, cluster, gpus, tryout

    cluster.cpus, gpus.free_gpus, tryout.tried = lambda: 4, free_gpus, tried
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_tries_one_run_and_then_has_several_on_each_gpu(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRETEND, "1")
    (shell.home / "shared.py").write_text(STUDY)
    words = ("--trials", "0", "--tables", "1", "--arms", "plain", "--repeats", "3", "--storage", "s")
    done = shell("toy", *words, module="shared")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = shell.home / "s" / "toy-quick-synthetic"
    said = (folder / "log.txt").read_text() + done.stdout
    assert (
        "2 runs share a GPU: one takes 4.0 of 80 GB of a pretended GPU and keeps it busy for 30% of a step; 4 by that, 2 by CPU cores"
        in said
    )
    assert len(Path(f"{shell.log}.tried").read_text().split()) == 1
    assert json.loads((folder / "study.json").read_text())["sharing"][""]["busy"] == 0.3
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert len(records) == 3 and {record["status"] for record in records} == {"completed"}
    assert json.loads((folder / STATUS).read_text())["slots"] == 4


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_raises_dies_or_hangs_is_a_reason_in_one_line_and_leaves_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from search import cluster

    def fine(job: Any) -> Any:
        return dict(job)

    def refuses(job: Any) -> Any:
        raise RequestError("its memory is not enough")

    def dies(job: Any) -> Any:
        import os

        os._exit(1)

    def hangs(job: Any) -> Any:
        import time

        time.sleep(100)

    with cluster._closed_to_others():
        ray.init(address="local", num_cpus=2, num_gpus=2, log_to_driver=False, include_dashboard=False)
        try:
            (node,) = cluster.alive()

            def said(function: Any, over: Any = lambda: False) -> Any:
                return tryout.ask(tryout.kinds([node], {}), took().json(), over, function)

            assert said(refuses) == ({}, ["its memory is not enough"])
            found, (why,) = said(dies)
            assert not found and why.startswith("WorkerCrashedError: ")
            assert said(hangs, lambda: True) == ({}, []), "the study is told to stop meanwhile"
            with monkeypatch.context() as patch:
                patch.setattr(tryout, "ANSWER_SECONDS", 0.5)
                assert said(hangs) == ({}, ["no GPU has answered within 0.5 s"])
            assert said(fine) == ({"": took()}, [])
        finally:
            ray.shutdown()
