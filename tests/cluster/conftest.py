"""A laboratory's machines for a test; skipped with the reason where they cannot be had."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from laboratory import Hosts

NEEDED = {"ip": "iproute2", "sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "unshare": "util-linux", "pkill": "procps"}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if os.geteuid() != 0:
        pytest.skip("hosts out of namespaces are made by root")
    if missing := sorted({package for program, package in NEEDED.items() if shutil.which(program) is None}):
        pytest.skip(f"not installed: {', '.join(missing)}")
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--mount", "--uts", "--mount-proc", "bash", "-c", "hostname tried && ip link add tried type veth"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"no namespaces or virtual networks here: {tried.stderr.strip()}")
    found = Hosts(tmp_path)
    try:
        yield found
    finally:
        found.down()
        with suppress(OSError):
            shutil.rmtree(tmp_path)  # an environment and studies for each
