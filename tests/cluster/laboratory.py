"""A laboratory's machines, made out of namespaces by hosts.sh."""

import os
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SCRIPT = Path(__file__).parent / "hosts.sh"


class Hosts:
    """Machines k1 ..., the first of them a head. folder: what is made for them, `shared` the folder that all of them see as /mnt/shared;
    transcript: the commands that were given, and the seconds that each took."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.net = folder, f"10.232.{os.getpid() % 250}"
        self.shared, self.key = folder / "shared", folder / "key"
        self.transcript: list[str] = []

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "LAB": str(self.folder), "NET": self.net, "HIDE": str(ROOT), "PACKAGES": sysconfig.get_path("purelib"),
        }  # fmt: skip
        return subprocess.run(["bash", str(SCRIPT), *words], env=environment, capture_output=True, text=True, timeout=60, check=False)

    def up(self, count: int, *only: str) -> None:
        made = self._call("up", str(count), *only)
        assert made.returncode == 0, made.stderr

    def kill(self, number: int) -> None:
        """Power it off: its processes are gone, and its network."""
        self.note(f"(power off {self.address(number)})", 0.0)
        self._call("kill", str(number))

    def down(self) -> None:
        self._call("down")

    def address(self, number: int) -> str:
        return f"{self.net}.1{number}"

    def ssh(self, number: int, command: str, *, check: bool = True, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        options = ["-i", str(self.key), *(word for option in SSH for word in ("-o", option))]
        return subprocess.run(
            ["ssh", *options, f"root@{self.address(number)}", command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=seconds, check=check,
        )  # fmt: skip

    def processes(self, number: int) -> list[str]:
        """Command lines of all that runs there but sshd, its shells, and what asks."""
        lines = self.ssh(number, "ps -eo args=").stdout.splitlines()
        return [line for line in lines if not line.startswith(("sshd", "/usr/sbin/sshd", "ps -eo"))]

    def note(self, command: str, seconds: float) -> None:
        self.transcript.append(f"{seconds:6.1f} s  {command}")
        print(self.transcript[-1])


SSH = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes", "ConnectTimeout=10")


def wait_for(look: Callable[[], bool], seconds: float, what: str) -> None:
    """Look twice a second until it is so."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
