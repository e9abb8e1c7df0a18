"""A study's status as Prometheus metrics, through Ray's own endpoint of the machine that the command works on.
Comes in: a status. Goes out: gauges `ray_karyotune_...`, tagged with the study's name. Ray tells on what a gauge was last set to, so what
is gone is set to 0."""

from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Gauge

GAUGES = {
    "runs_running": ("running", "runs that a process works on"),
    "runs_placed": ("placed", "runs that wait for a machine"),
    "runs_waiting": ("waiting", "runs to come"),
    "slots": ("slots", "runs at once"),
    "spent_hours": ("spent_hours", "hours of GPUs, or of workers where there is none"),
    "cost": ("cost", "spent_hours at --price-per-hour"),
    "seconds_left": ("seconds_left", "about how long it takes"),
}


def gauges(study: str) -> Callable[[Mapping[str, Any]], None]:
    """What takes a status and sets them."""
    plain = {name: Gauge(f"karyotune_{name}", words, ("study",)) for name, (_, words) in GAUGES.items()}
    ended = Gauge("karyotune_runs_ended", "ended runs, by how they ended", ("study", "status"))
    machines = Gauge("karyotune_machine_runs", "runs on a machine at this moment", ("study", "host"))
    aside = Gauge("karyotune_machines_aside", "machines and cards that were set aside", ("study",))
    best = Gauge("karyotune_best_score", "the best run's score on validation data", ("study",))

    told: dict[str, set[str]] = {"status": set(), "host": set()}

    def each(gauge: Gauge, tag: str, values: Mapping[str, int]) -> None:
        told[tag] |= set(values)
        for name in told[tag]:
            gauge.set(float(values.get(name, 0)), {"study": study, tag: name})

    def tell(status: Mapping[str, Any]) -> None:
        for name, (key, _) in GAUGES.items():
            if status[key] is not None:
                plain[name].set(float(status[key]), {"study": study})
        each(ended, "status", status["counts"])
        each(machines, "host", {host: one["running"] for host, one in status["machines"].items()})
        aside.set(float(len(status["aside"])), {"study": study})
        if status["best"] is not None:
            best.set(float(status["best"][0]), {"study": study})

    return tell
