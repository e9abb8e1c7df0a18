"""A study folder: what was asked, the packed data, the splits; and whether a new request agrees with it.
Comes in: a request and data. Goes out: `study.json`, `data/`, `splits/`. Exists so that the same command continues a study, a larger one
extends it, and one that contradicts it is refused with the difference shown."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import distribution_to_json

from search.plan import BASELINE, Plan, PlannedTable
from search.recorder import now
from search.registry import Entry
from trainables.parts import code
from trainables.parts.checkpoint import sealed, unsealed, write_atomically
from trainables.parts.data import Pack, load_pack, save_pack
from trainables.parts.errors import RequestError
from trainables.parts.inspection import size_baseline
from trainables.parts.procedure import config_values

SCHEMA = 1
STUDY = "study.json"
NEEDED = ("study", "procedure", "preset", "objective", "data", "seed", "seeds", "repeats", "trials", "baseline", "tables")  # of study.json


def read_study(folder: Path) -> dict[str, Any] | None:
    """study.json, or None where there is none. RequestError if it is damaged or of another schema."""
    path = folder / STUDY
    if not path.exists():
        return None
    try:
        study = json.loads(path.read_text())
        if isinstance(study, dict):
            study = unsealed(study)
    except (ValueError, RecursionError) as fault:
        raise RequestError(
            f"{path} is damaged ({fault}); delete it, and the command that began the study writes it anew, or give the study another --name"
        ) from None
    if not isinstance(study, dict) or study.get("schema") != SCHEMA:
        raise RequestError(
            f"{path} is of schema {study.get('schema') if isinstance(study, dict) else '?'}, this version writes {SCHEMA}; give the study another --name"
        )
    if missing := [name for name in NEEDED if name not in study]:
        raise RequestError(
            f"{path} is damaged ({', '.join(missing)} missing); delete it, and the command that began the study writes it anew, or give the study another --name"
        )
    return study


def write_study(folder: Path, study: Mapping[str, Any]) -> None:
    text = json.dumps(sealed(study), indent=1, allow_nan=False)
    write_atomically(folder / STUDY, lambda path: path.write_text(text + "\n"), "study")


def check_writable(folder: Path) -> None:
    """RequestError if the study folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as fault:
        raise RequestError(
            f"--storage must be a folder that can be written, got {folder.parent} ({fault.strerror}); name another"
        ) from None


def table_json(table: PlannedTable, metrics: Sequence[str], external: Sequence[str] = ()) -> dict[str, Any]:
    columns = [f"{part}_{metric}" for part in ("test", *(f"external_{name}" for name in external)) for metric in metrics]
    return {
        "number": table.number, "title": table.title, "metric": columns[0], "metrics": columns,
        "dataset": table.dataset, "external_dataset": table.external_dataset, "published_number": table.published_number or table.number,
        "baseline_arm": table.compare_with,
        "arms": [{"name": arm.name, "published": arm.published, "config_hash": arm.config_hash, "overrides": arm.overrides} for arm in table.arms],
    }  # fmt: skip


@dataclass(frozen=True)
class External:
    """A further test set, of another hospital or stain: never trained on, never chosen by."""

    source: str
    pack: Pack

    def json(self, slug: str) -> dict[str, Any]:
        pack = self.pack
        return {
            "slug": slug, "source": self.source, "hash": pack.hash, "images": len(pack), "counts": pack.counts, "notes": list(pack.notes),
        }  # fmt: skip


def external_names(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The external sets of a study, as they are called in `external/` and in metrics."""
    return tuple(known["slug"] for known in study["data"].get("external", []))


def external_packs(folder: Path, names: Iterable[str], verify: bool = False) -> dict[str, Pack]:
    """The external sets of a study by name."""
    return {name: load_pack(folder / "external" / name, verify) for name in names}


def name_external(folders: Sequence[Path]) -> dict[str, Path]:
    """External sets by a word that may stand in a metric's name. RequestError where two have one word."""
    named: dict[str, Path] = {}
    for folder in folders:
        slug = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_") or "set"
        if slug in named:
            raise RequestError(f"external sets must differ in the names of their folders, got {named[slug]} and {folder}; rename one")
        named[slug] = folder
    return named


def compose_study(
    entry: Entry,
    plan: Plan,
    *,
    name: str,
    preset: str,
    source: Mapping[str, Any],
    pack: Pack,
    command: str,
    old: Mapping[str, Any] | None,
    external: Mapping[str, External] | None = None,
    accept_code: bool = False,
) -> dict[str, Any]:
    """study.json for this request: new, or the old one extended. RequestError with every difference that is a contradiction. accept_code: go on
    though other code is at work than before."""
    present = code.known() | {"since": now()}
    if old is None:
        parts = entry.procedure.parts(plan.baseline, pack, plan.seeds[0])
        counts = {
            label: int(count) for label, count in zip(pack.classes, np.bincount(pack.labels, minlength=len(pack.classes)), strict=True)
        }
        data = dict(source) | {
            "hash": pack.hash, "classes": list(pack.classes), "images": len(pack.labels), "counts": counts,
            "parts": {part: len(index) for part, index in parts.items()}, "notes": list(pack.notes),
            "size_baseline": size_baseline(pack) if entry.procedure.baselines is None else None,
            "baselines": entry.procedure.baselines(plan.baseline, pack, parts) if entry.procedure.baselines is not None else [],
        }  # fmt: skip
        old = {
            "schema": SCHEMA, "study": name, "procedure": entry.procedure.name, "preset": preset, "created": now(), "command": command,
            "objective": {"metric": entry.study.objective, "direction": entry.study.direction, "intermediate": entry.study.intermediate},
            "data": data, "seed": plan.seeds[0], "repeats": 0, "seeds": [], "trials": 0, "baseline": config_values(plan.baseline), "space": {},
            "tables": [], "search": plan.strategy.json(), "versions": present["versions"], "commit": present["commit"],
            "dirty": present["dirty"], "code": plan.code, "codes": [present],
        }  # fmt: skip
    new: dict[str, Any] = {
        "procedure": entry.procedure.name,
        "preset": preset,
        "data hash": pack.hash,
        "seed": plan.seeds[0],
        "objective": entry.study.objective,
        "search": plan.strategy.json() if plan.trials else {},
        "settings": config_values(plan.baseline),
    }
    was: dict[str, Any] = {
        "procedure": old["procedure"],
        "preset": old["preset"],
        "data hash": old["data"]["hash"],
        "seed": old["seed"],
        "objective": old["objective"]["metric"],
        "search": _search_of(old, plan) if plan.trials else {},
        "settings": old["baseline"],
    }
    differences = _differences(was, new)
    codes = list(old.get("codes", []))
    if present["fingerprint"] not in [one["fingerprint"] for one in codes]:
        if not accept_code:
            differences += _other_code(codes, present)
        codes.append(present)
    differences += [
        f"{word}: the study has {had}, asked for {asked}"
        for word, had, asked in (("repeats", old["repeats"], len(plan.seeds)), ("trials", old["trials"], plan.trials))
        if asked < had
    ]
    sets = {known["slug"]: dict(known) for known in old["data"].get("external", [])}
    for slug, other in (external or {}).items():
        if slug in sets and sets[slug]["hash"] != other.pack.hash:
            differences.append(f"external set {slug}: the study has data hash {sets[slug]['hash'][:16]}, asked for {other.pack.hash[:16]}")
        sets.setdefault(slug, other.json(slug))
    if differences:
        raise RequestError(
            f"study {name!r} exists and was asked for differently; repeat its command to continue it, or give this one another --name:",
            *(f"  {line}" for line in differences),
        )
    tables: dict[str, dict[str, Any]] = {table["number"]: table for table in old["tables"]}
    for planned in plan.tables:
        fresh = table_json(planned, entry.study.metrics, list(sets))
        had = tables.get(planned.number, {"arms": []})["arms"]
        known = {arm["name"] for arm in fresh["arms"]}
        order = [arm.name for table in entry.study.tables if table.number == planned.number for arm in table.arms]
        arms = [*fresh["arms"], *(arm for arm in had if arm["name"] not in known)]
        tables[planned.number] = fresh | {
            "arms": sorted(arms, key=lambda arm: order.index(arm["name"]) if arm["name"] in order else len(order))
        }
    numbers = [table.number for table in entry.study.tables]
    return dict(old) | {
        "data": dict(old["data"]) | {"external": list(sets.values())},
        "code": old.get("code", ""), "codes": codes,
        "repeats": len(plan.seeds), "seeds": list(plan.seeds), "trials": plan.trials,
        "search": plan.strategy.json() if plan.trials else old.get("search", {}),
        "objective": dict(old["objective"]) | ({"second": {"metric": plan.strategy.second, "direction": "minimize"}} if plan.strategy.second else {}),
        "space": {
            key: json.loads(distribution_to_json(dimension.distribution))["attributes"]
            | {"field": dimension.field, "when": {name: list(values) for name, values in dimension.when.items()}}
            for key, dimension in plan.space.items()
        },
        "tables": sorted(tables.values(), key=lambda table: numbers.index(table["number"]) if table["number"] in numbers else len(numbers)),
    }  # fmt: skip


def _other_code(codes: Sequence[Mapping[str, Any]], present: Mapping[str, Any]) -> list[str]:
    """Words for a study that was trained by other code so far."""
    rule = "code: results of other code are other results; --accept-code goes on with this study all the same, and the report says so"
    if not codes:
        return [f"{rule}. It was begun by a version that did not keep which code trained"]
    return [rule, *(f"  {line}" for line in code.difference(codes[-1], present))]


def code_of(folder: Path) -> str:
    """The fingerprint that the keys of a study in this folder are made with: that of its first command, or, of a new one, that of the code that
    runs; '' in studies of before it was kept."""
    study = read_study(folder)
    return code.fingerprint() if study is None else str(study.get("code", ""))


def _search_of(old: Mapping[str, Any], plan: Plan) -> Mapping[str, Any]:
    """How a study was searched; one that was not yet, or that is older than these words, agrees with whatever is asked."""
    asked = plan.strategy.json()
    return asked | dict(old["search"]) if old.get("search") and old["trials"] else asked


def _differences(was: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    for word, value in new.items():
        if isinstance(value, Mapping):
            keys = dict.fromkeys([*was[word], *value])
            found += [
                f"{word}.{key}: the study has {was[word].get(key)}, asked for {value.get(key)}"
                for key in keys
                if was[word].get(key) != value.get(key)
            ]
        elif was[word] != value:
            found.append(f"{word}: the study has {was[word]}, asked for {value}")
    return found


def with_confirmation(
    study: Mapping[str, Any], baseline_hash: str, best_hash: str, name: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The study with the table of the search's best point, on all seeds, beside the baseline."""
    example = study["tables"][0] if study["tables"] else {"metric": "test_accuracy", "metrics": ["test_accuracy"]}
    arms = [
        {"name": BASELINE, "published": None, "config_hash": baseline_hash, "overrides": {}},
        {"name": name, "published": None, "config_hash": best_hash, "overrides": dict(overrides)},
    ]
    table = {
        "number": "search", "title": "Best configuration of the search, on every seed", "metric": example["metric"], "metrics": example["metrics"],
        "dataset": "", "baseline_arm": BASELINE, "arms": arms if best_hash != baseline_hash else arms[:1],
    }  # fmt: skip
    return with_table(study, table)


def with_retunings(study: Mapping[str, Any], several: Iterable[Any]) -> dict[str, Any]:
    """The study with the searches of arms that are asked for, so that it is known from the folder when all have ended."""
    asked = {one["search"]: one for one in study.get("retuned", [])}
    for one in several:
        asked[one.name] = {"search": one.name, "arms": [list(arm) for arm in one.arms], "trials": one.plan.trials}
    return dict(study) | ({"retuned": list(asked.values())} if asked else {})


def race_decided(study: Mapping[str, Any]) -> bool:
    """Whether the search's best configurations have raced on all seeds, after all its trials."""
    race = study.get("race") or {}
    asked = (study["seeds"][1:], study["trials"])
    return race.get("winner") is not None and (race.get("seeds"), race.get("trials", study["trials"])) == asked


def chosen_by_searches(study: Mapping[str, Any]) -> set[str]:
    """Configurations that stand in tables which searches made: their models stay until another one has won."""
    tables = (table for table in study.get("tables", []) if table["number"] == "search" or table["number"].endswith("-retuned"))
    return {arm["config_hash"] for table in tables for arm in table["arms"]}


def with_table(study: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The study with a table that its search made, in place of an earlier one of that number, after the paper's."""
    return dict(study) | {"tables": [*(old for old in study["tables"] if old["number"] != table["number"]), dict(table)]}


def store_external(folder: Path, external: Mapping[str, External]) -> None:
    """Pack external sets into the study; those that it has stay, unless they are damaged."""
    for slug, other in external.items():
        stored = folder / "external" / slug
        if stored.exists():
            try:
                if load_pack(stored, verify=True).hash == other.pack.hash:
                    continue
            except RequestError:
                pass
            aside = folder / "external" / f".{slug}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            stored.rename(aside)
        save_pack(other.pack, stored)


def store_data(folder: Path, pack: Pack, parts: Mapping[str, Mapping[str, np.ndarray]]) -> Pack:
    """Pack the images into the study, one memory-mapped file that all runs of a node share through the page cache: no copy for each
    process, nothing that must fit into /dev/shm as Ray's object store must, and a study that can be read again without its source.
    `parts`: split name -> part -> indices; each is written as splits/<name>.csv."""
    for name, split in parts.items():  # before the images, which stand for all of it when a command that died is repeated
        of = {int(index): part for part, indices in split.items() for index in indices}
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["file", "label", "part"])
        rows.writerows([pack.files[index], pack.classes[pack.labels[index]], of[index]] for index in sorted(of))
        content = text.getvalue()
        write_atomically(folder / "splits" / f"{name}.csv", lambda path: path.write_text(content), "splits")  # noqa: B023 (called before the next turn)
    save_pack(pack, folder / "data")
    return load_pack(folder / "data")
