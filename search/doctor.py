"""`doctor`: whether this machine, or each node of a cluster, is fit for runs; and whether the cluster is closed to others.
Comes in: an address or none, a storage. Goes out: a table of machines, a line for each fault with what to do, or the same as JSON; status
0 sound, 1 faults. Changes nothing, and leaves nothing behind."""

import functools
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from search import live, show
from search.examine import Expected, Findings, Folder, examine, sees
from search.gpus import VISIBLE, choose, look
from search.home import home, place_of
from search.path import ROOT
from trainables.parts import code
from trainables.parts.errors import RequestError, StorageFault

KNOCK_SECONDS = 3.0
OPEN, ASKS, SILENT = "open", "asks for the token", "did not answer"  # what a door says to a stranger
STRANGER = f"""import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
    print("{OPEN}")
except AuthenticationError:
    print("{ASKS}")"""
CLOSE = "start Ray on every node with RAY_AUTH_MODE=token and one token (ray get-auth-token --generate; docs/cluster.md)"


@dataclass(frozen=True)
class Door:
    """A port of the cluster, and what it says to somebody without the token. answers: `closed`, OPEN, ASKS, SILENT, or in words."""

    name: str
    address: str
    answers: str
    fault: str = ""


@dataclass
class Health:
    """What was found. machines: as examined; cluster: where, '' without one."""

    machines: list[Findings]
    doors: list[Door] = field(default_factory=list)
    cluster: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """One line each; those first that keep runs away."""
        found = [fault for machine in self.machines for fault in machine.faults]
        ordered = [fault.words for fault in found if fault.bars] + [fault.words for fault in found if not fault.bars]
        return list(dict.fromkeys([*ordered, *(door.fault for door in self.doors if door.fault)]))

    def json(self) -> dict[str, Any]:
        return {
            "healthy": not self.faults, "cluster": self.cluster or None, "faults": self.faults,
            "notes": self.notes, "machines": [asdict(machine) | {"takes_runs": not machine.bars} for machine in self.machines],
            "doors": [asdict(door) for door in self.doors],
        }  # fmt: skip


def doctor(address: str | None, storage: Path, out: Console, as_json: bool) -> int:
    """Print what is found; the exit status."""
    with _storage(storage) as folder:
        if address is None:
            health = _here(folder)
        else:
            with live.words_to(Path(os.devnull)):  # Ray's own on machines that come and go
                health = _cluster(address, folder)
    if as_json:
        show.as_json(health.json())
    else:
        _show(health, storage, out)
    return 1 if health.faults else 0


@contextmanager
def _storage(storage: Path) -> Iterator[Folder]:
    try:
        folder = Folder(storage.resolve())
    except StorageFault as fault:
        raise RequestError(str(fault)) from None
    except OSError as fault:
        raise RequestError(f"--storage {storage}: {fault.strerror}; name a folder that this user may write on every machine") from None
    with closing(folder):
        yield folder


def _here(folder: Folder) -> Health:
    """This machine alone. That its GPUs are promised to nobody is no reason not to try them."""
    there, visible = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))), os.environ.get(VISIBLE)
    gpus = there if visible is None else min(there, len([name for name in visible.split(",") if name.strip()]))
    found = examine(Expected(place_of(folder.path), folder.token, code.known(), gpus, time.time(), probe=True))
    found.faults += [fault for fault in [sees(found, folder.path, folder.token)] if fault is not None]
    return Health([found], notes=choose(look(), visible)[1])


def _cluster(address: str, folder: Folder) -> Health:
    from search.cluster import HEAD, addresses, open_cluster  # first: it sets what Ray reads as it is imported
    from search.admission import Admission  # isort: skip
    from search.signals import SIGNALS

    with open_cluster(SIGNALS, address):
        nodes = HEAD.nodes()
        opened = Admission(folder, probe=True)
        machines: list[Findings] = []
        for node in nodes:  # one after the other: each has the storage to itself
            opened.begin([node])
            while opened.pending():
                machines += opened.look(1.0)
        head, dashboard = addresses()
        doors = _doors(head, nodes, dashboard)
    return Health(machines, doors, head)


# -- doors --------------------------------------------------------------------------------------------------------------------------------


def _doors(head: str, nodes: Sequence[dict[str, Any]], dashboard: str) -> list[Door]:
    """What the cluster says to somebody without the token, at the addresses by which other machines reach it. A firewall between is not
    seen."""
    tries: list[Callable[[], Door]] = [lambda: _gcs(head)]
    if dashboard:
        host, port = _outside(head.rpartition(":")[0], nodes), int(dashboard.rpartition(":")[2])
        tries.append(lambda: _http("dashboard", host, port, "/api/jobs/"))
    agents = {(node["NodeManagerAddress"], node["DashboardAgentListenPort"]) for node in nodes}
    tries += [functools.partial(_http, "agent", host, port, "/api/job_agent/jobs/") for host, port in sorted(agents) if port > 0]
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda one: one(), tries))


def _outside(host: str, nodes: Sequence[dict[str, Any]]) -> str:
    """The address by which others reach this machine; the loopback where it has no other."""
    if not ip_address(socket.gethostbyname(host)).is_loopback:
        return host
    return next((node["NodeManagerAddress"] for node in nodes if not node["NodeManagerAddress"].startswith("127.")), host)


def _gcs(head: str) -> Door:
    """Ray's own port, asked by a process that has no token."""
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | {"RAY_AUTH_MODE": "disabled"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, head], env=stranger, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return Door("Ray", head, SILENT)
    said = [line for line in done.stdout.splitlines() if line in (OPEN, ASKS)]
    if OPEN not in said:
        return Door("Ray", head, ASKS if said else SILENT)
    words = f"the cluster asks nobody for a token: whoever reaches {head} runs what he likes there as its user"
    return Door("Ray", head, OPEN, f"{words}; {CLOSE}")


def _http(name: str, host: str, port: int, path: str) -> Door:
    """A port that takes jobs, asked for its list of them without a token."""
    where = f"{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=KNOCK_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return Door(name, where, "closed")
    finally:
        connection.close()
    if status in (401, 403):
        return Door(name, where, ASKS)
    if status in (404, 501):
        return Door(name, where, f"knows no jobs (status {status})")
    words = f"the {name} at {where} takes jobs from whoever reaches it (status {status} without a token)"
    listens = "; and `ray start --head --dashboard-host=127.0.0.1`" if name == "dashboard" else ""
    return Door(name, where, OPEN, f"{words}; {CLOSE}{listens}")


# -- words --------------------------------------------------------------------------------------------------------------------------------


def _show(health: Health, storage: Path, out: Console) -> None:
    table = Table("machine", "runs", "CPUs", "GPUs", "tmp", "storage", "shm", "MB/s", "clock", box=SIMPLE, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    hosts = [machine.host for machine in health.machines]
    for machine in health.machines:
        facts = machine.facts
        table.add_row(
            machine.host + (f" {machine.node[:6]}" if hosts.count(machine.host) > 1 else ""),
            "no" if machine.bars else "yes",
            f"{machine.resources.get('CPU', 0):g}" if machine.node else str(os.cpu_count()),
            _gpu_words(machine),
            _bytes(facts.get("free_temporary")), _bytes(facts.get("free_storage")), _bytes(facts.get("shm")),
            f"{facts['write_bytes_a_second'] / 1e6:.0f} {facts['read_bytes_a_second'] / 1e6:.0f}"
            if "read_bytes_a_second" in facts else "…",
            f"{facts['clock_seconds']:+.0f} s" if "clock_seconds" in facts else "…",
        )  # fmt: skip
    out.print(table)
    if health.doors:
        doors = Table("to others", "where", "says", box=SIMPLE)
        for door in health.doors:
            doors.add_row(door.name, door.address, door.answers)
        out.print(doors)
    for line in health.notes:
        out.print(f"note: {line}", markup=False)
    for line in health.faults:
        out.print(f"fault: {line}", markup=False)
    what = f"the cluster at {health.cluster}, {len(health.machines)} machine(s)" if health.cluster else "this machine"
    count = len(health.faults)
    out.print(f"versions {', '.join(f'{name} {version}' for name, version in code.versions().items())}", markup=False)
    out.print(f"{what}, storage {home(storage).url or show.short(storage)}: {f'{count} fault(s)' if count else 'sound'}", markup=False)
    if not health.cluster:
        out.print("a cluster is examined with --address auto on one of its nodes", markup=False)


def _gpu_words(machine: Findings) -> str:
    promised, seen = machine.resources.get("GPU", 0), machine.facts.get("gpus", 0)
    if machine.node and promised:
        return f"{promised:g}" if seen >= promised else f"{seen} of {promised:g}"
    return str(seen)


def _bytes(count: float | None) -> str:
    return "…" if count is None else f"{count / 1e9:.0f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
