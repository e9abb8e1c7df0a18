"""A workstation that others use: their GPUs are left alone or waited for. nvidia-smi is pretended, as a program on the path."""

import os
from pathlib import Path
from typing import Any

import pytest

from search import gpus
from search.gpus import VISIBLE, Gpu, choose, free_gpus, look
from trainables.parts.errors import RequestError

ABOUT = "{number}, GPU-{number}, NVIDIA A100, {used}, 40960, {work}"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says what nvidia-smi prints: a line for each GPU, for each process, for each slice."""
    program, said = tmp_path / "nvidia-smi", tmp_path / "said"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in *query-gpu*) cat {said}.gpu;; *compute-apps*) cat {said}.apps;; -L) cat {said}.list;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(gpus.time, "sleep", lambda seconds: None)

    def say(about: list[str], apps: tuple[str, ...] = (), listed: tuple[str, ...] = ()) -> None:
        for kind, lines in (("gpu", about), ("apps", apps), ("list", listed)):
            Path(f"{said}.{kind}").write_text("".join(f"{line}\n" for line in lines))

    return say


def card(number: int, used: str = "300", work: str = "0") -> str:
    return ABOUT.format(number=number, used=used, work=work)


def test_gpus_that_others_compute_on_are_left_alone_with_their_owner_s_name(machine: Any) -> None:
    machine([card(0), card(1, "30000", "97"), card(2, "20480"), card(3, "[N/A]", "[N/A]")], (f"GPU-1, {os.getpid()}", "GPU-1, 999999999"))
    owner = Path("/proc/self").owner()
    said: list[str] = []
    with free_gpus(None, said.append) as count:
        assert count == 2 and os.environ[VISIBLE] == "0,3"
    assert VISIBLE not in os.environ
    assert said == [
        f"GPU 1 (NVIDIA A100) is used by process {os.getpid()} of {owner}, process 999999999: left alone",
        "GPU 2 (NVIDIA A100) is used by others (50% of its memory, 0% of its time): left alone",
    ]


def test_a_machine_whose_gpus_are_all_free_or_that_has_none_is_left_as_it_is(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([card(0, "1500"), card(1)])  # a desktop draws on one
    said: list[str] = []
    with free_gpus(None, said.append) as count:
        assert count is None and VISIBLE not in os.environ
    monkeypatch.setenv("PATH", "/nowhere")
    assert look() == []
    with free_gpus(None, said.append) as count:
        assert count is None
    assert said == []


def test_where_all_gpus_are_taken_a_study_is_refused_or_waits_until_one_is_free(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, said = [card(0, "30000")], []
    machine(busy)
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(gpus.time, "monotonic", lambda: float(next(clock)))
    with (
        pytest.raises(RequestError, match=r"^no GPU of this machine is free: GPU 0 .* is used by others .* --wait-for 1 waits for one, "),
        free_gpus(None, said.append),
    ):
        pass
    assert said == []

    looks = iter([busy, busy, [card(0)]])

    def asked() -> list[Gpu]:
        machine(next(looks))
        return look()

    monkeypatch.setattr(gpus, "look", asked)
    with free_gpus(1, said.append) as count:
        assert count is None
    assert said == ["waiting for GPUs: 0 of 1 free; GPU 0 (NVIDIA A100) is used by others (73% of its memory, 0% of its time)"]
    monkeypatch.setattr(gpus, "look", lambda: [])
    with pytest.raises(RequestError, match="must not be above this machine's 0"), free_gpus(1, said.append):
        pass


def test_the_choice_of_the_user_or_of_slurm_stands_and_is_said(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([card(0), card(1, "30000"), card(2)])
    monkeypatch.setenv(VISIBLE, "1,2")
    said: list[str] = []
    with free_gpus(None, said.append) as count:
        assert count is None and os.environ[VISIBLE] == "1,2"
    assert said == [
        "CUDA_VISIBLE_DEVICES=1,2 leaves 2 of 3 GPU(s) to this study",
        "GPU 1 (NVIDIA A100) is used by others (73% of its memory, 0% of its time), and by this study, as CUDA_VISIBLE_DEVICES says",
    ]


@pytest.mark.parametrize(
    ("visible", "count", "left"),
    [("-1", 0, ""), ("", 0, ""), ("2, 0", 2, "2,0"), ("1,-1,0", 1, "1"), ("GPU-1,MIG-a", None, "GPU-1,MIG-a"), ("none", 0, "")],
)
def test_ray_is_left_the_gpus_that_cuda_sees(
    machine: Any, monkeypatch: pytest.MonkeyPatch, visible: str, count: int | None, left: str
) -> None:
    machine([card(0), card(10), card(2)])
    monkeypatch.setenv(VISIBLE, visible)
    said: list[str] = []
    with free_gpus(1, said.append) as found:
        assert (found, os.environ[VISIBLE]) == (count, left)
    assert os.environ[VISIBLE] == visible and f"leaves {len([one for one in left.split(',') if one])} of 3" in said[0]


def test_each_slice_of_a_gpu_that_is_cut_takes_runs(machine: Any) -> None:
    listed = (
        "GPU 0: NVIDIA A100 (UUID: GPU-0)", "  MIG 3g.20gb     Device  0: (UUID: MIG-aaa)", "  MIG 3g.20gb     Device  1: (UUID: MIG-bbb)",
        "GPU 1: NVIDIA A100 (UUID: GPU-1)",
    )  # fmt: skip
    machine([card(0, "20", "[N/A]"), card(1)], listed=listed)
    said: list[str] = []
    with free_gpus(None, said.append) as count:
        assert count == 3 and os.environ[VISIBLE] == "MIG-aaa,MIG-bbb,1"
    assert said == ["GPU 0 (NVIDIA A100) is cut into 2 MIG slices, of which each takes runs"]
    assert choose(look(), None)[0] == ["MIG-aaa", "MIG-bbb", "1"]
