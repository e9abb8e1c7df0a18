"""relabelling.csv, the marks of a report's image ledger, read back: what it changes is said, and the study is another one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_seen_elsewhere import written

from search import cli
from trainables.data.pack import Masks, load_pack, make_pack
from trainables.data.relabel import Relabelling
from trainables.parts.errors import RequestError

HEAD = "file,patient,label,new_label,mark\n"


def drawn():
    shapes = [np.ones((2, 1 + i), bool) for i in range(6)]
    images = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    names = [f"{kind}/{i}.png" for i, kind in enumerate("aabbbc")]
    made = make_pack(
        images, [0, 0, 1, 1, 1, 2], ["a", "b", "c"], names, list("ppqqrr"), np.ones((6, 2)), ["read"],
        ["train", "val", "test"] * 2, Masks.of(shapes),
    )  # fmt: skip
    return replace(made, ties=((0, 1), (4, 5), (2, 3)))


def marks(path, *lines, head=HEAD):
    path.write_text(head + "".join(f"{line}\n" for line in lines), encoding="utf-8-sig")
    return path


def test_marks_change_labels_and_leave_images_out_and_nothing_else(tmp_path):
    pack = drawn()
    lines = ("a/1.png,p,a,c,relabel", '"b/3.png","q","b","","leave out"')
    found = Relabelling.read(marks(tmp_path / "relabelling.csv", *lines)).of(pack)
    left = [0, 1, 2, 4, 5]
    assert found.labels.tolist() == [0, 2, 1, 1, 2] and found.files == tuple(pack.files[i] for i in left)
    assert np.array_equal(found.images, pack.images[left]) and found.patients == tuple("ppqrr")
    assert found.parts == tuple(pack.parts[i] for i in left) and found.ties == ((0, 1), (3, 4))
    assert [mask.shape for mask in found.masks.each(np.arange(5))] == [(2, 1 + i) for i in left]
    assert found.hash not in (pack.hash, replace(pack, notes=()).hash) and found.notes[0] == "read"
    assert "relabelling.csv gives 1 image another label (a to c 1) and leaves out 1 image" in found.notes[-1]
    names = (" b/2.png", *pack.files[1:])
    spaced = marks(tmp_path / "spaced.csv", '" b/2.png","p","a","c","relabel"', '"b/3.png ","q","b","","leave out"')
    assert Relabelling.read(spaced).of(replace(pack, files=names)).labels.tolist() == [2, 0, 1, 1, 2], "a name may begin with a space"
    again = marks(tmp_path / "sheet.csv", *(line.replace(",", ";") for line in lines), head=HEAD.replace(",", ";"))
    assert Relabelling.read(again).of(pack).hash == found.hash, "a spreadsheet's semicolons say the same"
    for data, other in ((pack.hash[:16], False), ("0123456789abcdef", True)):
        named = Relabelling.read(marks(tmp_path / "named.csv", f"a/1.png,p,a,c,relabel,{data}", head=HEAD.replace("mark", "mark,data")))
        assert ("made beside a set of hash 0123456789abcdef" in named.of(pack).notes[-1]) == other
    later = Relabelling.read(marks(tmp_path / "later.csv", "a/1.png,p,c,b,relabel")).of(found)
    assert later.labels.tolist() == [0, 1, 1, 1, 2] and len(later.notes) == 3, "marks of a relabelled study come on top"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a/9.png,p,a,b,relabel", "names files that the data have not, 1: a/9.png; correct or remove it"),
        ("a/1.png,p,a,d,relabel", "names labels that are no class, 1: d; the classes are a, b, c"),
        ("a/1.png,p,b,c,relabel", "was made of other labels than these data have now, 1: a/1.png"),
        ("a/0.png,p,a,c,relabel", "names files twice, 1: a/0.png"),
        ("a/1.png,p,a,,relabel", "line 3: mark must be 'relabel' with a new_label"),
        ("a/1.png,p,a, A ,relabel", "line 3: new_label is the label that the image has, 'a'; remove the line"),
        ("a/1.png,p,a,b,perhaps", "line 3: mark must be 'relabel' with a new_label"),
        ("c/5.png,r,c,b,relabel", "leaves no image of c"),
    ],
)
def test_marks_that_do_not_fit_the_data_are_refused(tmp_path, line, words):
    path = marks(tmp_path / "relabelling.csv", "a/0.png,p,a,b,relabel", line)
    with pytest.raises(RequestError) as fault:
        Relabelling.read(path).of(drawn())
    assert words in str(fault.value)
    for text in ("", "file,label\na/0.png,a\n", HEAD):
        path.write_text(text)
        with pytest.raises(RequestError, match="--relabel"):
            Relabelling.read(path)


@pytest.mark.slow
def test_a_study_with_marks_is_another_one_that_says_what_they_changed_and_goes_on(inside, toy_pack, tmp_path, capsys):
    folder = written(tmp_path / "images", toy_pack)
    asked = ("--data", str(folder), "--preset", "quick", "--trials", "0", "--tables", "1", "--arms", "plain", "--repeats", "1")
    changed = toy_pack.classes[1 - toy_pack.labels[0]] if len(toy_pack.classes) == 2 else toy_pack.classes[toy_pack.labels[0] - 1]
    rows = (
        f"{toy_pack.files[0]},,{toy_pack.classes[toy_pack.labels[0]]},{changed},relabel",
        f"{toy_pack.files[1]},,{toy_pack.classes[toy_pack.labels[1]]},,leave out",
    )
    path = marks(tmp_path / "relabelling.csv", *rows)
    assert inside(*asked, "--name", "old") == 0
    assert inside(*asked, "--relabel", str(path)) == 0
    assert "gives 1 image another label" in capsys.readouterr().out
    old, new = (inside.storage / name for name in ("old", "toy-quick-images-relabelled"))
    was, now = (json.loads((one / "study.json").read_text())["data"] for one in (old, new))
    assert now["hash"] != was["hash"] and now["images"] == was["images"] - 1 == len(load_pack(new / "data"))
    assert now["relabelled"][0]["images"][1] == [toy_pack.files[1], toy_pack.classes[toy_pack.labels[1]], ""]
    assert "Labels: relabelling.csv gives 1 image another label" in (new / "methods.md").read_text()
    assert cli.main(["check", str(new)]) == 0
    capsys.readouterr()
    assert cli.main(["toy", "--request", str(new / "request.toml")]) == 0, "its own request has the marks too"
    before = {one: one.read_bytes() for one in old.rglob("*") if one.is_file() and one.name != ".lock"}
    for more in ((), ("--accept-code",)):
        assert inside(*asked, "--name", "old", "--relabel", str(path), *more) == 2
        said = capsys.readouterr().err
        assert "data hash" in said and "labels: with --relabel" in said, "the study of the old labels does not take new ones"
    assert before == {one: one.read_bytes() for one in old.rglob("*") if one.is_file() and one.name != ".lock"}
    assert inside(*asked[2:], "--relabel", str(path)) == 2 and "name --data" in capsys.readouterr().err
