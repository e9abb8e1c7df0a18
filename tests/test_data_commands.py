"""Behaviour of `data check` and `data synth`: what is printed, what is written, and with which status they end."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data_commands import check, synthesize
from trainables.data.pack import make_pack
from trainables.data.read import read_folder
from trainables.data.synthetic_clusters import cluster_set
from trainables.parts.errors import RequestError


@pytest.fixture(scope="module")
def pack():
    return cluster_set(8, seed=3)


@pytest.fixture
def folder(pack, tmp_path):
    synthesize(lambda: pack, tmp_path / "set", out=lambda _: None)
    return tmp_path / "set"


def said(folder, **how):
    lines = []
    status = check(folder, out=lines.append, **how)
    return status, "\n".join(lines)


def test_a_sound_folder_is_described_in_plain_lines_and_ends_with_0(folder):
    status, text = said(folder)
    assert status == 0 and text.splitlines()[-1] == "can be used"
    for part in (
        ": 32 images, 4 classes, ",
        "touching_overlapping",
        "25.0%",
        "width 224 / 224 / 224 px",
        "0 white",
        "0 pairs",
        "split",
        "size alone",
        "95 %",
    ):
        assert part in text
    assert "\x1b" not in text


def test_every_fault_and_leak_is_one_line_and_the_status_is_2(folder):
    manifest = folder / "manifest.csv"
    rows = manifest.read_text().splitlines()
    rows = [rows[0] + ",split", *(f"{row},{'train' if i % 2 else 'test'}" for i, row in enumerate(rows[1:]))]
    manifest.write_text("\n".join(rows))
    (folder / "instance" / "000000.png").write_bytes(b"")
    status, text = said(folder)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 2 and "2 errors" in text.splitlines()[-1]
    assert "instance/000000.png (empty file)" in errors[0] and errors[1].startswith(
        "error: leak: the split that comes with the data: a patient"
    )


def test_a_folder_is_checked_without_pytorch_and_ray():
    code = "import sys, search.data_commands; print({'torch', 'timm', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_missing_folder_is_one_error(tmp_path):
    status, text = said(tmp_path / "none")
    assert status == 2 and text.splitlines()[0].startswith("error: the data must be a folder") and text.splitlines()[1] == "1 error"


def test_one_image_with_two_labels_is_a_warning(folder):
    first = folder / "instance" / "copy.png"
    first.write_bytes((folder / "touching" / "000016.png").read_bytes())
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text() + "instance/copy.png,instance,p00001\n")
    status, text = said(folder)
    assert status == 0 and "warning: one image, two labels: instance/copy.png (instance) = touching/000016.png (touching)" in text


def test_names_with_brackets_are_printed_as_they_are(tmp_path):
    for name in ("[red]a", "b"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(cluster_set(2, seed=i).images[ord(name[0]) % 2]).save(tmp_path / name / f"{i}.png")
    assert "  [red]a" in said(tmp_path)[1]


def test_it_prints_to_the_standard_output_by_default(folder, capsys):
    assert check(folder) == 0
    assert capsys.readouterr().out.endswith("can be used\n")


def test_a_synthetic_set_is_written_as_a_folder_per_class_with_a_manifest(pack, tmp_path):
    lines = []
    assert synthesize(lambda: pack, tmp_path / "new" / "set", out=lines.append) == 0
    assert lines == [f"{tmp_path / 'new' / 'set'}: 32 images of 224 x 224 px in 4 classes ({', '.join(pack.classes)}), with manifest.csv"]
    assert read_folder(tmp_path / "new" / "set").hash == pack.hash
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["set"]


def test_a_set_without_patients_has_a_manifest_without_them(tmp_path):
    images = np.zeros((4, 20, 20), np.uint8)
    images[:, 5:9, 5:9] = np.array([50, 90, 150, 200])[:, None, None]
    pack = make_pack(images, [0, 0, 1, 1], ["a", "b"], ["a/0.png", "a/1.png", "b/2.png", "b/3.png"], None, np.ones((4, 2)))
    synthesize(lambda: pack, tmp_path / "set", out=lambda _: None)
    assert (tmp_path / "set" / "manifest.csv").read_text().splitlines()[:2] == ["file,label", "a/0.png,a"]


def test_a_folder_that_holds_files_and_a_file_are_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "x").write_text("x")
    for target, words in ((tmp_path, "holds files"), (tmp_path / "x", "is a file")):
        with pytest.raises(RequestError, match=words):
            synthesize(lambda: pytest.fail("drawn"), target)
    with pytest.raises(RequestError, match="must be writable"):
        synthesize(lambda: pytest.fail("drawn"), tmp_path / "x" / "deep" / "set")


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing_behind(pack, tmp_path):
    (tmp_path / "set").mkdir()

    def fail():
        raise RequestError("no")

    with pytest.raises(RequestError):
        synthesize(fail, tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["set"] and not any((tmp_path / "set").iterdir())
    assert synthesize(lambda: pack, tmp_path / "set", out=lambda _: None) == 0 and len(list((tmp_path / "set").iterdir())) == 5
