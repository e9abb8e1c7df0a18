"""What an export carries for people who have timm alone: images read as training does, the same answers."""

import ast
import importlib.util
import json
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from search import loader
from search.export import _timm, _write_model
from search.registry import load
from trainables import scl, supcam
from trainables.data import alone
from trainables.parts.encoders import create_backbone, expect, kept
from trainables.parts.weights import STATISTICS, read_tensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One chromosome as laboratories send it: inverted, 16 bits, transparent, larger than the canvas, on its side, in two pages."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    made = []
    for number, (height, width) in enumerate([(30, 14), (120, 40), (44, 90), (61, 33), (20, 20), (50, 21), (33, 64)]):
        gray = np.zeros((height, width), np.uint8)
        gray[3:-3, 4:-4] = rng.integers(60, 250, (height - 6, width - 8))
        white = 255 - gray
        kinds = [
            (Image.fromarray(gray), ".png", {}),
            (Image.fromarray(white), ".jpg", {"quality": 90}),
            (Image.fromarray(white.astype(np.uint16) * 200), ".png", {}),
            (Image.fromarray(np.dstack([white] * 3 + [np.where(gray > 0, 255, 0).astype(np.uint8)])), ".png", {}),
            (Image.fromarray(white).convert("RGB"), ".bmp", {}),
            (Image.fromarray(white), ".tif", {"save_all": True, "append_images": [Image.fromarray(gray)]}),
            (Image.fromarray(white), ".jpg", {"exif": _on_its_side()}),
        ]
        image, end, how = kinds[number]
        made.append(folder / f"{number}{end}")
        image.save(made[-1], **how)
    return made


def _on_its_side():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


CASES = {
    "as it is": ("supcam", supcam.SupcamConfig(backbone="test_resnet", canvas=96, input_size=32)),
    "brought to one look, every turn": (
        "supcam",
        supcam.SupcamConfig(backbone="test_resnet", canvas=96, input_size=32, normal_width=9.0, normal_gray=190.0, every_turn=True),
    ),
    "half": ("supcam", supcam.SupcamConfig(backbone="test_resnet", canvas=96, input_size=32)),
    "upright, 0 to 1": (
        "scl",
        scl.SclConfig(backbone="test_resnet", canvas=64, input_size=32, normal_width=9.0, upright=True, normalise=False, head="paper"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_timm_and_the_export_s_loader_give_the_answers_of_predict(name, files, tmp_path):
    word, config = CASES[name]
    procedure, classes = load(word).procedure, tuple("abcd")
    network = create_backbone(config.backbone, channels=1, classes=4, weights="random", seed=3)
    with torch.no_grad():  # else it answers all alike
        network.fc.weight.mul_(100)
        seen = alone.load(files, procedure.timm_settings(config, classes))
        network.fc.bias.sub_(torch.stack([network.eval()(seen.rot90(turn, (2, 3))) for turn in range(4)]).mean((0, 1)))
    if "half" in name:  # as of weights whose mean and deviation are 0.5 and 0.3
        expect(network, torch.tensor([[0.5], [0.3]]))
    settings = _timm(load(word), config, classes, kept(network).get(STATISTICS))
    _write_model(tmp_path, kept(network), settings)
    tensors = read_tensors(tmp_path / "model.safetensors")
    assert settings["pretrained_cfg"]["mean"] == [0.5 if "half" in name else 0.0 if "0 to 1" in name else 0.449]
    (tmp_path / loader.NAME).write_text(loader.source())
    images, _, _, faults = procedure.read_images(files, config)
    ours = procedure.predict(config, tensors, images, classes, CPU)
    assert not faults and len(set(ours["prediction"])) > 1

    spec = importlib.util.spec_from_file_location("loader_of_an_export", tmp_path / loader.NAME)
    theirs = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = theirs  # dataclasses look their module up
    spec.loader.exec_module(theirs)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    found = theirs.predict(model, files, batch=3)
    assert [model.pretrained_cfg["label_names"][i] for i in found.argmax(1)] == ours["prediction"]
    assert found.numpy() == pytest.approx(np.array([ours[f"p_{one}"] for one in classes]).T, abs=2e-5)
    assert theirs.load(files).shape == (len(files), 1, 32, 32) and theirs.predict(model, []).shape == (0, 4)


def test_the_loader_needs_nothing_of_this_package():
    found = set()
    for node in ast.walk(ast.parse(loader.source())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(getattr(node, "module", None) or node.names[0].name).split(".")[0]}
    assert found - set(sys.stdlib_module_names) == {"numpy", "PIL", "scipy", "torch"}


def test_a_file_that_shows_nothing_or_cannot_be_read_is_refused_by_name(files, tmp_path):
    spec = importlib.util.spec_from_file_location("loader_that_refuses", tmp_path / loader.NAME)
    (tmp_path / loader.NAME).write_text(loader.source())
    (tmp_path / "config.json").write_text(json.dumps(supcam.timm_settings(CASES["as it is"][1], tuple("abcd"))))
    theirs = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = theirs
    spec.loader.exec_module(theirs)
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "blank.png")
    (tmp_path / "torn.png").write_bytes(files[0].read_bytes()[:40])
    for name, words in (("blank.png", "nothing but background"), ("torn.png", "cannot be used"), ("gone.png", "cannot be used")):
        with pytest.raises(ValueError, match=words):
            theirs.load([tmp_path / name])


def test_two_meanings_of_one_name_are_refused_rather_than_mixed():
    pieces = loader._Pieces()
    pieces.take("trainables.data.alone")
    pieces.texts["decode"] = ""
    with pytest.raises(RuntimeError, match="two modules define decode"):
        pieces.gathered(loader.ASKED)
