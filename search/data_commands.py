"""`python -m search data check` and `data synth`: a folder of images in, a short report out; a procedure's synthetic set as files.
Comes in: a folder, or a function that makes a `Pack`. Goes out: lines and an exit status, or PNG files with a manifest. Exists so that
a user sees what a data set holds, and what is wrong with it, before anything is trained."""

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from search.contact_sheet import page
from trainables.data.check import Findings, inspect_folder
from trainables.data.listing import MANIFEST, UNKNOWN
from trainables.data.pack import Pack
from trainables.data.words import count, few, shown
from trainables.parts.errors import RequestError
from trainables.parts.sealing import set_mode

NAMED = 3  # equal images under two labels, above which they are said in one line


def check(
    folder: str | Path,
    out: Callable[[str], object] = print,
    group: str = "patient",
    layout: str = "",
    html: Path | None = None,
    fix: Path | None = None,
) -> int:
    """Print what a folder of images holds. 0 where it can be used as it is, 2 where it cannot be read or a split of it leaks. layout: what
    the levels of folders are; html: where a page with images goes; fix: where a manifest of what was understood goes."""
    found = inspect_folder(folder, group=group, layout=layout)
    text = io.StringIO()
    _show(found, Console(file=text, width=120, color_system=None, force_terminal=False, highlight=False))
    report = text.getvalue().rstrip("\n")
    if out is print and sys.stdout.isatty():
        _show(found, Console(highlight=False))
    else:
        out(report)
    if html is not None:
        _write(html, page(found, report))
        out(f"page            {shown(str(html))}")
    if fix is not None:
        _write(fix, manifest_of(found))
        out(f"manifest        {shown(str(fix))}: as understood; correct it by hand, it decides over the folders' names")
    return 0 if found.ok else 2


def _write(path: Path, text: str) -> None:
    """A new file. RequestError where it is there already or cannot be written."""
    try:
        with path.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
    except FileExistsError:
        raise RequestError(f"'{shown(str(path))}' is there already; name a new file, or remove it") from None
    except OSError as fault:
        raise RequestError(f"the file must be writable, '{shown(str(path))}' is not ({fault.strerror}); choose another place") from None


def manifest_of(found: Findings) -> str:
    """A manifest with a line an image, as the folder was understood. RequestError where nothing was, or a name is no UTF-8."""
    listing = found.listing
    if listing is None or not listing.files:
        raise RequestError("--fix writes down what was understood, and no image was; name the levels of the folders with --layout")
    if odd := [name for name, file in zip(listing.names, listing.files, strict=True) if name != file]:
        raise RequestError(f"a manifest can name files in UTF-8 alone, {len(odd)} have other names: {few(odd)}; rename them first")
    columns = {
        "file": listing.files,
        "label": listing.labels,
        "patient": listing.patients or listing.owners or None,
        "split": listing.parts,
    }
    known = {name: values for name, values in columns.items() if values is not None}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(known)
    table.writerows(
        ["" if name == "patient" and value.startswith(UNKNOWN) else value for name, value in zip(known, row, strict=True)]
        for row in zip(*known.values(), strict=True)
    )
    return text.getvalue()


def _show(found: Findings, console: Console) -> None:
    for part in _report(found):
        console.print(part, soft_wrap=isinstance(part, Text))


def _report(found: Findings) -> Iterator[RenderableType]:
    total = sum(found.counts.values())
    if total:
        patients = "" if found.patients is None else f", {count(found.patients, 'patient')}"
        classes = f"{len(found.counts)} class{'es' if len(found.counts) != 1 else ''}"
        yield Text(f"{found.folder}: {count(total)}, {classes}{patients}", style="bold")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (("  class", "left"), ("images", "right"), ("share", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich's literal type
        for name, images in found.counts.items():
            table.add_row(Text(f"  {name}"), f"{images:,}", f"{images / total:.1%}")
        yield table
    for line in found.levels:
        word, _, rest = line.partition(": ")
        yield Text(f"{word + ' is':<16}{rest}")
    if found.sizes:
        (w0, w1, w2), (h0, h1, h2), (f0, f1, f2) = (found.sizes[name] for name in ("width", "height", "foreground"))
        yield Text(
            f"size            width {w0:.0f} / {w1:.0f} / {w2:.0f} px, height {h0:.0f} / {h1:.0f} / {h2:.0f} px (smallest / median / "
            "largest)"
        )
        yield Text(f"foreground      {f0:.0%} / {f1:.0%} / {f2:.0%} of the image")
        deep = f", {found.deep:,} of more than 8 bits" if found.deep else ""
        yield Text(f"background      {found.white:,} white (inverted when read), {found.black:,} black{deep}")
        named = f": {few([' = '.join(names) for names in found.duplicates], 3)}" if found.duplicates else ""
        yield Text(f"equal images    {count(len(found.duplicates), 'set')}{named}")
        near = [f"{p.first} ~ {p.second}{' (turned)' if p.turned else ''}" for p in found.near]
        yield Text(f"near duplicates {count(len(near), 'pair')}{': ' + few(near, 3) if near else ''}")
    if found.parts:
        way = (
            "as the data come"
            if found.given_parts
            else "by patient and equal images"
            if found.patients is not None
            else "by equal images; no patients are known"
        )
        yield Text(f"split           {', '.join(f'{name} {n:,}' for name, n in found.parts.items())} ({way})")
    if found.given_parts is not None:
        yield Text(f"given split     {', '.join(f'{name} {n:,}' for name, n in found.given_parts.items())}")
    if found.size_baseline is not None:
        b = found.size_baseline
        largest = max(found.counts.values()) / total
        yield Text(
            f"size alone      {b['accuracy']:.1%} right (95 % interval {b['low']:.1%} to {b['high']:.1%}, {b['folds']:.0f} folds); "
            f"always the largest class: {largest:.1%}"
        )
    for note in found.notes:
        yield Text(f"note            {note}")
    odd = [" = ".join(names) for names in found.conflicts]
    for words in odd if len(odd) <= NAMED else [f"{few(odd, NAMED)}; one of the labels is wrong: correct it"]:
        yield Text(f"warning: one image, two labels: {words}", style="yellow")
    for warning in found.warnings:
        yield Text(f"warning: {warning}", style="yellow")
    for fault in found.faults:
        yield Text(f"error: {fault}", style="red")
    for leak in found.leaks:
        yield Text(f"error: leak: {leak}", style="red")
    wrong = len(found.faults) + len(found.leaks)
    hints = len(found.warnings) + (len(odd) if len(odd) <= NAMED else 1)
    more = f", {count(hints, 'warning')}" if hints else ""
    yield Text((count(wrong, "error") if wrong else "can be used") + more, style="bold")


def prepare(name: str, source: Path, out: Path) -> int:
    """Turn a published download into a packed set; every procedure is asked whether it knows the data set. Its exit status."""
    from search import registry

    known = {word: way for procedure in registry.names() for word, way in registry.load(procedure).procedure.prepare.items()}
    if name not in known:
        raise RequestError(registry.unknown("data set", name, sorted(known)))
    if not source.is_dir():
        raise RequestError(f"no folder {source}; give the folder of the download")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(
            f"the packed set needs a new or empty folder, '{out}' {'holds files' if out.is_dir() else 'is a file'}; choose another name"
        )
    return known[name](source, out)


def synthesize_of(name: str, out: Path, *, images: int, seed: int, external: str | None) -> int:
    """Write a procedure's synthetic set, or an external one that comes with it. Its exit status."""
    from search import registry

    procedure = registry.load(name).procedure
    if external is None:
        return synthesize(lambda: procedure.synthesize(procedure.config(), images=images, seed=seed), out)
    others = procedure.external(procedure.config(), images=images, seed=seed) if procedure.external is not None else {}
    if external not in others:
        raise RequestError(registry.unknown("external set", external, sorted(others)) if others else f"{name} has no external set built in")
    return synthesize(lambda: others[external], out)


def synthesize(generate: Callable[[], Pack], folder: str | Path, out: Callable[[str], object] = print) -> int:
    """Write the pack that `generate` makes as PNG files, a folder per class, with a manifest. 0; RequestError unless `folder` is free or
    empty."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "holds files" if folder.is_dir() else "is a file"
        raise RequestError(f"the synthetic set needs a new or empty folder, '{folder}' {what}; choose another name")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise RequestError(f"the folder must be writable, '{folder.parent}' is not ({error.strerror}); choose another place") from None
    try:
        pack = generate()
        for name in pack.classes:
            (building / name).mkdir()
        with (building / MANIFEST).open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["file", "label", *([] if pack.patients is None else ["patient"])])
            for i, file in enumerate(pack.files):
                Image.fromarray(np.asarray(pack.images[i])).save(building / file)
                table.writerow([file, pack.classes[pack.labels[i]], *([] if pack.patients is None else [pack.patients[i]])])
        set_mode(building, 0o755)
        building.rename(folder)  # replaces an empty folder
    finally:
        shutil.rmtree(building, ignore_errors=True)
    side = f"{pack.images.shape[1]} x {pack.images.shape[2]}"
    out(f"{folder}: {count(len(pack))} of {side} px in {len(pack.classes)} classes ({few(pack.classes, 8)}), with {MANIFEST}")
    return 0
