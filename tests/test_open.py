"""What a file says beside its pixels, and what is ground in them."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from trainables.data.check import inspect_folder
from trainables.data.ground import on_black
from trainables.data.open import LARGEST, UnreadableError, decode, open_image, picture_of


@pytest.fixture
def gray():
    """uint8 (30, 20): an upright bar on black."""
    image = np.zeros((30, 20), np.uint8)
    image[4:26, 7:13] = np.random.default_rng(0).integers(60, 240, (22, 6))
    return image


def test_an_image_is_turned_as_its_viewer_shows_it(tmp_path, gray):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(gray)).save(tmp_path / "side.png", exif=exif)
    Image.fromarray(np.rot90(gray)).save(tmp_path / "side.tif", tiffinfo={274: 6})
    for name in ("side.png", "side.tif"):
        found = decode(tmp_path / name)
        assert found.turned
        np.testing.assert_array_equal(found.gray, gray)


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_colours_of_12_bits_keep_all_their_levels(tmp_path, bands, compression):
    deep = np.full((30, 20, bands), 4095, np.uint16)
    deep[4:26, 7:13, :3] = np.random.default_rng(0).integers(200, 3000, (22, 6, 1))
    if bands == 4:
        deep[..., 3] = 65535
    path = tmp_path / "deep.tif"
    plain = Image.frombytes("RGB" if bands == 3 else "RGBA", (20, 30), np.zeros((30, 20, bands), np.uint8).tobytes())
    plain.save(path)
    _as_16_bits(path, deep, compression)
    opened = open_image(path)
    np.testing.assert_array_equal(opened.deep, deep)
    found = decode(path)
    assert found.deep and found.inverted and len(np.unique(found.gray)) > 60
    assert np.count_nonzero(found.gray) == 22 * 6
    np.testing.assert_array_equal(picture_of(opened)[0], np.rint(deep[..., :3] * (255 / 4095)))  # of 12 bits, whatever is on it


def _as_16_bits(path, deep, compression):
    """A TIFF of 16 bits a band, which Pillow can read and not write: by hand where raw, by its own encoder of gray rows where packed."""
    height, width, bands = deep.shape
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in ((256, width), (257, height), (259, 1), (262, 2), (277, bands), (278, height), (284, 1)):
        info[tag] = value
    info[258] = (16,) * bands
    if bands == 4:
        info[338] = 2
    data = deep.astype("<u2").tobytes()
    if compression != "raw":
        wide = path.with_suffix(".gray.tif")
        Image.fromarray(deep.reshape(height, width * bands)).save(wide, compression=compression, tiffinfo={278: height})
        with Image.open(wide) as packed:
            offset, size = packed.tag_v2[273][0], packed.tag_v2[279][0]
            assert len(packed.tag_v2[273]) == 1
        data, info[259] = wide.read_bytes()[offset : offset + size], 5
    info[273], info[279] = 0, len(data)  # the offset is counted from the directory's end
    with path.open("wb") as stream:
        stream.write(b"II*\0" + (8).to_bytes(4, "little"))
        info._endian, info._next = "<", 0  # type: ignore[attr-defined]
        stream.write(info.tobytes(8))
        stream.write(data)


def test_a_png_of_16_bits_a_colour_keeps_them_too(tmp_path):
    import struct
    import zlib

    deep = np.full((30, 20, 3), 40, ">u2")
    deep[4:26, 7:13] = np.random.default_rng(0).integers(200, 1000, (22, 6, 1))
    lines = b"".join(b"\0" + row.tobytes() for row in deep)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20, 30, 16, 2, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(open_image(tmp_path / "x.png").deep, deep)


@pytest.mark.parametrize("kind", ["signed", "float", "cmyk", "palette", "bilevel", "upper"])
def test_every_kind_of_pixel_gives_the_same_object(tmp_path, gray, kind):
    path = tmp_path / {"cmyk": "x.jpg", "upper": "x.TIF", "palette": "x.png", "bilevel": "x.png"}.get(kind, "x.tif")
    if kind == "signed":
        Image.fromarray(gray.astype(np.int32) * 100 - 5000).save(path)
    elif kind == "float":
        Image.fromarray(gray.astype(np.float32) / 255).save(path)
    elif kind == "cmyk":
        Image.fromarray(gray).convert("CMYK").save(path, quality=95)
    elif kind == "bilevel":
        Image.fromarray(gray > 0).save(path)
    else:
        Image.fromarray(gray).convert("P" if kind == "palette" else "L").save(path)
    found = decode(path)
    assert abs(int(np.count_nonzero(found.gray)) - 132) <= (40 if kind == "cmyk" else 2) and not found.inverted


def test_a_file_of_several_pages_is_counted_and_named(tmp_path, gray):
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(6):
            other = np.roll(gray, i, 0) // 2 + gray // (i + 2)
            Image.fromarray(other).save(tmp_path / c / f"{i}.tif", save_all=True, append_images=[Image.fromarray(gray)])
    assert any("12 images with several pages: the first was taken (a/0.tif" in warning for warning in inspect_folder(tmp_path).warnings)


def test_a_file_too_large_for_one_object_is_named_before_its_pixels_are_read(tmp_path, monkeypatch):
    side = int(LARGEST**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "slide.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("read"))
    with pytest.raises(UnreadableError, match="whole slide"):
        decode(tmp_path / "slide.png")


def crop(dark=True, side=30):
    """An upright dark chromosome on white, cut to its own box: most of its border is chromosome."""
    y, x = np.mgrid[:60, :14]
    inside = ((x - 6.5) / 7) ** 2 + np.clip(np.abs(y - 29.5) - 24, 0, None) ** 2 / 40 < 1
    bands = 110 + 50 * np.sin(y / 4.0) + np.random.default_rng(0).normal(0, 6, y.shape)
    gray = np.where(inside, bands, 255.0).astype(np.float32)
    return (gray if dark else 255 - gray), inside


@pytest.mark.parametrize("dark", [True, False])
def test_a_crop_cut_to_its_object_loses_nothing_of_it(dark):
    gray, inside = crop(dark)
    found = on_black(gray)
    black, inverted, unsure = found.black, found.inverted, found.unsure
    assert inverted == dark and not unsure
    assert np.count_nonzero(black) / inside.sum() > 0.99


def test_a_crop_without_any_ground_is_said_to_be_unsure():
    noise = np.random.default_rng(0).integers(60, 200, (40, 40)).astype(np.float32)
    assert on_black(noise).unsure
    flat = np.zeros((40, 40), np.float32)
    flat[10:30, 10:30] = 90
    assert on_black(flat).unsure == "1 gray level, as a mask has"


def test_a_few_hot_pixels_do_not_darken_a_deep_image(tmp_path):
    deep = np.full((60, 60), 100, np.uint16)
    deep[10:40, 20:40] = np.random.default_rng(0).integers(400, 900, (30, 20))
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / "hot.png")
    assert np.count_nonzero(decode(tmp_path / "hot.png").gray) >= 600


def test_a_tiff_of_32_bits_without_a_sign_keeps_its_order(tmp_path, gray):
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", gray.astype(np.uint32) * 16_000_000)  # above 2**31 from 135 on
    found = decode(tmp_path / "deep.tif")
    assert np.corrcoef(found.gray.ravel(), gray.ravel())[0, 1] > 0.999


def test_tiffs_that_pillow_reads_as_other_values_are_refused_with_what_to_do(tmp_path, gray):
    import tifffile

    tifffile.imwrite(tmp_path / "signed.tif", gray.astype(np.int8))
    tifffile.imwrite(tmp_path / "planes.tif", np.stack([gray.astype(np.uint16) * 16] * 3), photometric="rgb", planarconfig="separate")
    for name, words in (("signed.tif", "8 bits with signs"), ("planes.tif", "planes of one colour")):
        with pytest.raises(UnreadableError, match=f"{words}.*save it"):
            decode(tmp_path / name)


def disc(radius=12, side=80):
    """bool (side, side), and the columns' numbers."""
    y, x = np.mgrid[:side, :side]
    return (y - 40) ** 2 + (x - 40) ** 2 < radius * radius, x


@pytest.mark.parametrize("ground", [30, 100, 128, 150, 230])
def test_an_object_half_brighter_and_half_darker_than_its_ground_is_said_to_have_lost_a_half(ground):
    gray = np.full((80, 80), float(ground), np.float32)
    inside, x = disc()
    gray[inside & (x < 40)], gray[inside & (x >= 40)] = max(ground - 70, 0), min(ground + 70, 255)
    assert "of what differs from its ground lies on the ground's other side and was cut off" in on_black(gray).unsure


@pytest.mark.parametrize("ground", [100, 128, 200])
@pytest.mark.parametrize("dark", [True, False])
def test_a_halo_is_no_object(ground, dark):
    gray = np.full((80, 80), float(ground), np.float32)
    gray[disc(15)[0]] += 55
    inside, _ = disc()
    gray[inside] = (ground - 80) + np.random.default_rng(0).normal(0, 6, inside.sum())
    found = on_black(gray if dark else 255 - gray)
    np.testing.assert_array_equal(found.black > 0, inside)


@pytest.mark.parametrize("how", ["tilted by 20", "tilted by 60", "tilted by 120", "darker to its corners", "noisy", "cloudy"])
@pytest.mark.parametrize("white", [True, False])
def test_ground_that_is_not_even_is_warned_of_where_it_is_taken_as_object(how, white):
    from scipy.ndimage import gaussian_filter

    rng, (inside, x) = np.random.default_rng(0), disc()
    y, columns = np.mgrid[-1:1:80j, -1:1:80j]
    clouds = gaussian_filter(rng.normal(0, 1, x.shape), 2)
    away = {
        "darker to its corners": 10 * (y * y + columns * columns), "noisy": rng.normal(0, 8, x.shape), "cloudy": clouds * (8 / clouds.std())
    }.get(how)  # fmt: skip
    gray = 240 - (float(how.split()[-1]) * x / 80 if away is None else away)
    gray[inside] = 90 + rng.normal(0, 6, inside.sum())
    gray = np.clip(gray if white else 255 - gray, 0, 255).astype(np.float32)
    found = on_black(gray)
    assert np.count_nonzero((found.black > 0) & ~inside) > 0.5 * inside.sum() and found.unsure


@pytest.mark.parametrize("fill", ["black", "white"])
@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize("saved", [True, False])
def test_the_corners_that_a_turn_leaves_are_no_object(tmp_path, fill, expand, saved):
    gray, inside = crop(fill == "black")
    ground = 255 if fill == "black" else 0
    gray = np.pad(gray, ((14, 14), (37, 37)), constant_values=ground).astype(np.uint8)
    turned = Image.fromarray(gray).rotate(30, expand=expand, fillcolor=255 - ground)
    path = tmp_path / ("x.jpg" if saved else "x.png")
    turned.save(path, **({"quality": 90} if saved else {}))
    found = decode(path)
    assert found.framed and found.inverted == (fill == "black")
    assert abs(np.count_nonzero(found.gray) / inside.sum() - 1) < 0.06


def test_an_overexposed_object_is_no_padding():
    inside, _ = disc(38)
    gray = np.where(inside, 255, 0).astype(np.float32)
    gray[30:50, 30:50] = np.random.default_rng(0).integers(20, 120, (20, 20))
    found = on_black(gray)
    assert not found.framed and not found.inverted and np.count_nonzero(found.black) > 0.9 * inside.sum()


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((30, 20, 3), np.float32, "3 bands of 32 bits \\(floating point\\)"),
        ((30, 20, 5), np.uint8, "5 bands of 8 bits \\(whole numbers, of which none is said to be a colour\\)"),
        ((30, 20, 4), np.uint8, "4 bands of 8 bits \\(whole numbers, of which none is said to be a colour\\)"),
        ((30, 20), np.float64, "1 band of 64 bits \\(floating point\\)"),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_that_is_not_read_is_called_what_it_is(tmp_path, shape, kind, words, big):
    import tifffile

    how = {"photometric": "rgb"} if shape[2:] == (3,) else {"photometric": "minisblack", "planarconfig": "contig" if shape[2:] else None}
    tifffile.imwrite(tmp_path / "x.tif", np.ones(shape, kind), bigtiff=big, **how)
    with pytest.raises(UnreadableError, match=f"a TIFF of {words}, which is not read; save it as gray or RGB of 8 or 16 bits"):
        decode(tmp_path / "x.tif")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_tiff_of_a_kind_that_is_read_is_no_other_kind(tmp_path, gray):
    (tmp_path / "x.tif").write_bytes(b"II*\0junkjunkjunk")
    with pytest.raises(UnreadableError, match="not an image"):
        decode(tmp_path / "x.tif")


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_fluorescence_in_one_colour_is_as_bright_as_in_gray(tmp_path, channel, mode):
    gray = np.zeros((20, 20), np.uint8)
    gray[4:16, 4:16] = np.random.default_rng(0).integers(20, 178, (12, 12))
    colour = np.zeros((20, 20, len(mode)), np.uint8)
    colour[..., channel] = gray
    if mode == "RGBA":
        colour[..., 3] = 255
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert np.array_equal(decode(tmp_path / "colour.png").gray, decode(tmp_path / "gray.png").gray)


def composite(offset=0, blue=60):
    """A nucleus in DAPI's blue with the spots of two probes, on black; and where the nucleus is."""
    colour, y = np.full((40, 40, 3), offset, np.uint8), np.arange(40)
    nucleus = (y[:, None] - 20) ** 2 + (y - 19) ** 2 < 14**2
    colour[nucleus, 2] += np.uint8(blue)
    colour[12:15, 18:21, 0], colour[24:27, 16:19, 1] = 230, 230
    return colour, nucleus


@pytest.mark.parametrize(("offset", "kind"), [(0, np.uint8), (12, np.uint8), (0, np.uint16)])
def test_a_composite_of_fluorescence_keeps_the_nucleus_under_its_spots(tmp_path, offset, kind):
    colour, nucleus = composite(offset)
    if kind is np.uint16:
        pytest.importorskip("tifffile").imwrite(tmp_path / "x.tif", colour.astype(kind) * 200, photometric="rgb")
    else:
        Image.fromarray(colour).save(tmp_path / "x.tif")
    gray = decode(tmp_path / "x.tif").gray
    assert np.array_equal(gray > 0, nucleus) and gray.max() > 200  # luma keeps the spots alone: 0.114 * 60 is ground


@pytest.mark.parametrize(("ground", "object_", "seen"), [((0, 0, 0), (120, 70, 150), 94), ((255, 255, 255), (100, 0, 200), 202)])
def test_a_stain_is_read_by_luma(tmp_path, ground, object_, seen):
    colour = np.full((20, 20, 3), ground, np.uint8)
    colour[4:16, 4:16] = object_
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert decode(tmp_path / "colour.png").gray.max() == seen  # 0.299 R + 0.587 G + 0.114 B


def test_a_tiff_of_two_bands_is_refused_unless_the_second_is_transparency(tmp_path):
    bands = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 2), np.uint8), "LA")
    bands.save(tmp_path / "alpha.tif")
    assert open_image(tmp_path / "alpha.tif").image.mode == "LA"
    extra = b"\x52\x01\x03\0\x01\0\0\0"  # the tag ExtraSamples, one short
    raw = (tmp_path / "alpha.tif").read_bytes()
    (tmp_path / "two.tif").write_bytes(raw.replace(extra + b"\x02", extra + b"\0"))
    with pytest.raises(UnreadableError, match="two bands, of which neither is said to be transparency"):
        open_image(tmp_path / "two.tif")
