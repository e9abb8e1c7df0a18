"""Many machines and many short runs: are the slots busy, does the driver's memory stay flat, does no run become dearer? In: nothing. Out: a table.

`python benchmarks/scale.py [--nodes 8] [--gpus 2] [--runs 2000] [--seconds 6]`: Ray's own cluster of several nodes on this machine, whose GPUs are
pretended, and the command on it with a procedure that only waits, as a CPU does while a device trains. By fifths of the study: busy is the
training's part of what all slots had (aim 95 %; a run's engine costs the two cores of one machine here what eight machines would share), and
the driver's memory and processor time."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from search.examine import PRETEND
from trainables.parts.execution import RESULT

HOME = Path(__file__).parent / "nothing"
EVERY = 1.0  # seconds between two looks at the driver
PARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default, kind in (("nodes", 8, int), ("gpus", 2, int), ("runs", 2000, int), ("seconds", 6.0, float)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    given = parser.parse_args()
    os.environ |= {PRETEND: "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join([str(HOME), str(HOME.parents[1])])}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    try:
        for _ in range(given.nodes):
            cluster.add_node(num_cpus=given.gpus, num_gpus=given.gpus)
        with tempfile.TemporaryDirectory() as storage:
            study(given, str(cluster.address), Path(storage))
    finally:
        cluster.shutdown()


def usage(process: int) -> tuple[float, float]:
    """MiB of memory and seconds of processor time of a child that was not waited for."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(words[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20, (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def study(given: argparse.Namespace, address: str, storage: Path) -> None:
    """One study on the cluster, and what it took."""
    words = ["nothing", "ablate", "--tables", "1", "--repeats", str(max(1, given.runs // 100)), "--set", f"seconds={given.seconds}"]
    began = time.time()
    with (storage / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "search", *words, "--storage", str(storage), "--name", "n"],
            cwd=storage, env=os.environ | {"RAY_ADDRESS": address}, stdout=said, stderr=said,
        )  # fmt: skip
        looks = []
        while process.poll() is None:
            looks.append((time.time(), *usage(process.pid)))
            time.sleep(EVERY)
    if process.wait():
        raise SystemExit((storage / "said").read_text())
    folder = storage / "n"
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    ended = sorted((folder / "checkpoints" / record["key"] / RESULT).stat().st_mtime for record in records)
    slots = given.nodes * given.gpus
    print(f"{len(ended)} runs of {given.seconds:g} s on {given.nodes} nodes of {given.gpus} GPUs, {len({r['worker'] for r in records})} processes: "
          f"{ended[-1] - began:.0f} s, the first ended after {ended[0] - began:.0f} s")  # fmt: skip
    print(f"{'part':>6} {'runs':>6} {'busy':>8} {'driver MiB':>11} {'driver ms a run':>16}")
    for part in range(PARTS):
        some = ended[len(ended) * part // PARTS : len(ended) * (part + 1) // PARTS]
        inside = [look for look in looks if some[0] <= look[0] <= some[-1]]
        busy = given.seconds * (len(some) - 1) / (slots * (some[-1] - some[0]))
        cost = (inside[-1][2] - inside[0][2]) / max(1, sum(inside[0][0] <= end <= inside[-1][0] for end in some))
        print(f"{part + 1:>6} {len(some):>6} {100 * busy:>7.1f}% {max(look[1] for look in inside):>11.0f} {1000 * cost:>16.1f}", flush=True)


if __name__ == "__main__":
    main()
