"""One machine is examined, and each fault is one line that says what, why and what to do. Without Ray."""

import os
import shutil
import socket
import threading
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search import doctor
from search import examine as examining
from search.examine import Expected, Fault, Findings, Folder, clock_fault, examine, sees
from trainables.parts import code

HOST = socket.gethostname()


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    opened = Folder(tmp_path / "storage")
    yield opened
    opened.close()


def asked(folder: Folder, **more: Any) -> Expected:
    return Expected(str(folder.path), folder.token, code.known(), **more)


def only(found: Findings) -> Fault:
    (fault,) = found.faults
    assert fault.words.count("\n") == 0 and HOST in fault.words and "; " in fault.words
    return fault


def test_a_sound_machine_has_no_fault_and_leaves_nothing_behind(folder: Folder, tmp_path: Path) -> None:
    found = examine(asked(folder, probe=True))
    assert found.faults == [] and found.bars == "" and sees(found, folder.path, folder.token) is None
    assert {"free_temporary", "free_storage", "write_bytes_a_second", "read_bytes_a_second", "versions"} <= found.facts.keys()
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(["head", found.wrote])
    folder.close()
    assert os.listdir(tmp_path) == [], "the storage was made for this"


def test_a_storage_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    opened = Folder(tmp_path / "kept" / "below")
    opened.close()
    assert os.listdir(tmp_path) == ["kept"]


def test_a_storage_that_is_not_there_or_another_or_not_to_be_written_keeps_runs_away(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = only(examine(replace(asked(folder), storage=str(tmp_path / "elsewhere" / ".examination"))))
    assert fault.kind == "storage" and fault.bars and f"does not see {tmp_path / 'elsewhere'} (No such file" in fault.words
    assert "sees another" in only(examine(replace(asked(folder), token="other"))).words
    real = Path.open

    def refuse(path: Path, *words: Any, **more: Any) -> Any:
        if path.name.startswith("node-"):
            raise PermissionError(13, "Permission denied")
        return real(path, *words, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        found = examine(asked(folder))
    assert "cannot write there (Permission denied)" in only(found).words and found.wrote == ""
    assert sees(found, folder.path, folder.token) is None, "it is said once"


def test_what_a_machine_writes_and_the_head_does_not_see_is_another_disk(folder: Folder) -> None:
    found = examine(asked(folder))
    (folder.path / found.wrote).unlink()
    fault = sees(found, folder.path, folder.token)
    assert fault is not None and fault.bars and "is not seen here, so that is another disk of the same name" in fault.words


def test_other_code_and_another_timm_keep_runs_away_and_another_numpy_is_said(folder: Folder) -> None:
    known = code.known()
    other = known | {"fingerprint": "f" * 32, "versions": known["versions"] | {"timm": "9.9"}}
    fault = only(examine(replace(asked(folder), known=other)))
    assert fault.bars and f"(timm 9.9 on the head, here {known['versions']['timm']})" in fault.words
    other = known | {"fingerprint": "f" * 32, "files": known["files"] | {"mine.py": "0"}}
    assert "(trainables/mine.py: removed)" in only(examine(replace(asked(folder), known=other))).words
    other = known | {"versions": known["versions"] | {"numpy": "9.9"}}
    fault = only(examine(replace(asked(folder), known=other)))
    assert not fault.bars and "the head 9.9" in fault.words


@pytest.mark.parametrize(
    ("cuda", "hidden", "words"),
    [
        ("13.0", None, "look at its driver (nvidia-smi; PyTorch needs one for CUDA 13.0), or start Ray there with --num-gpus=1"),
        ("13.0", "0", "CUDA_VISIBLE_DEVICES='0' hides the others; unset it before `ray start`, or start Ray there with --num-gpus=1"),
        (None, None, "is a build without GPUs; install the one with CUDA"),
    ],
)
def test_a_gpu_that_ray_promises_and_pytorch_does_not_see_keeps_runs_away(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, cuda: str | None, hidden: str | None, words: str
) -> None:
    import torch

    _gpus(monkeypatch, [None])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    fault = only(examine(asked(folder, gpus=2.0)))
    assert fault.kind == "gpu" and fault.bars
    assert fault.words.startswith(f"Ray promises 2 GPU(s) on {HOST} and PyTorch sees 1: ") and words in fault.words


def test_a_gpu_on_which_nothing_can_be_computed_keeps_runs_away_and_a_full_one_does_not(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    _gpus(monkeypatch, [None, torch.cuda.OutOfMemoryError("full"), RuntimeError("CUDA driver version is insufficient\nmore")])
    fault = only(examine(asked(folder, gpus=3.0)))
    assert fault.bars and f"PyTorch sees GPU 2 of {HOST} and cannot use it (CUDA driver version is insufficient); " in fault.words


def _gpus(monkeypatch: pytest.MonkeyPatch, each: list[Exception | None]) -> None:
    """As many GPUs as given, and what computing on each of them raises."""
    import torch

    def zeros(size: int, device: str) -> None:
        fault = each[int(device.rpartition(":")[2])]
        if fault is not None:
            raise fault

    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(each))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    monkeypatch.setattr(torch, "zeros", zeros)


def test_a_disk_that_is_full_keeps_runs_away(folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "free")
    full = tmp_path / "full"
    monkeypatch.setattr(examining.tempfile, "gettempdir", lambda: str(full))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(16e6 if place == str(full) else 1e12))
    fault = only(examine(asked(folder)))
    assert fault.bars and f"16 MB are free for temporary files ({full}), 500 are needed; make room there" in fault.words


@pytest.mark.parametrize("group", [False, True])
def test_little_shared_memory_is_said_and_keeps_runs_of_several_workers_away(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, group: bool
) -> None:
    real = os.statvfs
    small = SimpleNamespace(f_blocks=16384, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda place: small if place == "/dev/shm" else real(place))
    fault = only(examine(asked(folder, group=group)))
    assert fault.kind == "shm" and "/dev/shm holds 67 MB" in fault.words and "--shm-size=2g" in fault.words and fault.bars == group


@pytest.mark.parametrize(("now", "words"), [(100.0, None), (94.0, "6 s behind"), (3701.0, "3600 s ahead of"), (106.0, None)])
def test_a_clock_must_lie_between_the_question_and_the_answer(now: float, words: str | None) -> None:
    fault = clock_fault(Findings("there", now=now), sent=100.0, received=101.0)
    assert fault is None if words is None else fault is not None and f"its clock is {words} the head's" in fault.words and not fault.bars


def test_a_storage_that_takes_long_is_said(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "_bytes_a_second", lambda move, end: 1e6)
    fault = only(examine(asked(folder, probe=True)))
    assert not fault.bars and "writes 1.0 MB a second to the storage and reads 1.0" in fault.words


@pytest.mark.parametrize(
    ("status", "says", "fault"),
    [
        (200, "open", True),
        (401, "asks for the token", False),
        (403, "asks for the token", False),
        (404, "knows no jobs (status 404)", False),
    ],
)
def test_a_port_that_takes_jobs_without_a_token_is_a_fault(status: int, says: str, fault: bool) -> None:
    from search.doctor import _http

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        door = _http("dashboard", "127.0.0.1", port, "/api/jobs/")
        thread.join()
    assert door.answers == says and bool(door.fault) == fault
    if fault:
        assert "takes jobs from whoever reaches it" in door.fault and "RAY_AUTH_MODE=token" in door.fault
    assert _http("dashboard", "127.0.0.1", port, "/api/jobs/").answers == "closed"


@pytest.mark.parametrize(
    ("script", "says", "fault"),
    [
        ("print('open')", "open", True),
        ("from ray.exceptions import AuthenticationError\nprint('asks for the token')", "asks for the token", False),
        ("raise RuntimeError('Timed out while waiting for GCS to become available.')", "did not answer", False),
        ("", "did not answer", False),
    ],
)
def test_a_head_that_does_not_answer_a_stranger_is_not_said_to_ask_for_the_token(
    monkeypatch: pytest.MonkeyPatch, script: str, says: str, fault: bool
) -> None:
    """The real head's words are those of test_doctor."""
    monkeypatch.setattr(doctor, "STRANGER", script)
    door = doctor._gcs("127.0.0.1:1")
    assert door.answers == says and bool(door.fault) == fault


def test_a_token_that_others_of_any_machine_may_read_is_a_fault(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("a" * 64)
    token.chmod(0o644)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert examine(asked(folder)).faults == [], "it is not used"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    fault = only(examine(asked(folder)))
    assert not fault.bars and f"chmod 600 {token} there" in fault.words
    token.chmod(0o600)
    assert examine(asked(folder)).faults == []
