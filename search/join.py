"""Whether a running Ray cluster is at an address, and this machine a node of it.
Comes in: an address. Goes out: HOST:PORT, or a RequestError that says why not, within seconds. Imports no Ray: a process of its own
does."""

import subprocess
import sys
import tempfile
import time

from search.path import ROOT
from trainables.parts.errors import RequestError

ANSWER_SECONDS = 5  # in which Ray itself takes a head for dead as it looks for one; it answers in milliseconds
START_SECONDS, JOIN_SECONDS = 60.0, 10.0  # for a process to import Ray; to join a cluster, which takes one or two

FOUND, ELSEWHERE = "\nfound ", "\nelsewhere\n"
# A node's machine has the socket of its raylet: without it ray.init waits ten seconds for one, and dies in C++.
JOINS = """import os, sys, ray
from ray._raylet import GcsClient
print("asking", flush=True)
if ":" in sys.argv[1]:
    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5).values()
    if not any(node.state == 0 and os.path.exists(node.raylet_socket_name) for node in nodes):
        print("elsewhere", flush=True)
        os._exit(0)
ray.init(address=sys.argv[1], log_to_driver=False)
print("found", ray.get_runtime_context().gcs_address, flush=True)
os._exit(0)"""


def find_cluster(address: str) -> str:
    """The address of a running cluster as HOST:PORT, of which this machine is a node. A process of its own joins it, with a time limit,
    and says no word to the user: ray.init tries for a minute, and where nothing answers ends its process out of C++. RequestError if it
    does not come about within JOIN_SECONDS of asking."""
    if "://" in address:
        raise no_cluster(address, "an address has no scheme")
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        command = [sys.executable, "-c", JOINS, address]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=ROOT, start_new_session=True)
        limit, words, ended = time.monotonic() + START_SECONDS, "", False
        try:
            while not (ended or FOUND in words or _refusal(words) or time.monotonic() > limit):
                time.sleep(0.05)
                ended = child.poll() is not None
                before = words
                said.seek(0)
                words = said.read()
                if "asking" in words and "asking" not in before:
                    limit = time.monotonic() + JOIN_SECONDS
        finally:
            child.kill()
            child.wait()
    if FOUND in words:
        return words.rpartition(FOUND)[2].split()[0]
    raise no_cluster(address, _refusal(words) or _last_words(words, ended))


def _refusal(words: str) -> str | None:
    """Why a cluster cannot be joined, from what Ray logs while it still tries."""
    if "InvalidAuthToken" in words:
        return "the Ray cluster there refuses this command, whose token is missing or another than its own"
    return f"no Ray cluster answers there within {ANSWER_SECONDS} s" if "Failed to connect to GCS at address" in words else None


def _last_words(words: str, ended: bool) -> str:
    if not ended or ELSEWHERE in words:
        return "a Ray cluster answers there, and this machine is no node of it (`ray start --address` makes it one)"
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "Ray did not say why it cannot be joined")
    return last.partition(": ")[2].split(". ")[0] or last


def no_cluster(address: str, reason: str) -> RequestError:
    return RequestError(
        f"--address {address}: {' '.join(reason.split()).rstrip('.')}; give auto on a node of a running cluster, or the HOST:PORT "
        "that `ray start --head` printed, "
        "and set RAY_AUTH_MODE as the cluster has it"
    )
