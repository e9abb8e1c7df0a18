"""Kills a study at random moments and at every failpoint, until it ends; then proves that it ended as if undisturbed.
`python tests/chaos.py --kills 50 --seed 0` (the toy procedure, minutes) or `--procedure supcam --preset quick` (an hour). Comes in: words.
Goes out: exit status 0, and one line of numbers; or 1 with what was violated. The study's own options follow `--`: `-- --trials 4`.
`--machines` first lets machines fail, as tests/test_machine_faults.py has them on a Ray of several nodes: one that joins without the shared
folder, one whose files are seen late, one that is lost, one that is taken away with notice, a GPU's error that sticks to a process, a run
that is preempted five times, a head that dies and one that hangs."""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainables.parts.failpoints import IN_A_RUN, NAMES

ROOT = Path(__file__).parent.parent
PREY = ("driver", "worker", "raylet", "gcs_server")
REQUEST = {
    "toy": ("--trials", "4", "--repeats", "2", "--tables", "1,2", "--set", "pause=0.3"),
    "supcam": (
        "--trials",
        "4",
        "--repeats",
        "2",
        "--tables",
        "2",
        "--arms",
        "Scratch,MoCo,MoCo + SupCon,SupCAM (full)",
    ),  # no weights to load
}


def children(pid: int) -> Iterator[int]:
    """All descendants of a process."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            words = path.read_text().split()
        except OSError:
            continue
        for word in words:
            yield int(word)
            yield from children(int(word))


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def find(driver: int, prey: str) -> int | None:
    """A process of a study by its part in it; None while there is none."""
    if prey == "driver":
        return driver
    of = {"worker": lambda words: words.startswith("ray::") and "train" in words.lower()}.get(prey, lambda words: f"/{prey} " in words)
    return next((pid for pid in children(driver) if of(title(pid))), None)


class Study:
    """One study that is killed and started again. `log` is where its processes' words go."""

    def __init__(self, home: Path, procedure: str, words: list[str], name: str) -> None:
        from driving import QUIET, TOY

        self.words = ["-m", "search", procedure, *words, "--storage", str(home / name)]
        self.home, self.folder, self.log = home, home / name, home / f"{name}.log"
        self.fired = home / f"{name}.fired"
        self.fired.mkdir()
        for part in ("search_spaces", "trainables"):
            if not (home / part).exists():
                shutil.copytree(TOY / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
        # a driver whose cluster is gone would look for it for a minute
        self.environment = os.environ | QUIET | {
            "PYTHONPATH": os.pathsep.join([str(home), str(ROOT)]), "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            "KARYOTUNE_FAILPOINT_FIRED": str(self.fired),
        }  # fmt: skip
        self.lives = 0

    @property
    def path(self) -> Path:
        return next(self.folder.glob("*/study.json")).parent

    def start(self, failpoint: str = "") -> subprocess.Popen[bytes]:
        self.lives += 1
        with open(self.log, "ab") as log:
            environment = self.environment | ({"KARYOTUNE_FAILPOINT": failpoint} if failpoint else {})
            return subprocess.Popen(
                [sys.executable, *self.words], cwd=self.home, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


ENDED = (0, 4)  # all, or all but runs that failed by themselves (weights that cannot be had here)


def end(driver: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status, or None if it went on for longer."""
    try:
        return driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def orphans(before: set[int], patience: float = 90) -> list[str]:
    """Processes of a study that are still there though its command has ended."""
    limit = time.monotonic() + patience
    while True:
        left = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if pid not in before and ours(pid)]
        if not left or time.monotonic() > limit:
            return [f"{pid} {title(pid)[:60]}" for pid in left]
        time.sleep(0.5)


def ours(pid: int) -> bool:
    try:
        return b"KARYOTUNE_FAILPOINT_FIRED=" in Path(f"/proc/{pid}/environ").read_bytes() and pid != os.getpid()
    except OSError:
        return False


def harass(study: Study, kills: int, failpoints: list[str], chance: random.Random, patience: float) -> tuple[Counter[str], list[str]]:
    """Start the command until it ends by itself: first with each failpoint armed, then killing at random moments."""
    killed: Counter[str] = Counter()
    faults: list[str] = []
    left, fruitless, broken = list(failpoints), 0, 0
    while True:
        if left:
            # those of a run end its worker alone, and the command goes on: three at once, as often as a run is started again
            batch = [name for name in left if name in IN_A_RUN][:3] if left[0] in IN_A_RUN else left[:1]
            driver = study.start(",".join(batch))
            status = end(driver, patience)
            if status is None:
                faults.append(f"the command did not end within {patience:g} s with {', '.join(batch)}")
                driver.kill()
                driver.wait()
            fired = {path.name for path in study.fired.iterdir()} & set(batch)
            killed.update(f"failpoint {name}" for name in fired)
            left = [name for name in left if name not in fired]
            fruitless = 0 if fired else fruitless + 1
            if not fired and status == 0:  # all is done: something must be left to pass it
                if left[0].startswith("export"):
                    shutil.rmtree(study.path / "best")
                else:
                    study.words = more(study.words)
            if fruitless > 2:
                faults += [f"failpoint {name} was never passed" for name in batch]
                left = [name for name in left if name not in batch]
            continue
        driver, before = study.start(), kills
        while kills > 0:
            prey, moment = chance.choice(PREY), chance.uniform(0.5, 12.0)
            if prey == "worker":  # it comes late, and most moments would be before it
                limit = time.monotonic() + 60
                while find(driver.pid, prey) is None and driver.poll() is None and time.monotonic() < limit:
                    time.sleep(0.1)
            if end(driver, moment) is not None:
                break
            pid = find(driver.pid, prey)
            if pid is None:
                continue
            os.kill(pid, signal.SIGKILL)
            killed[prey] += 1
            kills -= 1
            if prey != "worker":
                break
        status = end(driver, patience)
        if status is None:
            faults.append(f"the command did not end within {patience:g} s after {dict(killed)}")
            driver.kill()
            driver.wait()
            return killed, faults
        if status in ENDED and kills <= 0:
            return killed, faults
        broken += status not in ENDED and kills == before
        if broken > 2:
            return killed, [*faults, f"the command ended with status {status} though nothing was killed; see {study.log}"]
        if status in ENDED:  # it ended before all kills were done: there must be more to do
            study.words = more(study.words)


def more(words: list[str]) -> list[str]:
    """The same study with one seed more."""
    at = words.index("--repeats") + 1
    return [*words[:at], str(int(words[at]) + 1), *words[at + 1 :]]


def tables(study: Path) -> dict[str, bytes]:
    """Of the paper, without the hours that a study took. What a search proposes and stops on two slots depends on which of two runs ends
    first, disturbed or not."""
    found = {path.name: path.read_bytes() for path in (study / "tables").iterdir() if not path.name.startswith("table-search.")}
    numbers = found["numbers.tex"].splitlines(keepends=True)
    return found | {"numbers.tex": b"".join(line for line in numbers if b"kt@study/hours" not in line)}


def _machines() -> int:
    import pytest

    return int(pytest.main(["-n", "0", "-q", "-m", "slow", str(ROOT / "tests" / "test_machine_faults.py")]))


def main(arguments: list[str] | None = None) -> int:
    from search.history import check
    from search.registry import load

    parser = argparse.ArgumentParser(prog="python tests/chaos.py", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="at random moments, beside the failpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is killed")
    parser.add_argument("--procedure", default="toy")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--failpoints", default="all", help="names with commas between, all or none")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds after which a command counts as hanging")
    parser.add_argument("--keep", type=Path, help="a new folder for the studies (default: a temporary one)")
    parser.add_argument("--machines", action="store_true", help="let machines fail first (some minutes)")
    parser.add_argument("request", nargs="*", help="options of the study, after --")
    given = parser.parse_args(arguments)
    if given.machines and (status := _machines()):
        return status
    words = ["--preset", given.preset, *(given.request or REQUEST.get(given.procedure, ("--repeats", "2")))]
    names = {"all": list(NAMES), "none": []}.get(given.failpoints) if given.failpoints in ("all", "none") else given.failpoints.split(",")
    assert names is not None
    home = given.keep or Path(tempfile.mkdtemp(prefix="chaos"))
    home.mkdir(exist_ok=True)
    before = set(map(int, filter(str.isdecimal, os.listdir("/proc"))))
    began = time.monotonic()
    disturbed, calm = Study(home, given.procedure, words, "disturbed"), Study(home, given.procedure, words, "calm")
    sys.path.insert(0, str(home))
    import search_spaces
    import trainables

    for package in (search_spaces, trainables):
        package.__path__ = [*package.__path__, str(home / package.__name__)]
    entry = load(given.procedure)
    if entry.procedure.artefacts is None:
        names = [name for name in names if not name.startswith("artefacts")]  # it leaves none
    order = ["splits", "data", "study", "optuna", "ledger", "files"]  # the first three are passed by the first command alone
    order += [*dict.fromkeys(name.split(".")[0] for name in IN_A_RUN), "export", "report"]
    names.sort(key=lambda name: order.index(name.split(".")[0]))
    killed, faults = harass(disturbed, given.kills, names, random.Random(given.seed), given.patience)
    calm.words = [word.replace(str(disturbed.folder), str(calm.folder)) for word in disturbed.words]
    if end(calm.start(), 10 * given.patience) != 0:
        faults.append(f"the undisturbed study failed; see {calm.log}")
    for study in (disturbed, calm):
        history = check(study.path, entry)
        faults += [
            f"{study.folder.name}: {words}"
            for words in (*history.violations, *(note for note in history.notes if "did not complete" in note))
        ]
    if tables(disturbed.path) != tables(calm.path):
        faults.append("the tables are not those of the undisturbed study, byte for byte")
    faults += [f"{study.log}: a traceback" for study in (disturbed,) if "Traceback (most recent" in study.log.read_text(errors="replace")]
    faults += [f"left behind: {words}" for words in orphans(before)]
    for fault in faults:
        print(fault)
    random_kills = {prey: killed[prey] for prey in PREY if killed[prey]}
    print(
        f"{sum(random_kills.values())} kills at random moments ({', '.join(f'{n} {prey}' for prey, n in random_kills.items()) or 'none'}), "
        f"{sum(name.startswith('failpoint') for name in killed)} failpoints, {disturbed.lives} commands, {time.monotonic() - began:.0f} s: "
        + (f"{len(faults)} fault(s); {home}" if faults else "tables byte for byte those of an undisturbed study, nothing trained twice")
    )
    if not faults and not given.keep:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
