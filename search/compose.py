"""What a study is asked for, as study.json keeps it; and whether a new request agrees with what is there.
Comes in: a request, data, the study.json of before. Goes out: that of now, plain values. Pure. Exists so that the same command continues a
study, a larger one extends it, a smaller one leaves some of it unused, and one that contradicts it is refused with the difference shown."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import distribution_to_json

from search.ledger import now
from search.plan import BASELINE, Plan, PlannedTable
from search.registry import Entry
from search.study import SCHEMA, External
from trainables.data.pack import Pack
from trainables.data.size import size_baseline
from trainables.parts import code
from trainables.parts.errors import RequestError
from trainables.parts.procedure import config_values


def table_json(table: PlannedTable, metrics: Sequence[str], external: Sequence[str] = ()) -> dict[str, Any]:
    columns = [f"{part}_{metric}" for part in ("test", *(f"external_{name}" for name in external)) for metric in metrics]
    return {
        "number": table.number, "title": table.title, "metric": columns[0], "metrics": columns,
        "dataset": table.dataset, "external_dataset": table.external_dataset, "published_number": table.published_number or table.number,
        "baseline_arm": table.compare_with,
        "arms": [
            {"name": arm.name, "published": arm.published, "config_hash": arm.config_hash, "overrides": arm.overrides} | arm.marks
            for arm in table.arms
        ],
    }  # fmt: skip


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
    """study.json for this request: new, or the old one extended. RequestError with every difference that is a contradiction. accept_code:
    go on though other code is at work than before."""
    present = code.known() | {"since": now()}
    if old is None:
        old = _begun(entry, plan, name, preset, _described(entry, plan, source, pack), command, present)
    differences = _differences(_settled(old, plan), _wanted(entry, plan, preset, pack))
    if old["data"].get("relabelled", []) != source.get("relabelled", []):  # the hash alone does not say why
        differences.append("labels: with --relabel it has other labels, and those are another study; one study has one set of labels")
    codes = list(old.get("codes", []))
    if present["fingerprint"] not in [one["fingerprint"] for one in codes]:
        differences += [] if accept_code else _other_code(codes, present)
        codes.append(present)
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
    return dict(old) | {
        "data": dict(old["data"]) | {"external": list(sets.values())},
        "code": old.get("code", ""), "codes": codes,
        "repeats": len(plan.seeds), "seeds": list(plan.seeds), "trials": plan.trials,
        "most": {word: max(had, asked) for (word, had), asked in zip(most_of(old).items(), (plan.trials, len(plan.seeds)), strict=True)},
        "search": plan.strategy.json() if plan.trials else old.get("search", {}),
        "objective": dict(old["objective"])
        | ({"second": {"metric": plan.strategy.second, "direction": "minimize"}} if plan.strategy.second else {}),
        "space": {
            key: json.loads(distribution_to_json(dimension.distribution))["attributes"]
            | {"field": dimension.field, "when": {name: list(values) for name, values in dimension.when.items()}}
            for key, dimension in plan.space.items()
        },
        "tables": _tables(entry, plan, old["tables"], list(sets)),
    }  # fmt: skip


def _described(entry: Entry, plan: Plan, source: Mapping[str, Any], pack: Pack) -> dict[str, Any]:
    """The data as study.json keeps it."""
    parts = entry.procedure.parts(plan.baseline, pack, plan.seeds[0])
    counts = {label: int(count) for label, count in zip(pack.classes, np.bincount(pack.labels, minlength=len(pack.classes)), strict=True)}
    return dict(source) | {
        "hash": pack.hash, "classes": list(pack.classes), "images": len(pack.labels), "counts": counts,
        "parts": {part: len(index) for part, index in parts.items()}, "notes": list(pack.notes),
        "size_baseline": size_baseline(pack) if entry.procedure.baselines is None else None,
        "baselines": entry.procedure.baselines(plan.baseline, pack, parts) if entry.procedure.baselines is not None else [],
    }  # fmt: skip


def _begun(
    entry: Entry, plan: Plan, name: str, preset: str, data: Mapping[str, Any], command: str, present: Mapping[str, Any]
) -> dict[str, Any]:
    """A study of which nothing has been asked yet."""
    return {
        "schema": SCHEMA, "study": name, "procedure": entry.procedure.name, "preset": preset, "created": now(), "command": command,
        "objective": {"metric": entry.study.objective, "direction": entry.study.direction, "intermediate": entry.study.intermediate},
        "data": data, "seed": plan.seeds[0], "repeats": 0, "seeds": [], "trials": 0, "baseline": config_values(plan.baseline), "space": {},
        "tables": [], "search": plan.strategy.json(), "versions": present["versions"], "commit": present["commit"],
        "dirty": present["dirty"], "code": plan.code, "codes": [present],
    }  # fmt: skip


def _wanted(entry: Entry, plan: Plan, preset: str, pack: Pack) -> dict[str, Any]:
    """What may not change once a study is begun, by the words that people know."""
    return {
        "procedure": entry.procedure.name, "preset": preset, "data hash": pack.hash, "seed": plan.seeds[0],
        "objective": entry.study.objective,
        "search": plan.strategy.json() if plan.trials else {}, "settings": config_values(plan.baseline),
    }  # fmt: skip


def _settled(old: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The same of the study."""
    return {
        "procedure": old["procedure"], "preset": old["preset"], "data hash": old["data"]["hash"], "seed": old["seed"],
        "objective": old["objective"]["metric"], "search": _search_of(old, plan) if plan.trials else {}, "settings": old["baseline"],
    }  # fmt: skip


def _tables(entry: Entry, plan: Plan, old: Iterable[Mapping[str, Any]], sets: Sequence[str]) -> list[Mapping[str, Any]]:
    """The tables of before with those of this request, arms as the declaration orders them."""
    tables: dict[str, Mapping[str, Any]] = {table["number"]: table for table in old}
    for planned in plan.tables:
        fresh = table_json(planned, entry.study.metrics, sets)
        had = tables.get(planned.number, {"arms": []})["arms"]
        known = {arm["name"] for arm in fresh["arms"]}
        order = [arm.name for table in entry.study.tables if table.number == planned.number for arm in table.arms]
        arms = [*fresh["arms"], *(arm for arm in had if arm["name"] not in known)]
        tables[planned.number] = fresh | {
            "arms": sorted(arms, key=lambda arm: order.index(arm["name"]) if arm["name"] in order else len(order))
        }
    numbers = [table.number for table in entry.study.tables]
    return sorted(tables.values(), key=lambda table: numbers.index(table["number"]) if table["number"] in numbers else len(numbers))


def _other_code(codes: Sequence[Mapping[str, Any]], present: Mapping[str, Any]) -> list[str]:
    """Words for a study that was trained by other code so far."""
    rule = "code: results of other code are other results; --accept-code goes on with this study all the same, and the report says so"
    if not codes:
        return [f"{rule}. It was begun by a version that did not keep which code trained"]
    return [rule, *(f"  {line}" for line in code.difference(codes[-1], present))]


def _search_of(old: Mapping[str, Any], plan: Plan) -> Mapping[str, Any]:
    """How a study was searched; one that was not yet, or that is older than these words, agrees with whatever is asked."""
    asked = plan.strategy.json()
    return asked | dict(old["search"]) if old.get("search") and most_of(old)["trials"] else asked


def most_of(study: Mapping[str, Any]) -> dict[str, int]:
    """The trials and repeats that any command has asked of a study; the last one may have asked for less."""
    return {word: max(study[word], study.get("most", {}).get(word, 0)) for word in ("trials", "repeats")}


def unused(study: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In words, what stays of earlier commands that asked for more."""
    most, words = most_of(study), []
    others = {record["seed"] for record in records.values()} - set(study["seeds"])
    if study["repeats"] < most["repeats"]:
        kept = f"; runs of seed {', '.join(map(str, sorted(others)))} are kept and stay unused" if others else ""
        words.append(f"{study['repeats']} of {most['repeats']} repeats are asked for now{kept}; a later command may ask for more again")
    if study["trials"] < most["trials"]:
        ended = sum(record["trial"] is not None for record in records.values())
        words.append(
            f"{study['trials']} of {most['trials']} trials are asked for now; {ended} have ended, and all of them count. A later command "
            "may ask for more again"
        )
    return words


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
        "number": "search", "title": "Best configuration of the search, on every seed", "metric": example["metric"],
        "metrics": example["metrics"],
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
