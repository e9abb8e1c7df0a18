"""Copies that are not equal: turned by any angle, resized, saved again, named as what they are; and different objects, which are no copies."""

import io

import numpy as np
import pytest
from PIL import Image

from trainables.data.copies import near_duplicates, near_pairs, shared_files, shared_images, ties_of
from trainables.data.look import look
from trainables.data.normal import Normal
from trainables.data.pack import make_pack
from trainables.data.read import read_folder
from trainables.data.readers import each
from trainables.data.scale import foreground_box, on_canvas
from trainables.data.stems import named_pairs
from trainables.data.synthetic_clusters import cluster_set
from trainables.data.synthetic_karyotypes import karyotype_set


@pytest.fixture(scope="module", params=["clusters", "karyotypes"])
def images(request):
    return (
        cluster_set(40, size=224, canvas=224, seed=4).images
        if request.param == "clusters"
        else karyotype_set(4, size=256, canvas=256, normal=Normal(width=24.0)).images[:160]
    )


def copied(image, how, rng):
    picture = Image.fromarray(image)
    if "turned" in how:
        picture = picture.rotate(float(rng.uniform(5, 355)), Image.Resampling.BICUBIC, expand=True)
    if "brightened" in how:
        gray = np.asarray(picture, float)
        picture = Image.fromarray(np.where(gray > 12, np.clip(255 * (gray / 255) ** 0.75 * 0.8 + 20, 13, 255), 0).astype(np.uint8))
    if "resized" in how:
        picture = picture.resize((picture.width * 7 // 10, picture.height * 7 // 10), Image.Resampling.BICUBIC)
    if "saved" in how:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=80)
        picture = Image.open(stream).convert("L")
    gray = np.array(picture)
    gray[gray <= 12] = 0
    return on_canvas(gray, max(*gray.shape, *image.shape), image.shape[0])


@pytest.mark.parametrize("how", ["turned", "saved", "resized", "turned, brightened", "turned, resized, saved"])
def test_copies_are_found_and_other_clusters_are_none(images, how, request):
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(images), 60, replace=False)
    both = np.concatenate([images, np.stack([copied(images[i], how, rng) for i in chosen])])
    found = {(i, j) for i, j, _, _ in near_duplicates(both)}
    true = {(int(i), len(images) + k) for k, i in enumerate(chosen)}
    # Homologues are drawn from one description: a few agree as copies do, so that copies must agree by more than they can after JPEG.
    drawn_alike = "karyotypes" in request.node.callspec.id
    assert len(found & true) / len(true) >= (0.95 if not drawn_alike else 0.75 if "turned" in how else 0.85)
    assert len(found - true) <= (6 if drawn_alike else 0)


def test_an_external_set_that_is_the_own_one_turned_and_saved_again_is_refused(images):
    rng = np.random.default_rng(0)

    def pack(some):
        labels = np.arange(len(some)) % 2
        return make_pack(some, labels, ["a", "b"], [f"{i}.png" for i in range(len(some))], None, np.ones((len(some), 2)))

    again = np.stack([copied(image, "turned, saved", rng) for image in images[:30]])
    assert "near duplicates of images in the study's own set" in shared_images(pack(images), pack(again)).refused
    assert not shared_images(pack(images[:60]), pack(images[60:120])).refused


def test_a_copy_by_its_name_is_tied_though_noise_hides_it(images):
    rng = np.random.default_rng(0)
    noisy = np.where(images[3] > 0, np.clip(images[3] + rng.normal(0, 45, images[3].shape), 1, 255), 0).astype(np.uint8)
    both = np.concatenate([images[:20], noisy[None]])
    names = [f"a/c{i}.png" for i in range(20)]
    found = {(i, j) for i, j, _, _ in near_duplicates(both, [*names, "a/c3_aug1.png"])}
    assert (3, 20) in found
    assert (4, 20) not in {
        (i, j) for i, j, _, _ in near_duplicates(np.concatenate([images[:20], images[30][None]]), [*names, "a/d4_aug1.png"])
    }


@pytest.mark.parametrize(
    "name",
    [
        "Copy of x7.png", "x7 - Copy.png", "x7 - Copy (2).png", "aug_x7.png", "rot90_x7.png", "x7_flipped_90.png", "x7_r90.png", "x7_hf.png",
        "x7_0_1234.jpeg", "a_original_x7.png_3f2a44de-11.png", "x7 (3).png", "x7_rot25_bright.png", "x7-kopie.tif",
    ],
)  # fmt: skip
def test_programs_names_for_copies_name_the_original(name):
    assert named_pairs(["a/x7.png", "a/x8.png", f"a/{name}"]) == [(0, 2)]


def test_other_names_name_no_original():
    assert named_pairs(["a/x7.png", "a/x8.png", "a/x9_m2.png", "a/x7_006.png", "a/x71.png"]) == []


def test_two_patients_are_tied_by_what_is_surely_one_image_alone():
    close = [(0, 1, 0.999, False), (0, 2, 0.991, True), (2, 3, 0.991, True)]
    assert ties_of(close, ("a", "b", "c", "c")) == ((0, 1), (2, 3))
    assert ties_of(close, None) == ((0, 1), (0, 2), (2, 3))
    assert ties_of(close, ("a", "b", "unknown: x/2.png", "c")) == ((0, 1), (0, 2), (2, 3)), "anybody's"


def tight(images, ground, folder, how="", rng=None):
    """Images cut to their object's box and three pixels, on a ground, as PNG; turned as Pillow turns without being asked for more: by the
    nearest pixel, within the frame, its corners black; or saved as JPEG."""
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        gray = np.pad(foreground_box(image), 3)
        picture = Image.fromarray(255 - gray if ground == "white" else gray)
        if "turned" in how:
            picture = picture.rotate(float(rng.uniform(5, 85)) + 90 * int(rng.integers(4)))
        if "squashed" in how:
            picture = picture.resize((64, 64), Image.Resampling.BILINEAR).rotate(90 * (i % 4))
        if "saved" in how:
            picture.save(folder / f"{how[:2]}{i}.jpg", quality=80)
        else:
            picture.save(folder / f"{how[:2]}{i}.png")


@pytest.mark.parametrize(
    ("ground", "how"), [("white", "turned"), ("white", "turned, saved"), ("black", "turned"), ("white", "squashed, saved")]
)
def test_copies_that_were_turned_in_their_frame_or_squashed_are_found(tmp_path, ground, how):
    own = cluster_set(8, size=224, canvas=224, seed=4).images
    tight(own, ground, tmp_path / "a")
    tight(own, ground, tmp_path / "b", how, np.random.default_rng(0))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    seen = list(each(lambda name: look(tmp_path / name, 8), names))
    columns = zip(*((s.upright, s.turned, s.shape, s.key, s.turns) for s in seen), strict=True)
    found = {(names[i], names[j]) for i, j, _, _ in near_pairs(*columns, names, [s.frame for s in seen])}
    true = {(f"a/{i}.png", f"b/{how[:2]}{i}.{'jpg' if 'saved' in how else 'png'}") for i in range(len(own))}
    assert len(found & true) >= 0.95 * len(true) and not found - true


@pytest.mark.parametrize("how", ["turned", "squashed, saved"])
def test_an_external_folder_that_is_the_own_one_turned_in_its_frame_or_squashed_and_saved_again_is_refused(tmp_path, how):
    images = cluster_set(6, size=224, canvas=224, seed=4).images
    tight(images[:12], "white", tmp_path / "own" / "a")
    tight(images[:12], "white", tmp_path / "again" / "a", how, np.random.default_rng(0))
    tight(images[12:], "white", tmp_path / "other" / "a")
    assert "near duplicates of images in the study's own set" in shared_files(tmp_path / "own", tmp_path / "again").refused
    assert not shared_files(tmp_path / "own", tmp_path / "other").refused


def test_a_study_keeps_copies_that_were_turned_in_their_frame_on_one_side(tmp_path):
    images = cluster_set(6, size=224, canvas=224, seed=4).images
    for label, some in (("a", images[:12]), ("b", images[12:])):
        tight(some, "black", tmp_path / label)
    Image.open(tmp_path / "a" / "3.png").rotate(35).save(tmp_path / "a" / "other.png")
    pack = read_folder(tmp_path, 224, 64)
    assert [{pack.files[i], pack.files[j]} for i, j in pack.ties] == [{"a/3.png", "a/other.png"}]
