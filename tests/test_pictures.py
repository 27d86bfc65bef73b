"""Pictures: a scene in every form that programs write is one image; what shows nothing, or is no picture, is named."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import run_script, write_image
from PIL import Image, ImageCms, PngImagePlugin

from imaging.images import pictures_not_read, read_image
from imaging.levels import flat, white_of

HEIGHT, WIDTH = 24, 36
Y, X = np.mgrid[:HEIGHT, :WIDTH]


def spread(values: np.ndarray, low: int = 0, high: int = 255) -> np.ndarray:
    values = (values - values.min()) / np.ptp(values)
    return np.round(low + (high - low) * values).astype(np.uint8)


GREY = spread(np.sin(X / 5) + np.cos(Y / 4) + X / 40)
COLOUR = np.stack([spread(X + np.sin(Y)), spread(Y + np.cos(X)), spread(np.hypot(X - 18, Y - 12))], axis=2)
RAMP = spread(X)  # as alpha
SCENES = {"full": (GREY, COLOUR), "part": (spread(GREY, 20, 200), spread(COLOUR, 20, 200))}


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


def wide(levels: np.ndarray, bits: int = 16) -> np.ndarray:
    """8-bit levels on the scale of more bits."""
    return np.round(levels / 255 * (2.0**bits - 1)).astype(np.uint16 if bits <= 16 else np.uint32)


def shown(path: Path, window: tuple[float, float] | None = None) -> np.ndarray:
    return np.asarray(read_image(path, window)).astype(int)


def close(path: Path, expected: np.ndarray, levels: int = 1) -> bool:
    pixels = shown(path)
    return pixels.shape == expected.shape and int(np.abs(pixels - expected).max()) <= levels


def over_black(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.round(pixels * (alpha[:, :, None] / 255))


def pillow(pixels: np.ndarray, mode: str | None = None, **options) -> Callable[[Path], None]:
    image = Image.fromarray(pixels)
    return lambda path: (image.convert(mode) if mode else image).save(path, **options)


def tiff(pixels: np.ndarray, photometric: str = "minisblack", **options) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, photometric=photometric, **options)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, bits: int, colours: int, more: bytes = b"") -> bytes:
    """A PNG file, byte by byte: `colours` 0 is grey, 2 RGB, 4 grey with alpha; 8 values of 1 bit fill a byte."""
    rows = values.reshape(len(values), -1)
    if bits < 8:
        packed = np.pad(rows, ((0, 0), (0, -rows.shape[1] % (8 // bits)))).reshape(len(rows), -1, 8 // bits)
        rows = (packed << np.arange(8 - bits, -1, -bits)).sum(axis=2)
    content = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, colours, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def bare_tiff(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A TIFF file, byte by byte, little-endian, values packed to `bits`."""
    digits = ["".join(f"{value:0{bits}b}" for value in row) for row in values]
    lines = [row + "0" * (-len(row) % 8) for row in digits]
    packed = b"".join(int(line[k : k + 8], 2).to_bytes(1, "big") for line in lines for k in range(0, len(line), 8))
    data = values.astype("<u2").tobytes() if bits == 16 else packed
    height, width = values.shape
    short = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    tags = {tag: struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in short.items()}
    tags |= {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((273, 8), (279, len(data)))}
    entries = b"".join(tags[tag] for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def grey_forms(grey: np.ndarray) -> dict[str, Callable[[Path], None]]:
    """A grey scene as programs write it."""
    deep, unit = wide(grey), grey / 255
    opaque = np.full_like(grey, 255)
    forms = {
        "8.png": pillow(grey),
        "8.bmp": pillow(grey),
        "8.webp": pillow(grey, lossless=True),
        "8.pgm": pillow(grey),
        "8.jp2": pillow(grey),
        "palette.png": pillow(grey, "P"),
        "alpha.png": pillow(np.stack([grey, opaque], axis=2)),
        "palette.tif": tiff(grey, "palette", colormap=np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))),
        "narrow_palette.tif": tiff(grey, "palette", colormap=np.tile(np.arange(256, dtype=np.uint16), (3, 1))),
        "16.png": pillow(deep),
        "16_alpha.png": raw(png(np.stack([deep, wide(opaque)], axis=2), 16, 4)),
        "16.jp2": pillow(deep),
        "12.jp2": raw(imagecodecs.jpeg2k_encode(wide(grey, 12), level=0, bitspersample=12, codecformat="jp2")),
        "16.pgm": raw(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + deep.astype(">u2").tobytes()),
        "12.pgm": raw(b"P5 %d %d 4095\n" % (WIDTH, HEIGHT) + wide(grey, 12).astype(">u2").tobytes()),
        "8_in_16.png": pillow(grey.astype(np.uint16)),
        "left.png": pillow(grey.astype(np.uint16) * 16),
        "16.tif": tiff(deep),
        "big.tif": tiff(deep, bigtiff=True, byteorder=">"),
        "tiles.tif": tiff(deep, tile=(16, 16), compression="zstd"),
        "32.tif": tiff(wide(grey, 32)),
        "signed_16.tif": tiff((wide(grey, 12)).astype(np.int16)),
        "signed_32.tif": pillow(grey.astype(np.int32)),
        "imagej.tif": lambda path: tifffile.imwrite(path, deep, imagej=True),
        "jpeg_xl.tif": tiff(deep, compression="jpegxl"),
        "negative_32.tif": tiff((2**32 - 1 - wide(grey, 32).astype(np.int64)).astype(np.uint32), "miniswhite"),
        "negative_float.tif": tiff((1 - unit).astype(np.float32), "miniswhite"),
        "levels.tif": tiff(grey.astype(np.float32)),
        "percent.pfm": raw(b"Pf\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + unit[::-1].astype("<f4").tobytes()),
    }
    for bits in (10, 12, 14):
        forms[f"{bits}.png"] = pillow(wide(grey, bits))
        forms[f"{bits}_packed.tif"] = raw(bare_tiff(wide(grey, bits), bits, 1))
        forms[f"{bits}_packed_negative.tif"] = raw(bare_tiff(2**bits - 1 - wide(grey, bits), bits, 0))
    for kind in ("f2", "f4", "f8"):
        forms[f"{kind}.tif"] = tiff(unit.astype(kind), byteorder=">" if kind == "f8" else "<")
    for bits, levels in ((8, grey), (16, deep)):
        forms[f"{bits}_negative.tif"] = tiff(2**bits - 1 - levels, "miniswhite")
        for compression in ("lzw", "deflate", "packbits"):
            forms[f"{bits}_{compression}.tif"] = tiff(levels, compression=compression)
            options = {"byteorder": ">", "compression": compression}
            forms[f"{bits}_{compression}_negative.tif"] = tiff(2**bits - 1 - levels, "miniswhite", **options)
    return forms


def colour_forms(colour: np.ndarray) -> dict[str, Callable[[Path], None]]:
    """A coloured scene as programs write it."""
    opaque = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    deep, rgba = wide(colour), np.dstack([colour, opaque])
    forms = {
        "8.png": pillow(colour),
        "8.bmp": pillow(colour),
        "8.webp": pillow(colour, lossless=True),
        "8.ppm": pillow(colour),
        "8.jp2": pillow(colour),
        "alpha.png": pillow(rgba),
        "alpha.tif": pillow(rgba),
        "cmyk.tif": pillow(colour, "CMYK"),
        "big.tif": pillow(colour, big_tiff=True),
        "16.png": raw(png(deep, 16, 2)),
        "16_alpha.png": raw(png(wide(rgba), 16, 6)),
        "8_in_16.png": raw(png(colour.astype(np.uint16), 16, 2)),
        "12.png": raw(png(wide(colour, 12), 16, 2)),
        "16.ppm": raw(b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + deep.astype(">u2").tobytes()),
        "16.jp2": raw(imagecodecs.jpeg2k_encode(deep, level=0, codecformat="jp2")),
        "12.jp2": raw(imagecodecs.jpeg2k_encode(wide(colour, 12), level=0, bitspersample=12, codecformat="jp2")),
        "16_alpha.tif": tiff(wide(rgba), "rgb", extrasamples=["unassalpha"]),
        "16_not_alpha.tif": tiff(wide(np.dstack([colour, RAMP])), "rgb", extrasamples=["unspecified"]),
        "16_tiles.tif": tiff(deep, "rgb", tile=(16, 16), compression="lzw", byteorder=">"),
    }
    for name, levels in {"8": colour, "12": wide(colour, 12), "16": deep, "f2": np.float16(colour / 255)}.items():
        forms[f"{name}.tif"] = tiff(levels, "rgb")
        forms[f"{name}_planes.tif"] = tiff(np.moveaxis(levels, 2, 0), "rgb", planarconfig="separate")
    for compression in ("zstd", "lzma", "jpeg2000", "lerc", "png"):
        forms[f"8_{compression}.tif"] = tiff(colour, "rgb", compression=compression)
    return forms


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", grey_forms(GREY))
def test_a_grey_scene_in_every_form(name, scene, tmp_path):
    grey = SCENES[scene][0]
    grey_forms(grey)[name](tmp_path / name)
    assert close(tmp_path / name, rgb(grey)), read_image(tmp_path / name).info


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", colour_forms(COLOUR))
def test_a_coloured_scene_in_every_form(name, scene, tmp_path):
    colour = SCENES[scene][1]
    colour_forms(colour)[name](tmp_path / name)
    assert close(tmp_path / name, colour), read_image(tmp_path / name).info


def test_two_levels_and_few(tmp_path):
    """1 to 6 bits: the levels that the file can hold, spread over 0 to 255."""
    bits_of = {"1.png": GREY > 127, "1.bmp": GREY > 127, "1.pbm": GREY > 127, "fax.tif": GREY > 127}
    for name, dots in bits_of.items():
        Image.fromarray(dots).save(tmp_path / name, **({"compression": "group4"} if name == "fax.tif" else {}))
        assert np.array_equal(shown(tmp_path / name), rgb(255 * dots))
    for bits in (1, 2, 4, 6):
        top = 2**bits - 1
        few = np.round(GREY / 255 * top).astype(int)
        for photometric in (0, 1):
            (tmp_path / "a.tif").write_bytes(bare_tiff(few if photometric else top - few, bits, photometric))
            assert close(tmp_path / "a.tif", rgb(few * 255 / top))
        if bits < 6:
            (tmp_path / "a.png").write_bytes(png(few, bits, 0))
            assert close(tmp_path / "a.png", rgb(few * 255 / top), 0)


def test_lossy_forms(tmp_path):
    """To what the compression loses: JPEG in every kind of colours, and in a TIFF; a scene of smooth greys."""
    for name, mode in (("grey.jpg", "L"), ("rgb.jpg", "RGB"), ("cmyk.jpg", "CMYK"), ("a.jfif", "RGB")):
        Image.fromarray(rgb(GREY)).convert(mode).save(tmp_path / name, "JPEG", quality=100, subsampling=0)
        assert close(tmp_path / name, rgb(GREY), 3)
    options = {"compression": "jpeg", "compressionargs": {"level": 100}}
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack", **options)
    assert close(tmp_path / "a.tif", rgb(GREY), 3)
    tifffile.imwrite(tmp_path / "b.tif", rgb(GREY), photometric="rgb", **options)
    assert close(tmp_path / "b.tif", rgb(GREY), 3)


def test_lab_and_ycbcr_give_what_the_file_holds(tmp_path):
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    grey = Image.fromarray(rgb(SCENES["part"][0]))
    ImageCms.applyTransform(grey, ImageCms.buildTransform(srgb, lab, "RGB", "LAB")).save(tmp_path / "a.tif")
    assert close(tmp_path / "a.tif", np.asarray(grey))  # greys keep their lightness; colours lose some levels in 8 bits
    ycbcr = Image.fromarray(COLOUR).convert("YCbCr")
    ycbcr.save(tmp_path / "b.tif")
    assert close(tmp_path / "b.tif", np.asarray(ycbcr.convert("RGB")), 0)


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.uint16([0, 255]), 255),
        (np.uint16([0, 256]), 1023),
        (np.uint16([0, 1023]), 1023),
        (np.uint16([0, 3000]), 4095),
        (np.uint16([0, 4096]), 16383),
        (np.uint16([0, 16384]), 65535),
        (np.uint16([257, 514]), 65535),  # 8 bits spread over 16: a dark scene stays dark
        (np.int16([0, 17000]), 32767),
        (np.int16([-1, 3000]), None),
        (np.uint32([0, 4000]), 4095),
        (np.uint32([0, 100_000]), None),
        (np.uint32([0, 2**31]), 2**32 - 1),
        (np.float32([0, 0.9]), 1),
        (np.float32([0, 1.01]), None),  # overshoot of an interpolation, not a black picture of 8 bits
        (np.float32([0, 0.003]), None),
        (np.float32([0, 200]), 255),
        (np.float32([-0.1, 1]), None),
        (np.float32([0, 1e6]), None),
    ],
)
def test_what_is_white(values, white):
    assert white_of(values) == white


def test_what_was_done_is_said_and_a_window_replaces_it(tmp_path):
    values = np.linspace(1000, 3000, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").info["done"] == "16 bit, white is 4095"
    assert np.array_equal(shown(tmp_path / "a.png")[:, :, 0], np.round(values / 4095 * 255))
    windowed = np.clip((values - 1500.0) / 1000, 0, 1)
    assert np.array_equal(shown(tmp_path / "a.png", (1500, 2500))[:, :, 0], np.round(windowed * 255))
    assert read_image(tmp_path / "a.png", (1500, 2500)).info["done"] == "window 1500 to 2500"
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="miniswhite")
    assert np.array_equal(shown(tmp_path / "b.tif", (1500, 2500))[:, :, 0], np.round((1 - windowed) * 255))
    tifffile.imwrite(tmp_path / "c.tif", values.astype(np.int16) - 1024, photometric="minisblack")
    assert read_image(tmp_path / "c.tif").info["done"] == "lowest to highest value"
    assert np.array_equal(shown(tmp_path / "c.tif")[:, :, 0], np.round((values - 1000) / 2000 * 255))
    write_image(tmp_path / "d.png", 1)
    assert read_image(tmp_path / "d.png").info["done"] == ""
    assert read_image(tmp_path / "d.png", (0, 9)).info["done"] == "8 bits, without the window"
    tifffile.imwrite(tmp_path / "e.tif", values // 16, photometric="minisblack", extratags=[(281, "H", 1, 4095, True)])
    assert read_image(tmp_path / "e.tif").info["done"] == "16 bit, white is 4095"  # as the file says


def test_sixteen_bits_where_white_is_zero(tmp_path):
    """The same picture in 8 and in 16 bits, white as the lowest or the highest value."""
    grey = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    for bits, values in ((8, grey), (16, wide(grey))):
        for photometric in (0, 1):
            (tmp_path / "a.tif").write_bytes(bare_tiff(values, bits, photometric))
            expected = rgb(grey if photometric else 255 - grey)
            assert np.array_equal(shown(tmp_path / "a.tif"), expected)


def test_transparent_parts_are_black(tmp_path):
    """Whatever colours a file hides there: by alpha of any depth, premultiplied or not, or by a transparent level."""
    rgba = np.dstack([COLOUR, RAMP])
    black = over_black(COLOUR, RAMP)
    associated = np.dstack([black, RAMP]).astype(np.uint8)
    forms = {
        "a.png": pillow(rgba),
        "a.webp": pillow(rgba, lossless=True, exact=True),
        "a.tif": pillow(rgba),
        "a.jp2": pillow(rgba),
        "16.png": raw(png(wide(rgba), 16, 6)),
        "16.tif": tiff(wide(rgba), "rgb", extrasamples=["unassalpha"]),
        "f.tif": tiff(np.float32(rgba / 255), "rgb", extrasamples=["unassalpha"]),
        "multiplied.tif": tiff(associated, "rgb", extrasamples=["assocalpha"]),
        "16_multiplied.tif": tiff(wide(associated), "rgb", extrasamples=["assocalpha"]),
    }
    for name, write in forms.items():
        write(tmp_path / name)
        assert close(tmp_path / name, black)
        assert read_image(tmp_path / name).info["done"].endswith("black where it is transparent")
    for bits in (1, 2, 4, 8, 16):
        top = 2**bits - 1
        few = np.round(GREY / 255 * top).astype(int)
        hidden = struct.pack(">H", top)
        (tmp_path / "key.png").write_bytes(png(few, bits, 0, chunk(b"tRNS", hidden)))
        assert close(tmp_path / "key.png", rgb(np.where(few == top, 0, few * 255 / top)))
    palette = Image.fromarray(GREY).convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes([255] * 200 + [0] * 56))
    assert close(tmp_path / "palette.png", rgb(np.where(GREY < 200, GREY, 0)))
    Image.fromarray(np.dstack([COLOUR, 0 * RAMP])).save(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"nothing\.png: .*transparent everywhere"):
        read_image(tmp_path / "nothing.png")


STORED = {  # how a picture lies in a file with this orientation
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: np.rot90,
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_as_their_header_says(orientation, tmp_path):
    stored, grey = (np.ascontiguousarray(STORED[orientation](pixels)) for pixels in (COLOUR, GREY))
    exif = Image.Exif()
    exif[274] = orientation
    for name, options in (
        ("a.png", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("z.tif", {"compression": "lzw"}),
    ):
        Image.fromarray(stored).save(tmp_path / name, exif=exif, **options)
        assert close(tmp_path / name, COLOUR, 0)
        assert read_image(tmp_path / name).info["done"] == "turned as its header says" * (orientation > 1)
    Image.fromarray(stored).convert("CMYK").save(tmp_path / "cmyk.tif", exif=exif)
    assert close(tmp_path / "cmyk.tif", COLOUR, 0)
    Image.fromarray(wide(grey)).save(tmp_path / "16.png", exif=exif)
    tiff(wide(grey), extratags=[(274, "H", 1, orientation, True)])(tmp_path / "16.tif")
    assert close(tmp_path / "16.png", rgb(GREY), 0)
    assert close(tmp_path / "16.tif", rgb(GREY), 0)
    Image.fromarray(rgb(grey)).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert close(tmp_path / "a.jpg", rgb(GREY), 3)


def test_a_damaged_orientation_says_nothing(tmp_path):
    damaged = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x99" * 30
    for name in ("a.png", "a.jpg"):
        Image.fromarray(rgb(GREY)).save(tmp_path / name, exif=damaged, quality=100)
        assert close(tmp_path / name, rgb(GREY), 3)


def icc(gamma: float, space: bytes = b"RGB ", swap: bool = False) -> bytes:
    """An ICC profile of version 2, byte by byte: sRGB's primaries (or with red and blue swapped), a power law."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(65536 * number)) for number in numbers)

    primaries = [(0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)][:: -1 if swap else 1]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"
    white = (0.9642, 1.0, 0.8249)
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"a\0" + bytes(78), b"cprt": b"text\0\0\0\0\0\0\0\0"}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + fixed(*white)
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + fixed(*primary), name + b"TRC": curve}
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*white)
    return head.ljust(128, b"\0") + table + body


def linear(levels: np.ndarray) -> np.ndarray:
    """sRGB levels as light in [0, 1] (IEC 61966-2-1)."""
    unit = levels / 255
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)


def test_colour_profiles_are_followed_to_srgb(tmp_path):
    """Light, gamma and primaries in closed form; sRGB itself, and a profile that does not fit, change nothing."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey, soft = SCENES["part"][0], spread(COLOUR, 90, 180)
    light = linear(grey)
    coded = np.round(255 * light ** (1 / 1.8)).astype(np.uint8)
    swapped = np.round(255 * linear(soft[:, :, ::-1]) ** (1 / 2.2)).astype(np.uint8)
    forms = {
        "gamma.png": (pillow(coded, icc_profile=icc(1.8, b"GRAY")), rgb(grey)),
        "gamma.tif": (pillow(coded, icc_profile=icc(1.8, b"GRAY")), rgb(grey)),
        "alpha.png": (pillow(np.dstack([coded, 0 * coded + 255]), icc_profile=icc(1.8, b"GRAY")), rgb(grey)),
        "16.png": (pillow(wide(255 * light), icc_profile=icc(1, b"GRAY")), rgb(grey)),
        "16.tif": (tiff(wide(255 * light), iccprofile=icc(1, b"GRAY")), rgb(grey)),
        "16_rgb.tif": (tiff(wide(255 * linear(soft)), "rgb", iccprofile=icc(1)), soft),
        "swapped.png": (pillow(swapped, icc_profile=icc(2.2, swap=True)), soft),
        "swapped.webp": (pillow(swapped, icc_profile=icc(2.2, swap=True), lossless=True), soft),
        "16_swapped.tif": (tiff(wide(swapped), "rgb", iccprofile=icc(2.2, swap=True)), soft),
    }
    for name, (write, expected) in forms.items():
        write(tmp_path / name)
        assert close(tmp_path / name, expected, 1 if "swapped" not in name else 2), name
        assert "from its colour profile to sRGB" in read_image(tmp_path / name).info["done"]
    for name, profile, done in (
        ("srgb.png", srgb, ""),
        ("grey.png", icc(1.8, b"GRAY"), "without its colour profile: it is for GRAY"),
        ("damaged.png", b"no profile" * 20, "without its colour profile: it is damaged"),
    ):
        Image.fromarray(COLOUR).save(tmp_path / name, icc_profile=profile)
        assert close(tmp_path / name, COLOUR, 0)
        assert read_image(tmp_path / name).info["done"] == done
    Image.fromarray(GREY).save(tmp_path / "a.png", icc_profile=srgb)  # for three channels, but the picture has one
    assert close(tmp_path / "a.png", rgb(GREY), 0)


def test_a_png_says_its_gamma(tmp_path):
    """By the PNG standard, unless it is that of screens, or the file says that it is sRGB."""

    def gamma(number: int) -> bytes:
        return chunk(b"gAMA", struct.pack(">I", number))

    grey = SCENES["part"][0]
    deep = np.round(65535 * (grey / 255) ** 2.2).astype(int)
    (tmp_path / "linear.png").write_bytes(png(deep, 16, 0, gamma(100_000)))
    assert close(tmp_path / "linear.png", rgb(grey))
    old = np.round(255 * (COLOUR / 255) ** (2.2 / 1.8)).astype(int)
    (tmp_path / "old.png").write_bytes(png(old, 8, 2, gamma(55_556)))
    bright = COLOUR > 40  # darker ones lie closer than a level of the file
    assert np.abs(shown(tmp_path / "old.png") - COLOUR)[bright].max() <= 1
    for more in (gamma(45_455), gamma(0), chunk(b"sRGB", b"\0") + gamma(100_000)):
        (tmp_path / "a.png").write_bytes(png(COLOUR, 8, 2, more))
        assert close(tmp_path / "a.png", COLOUR, 0)


def test_the_first_page_is_read_and_that_is_said(tmp_path):
    others = [Image.fromarray(255 - GREY), Image.fromarray(GREY // 2)]
    for name in ("a.tif", "a.png", "a.gif"):
        Image.fromarray(GREY).save(tmp_path / name, save_all=True, append_images=others)
    Image.fromarray(GREY).save(tmp_path / "a.webp", save_all=True, append_images=others, lossless=True)
    stack = np.stack([wide(GREY), wide(255 - GREY), wide(GREY // 2)])
    tifffile.imwrite(tmp_path / "16.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", stack, imagej=True)  # one page, the others behind it
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="minisblack", ome=True)
    for path in tmp_path.iterdir():
        assert close(path, rgb(GREY)), path
        assert read_image(path).info["done"].endswith("page 1 of 3")


def test_a_suffix_need_not_be_right(tmp_path):
    for name, kind in (("a.jpg", "PNG"), ("a.png", "TIFF"), ("a.tif", "BMP"), ("a.bmp", "GIF"), ("b.png", "PPM")):
        Image.fromarray(GREY).save(tmp_path / name, kind)
        assert close(tmp_path / name, rgb(GREY), 0)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
NO_PICTURES = {
    "empty": (b"", "is empty"),
    "html": (b"<!DOCTYPE html>\n<html><body>404 Not found</body></html>", "web page"),
    "lfs": (LFS, "git lfs pull"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is text"),
    "json": (b'{"error": "quota"}', "is text"),
    "pdf": (b"%PDF-1.4\n%%EOF", "PDF"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
    "zip": (b"PK\x03\x04" + bytes(60), "ZIP"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "gzip"),
    "photoshop": (b"8BPS" + bytes(60), "Photoshop"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60), "HEIC"),
    "jxl": (b"\xff\x0a" + bytes(60), "JPEG XL"),
    "dicom": (bytes(128) + b"DICM" + bytes(60), "DICOM"),
    "zeros": (bytes(600), "zero bytes"),
    "noise": (b"\x17no picture\x00", "of no known kind"),
    "12_bit_jpeg": (imagecodecs.jpeg8_encode(wide(GREY, 12), bitspersample=12), "JPEG of 12 bits"),
    "lossless_jpeg": (imagecodecs.ljpeg_encode(wide(GREY, 12), bitspersample=12), "lossless JPEG"),
    "no_pages": (b"II*\0\0\0\0\0", "no pages"),
    "sensor": (bare_tiff(GREY, 8, 32803), "colours of kind CFA"),
    "no_width": (bare_tiff(GREY, 8, 1).replace(struct.pack("<HHIHH", 256, 3, 1, WIDTH, 0), b""), "image"),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture_is_named(kind, suffix, tmp_path):
    content, words = NO_PICTURES[kind]
    path = tmp_path / f"{kind}{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name}: .*{words}") as refused:
        read_image(path)
    assert "\n" not in str(refused.value)


def test_other_numbers_and_channels_are_refused(tmp_path):
    many = np.dstack([COLOUR, COLOUR[:, :, :2]])
    for name, write, words in (
        ("five.tif", tiff(many, planarconfig="contig"), "5 channels"),
        ("complex.tif", tiff((GREY + 1j).astype(np.complex64)), "complex64"),
        ("nan.tif", tiff(np.where(X == 3, np.nan, GREY / 255).astype(np.float32)), f"{HEIGHT} of its values are not"),
        ("volume.tif", tiff(np.stack([GREY] * 16), volumetric=True, tile=(16, 16, 16)), "its axes are ZYX"),
        ("large.tif", raw(bare_tiff(GREY, 8, 1).replace(struct.pack("<HHIHH", 257, 3, 1, HEIGHT, 0), LARGE)), "pixels"),
    ):
        write(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: .*{words}"):
            read_image(tmp_path / name)


LARGE = struct.pack("<HHII", 257, 4, 1, 2**31)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_files_are_refused(share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffers = {}
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "JPEG2000", "PPM", "TIFF"):
        Image.fromarray(noise).save(buffer := io.BytesIO(), kind)
        buffers[kind] = buffer.getvalue()
    buffers["16.png"] = png(wide(noise), 16, 2)
    for compression in (None, "deflate", "lzw", "zstd"):
        layout = {"tile": (16, 16)} if compression == "zstd" else {"rowsperstrip": 5}
        tifffile.imwrite(
            buffer := io.BytesIO(), wide(noise), photometric="rgb", compression=compression, metadata=None, **layout
        )
        buffers[f"{compression}.tif"] = buffer.getvalue()
    for name, content in buffers.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        assert shown(path).shape == noise.shape
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read as an image"):
            read_image(path)


def test_images_that_show_nothing():
    def judged(pixels: np.ndarray) -> str:
        return flat(Image.fromarray(pixels.astype(np.uint8)).convert("RGB"))

    rng, side = np.random.default_rng(0), 100
    black = np.zeros((side, side))
    marked = black.copy()
    marked[:10, :19] = 200  # a letter on an empty radiograph: 1.9%
    slice_ = black.copy()
    slice_[20:60, 20:60] = rng.integers(0, 200, (40, 40))  # a head on much black: 16%
    half = black.copy()
    half[:, 50:] = 255
    assert judged(black) == judged(black + 77) == "constant"
    assert judged(np.stack([black, black + 9, black + 200], axis=2)) == "constant"
    assert judged(marked) == judged(100 + rng.integers(0, 16, (side, side))) == "almost constant"
    assert judged(half) == "saturated"
    assert judged(slice_) == judged(100 + rng.integers(0, 32, (side, side))) == ""
    assert judged(np.stack([black, black, 255 - slice_], axis=2)) == ""


def test_no_phantom_shows_nothing(data_dir):
    audit = (data_dir / "Phantom_MRI" / "audit.csv").read_text(encoding="utf-8")
    assert "\nflat images,ok,0," in audit
    assert "\nlevels and colours,ok,0," in audit


BOX = '''"""Answers by brightness."""


def scores(images):
    mean = images.mean(axis=(1, 2, 3))
    return __import__("numpy").stack([mean, 1 - mean], axis=1)
'''


def test_by_the_command_lines(tmp_path, monkeypatch, capsys):
    """One scene in many forms is one picture to the audit and to --predict. Both tell of an image that shows nothing,
    and of files of kinds that are not read."""
    forms = ("8.png", "16.png", "16.tif", "16_negative.tif", "big.tif", "f4.tif", "8_in_16.png", "imagej.tif")
    for name in ("dark", "light"):
        folder = tmp_path / "S" / name
        for seed in range(12):
            write_image(folder / f"noise_{seed}.png", 100 * (name == "dark") + seed)
        for form in forms if name == "light" else ():
            grey_forms(SCENES["part"][0])[form](folder / form)
    Image.fromarray(np.full((20, 20), 700, np.uint16)).save(tmp_path / "S" / "dark" / "blank.png")
    (tmp_path / "S" / "dark" / "photo.heic").write_bytes(b"a picture")
    data = ("--dataset", "Mine", "--data_dir", tmp_path / "D")
    run_script("prepare_data", *data, "--source", tmp_path / "S")
    with (tmp_path / "D" / "Mine" / "audit.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    told = {row["check"]: row for row in rows if not row["images"]}
    images = {row["check"]: row["images"].split(" | ") for row in rows if row["images"]}
    assert set(images["identical images"]) == {f"light/{form}" for form in forms}
    assert (told["flat images"]["severity"], images["flat images"]) == ("warning", ["dark/blank.png"])
    assert told["pictures of other kinds"]["detail"] == "1 .heic"

    (tmp_path / "brightness.py").write_text(BOX)
    monkeypatch.syspath_prepend(tmp_path)
    capsys.readouterr()
    box = ("--classifier", "brightness:scores", "--scores", "probabilities", "--image_size", 16, "--channels", 1)
    draws = ("--sigma", 0.25, "--N0", 10, "--N", 50, "--seed", 1, "--outfile", tmp_path / "a.json")
    run_script("AE_DS_verify", *box, *data, *draws, "--predict", tmp_path / "S" / "light", tmp_path / "S" / "dark")
    printed, errors = capsys.readouterr()
    assert [line for line in printed.splitlines() if "constant image" in line and "blank.png" in line]
    assert "1 .heic not read" in errors
    answers = {Path(a["file"]).name: a for a in json.loads((tmp_path / "a.json").read_text())["answers"]}
    assert len({json.dumps({**answers[form], "file": "", "done": ""}) for form in forms}) == 1
    assert {a["warning"] for name, a in answers.items() if name != "blank.png"} == {""}
    assert pictures_not_read([tmp_path / "S", tmp_path / "S" / "dark" / "photo.heic"]) == {".heic": 1}


def test_comments_of_a_png_change_nothing(tmp_path):
    told = PngImagePlugin.PngInfo()
    told.add_text("Software", "a viewer")
    Image.fromarray(COLOUR).save(tmp_path / "a.png", pnginfo=told, dpi=(72, 72))
    assert close(tmp_path / "a.png", COLOUR, 0)
    assert set(read_image(tmp_path / "a.png").info) == {"mode", "format", "quantisation", "done"}
