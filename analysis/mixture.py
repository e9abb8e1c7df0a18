"""Whether runs that stand side by side were trained by one code, with one version of each library, on devices of one kind.
In: what records say of that. Out: words, none where all agree. Exists because a study may be continued after an upgrade, or on machines that
differ, and a difference between arms is then perhaps none of the arms'."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

UNKNOWN = "unknown"
CPU = "cpu"  # of a record that does not name it
_INSTRUCTIONS = re.compile(r"\([A-Z0-9 ]+\)(?: and |$)")  # AMD EPYC (AVX2), alone or with others: a CPU. A GPU's name has none


def codes_of(record: Mapping[str, Any]) -> str:
    """Fingerprints of all code that trained a run (one stage may be another run's, or a run was continued after a change), sorted."""
    return " ".join(sorted({str(code) for code in (record.get("code"), *_of_stages(record, "stage_codes")) if code}))


def _of_stages(record: Mapping[str, Any], name: str) -> list[Any]:
    stages = record.get(name)
    return [one for some in (stages.values() if isinstance(stages, dict) else ()) if isinstance(some, list) for one in some]


def versions_of(record: Mapping[str, Any]) -> str:
    """Libraries and their versions, as one text."""
    versions = record.get("versions")
    return " ".join(f"{name}={version}" for name, version in sorted(versions.items())) if isinstance(versions, dict) else ""


def device_of(record: Mapping[str, Any]) -> str | None:
    """What trained a run: a GPU by its name, a CPU by its model and the instructions in use; "cpu" of a record that does not name it. Where
    a stage was trained by another, or the run went on elsewhere, all of them, with "and" between."""
    device, processor = record.get("device"), record.get("processor")
    own = processor if device == CPU and processor else device
    return " and ".join(sorted({one for one in (own, *_of_stages(record, "stage_devices")) if isinstance(one, str) and one})) or None


def kinds(devices: Iterable[str | None]) -> set[str]:
    """Devices of different kinds among these, of `device_of`. A CPU that no record names may be any that is named, and is no GPU."""
    named = {device for device in devices if device}
    told = any(_INSTRUCTIONS.search(device) for device in named)
    return named - {CPU} if told else named


def word_of(device: str) -> str:
    """A device as people read it."""
    return "a CPU that its record does not name" if device == CPU else device


def origin_of(record: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """What `mixture` asks of a run."""
    return codes_of(record), versions_of(record), device_of(record)


def origins(rows: Any) -> Iterable[tuple[str | None, str | None, str | None]]:
    """The same of each run of a table."""
    return zip(rows["codes"], rows["versions"], rows["device"], strict=True)


def mixture(runs: Iterable[tuple[str | None, str | None, str | None]]) -> tuple[str, ...]:
    """runs: origin_of each. One sentence on codes, one for each library that differs, one on devices."""
    alike = Counter((codes or "", versions or "", device or "") for codes, versions, device in runs)
    by_code: Counter[str] = Counter()
    by_library: dict[str, Counter[str]] = defaultdict(Counter)
    by_device: Counter[str] = Counter()
    for (codes, versions, device), count in alike.items():
        by_device[device] += count
        by_code[" and ".join(code[:8] for code in codes.split()) or UNKNOWN] += count
        for word in versions.split():
            name, _, version = word.partition("=")
            by_library[name][version] += count
    words = []
    if len({code for codes, *_ in alike for code in codes.split() or [UNKNOWN]}) > 1:
        words.append(
            f"Trained by more than one code (trainables/, torch, torchvision, timm): {_shares(by_code)}. A difference may be the code's."
        )
    for name, found in sorted(by_library.items()):
        if len(found) > 1:
            words.append(f"Trained with more than one version of {name}: {_shares(found)}. A difference may be the version's.")
    by_device = Counter({word_of(device): by_device[device] for device in kinds(by_device)})
    if len(by_device) > 1:
        told = "The same seed ends at other numbers on each, by rounding alone: a difference of single runs may be the device's"
        words.append(f"Trained on devices of more than one kind: {_shares(by_device, 'on ')}. {told}.")
    return tuple(words)


def _shares(found: Counter[str], before: str = "") -> str:
    return ", ".join(f"{count} {'run' if count == 1 else 'runs'} {before}{what}" for what, count in sorted(found.items()))
