"""Where a study's images come from: a folder, the built-in set, or the study itself, where its source has not changed since.
Comes in: a Request and the baseline. Goes out: Packs, and what study.json says of them. Exists so that a command which has nothing to
do does not read ten thousand images to find that out."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search.home import place_of
from search.registry import Entry
from search.request import Request
from search.study import External, external_names, external_packs, name_external
from trainables.data.copies import shared_files, shared_images
from trainables.data.pack import Pack, load_pack
from trainables.data.relabel import Relabelling
from trainables.parts.errors import RequestError
from trainables.parts.procedure import config_values

SIMULATED = "simulated_elsewhere"  # the external set that is made of the study's own images


@dataclass
class Source:
    """What was read. about: for study.json's `data`; signatures: of the external sets, by name."""

    pack: Pack
    about: dict[str, Any]
    external: dict[str, External] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)


def signature(folder: Path) -> str:
    """A digest of the names, sizes and times of change of the files of a folder: equal where nothing was touched."""
    found = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(root, name)
            with suppress(FileNotFoundError):
                about = os.stat(path)
                found.update(f"{os.path.relpath(path, folder)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def with_signatures(study: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """study.json with what its sources look like now."""
    data = dict(study["data"])
    if "signature" in source.about:
        data["signature"] = source.about["signature"]
    data["external"] = [
        known | ({"signature": source.signatures[known["slug"]]} if known["slug"] in source.signatures else {})
        for known in data.get("external", [])
    ]
    return dict(study) | {"data": data}


class Reader:
    """Reads for one request. old: study.json as it is; folder: the study's."""

    def __init__(self, entry: Entry, request: Request, config: Any, folder: Path, old: Mapping[str, Any] | None) -> None:
        self.entry, self.request, self.config, self.folder = entry, request, config, folder
        same = old is not None and old["baseline"] == config_values(config)  # another one may see the same images otherwise
        self.data: Mapping[str, Any] = old["data"] if old is not None else {}
        self.kept = self.data if same else {}
        self.old: Mapping[str, Any] = old["baseline"] if old is not None else {}
        self.seen: Pack | None = None  # the study's own images as another laboratory's, where they were read with them

    def own(self, synthetic: Mapping[str, int] | None) -> Source:
        """The study's images. synthetic: how the built-in set is drawn, where no folder is named. RequestError with every fault."""
        if synthetic is not None:
            if self.request.relabel:
                raise RequestError("--relabel is for images of --data: the labels of the built-in set are known, and right; name --data")
            return Source(self._synthetic(synthetic), {"source": "synthetic", "synthetic": dict(synthetic)})
        data = self.request.data
        assert data is not None
        about: dict[str, Any] = {"source": place_of(data), "signature": signature(data)}
        marks = [Relabelling.read(path) for path in self.request.relabel]
        if marks:
            about |= {"signature": " ".join([about["signature"], *(one.digest for one in marks)]), "relabelled": [m.json() for m in marks]}
        if self.kept.get("signature") == about["signature"]:
            with suppress(RequestError):  # damaged, or not there yet: read anew
                pack = load_pack(self.folder / "data", verify=True)
                if pack.hash == self.kept["hash"]:
                    return Source(pack, about)
        return Source(self._read(data, marks), about)

    def _read(self, data: Path, marks: Sequence[Relabelling]) -> Pack:
        """The study's images, and into `seen` those of another laboratory, each file read once."""
        procedure = self.entry.procedure
        if procedure.elsewhere is None or not self._simulated():
            pack = procedure.read(data, self.config)
            for one in marks:
                pack = one.of(pack)
            return pack
        pack, seen = procedure.elsewhere(data, self.config)
        for one in marks:
            pack, seen = one.of(pack), replace(one.of(seen), notes=seen.notes)
        self.seen = replace(seen, copy_of=pack.hash)
        return pack

    def _simulated(self) -> bool:
        """Whether nobody has named another laboratory's images. A study of before has none, and none are made."""
        had = external_names({"data": self.data})
        return self.request.data is not None and not self.request.external and (SIMULATED in had or not self.data)

    def _synthetic(self, synthetic: Mapping[str, int]) -> Pack:
        """The built-in set; a study that has it already keeps it."""
        if self.data.get("synthetic") == synthetic and (self.folder / "data").exists() and self._same_sizes():
            with suppress(RequestError):  # damaged: it is drawn anew, and put in its place
                return load_pack(self.folder / "data", verify=True)
        return self.entry.procedure.synthesize(self.config, **synthetic)

    def _same_sizes(self) -> bool:
        return all(
            self.old.get(name) == getattr(self.config, name, None)
            for name in ("input_size", "canvas", "normal_width", "normal_gray", "upright", "straighten")
        )

    def outside(self, source: Source) -> None:
        """Put the external sets into `source`: those named, or those that come with the built-in set. RequestError with all faults."""
        faults: list[str] = []
        for slug, folder in name_external(self.request.external).items():
            source.signatures[slug] = signature(folder)
            if (same := self._unchanged(slug, source)) is not None:
                source.external[slug] = External(place_of(folder), same)
                continue
            try:
                source.external[slug] = External(place_of(folder), self._other(folder, source.pack))
            except RequestError as fault:
                faults += fault.faults
        if faults:
            raise RequestError(*faults)
        if self.request.data is None and not source.external and self.entry.procedure.external is not None:
            source.external = self._with_built_in(source.about["synthetic"])
        if self.request.data is not None and self.entry.procedure.elsewhere is not None and self._simulated():
            source.external = self._seen_elsewhere(self.request.data, source)

    def _seen_elsewhere(self, data: Path, source: Source) -> dict[str, External]:
        """The study's own images, as another laboratory would show them."""
        source.signatures[SIMULATED] = source.about["signature"]
        if self.seen is None and (kept := self._unchanged(SIMULATED, source)) is not None:
            self.seen = kept
        if self.seen is None:  # the study's own are kept, and these were lost
            self._read(data, [Relabelling.read(path) for path in self.request.relabel])
            assert self.seen is not None
        test = self.entry.procedure.parts(self.config, source.pack, self.request.seed)["test"]
        return {SIMULATED: External("the study's own images", self.seen, test)}

    def _unchanged(self, slug: str, source: Source) -> Pack | None:
        """The packed set of an external folder, where neither it nor the study's own source was touched."""
        known = next((known for known in self.kept.get("external", []) if known["slug"] == slug), None)
        own = "signature" not in source.about or self.kept.get("signature") == source.about["signature"]
        if known is None or not own or known.get("signature") != source.signatures[slug]:
            return None
        with suppress(RequestError):
            pack = external_packs(self.folder, [slug], verify=True)[slug]
            return pack if pack.hash == known["hash"] else None
        return None

    def _other(self, folder: Path, pack: Pack) -> Pack:
        try:
            other = self.entry.procedure.read(folder, self.config, pack.classes)
        except RequestError as fault:
            raise RequestError(*(f"--external {folder}: {line}" for line in fault.faults)) from None
        own = self.request.data
        if own is None or any((place / "data.json").exists() for place in (own, folder)):
            both = shared_images(pack, other)
        else:
            both = shared_files(own, folder)
        if both.refused:
            raise RequestError(f"--external {folder}: {both.refused}; an external set must hold other images than the study's own")
        return replace(other, notes=(*other.notes, f"look at them: {both.doubtful}")) if both.doubtful else other

    def _with_built_in(self, synthetic: Mapping[str, int]) -> dict[str, External]:
        assert self.entry.procedure.external is not None
        kept: dict[str, Pack] = {}
        if self.data.get("synthetic") == synthetic and (self.folder / "external").exists():
            with suppress(RequestError):  # damaged
                kept = external_packs(self.folder, external_names({"data": self.data}), verify=True)
        made = kept or self.entry.procedure.external(self.config, **synthetic)
        return {slug: External("synthetic", other) for slug, other in made.items()}
