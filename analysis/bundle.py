"""What another laboratory or a reviewer needs of a study, without its images. In: a Study. Out: a zip file with a folder that is itself a study:
`python -m analysis` makes the same tables of it, intervals over patients included.

No image, no weights, no file name of an image, no folder of the machine; patients are numbered. SHA256SUMS has the hash of each file in it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from analysis import artefacts, methods
from analysis.report import paper_files, write_file
from analysis.study import Study, StudyError, mapping, without_folders

_LEFT_OUT = ("host", "worker", "lives", "check", "checkpoint")  # of a record: of the machine, or of what does not come along
_MOST_BYTES = 2 * 2**30  # of a bundle unpacked


def write_bundle(study: Study, path: Path) -> tuple[Path, int]:
    """The bundle, and how many files are in it. The same study gives the same bytes."""
    files = dict(_files(study))
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())).encode()
    out, top = io.BytesIO(), path.stem
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(f"{top}/{name}", (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return write_file(path, out.getvalue()), len(files)


def _files(study: Study) -> Iterator[tuple[str, bytes]]:
    asked = {k: v for k, v in study.asked.items() if k not in ("check", "halted")}
    yield "study.json", _text(_plain(asked))
    records = [study.detail(key) for key in study.records["key"]]
    lines = [json.dumps(_plain({k: v for k, v in r.items() if k not in _LEFT_OUT}), default=list) for r in records]
    yield "records.jsonl", "".join(f"{line}\n" for line in lines).encode()
    yield "versions.json", _text({"study": mapping(study.asked.get("versions")), "runs": sorted(set(study.records["versions"]))})
    yield "methods.md", methods.methods_md(study).encode()
    yield from ((f"tables/{name}", text.encode()) for name, text in paper_files(study).items())
    for name in ("request.toml", "trials.jsonl"):
        if (study.folder / name).is_file():
            yield name, without_folders((study.folder / name).read_text(encoding="utf-8")).encode()
    for slug in ("", *study.external_images):
        where = f"external/{slug}" if slug else "data"
        if artefacts.described(study, slug):
            people = artefacts.patients(study, slug)
            names = sorted(set(people) - {""})
            number = {name: f"p{i:0{len(str(len(names)))}}" for i, name in enumerate(names, 1)}  # in the order of their names, as sums are
            yield f"{where}/data.json", _text({"patients": [number.get(name) for name in people]})
    for path in sorted((study.folder / "splits").glob("*.csv")):
        yield f"splits/{path.name}", _split(path)
    for key in study.usable.loc[study.usable["status"] == "completed", "key"]:
        folder = artefacts.run_folder(study, key)
        if folder is not None and (folder / "result.json").is_file():
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            yield f"checkpoints/{key}/result.json", json.dumps({"predictions": mapping(result).get("predictions")}).encode()


def _split(path: Path) -> bytes:
    """Which image, by its number, is in which part."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["index", "label", "part"])
    writer.writerows([i, row.get("label", ""), row.get("part", "")] for i, row in enumerate(rows))
    return out.getvalue().encode()


def _plain(value: Any) -> Any:
    """Without folders of the machine, however deep."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def unpack(path: Path, into: Path) -> Path:
    """The study folder of a bundle below `into`. StudyError where it is none, or a file in it is not the one that was packed."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [i.filename for i in archive.infolist() if not i.is_dir()]
            tops = {PurePosixPath(name).parts[0] for name in names}
            outside = any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name for name in names)
            if len(tops) != 1 or outside or f"{next(iter(tops))}/SHA256SUMS" not in names:
                raise StudyError(f"{path} is no bundle of a study; make one with `python -m analysis STUDY_DIR --bundle FILE.zip`")
            if sum(i.file_size for i in archive.infolist()) > _MOST_BYTES:
                raise StudyError(f"{path} would unpack to more than {_MOST_BYTES // 2**30} GB and is not read")
            archive.extractall(into)
    except (OSError, zipfile.BadZipFile) as error:
        raise StudyError(f"{path} cannot be read as a zip file ({error}); copy it again") from None
    folder = into / next(iter(tops))
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise StudyError(f"{path}: {name} is missing or not the file that was packed; ask for the bundle again")
    return folder
