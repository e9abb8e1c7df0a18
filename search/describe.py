"""All that can be asked of a procedure, on one page.
Comes in: an Entry. Goes out: its settings with units, its search space, tables, arms and presets; as text, or as values for a program.
The words on a setting are the comment on its line in the dataclass: there is no second place where they could be wrong."""

import inspect
import io
import tokenize
from dataclasses import fields
from typing import Any

from optuna.distributions import CategoricalDistribution
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.declared import spelled
from search.registry import Entry
from search_spaces._declare import Dimension
from trainables.parts.procedure import config_values


def comments(kind: type) -> dict[str, str]:
    """field -> the comment on its line, on the end of a definition of several lines, or on the lines above it."""
    source = inspect.getsource(kind)
    found: dict[str, str] = {}
    name = ""
    names = {entry.name for entry in fields(kind)}
    above: list[str] = []
    first = True  # token of a logical line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and first and token.string in names:
            name = token.string
            if above:
                found[name] = " ".join(above)
        if token.type == tokenize.COMMENT and first:
            above.append(token.string.lstrip("# "))
        elif token.type == tokenize.COMMENT and name:
            found[name] = token.string.lstrip("# ")
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL):
            first = first or token.type == tokenize.NEWLINE
            above = [] if token.type == tokenize.NEWLINE else above
        elif token.type != tokenize.COMMENT:
            first = False
    return found


def page(entry: Entry) -> dict[str, Any]:
    """Everything, as plain values."""
    study, procedure = entry.study, entry.procedure
    said = comments(procedure.config)
    return {
        "procedure": procedure.name,
        "about": (inspect.getdoc(inspect.getmodule(procedure.config)) or "").strip(),
        "settings": [
            {"name": name, "default": value, "about": said.get(name, "")} for name, value in config_values(procedure.config()).items()
        ],
        "objective": {"metric": study.objective, "direction": study.direction, "others": dict(study.objectives)},
        "space": [_dimension(name, dimension) for name, dimension in study.space.items()],
        "tables": [
            {
                "number": table.number, "title": table.title, "compared_with": table.compare_with,
                "arms": [
                    {"name": arm.name} | {part: dict(getattr(arm, part)) for part in ("overrides", "times", "plus", "along")}
                    for arm in table.arms
                ],
            }
            for table in study.tables
        ],
        "presets": [
            {
                "name": name, "title": preset.title, "overrides": dict(preset.overrides), "trials": preset.trials,
                "repeats": preset.repeats, "tables": list(preset.tables),
                "space": {key: None if one is None else _dimension(key, one) for key, one in preset.space.items()},
            }
            for name, preset in study.presets.items()
        ],
    }  # fmt: skip


def _dimension(name: str, dimension: Dimension) -> dict[str, Any]:
    distribution = dimension.distribution
    kind = "choices" if isinstance(distribution, CategoricalDistribution) else "log" if getattr(distribution, "log", False) else "even"
    when = {field: list(values) for field, values in dimension.when.items()}
    return {"name": name, "field": dimension.field, "range": spelled(distribution), "scale": kind, "when": when}


def show(found: dict[str, Any], out: Console) -> None:
    """The page on a terminal."""
    out.print(Text(found["about"]))
    _grid(out, "settings (--set name=value)", [(one["name"], _plain(one["default"]), one["about"]) for one in found["settings"]])
    rows = []
    for one in found["space"]:
        when = "; ".join(f"{field} {', '.join(map(str, values))}" for field, values in one["when"].items())
        rows.append((one["name"], one["range"] + (", log" if one["scale"] == "log" else ""), f"with {when}" if when else ""))
    objective = found["objective"]
    _grid(out, f"search space (--space name=low:high, --fix name=value); {objective['direction']} {objective['metric']}", rows)
    if objective["others"]:
        _grid(out, "other objectives (--objective)", [(name, metric, "") for name, metric in objective["others"].items()])
    for table in found["tables"]:
        title = f"table {table['number']} (--tables {table['number']}): {table['title']}; compared with {table['compared_with']}"
        _grid(out, title, [(arm["name"], _changes(arm), "") for arm in table["arms"]])
    for preset in found["presets"]:
        budget = f"{preset['trials']} trials, {preset['repeats']} seeds, tables {', '.join(preset['tables']) or 'none'}"
        for name, one in preset["space"].items():
            budget += f"; {name} {'is not searched' if one is None else one['range']}"
        _grid(out, f"--preset {preset['name']}: {preset['title']}", [(budget, _overrides(preset["overrides"]), "")])


def _grid(out: Console, title: str, rows: list[tuple[str, str, str]]) -> None:
    out.print()
    out.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row("", *(Text(word, overflow="fold") for word in row))
    out.print(table)


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)


def _changes(arm: dict[str, Any]) -> str:
    longer = {name: f"{factor} x the preset's" for name, factor in arm["times"].items()}
    longer |= {name: f"the preset's and its {more} beside" for name, more in arm["plus"].items()}
    return _overrides(arm["overrides"] | longer | {name: f"stretched as {field}" for name, field in arm["along"].items()})


def _overrides(values: dict[str, Any]) -> str:
    return (
        ", ".join(f"{name}={_plain(list(value) if isinstance(value, tuple) else value)}" for name, value in values.items())
        or "the baseline"
    )
