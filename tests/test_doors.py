"""What a study opens on the machine that it runs on: every port of its processes, tried from another network and from this machine."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from test_ray import wait_for

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray takes 127.0.0.1 as it is, and not as this machine's address for others
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", LOOPBACK, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
JOBS = ("/api/job_agent/jobs/", "/api/jobs/")  # of a node's agent, and of the dashboard
WRONG = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
NODES = "import sys; from ray._raylet import GcsClient; print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))"
DRIVER = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(ray.get(ray.remote(lambda: 'did it').remote()))"
# Reads [[address, port], ...], prints those that do not refuse a connection.
KNOCK = """
import json, socket, sys
for address, port in json.load(sys.stdin):
    try:
        socket.create_connection((address, port), timeout=5).close()
        print(address, port, "is open")
    except ConnectionRefusedError:
        pass
    except OSError as fault:
        print(address, port, fault)
print("tried")
"""


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def elsewhere() -> Iterator[list[str]]:
    """The beginning of a command that runs on another network: a namespace of its own, from which all addresses of this machine are reached."""
    if shutil.which("ip") is None:
        pytest.skip("`ip`, of the package iproute2, is not installed")
    name, subnet = f"kt{os.getpid()}", f"10.231.{os.getpid() % 250}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as fault:
        pytest.skip(f"no network namespaces here: {fault.stderr.strip()}")
    try:
        try:
            ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        except subprocess.CalledProcessError as fault:
            pytest.skip(f"no virtual network here: {fault.stderr.strip()}")
        ip("addr", "add", f"{subnet}.1/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "addr", "add", f"{subnet}.2/30", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        ip("-n", name, "route", "add", "default", "via", f"{subnet}.1")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "del", name)  # and the pair with it


def addresses() -> list[str]:
    """Of this machine, as others may reach it."""
    found = [one["local"] for link in json.loads(ip("-j", "-4", "addr")) for one in link["addr_info"]]
    return [address for address in found if not ip_address(address).is_loopback]


def tree(root: int) -> dict[int, str]:
    """Command lines of a process and all its descendants, by number."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:  # grows
        found += [child for child, parent in parents.items() if parent == pid]
    lines = {}
    for pid in found:
        with suppress(OSError):
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return lines


def listening(processes: dict[int, str]) -> list[tuple[str, int, str]]:
    """(address as the kernel writes it, port, command line) of every TCP socket, IPv4 or IPv6, on which one of the processes listens."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                address, _, port = words[1].partition(":")
                sockets[f"socket:[{words[9]}]"] = (address, int(port, 16))
    found = set()
    for pid, line in processes.items():
        with suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if (name := os.readlink(handle)) in sockets:
                        found.add((*sockets[name], line))
    return sorted(found)


def ask(port: int, path: str, marker: Path | None = None, token: str | None = None) -> int | None:
    """The status with which a port of this machine answers, None if it does not speak HTTP; with `marker`, asked to run a job that makes it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        body = json.dumps({"entrypoint": f"touch {marker}"}) if marker else None
        connection.request("POST" if marker else "GET", path, body, headers)
        return connection.getresponse().status
    except (http.client.HTTPException, OSError):
        return None
    finally:
        connection.close()


def stranger(*words: str, settings: dict[str, str], home: Path) -> tuple[int, str]:
    """Status and output of somebody else's command; what it leaves running is killed with it. Ray's own retry for longer than anyone waits."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        words, env=mine | {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", LOOPBACK: "0"} | settings, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), process.communicate()[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def ray_start(address: str) -> list[str]:
    return ["env", f"{LOOPBACK}=1", str(Path(sys.executable).with_name("ray")), "start", f"--address={address}", "--num-cpus=1", "--block"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_hears_nobody_but_itself(shell, elsewhere, tmp_path, monkeypatch, workers):
    """With every setting of the caller's against it: mode, token and token file of other clusters."""
    home, marker = tmp_path / "user", tmp_path / "marker"
    (home / ".ray").mkdir(parents=True)
    left = home / ".ray" / "auth_token"
    left.write_text("a" * 64)
    settings = {"HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "b" * 64, "RAY_AUTH_TOKEN_PATH": str(left)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    words = ("--repeats", "1", "--trials", "0", "--tables", "1", "--arms", "plain", "--set", "pause=1", "--set", "warm_epochs=1000")
    driver = shell.start("toy", *words, "--workers-per-run", str(workers), "--storage", "s", start_new_session=True)
    try:
        wait_for(lambda: len(shell.epochs()) >= 2 or driver.poll() is not None, 120)
        assert driver.poll() is None
        processes = tree(driver.pid)
        ports = listening(processes)
        gcs = next(pid for pid, line in processes.items() if "gcs_server" in line)
        inherited = dict(word.partition("=")[::2] for word in Path(f"/proc/{gcs}/environ").read_text().split("\0"))
        token = inherited["RAY_AUTH_TOKEN"]
        head = next(port for _, port, line in ports if "gcs_server" in line)
        assert len({line for *_, line in ports}) >= 5

        # from another network: no port answers at all
        doors = [(address, port) for address in addresses() for _, port, _ in ports]
        knocked = subprocess.run(
            [*elsewhere, sys.executable, "-c", KNOCK], input=json.dumps(doors), capture_output=True, text=True, timeout=60, check=True
        )
        assert knocked.stdout == "tried\n"
        assert {address for address, *_ in ports} <= {"0100007F", "0000000000000000FFFF00000100007F"}, "a port off the loopback"

        # nor does Ray let anybody in without the token, as another user of this machine may try
        here, other = f"127.0.0.1:{head}", tmp_path / "other"
        other.mkdir()
        commands = [[*elsewhere, *ray_start(f"{addresses()[0]}:{head}")], *([sys.executable, "-c", code, here] for code in (NODES, DRIVER))]
        tries = [(command, settings) for command in commands for settings in ({"RAY_AUTH_MODE": "disabled"}, WRONG)]
        with ThreadPoolExecutor() as pool:
            for status, output in pool.map(lambda one: stranger(*one[0], settings=one[1], home=other), tries):
                assert status != 0 and "runtime started" not in output, output
        with ThreadPoolExecutor(16) as pool:
            tries = [(port, path, marker, given) for _, port, _ in ports for path in JOBS for given in (None, "f" * 64)]
            answers = list(pool.map(lambda one: ask(*one), tries))
        assert set(answers) <= {None, 401, 403, 404, 405, 501}, dict(zip(tries, answers, strict=True))
        assert {401, 403} <= set(answers) or workers == 1
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        assert stranger(sys.executable, "-c", NODES, here, settings=own, home=other) == (0, "1\n"), "somebody has joined"
        assert not marker.exists()

        # and the token is nowhere to be read
        assert token not in ("a" * 64, "b" * 64) and len(token) == 64
        assert left.read_text() == "a" * 64 and os.listdir(home / ".ray") == ["auth_token"]
        assert not any(token in line for line in tree(driver.pid).values())
        session = Path(next(word for word in processes[gcs].split() if word.startswith("--log_dir=")).partition("=")[2]).parent
        written = [path for root in (session, tmp_path) for path in root.rglob("*") if path.is_file()]
        assert any(path.name == "log.txt" for path in written) and any(path.name == "gcs_server.out" for path in written)
        assert [path for path in written if token.encode() in path.read_bytes()] == []
    finally:
        for pid in tree(driver.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()


def test_each_cluster_of_ours_has_a_token_of_its_own_and_the_callers_settings_are_there_again_afterwards(monkeypatch):
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader

    from search.cluster import _closed_to_others

    def seen() -> tuple[str | None, ...]:
        return tuple(os.environ.get(name) for name in VARIABLES)

    def header() -> str:
        return AuthenticationTokenLoader.instance().get_token_for_http_header()["authorization"]

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    before, found = seen(), []
    for _ in range(2):
        with _closed_to_others():
            found.append(os.environ["RAY_AUTH_TOKEN"])
            assert os.environ["RAY_AUTH_MODE"] == "token" and not ray_constants.ENABLE_RAY_CLUSTER
            assert header() == f"Bearer {found[-1]}"
        assert seen() == before and ray_constants.ENABLE_RAY_CLUSTER
        assert header() == "Bearer " + "b" * 64
    assert len({*found, "b" * 64}) == 3
