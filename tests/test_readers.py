"""Many files on many cores: processes read them as threads would."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data import open as opening
from trainables.data import readers
from trainables.data.copies import Framed
from trainables.data.laboratory import ELSEWHERE
from trainables.data.look import look
from trainables.data.normal import Normal
from trainables.data.open import Decoded, decode
from trainables.data.read import Elsewhere, read_images
from trainables.data.readers import each
from trainables.data.synthetic_clusters import cluster_set


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(readers, "cpus", lambda: 4)
    monkeypatch.setattr(readers, "PROCESSES", 2)
    monkeypatch.setattr(readers, "MANY", 8)
    monkeypatch.setattr(readers, "CHUNK", 2)


@pytest.fixture
def files(tmp_path):
    images = cluster_set(5, size=96, canvas=224, seed=4).images
    for i, image in enumerate(images):
        Image.fromarray(255 - image).save(tmp_path / f"{i:02}.png")
    (tmp_path / "30.png").write_bytes(b"damaged")
    Image.new("L", (40, 40), 255).save(tmp_path / "31.png")
    return sorted(tmp_path.glob("*.png"))


def process_of(item):
    return os.getpid(), os.environ["OPENBLAS_NUM_THREADS"], type(opening.one_large).__module__


def fault_of(item):
    if item == 9:
        raise LookupError("the ninth")
    return item


def ended(item, parent):
    if item == 9 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_many_files_are_read_by_processes_exactly_as_by_threads(files, many_cores, monkeypatch):
    def read():
        frames: list[tuple[Framed, Decoded]] = []
        other = Elsewhere(ELSEWHERE)
        images, areas, notes, faults = read_images(files, 96, 64, normal=Normal(width=15.0, gray=190.0), frames=frames, elsewhere=other)
        assert other.images.any()
        return (
            other.images.tobytes(),
            other.areas.tobytes(),
            images.tobytes(),
            areas.tobytes(),
            notes,
            faults,
            [[v.tobytes() if isinstance(v, np.ndarray) else v for v in (*astuple(f), *said.traits)] for f, said in frames],
        )

    def looks():
        return [(s.key, s.turns.tobytes(), s.upright.tobytes(), repr(s.said)) if hasattr(s, "key") else s for s in each(tell, files)]

    tell = partial(look, tolerance=8)
    by_processes = read(), looks()
    monkeypatch.setattr(readers, "cpus", lambda: 2)
    assert (read(), looks()) == by_processes
    assert len(by_processes[0][5]) == 2, "of the damaged and of the empty one"


@pytest.mark.slow
def test_processes_are_for_many_items_on_many_cores_and_are_gone_afterwards(many_cores, monkeypatch):
    found = list(each(process_of, range(40)))
    processes = {pid for pid, _, _ in found}
    assert os.getpid() not in processes and {threads for _, threads, _ in found} == {"1"}
    assert {lock for _, _, lock in found} == {"joblib.externals.loky.backend.synchronize"}, "one large file is opened at a time by all"
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert set(each(process_of, range(7))) == {(os.getpid(), "7", "_thread")}
    monkeypatch.setattr(readers, "cpus", lambda: 3)
    assert set(each(process_of, range(40))) == {(os.getpid(), "7", "_thread")}


@pytest.mark.slow
def test_a_fault_in_a_process_is_raised_as_it_is_behind_the_results_before_it(many_cores):
    found: list[int] = []
    with pytest.raises(LookupError, match="the ninth"):
        found.extend(each(fault_of, range(400)))
    assert found == list(range(8)), "results come in chunks of two"


def test_reading_goes_on_where_a_process_is_killed(many_cores, capfd):
    assert list(each(partial(ended, parent=os.getpid()), range(40))) == list(range(40))
    assert "reading goes on without processes of its own, which takes longer: one was ended" in capfd.readouterr().err


@pytest.mark.parametrize("fails", ["Lock", "Process"])
def test_a_machine_that_gives_no_processes_reads_with_threads(many_cores, monkeypatch, capfd, fails):
    from joblib.externals.loky.backend.context import LokyContext

    def refused(*given, **named):
        raise OSError("no more of them")

    monkeypatch.setattr(LokyContext, fails, refused)
    assert set(each(lambda _: os.getpid(), range(40))) == {os.getpid()}
    assert "no more of them" in capfd.readouterr().err


READS = """
import sys, time
from trainables.data import readers
readers.cpus, readers.MANY, readers.CHUNK = lambda: 4, 8, 1
readers.PROCESSES = 2
try:
    for _ in readers.each(time.sleep, [0.02] * 10000):
        print("begun", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_ctrl_c_for_all_ends_a_reading_without_a_word_and_a_killed_one_leaves_no_process(tmp_path, number, status):
    (tmp_path / "reads.py").write_text(READS)
    root = str(Path(readers.__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "reads.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert child.stdout.readline() == "begun\n"
    if number == signal.SIGINT:
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == status
    assert not said or number == signal.SIGKILL, "locks that are left are cleaned up, and that is said"
    until = time.monotonic() + 60
    while members(child.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not members(child.pid)


def members(group):
    """Processes of a group."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(place.name)) == group:
                found.append(place.name)
        except ProcessLookupError:
            continue
    return found


def test_what_is_kept_of_a_file_does_not_keep_its_pixels(files):
    assert decode(files[0]).gray.size
    assert all(seen.said.gray.base is None for seen in each(partial(look, tolerance=8), files[:4]))


def test_a_reading_process_imports_little():
    loaded = "import sys, trainables.data.read; print(*sorted({'torch', 'ray', 'pandas', 'scipy.interpolate'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "\n"
