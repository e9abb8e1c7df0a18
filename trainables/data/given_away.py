"""What ties images together or tells their class beside the objects that they show.
Comes in: a `Pack` and what each file was seen as. Goes out: the pack with its ties, and words. Exists so that an inspection and both ways
of reading say one thing of one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.data.burnt import Mark, burnt_in, said_of_marks
from trainables.data.copies import Framed
from trainables.data.overlaps import shared_fields
from trainables.data.pack import Pack
from trainables.data.size import told_by_files


@dataclass(frozen=True)
class GivenAway:
    pack: Pack  # with its ties
    fields: list[tuple[int, int]]  # pairs that show parts of one field
    marks: list[Mark]
    words: list[str]


def given_away(
    pack: Pack,
    looks: Mapping[int, tuple[Framed, Sequence[str]]],
    before: Sequence[tuple[int, int]] = (),
    after: Sequence[tuple[int, int]] = (),
) -> GivenAway:
    """looks: the frame and the file's traits of each image of the pack; of those without any object none. before, after: the pack's other
    ties, between which those of fields stand (a split that was drawn keeps to their order)."""
    place = sorted(looks)
    frames = [looks[i][0] for i in place]
    patients = None if pack.patients is None else [pack.patients[i] for i in place]
    pairs, words = shared_fields([frame.marks for frame in frames], patients, [pack.files[i] for i in place])
    fields = [(place[i], place[j]) for i, j in pairs]
    pack = pack.tied((*before, *fields, *after))
    marks = burnt_in({i: looks[i][0].corners for i in place}, pack)
    told = told_by_files([looks[i][1] if i in looks else () for i in range(len(pack))], pack)
    return GivenAway(pack, fields, marks, [*words, *told, *said_of_marks(marks)])
