"""DICOM files: their grey levels and colours as pydicom and the standard have them, and what is refused by name."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import pixels as reference
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from imaging import dicom, jpeg
from imaging.images import find_images, read_image, slices_of
from imaging.lookup import expanded

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
BESIDE = {".txt", ".json", ".dump", ".gz", ".icc", ".md"}  # what else lies there
FILES = sorted(path for path in SHIPPED.rglob("*") if path.is_file() and path.suffix not in BESIDE)
# Where we differ from pydicom's own functions, and why.
DIFFERENT = {
    "liver_1frame.dcm": "labels are no image",
    "liver_expb_1frame.dcm": "labels are no image",
}
RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def write(path: Path, pixels: np.ndarray, syntax: str = uid.ExplicitVRLittleEndian, **tags) -> Path:
    """A file of `pixels` `[(frames,) rows, columns]`, `[rows, columns, 3]` if so told, with these tags; None: without
    that tag."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = tags.pop("SOPClassUID", uid.CTImageStorage)
    data.SOPInstanceUID = "1.2.3"
    data.SamplesPerPixel = samples = tags.pop("SamplesPerPixel", 1)
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:] if samples == 1 else pixels.shape[:2]
    if pixels.ndim == 3 and samples == 1:
        data.NumberOfFrames = len(pixels)
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    big = syntax == uid.ExplicitVRBigEndian
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    data.PixelData = tags.get("PixelData") or stored + b"\0" * (len(stored) % 2)
    data["PixelData"].VR = "OB" if pixels.itemsize == 1 or uid.UID(syntax).is_encapsulated else "OW"
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        elif name != "PixelData":
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def item(**tags) -> Dataset:
    """An item of a sequence."""
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def shown(path: Path, window: tuple[float, float] | None = None) -> np.ndarray:
    """The grey levels of a file as we read it, `[H, W]`."""
    pixels = np.asarray(read_image(path, window)).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def by_pydicom(path: Path) -> np.ndarray:
    """The same levels, or colours, by pydicom's own functions, [0, 255]."""
    data = pydicom.dcmread(path, force=True)
    pixels = reference.pixel_array(data, index=int(data.get("NumberOfFrames") or 1) // 2)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        return 255.0 * reference.apply_color_lut(pixels, data) / (2 ** data.RedPaletteColorLookupTableDescriptor[2] - 1)
    if pixels.ndim == 3:
        return 255.0 * pixels / (2**data.BitsStored - 1)
    values = reference.apply_modality_lut(pixels, data)
    found = reference.apply_voi_lut(values, data).astype(float)
    low, high = found.min(), found.max()
    if data.get("VOILUTSequence"):
        low, high = 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif data.get("WindowWidth"):
        low, high = (-(2 ** (data.BitsStored - 1)), 2 ** (data.BitsStored - 1) - 1)
        if not data.PixelRepresentation:
            low, high = 0, 2**data.BitsStored - 1
        if data.get("RescaleSlope") is not None:
            low, high = (each * data.RescaleSlope + data.RescaleIntercept for each in (low, high))
    grey = 255.0 * (found - low) / ((high - low) or 1)
    return (255 - grey if data.PhotometricInterpretation == "MONOCHROME1" else grey)[..., None]


@pytest.mark.filterwarnings("ignore")
def test_all_files_that_pydicom_ships():
    """Each image equals what pydicom's own functions make of it, and what pydicom finds no pixels in is refused."""
    assert len(FILES) > 100
    for syntax in jpeg.DECODER_DEPENDENCIES:
        jpeg.register(reference.get_decoder(syntax))
    images, different = 0, set()
    for path in FILES:
        try:
            expected = by_pydicom(path)
        except Exception:  # no image, damaged, or no DICOM
            expected = None
        try:
            found = np.asarray(dicom.read_dicom(path, (), None)).astype(float)
        except ValueError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            found = None
        if found is None or expected is None:
            different |= {path.name} if (found is None) != (expected is None) else set()
            continue
        images += 1
        if np.abs(found - expected).max() > 1:
            different.add(path.name)
    assert different == set(DIFFERENT)
    assert images > 80


# ---- windows, tables, rescaling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 12), ("u2", 16), ("i2", 16), ("i2", 13), ("i1", 8)])
def test_windows(tmp_path, function, photometric, dtype, bits):
    signed = dtype.startswith("i")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ramp = np.linspace(low, high, 64).round().astype(dtype).reshape(8, 8)
    path = write(
        tmp_path / "a.dcm",
        ramp,
        PhotometricInterpretation=photometric,
        BitsStored=bits,
        HighBit=bits - 1,
        RescaleSlope=0.5,
        RescaleIntercept=-10,
        WindowCenter=[low / 2 + 0.3 * 2**bits / 2, 7],
        WindowWidth=[2**bits / 4, 3],
        VOILUTFunction=function,
    )
    expected = by_pydicom(path)[..., 0]
    assert np.ptp(expected) > 200
    assert np.abs(shown(path) - expected).max() <= 1
    assert "window" in read_image(path).info["done"]
    assert np.abs(shown(path, (-10, 20)) - shown(path)).max() > 50  # asked for, it replaces the file's


def test_narrow_windows(tmp_path):
    """A width of one is a threshold; less than one cannot count whole numbers, so it is taken as exact."""
    ramp = np.arange(16, dtype=np.uint16).reshape(4, 4)
    path = write(tmp_path / "a.dcm", ramp, WindowCenter=8, WindowWidth=1)
    assert np.abs(shown(path) - by_pydicom(path)[..., 0]).max() <= 1
    assert shown(path).flatten().tolist() == [0] * 8 + [255] * 8
    write(path, ramp, RescaleSlope=0.1, RescaleIntercept=0, WindowCenter=0.8, WindowWidth=0.8)
    assert np.abs(shown(path).flatten() - 255.0 * np.clip((np.arange(16) - 4) / 8, 0, 1)).max() <= 1


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": -400},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 40, "WindowWidth": ""},
        {"WindowCenter": "", "WindowWidth": 400},
        {"WindowCenter": 40},
        {"WindowWidth": 400},
        {"WindowCenter": [], "WindowWidth": []},
        {"VOILUTSequence": []},
        {"VOILUTSequence": [Dataset()]},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"RescaleIntercept": -1000},
        {"RescaleSlope": 2},
        {"PixelPaddingValue": None},
        {"SharedFunctionalGroupsSequence": []},
        {"SharedFunctionalGroupsSequence": [Dataset()]},
        {"SharedFunctionalGroupsSequence": [item(FrameVOILUTSequence=[])]},
        {"Modality": "PT"},
        {"Modality": "NM"},
        {"PresentationLUTShape": ""},
        {"VOILUTFunction": ""},
    ],
    ids=str,
)
def test_without_a_window_lowest_is_black_and_highest_white(tmp_path, told):
    """An empty tag, or a window without a width, is none."""
    told = {name: value for name, value in told.items() if value is not None}
    pixels = np.random.default_rng(0).integers(100, 900, (8, 8), dtype=np.uint16)
    path = write(tmp_path / "a.dcm", pixels, **told)
    assert np.abs(shown(path) - 255.0 * (pixels - pixels.min()) / np.ptp(pixels)).max() <= 1
    assert "lowest" in read_image(path).info["done"]


def test_a_negative_slope_turns_the_order(tmp_path):
    """In the units of the file low stays dark, with a window and without. (pydicom's window maps onto the range of the
    stored numbers, which then runs the other way.)"""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = write(tmp_path / "a.dcm", pixels, RescaleSlope=-2, RescaleIntercept=10)
    assert np.abs(shown(path) - 255.0 * (63 - pixels) / 63.0).max() <= 1
    write(path, pixels, RescaleSlope=-2, RescaleIntercept=0, WindowCenter=-60, WindowWidth=41)
    assert np.abs(shown(path) - 255.0 * np.clip((-2.0 * pixels + 80.5) / 40, 0, 1)).max() <= 1


def test_a_center_of_zero_counts(tmp_path):
    pixels = np.arange(-32, 32, dtype=np.int16).reshape(8, 8)
    path = write(tmp_path / "a.dcm", pixels, WindowCenter=0, WindowWidth=21)
    assert np.abs(shown(path) - 255.0 * np.clip((pixels + 10.5) / 20, 0, 1)).max() <= 1


@pytest.mark.parametrize(("bits", "words"), [(8, True), (8, False), (12, True), (16, True), (16, False)])
def test_tables_of_grey_levels(tmp_path, bits, words):
    """Tables of 8 to 16 bits, in words or packed bytes, are pydicom's (which reads no packed bytes)."""
    top = 2**bits - 1
    entries = np.round(top * np.linspace(0, 1, 50) ** 2).astype("u1" if bits == 8 and not words else "u2")
    table = item(LUTDescriptor=[50, 10, bits], LUTData=entries.tolist() if words else entries.tobytes())
    table["LUTDescriptor"].VR = "US"
    table["LUTData"].VR = "US" if words else "OW"
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = write(tmp_path / "a.dcm", pixels, VOILUTSequence=[table], WindowCenter=3, WindowWidth=2)
    assert np.abs(shown(path) - 255.0 * entries[np.clip(pixels.astype(int) - 10, 0, 49)] / top).max() <= 1
    if words or bits == 16:
        assert np.abs(shown(path) - by_pydicom(path)[..., 0]).max() <= 1
    write(path, pixels, PhotometricInterpretation="MONOCHROME1", VOILUTSequence=[table])
    assert shown(path)[0, 0] == 255
    write(path, pixels, ModalityLUTSequence=[table])  # its output is what the range is taken from
    assert np.abs(shown(path) - 255.0 * entries[np.clip(pixels.astype(int) - 10, 0, 49)] / top).max() <= 1
    write(path, pixels, uid.ExplicitVRBigEndian, VOILUTSequence=[table])
    if words:
        assert np.abs(shown(path) - 255.0 * entries[np.clip(pixels.astype(int) - 10, 0, 49)] / top).max() <= 1


def test_tables_that_are_not_what_they_say(tmp_path):
    """12 bits in a table that is declared with 16 are not shown at a sixteenth of the light; a first value may have
    lost its sign; a table that is cut off is refused."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    entries = np.linspace(0, 4095, 64).astype(int).tolist()
    table = item(LUTDescriptor=[64, 0, 16], LUTData=entries)
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    path = write(tmp_path / "a.dcm", pixels, VOILUTSequence=[table])
    assert np.abs(shown(path) - 255.0 * pixels / 63.0).max() <= 1
    table.LUTDescriptor = [64, 65536 - 32, 16]
    write(path, pixels, RescaleIntercept=-32, RescaleSlope=1, VOILUTSequence=[table])
    assert np.abs(shown(path) - 255.0 * pixels / 63.0).max() <= 1
    table.LUTDescriptor = [100, 0, 16]
    write(path, pixels, VOILUTSequence=[table])
    with pytest.raises(ValueError, match=r"a\.dcm: .*64 of 100 entries"):
        read_image(path)
    write(path, pixels, VOILUTFunction="CUBIC", WindowCenter=3, WindowWidth=2)
    with pytest.raises(ValueError, match=r"a\.dcm: .*unknown function CUBIC"):
        read_image(path)
    assert shown(path, (0, 63))[7, 7] == 255


def test_presentation(tmp_path):
    """Inverted once, whether by its photometric interpretation, its shape, or both."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for photometric, shape, inverted in (
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ):
        told = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        path = write(tmp_path / "a.dcm", pixels, **told)
        expected = 255.0 * (63.0 - pixels if inverted else pixels) / 63
        assert np.abs(shown(path) - expected).max() <= 1
        assert ("inverted" in read_image(path).info["done"]) == inverted
    table = item(LUTDescriptor=[4, 0, 8], LUTData=[0, 255, 0, 255])
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    write(path, pixels, PresentationLUTSequence=[table])
    assert np.unique(shown(path)).tolist() == [0, 255]


# ---- functional groups -----------------------------------------------------------------------------------------------


def group(slope: float | None = None, centre: float | None = None, function: str = "LINEAR") -> Dataset:
    """An item of functional groups that rescales by `slope` and -1024, and has a window of width 400."""
    told = Dataset()
    if slope is not None:
        told.PixelValueTransformationSequence = [item(RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")]
    if centre is not None:
        told.FrameVOILUTSequence = [item(WindowCenter=[centre, 5], WindowWidth=[400, 6], VOILUTFunction=function)]
    return told


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functional_groups(tmp_path, photometric, function):
    """An Enhanced file gives the levels of the classic files of its frames: of each frame its own groups, else those
    that all share, else the root."""
    frames = np.random.default_rng(0).integers(0, 2000, (3, 8, 8), dtype=np.uint16)
    told = {"PhotometricInterpretation": photometric, "SOPClassUID": uid.EnhancedCTImageStorage}
    root = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    shared = {"SharedFunctionalGroupsSequence": [group(1, 40, function)]}
    each = {"PerFrameFunctionalGroupsSequence": [group(1, 40 + 100 * k, function) for k in range(3)]}
    halves = {
        "SharedFunctionalGroupsSequence": [group(1)],
        "PerFrameFunctionalGroupsSequence": [group(None, 40 + 100 * k, function) for k in range(3)],
    }
    wrong = {"RescaleSlope": 5, "RescaleIntercept": 3, "WindowCenter": 4000, "WindowWidth": 7}
    for name, tags, centres in (
        ("root", root | {"VOILUTFunction": function}, (40, 40, 40)),
        ("shared", shared, (40, 40, 40)),
        ("each", each, (40, 140, 240)),
        ("each, shared and root", each | {"SharedFunctionalGroupsSequence": [group(2, 999)]} | wrong, (40, 140, 240)),
        ("shared and root", shared | wrong, (40, 40, 40)),
        ("halves", halves, (40, 140, 240)),
        ("a frame without", {**each, "PerFrameFunctionalGroupsSequence": [Dataset()] * 3, **shared}, (40, 40, 40)),
    ):
        path = write(tmp_path / "e.dcm", frames, **told, **tags)
        for k, centre in enumerate(centres):
            classic = root | {"WindowCenter": centre, "VOILUTFunction": function}
            one = write(tmp_path / "c.dcm", frames[k], PhotometricInterpretation=photometric, **classic)
            assert np.array_equal(shown(tmp_path / f"e.dcm[{k}]"), shown(one)), name
            asked = (-100, 300)
            assert np.array_equal(shown(tmp_path / f"e.dcm[{k}]", asked), shown(one, asked)), name
        assert np.array_equal(shown(path), shown(tmp_path / "e.dcm[1]"))
    assert "frame 1 of 0 to 2" in read_image(path).info["done"]


# ---- padding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "padded", "told"),
    [
        ("i2", -2000, {"PixelPaddingValue": -2000}),
        ("u2", 0, {"PixelPaddingValue": 0}),
        ("u2", 65535, {"PixelPaddingValue": 65535}),
        ("u2", 63536, {"PixelPaddingValue": 63536}),
        ("u2", 4000, {"PixelPaddingValue": 3900, "PixelPaddingRangeLimit": 4095}),
        ("u2", 4000, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3900}),
        ("i2", -1999, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}),
    ],
    ids=str,
)
def test_padding_sets_no_range_and_is_black(tmp_path, photometric, dtype, padded, told):
    pixels = np.random.default_rng(0).integers(100, 900, (8, 8)).astype(dtype)
    pixels[:2] = padded
    inside = pixels[2:].astype(float)
    path = write(tmp_path / "a.dcm", pixels, PhotometricInterpretation=photometric, **told)
    grey = 255.0 * (inside - inside.min()) / np.ptp(inside)
    assert np.abs(shown(path)[2:] - (255 - grey if photometric == "MONOCHROME1" else grey)).max() <= 1
    assert (shown(path)[:2] == 0).all()
    assert "padding values left out" in read_image(path).info["done"]
    write(path, pixels, PhotometricInterpretation=photometric, WindowCenter=500, WindowWidth=8000, **told)
    assert (shown(path)[:2] == 0).all()
    assert (shown(path)[2:] > 100).all()


def test_padding_that_has_lost_its_sign(tmp_path):
    """Of signed pixels, a padding value is at times written without its sign."""
    pixels = np.arange(-32, 32, dtype=np.int16).reshape(8, 8)
    pixels[0] = -2000
    path = write(tmp_path / "a.dcm", pixels)
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", "US", 65536 - 2000)
    data.save_as(path)
    assert np.abs(shown(path)[1:] - 255.0 * (pixels[1:] + 24) / 55.0).max() <= 1
    data.PixelData = np.full((8, 8), -2000, np.int16).tobytes()
    data.save_as(path)
    assert (shown(path) == 0).all()  # nothing but padding


def test_a_large_padding_value_hits_no_pixel_of_fewer_bits(tmp_path):
    """63536 is no number of 12 bits; cut to 12 bits it would be 2096, which is bone."""
    pixels = np.arange(2090, 2106, dtype=np.uint16).reshape(4, 4)
    path = write(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert np.abs(shown(path) - 255.0 * np.arange(16).reshape(4, 4) / 15).max() <= 1
    pixels[0] = 63536
    write(path, pixels, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert np.abs(shown(path)[1:] - 255.0 * np.arange(12).reshape(3, 4) / 11).max() <= 1
    assert (shown(path)[0] == 0).all()


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("signed", [False, True])
def test_bits_stored(tmp_path, bits, signed):
    """The bits beside those of the pixel, an overlay say, are not read; nor are they where they lie below it."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 64).round().astype(int)
    expected = 255.0 * (values - low).reshape(8, 8) / (2**bits - 1)
    raw = (values & (2**bits - 1)).astype(np.uint16)
    beside = (np.random.default_rng(0).integers(0, 2**16, 64).astype(np.uint16) >> bits << bits) if bits < 16 else 0
    told = {"BitsStored": bits, "PixelRepresentation": int(signed)}
    path = write(tmp_path / "a.dcm", raw.reshape(8, 8), **told, HighBit=bits - 1)
    assert np.abs(shown(path) - expected).max() <= 1
    write(path, (raw | beside).reshape(8, 8), **told, HighBit=bits - 1)
    assert np.abs(shown(path) - expected).max() <= 1
    write(path, (raw << (16 - bits) | (raw & 1)).reshape(8, 8), **told, HighBit=15)
    assert np.abs(shown(path) - expected).max() <= 1


def test_long_and_floating_numbers(tmp_path):
    values = np.random.default_rng(0).normal(0, 1e6, (8, 8))
    for dtype in ("i4", "u4"):
        pixels = (values + 1e7).astype(dtype)
        expected = 255.0 * (pixels - pixels.min().astype(float)) / np.ptp(pixels)
        assert np.abs(shown(write(tmp_path / "a.dcm", pixels)) - expected).max() <= 1
    expected = 255.0 * (values - values.min()) / np.ptp(values)
    for kind, dtype, bits in (("Float", "f4", 32), ("DoubleFloat", "f8", 64)):
        told = {f"{kind}PixelData": values.astype(dtype).tobytes(), "BitsAllocated": bits}
        told |= {name: None for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation")}
        path = write(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), **told)
        assert np.abs(shown(path) - expected).max() <= 1
        holed = values.astype(dtype)
        holed[0] = np.nan
        holed[1] = -1e30
        told[f"{kind}PixelData"] = holed.tobytes()
        path = write(path, np.zeros((8, 8), np.uint16), **told, **{f"{kind}PixelPaddingValue": float(holed[1, 0])})
        inside = values[2:]
        assert np.abs(shown(path)[2:] - 255.0 * (inside - inside.min()) / np.ptp(inside)).max() <= 1
        assert (shown(path)[:2] == 0).all()
        holed[3, 3] = np.inf
        path = write(path, np.zeros((8, 8), np.uint16), **told | {f"{kind}PixelData": holed.tobytes()})
        with pytest.raises(ValueError, match=r"a\.dcm: .*not finite"):
            read_image(path)


def test_one_bit(tmp_path):
    """Eight pixels in a byte, frame behind frame without a gap."""
    frames = np.random.default_rng(0).integers(0, 2, (3, 5, 5), dtype=np.uint8)
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    told = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": packed + b"\0" * (len(packed) % 2)}
    path = write(tmp_path / "a.dcm", frames, **told)
    for k in range(3):
        assert np.array_equal(shown(tmp_path / f"a.dcm[{k}]"), 255 * frames[k].astype(int))
    assert slices_of(path) == 3


# ---- colours ---------------------------------------------------------------------------------------------------------


def palette(tables: np.ndarray, first: int, bits: int, segmented: bool = False, swapped: bool = False) -> dict:
    """The tags of a palette `[N, 3]`; `swapped`: in words of the other byte order."""
    told: dict = {}
    for k, hue in enumerate(("Red", "Green", "Blue")):
        words = np.frombuffer(tables[:, k].tobytes() + b"\0" * (tables[:, k].nbytes % 2), "<u2")
        told[f"{hue}PaletteColorLookupTableDescriptor"] = [len(tables) % 65536, first, bits]
        name = f"{'Segmented' * segmented}{hue}PaletteColorLookupTableData"
        told[name] = words.astype(">u2" if swapped else "<u2").tobytes()
    return told


@pytest.mark.parametrize(("count", "bits", "stored"), [(256, 8, "u1"), (255, 8, "u1"), (300, 8, "u2"), (300, 16, "u2")])
@pytest.mark.parametrize("first", [0, 7])
def test_palettes(tmp_path, count, bits, stored, first):
    """Of 8 and 16 bits, with numbers below and above it; also in files of the other byte order."""
    wide = "u1" if bits == 8 else "u2"
    tables = np.random.default_rng(0).integers(0, 2**bits, (count, 3)).astype(wide)
    tables[0] = 2**bits - 1
    pixels = np.random.default_rng(1).integers(0, 256 if stored == "u1" else 400, (16, 16)).astype(stored)
    told = {"PhotometricInterpretation": "PALETTE COLOR"}
    path = write(tmp_path / "a.dcm", pixels, **told, **palette(tables, first, bits))
    expected = 255.0 * tables[np.clip(pixels.astype(int) - first, 0, count - 1)] / (2**bits - 1)
    assert np.abs(np.asarray(read_image(path)) - expected).max() <= 1
    if count == 256 or bits == 16:  # pydicom counts in the bits of the table, and takes no odd number of bytes
        assert np.abs(np.asarray(read_image(path)) - by_pydicom(path)).max() <= 1
    write(path, pixels, uid.ExplicitVRBigEndian, **told, **palette(tables, first, bits, swapped=True))
    assert np.abs(np.asarray(read_image(path)) - expected).max() <= 1


def test_palettes_of_eight_bits_in_sixteen(tmp_path):
    """Whether 8 bits are declared, or 16 of which 8 are used, the colours are as bright."""
    tables = np.random.default_rng(0).integers(0, 256, (256, 3)).astype("u2")
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for bits in (8, 16):
        told = palette(tables, 0, bits)
        path = write(tmp_path / "a.dcm", pixels, PhotometricInterpretation="PALETTE COLOR", **told)
        assert np.array_equal(np.asarray(read_image(path)), tables.reshape(16, 16, 3))
    told = palette(tables[:100], 0, 16)
    told |= {f"{hue}PaletteColorLookupTableDescriptor": [256, 0, 16] for hue in ("Red", "Green", "Blue")}
    write(path, pixels, PhotometricInterpretation="PALETTE COLOR", **told)
    with pytest.raises(ValueError, match=r"a\.dcm: .*100 of 256 entries|200 of 256"):
        read_image(path)
    write(path, pixels, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(ValueError, match=r"a\.dcm: .*no palette"):
        read_image(path)


def test_segmented_palettes(tmp_path):
    """Runs, lines, and earlier segments once more."""
    assert expanded([0, 2, 5, 7, 1, 4, 15], 2) == [5, 7, 9, 11, 13, 15]
    assert expanded([0, 2, 5, 7, 1, 2, 9, 2, 1, 8, 0], 2) == [5, 7, 8, 9, 9, 9]  # 8 bytes on: the line, to 9 again
    assert expanded([0, 1, 200, 0, 1, 9, 2, 1, 3, 0, 0, 0], 1) == [200, 9, 9]
    for broken in ([1, 3, 9], [2, 1, 0, 0], [0, 1, 5, 7, 1, 1]):
        with pytest.raises(ValueError, match="segment"):
            expanded(broken, 2)
    segments = np.array([0, 2, 0, 4000, 1, 100, 65535, 0, 1, 7, 1, 153, 30000], dtype=np.uint16)
    told = palette(np.stack([segments] * 3, axis=1), 0, 16, segmented=True)
    told |= {f"{hue}PaletteColorLookupTableDescriptor": [256, 0, 16] for hue in ("Red", "Green", "Blue")}
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write(tmp_path / "a.dcm", pixels, PhotometricInterpretation="PALETTE COLOR", **told)
    assert np.abs(np.asarray(read_image(path)) - by_pydicom(path)).max() <= 1


def test_colours_laid_over_grey(tmp_path):
    """A supplemental palette colours the numbers from its first one on; the others keep their window."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    tables = np.full((16, 3), (255, 0, 0), dtype=np.uint8)
    told = {"PixelPresentation": "COLOR"} | palette(tables, 48, 8)
    found = np.asarray(read_image(write(tmp_path / "a.dcm", pixels, **told))).astype(int)
    assert (found[6:] == (255, 0, 0)).all()
    assert np.abs(found[:6, :, 0] - 255.0 * pixels[:6] / 47.0).max() <= 1
    write(tmp_path / "a.dcm", pixels, **told | {"PixelPresentation": "MONOCHROME"})
    assert np.abs(shown(tmp_path / "a.dcm") - 255.0 * pixels / 63.0).max() <= 1


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u1", 5), ("u2", 16), ("u2", 12), ("i1", 8)])
def test_rgb(tmp_path, planar, dtype, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (6, 7, 3)).astype(dtype)
    told = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": planar}
    stored = pixels.transpose(2, 0, 1) if planar else pixels
    path = write(
        tmp_path / "a.dcm", pixels, **told, BitsStored=bits, HighBit=bits - 1, PixelData=stored.tobytes() + b"\0"
    )
    expected = 255.0 * (pixels.astype(int) % 2**bits) / (2**bits - 1)
    assert np.abs(np.asarray(read_image(path)) - expected).max() <= 1


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr(tmp_path, photometric):
    """By the matrix of ITU-R BT.601, as the standard gives it (C.7.6.3.1.2)."""
    luma, blue, red = (np.random.default_rng(k).integers(64, 192, (4, 6)).repeat(2, axis=1) for k in range(3))
    luma = np.random.default_rng(9).integers(64, 192, (4, 12))
    stored = np.stack([luma, blue, red], axis=-1).astype(np.uint8)
    if photometric == "YBR_FULL_422":
        stored = np.stack([luma[:, ::2], luma[:, 1::2], blue[:, ::2], red[:, ::2]], axis=-1).astype(np.uint8)
    told = {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "PlanarConfiguration": 0}
    path = write(tmp_path / "a.dcm", np.zeros((4, 12, 3), np.uint8), **told, PixelData=stored.tobytes())
    b, r = blue - 128, red - 128
    expected = np.stack([luma + 1.402 * r, luma - 0.344136 * b - 0.714136 * r, luma + 1.772 * b], axis=-1)
    assert np.abs(np.asarray(read_image(path)) - np.clip(expected, 0, 255)).max() <= 1


# ---- compression -----------------------------------------------------------------------------------------------------


@functools.cache
def noise(shape: tuple[int, ...], top: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(np.uint8 if top <= 256 else np.uint16)


def compressed(path: Path, pixels: np.ndarray, stream: bytes, syntax: str, **tags) -> Path:
    if pixels.ndim == 3:
        tags |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
        tags = {"PhotometricInterpretation": "RGB"} | tags
    return write(path, pixels, syntax, PixelData=encapsulate([stream]), **tags)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["jpeg8", "ljpeg", "jpegls", "jpeg2k", "rle"])
def test_lossless_compression(tmp_path, kind, bits, signed):
    """JPEG Lossless of either kind, JPEG-LS, JPEG 2000 and RLE give the levels of the plain file."""
    codecs = pytest.importorskip("imagecodecs")
    raw = noise((13, 9), 2**bits)
    pixels = raw.view(f"i{raw.itemsize}") if signed else raw
    told = {"BitsStored": bits, "HighBit": bits - 1}
    j2k = {"reversible": True, "level": 0, "codecformat": "j2k", "bitspersample": bits}
    plain = write(tmp_path / "plain.dcm", pixels, **told)
    syntax, stream = {
        "jpeg8": lambda: (uid.JPEGLosslessSV1, codecs.jpeg8_encode(raw, lossless=True, bitspersample=bits)),
        "ljpeg": lambda: (uid.JPEGLossless, codecs.ljpeg_encode(raw, bitspersample=bits)),
        "jpegls": lambda: (uid.JPEGLSLossless, codecs.jpegls_encode(raw, level=0)),
        "jpeg2k": lambda: (
            uid.JPEG2000Lossless,
            codecs.jpeg2k_encode(raw, **j2k),
        ),
        "rle": lambda: (uid.RLELossless, b""),
    }[kind]()
    if kind == "rle":
        data = pydicom.dcmread(plain)
        data.compress(syntax)
        data.save_as(tmp_path / "a.dcm")
    else:
        compressed(tmp_path / "a.dcm", pixels, stream, syntax, **told)
    assert np.ptp(shown(plain)) == 255
    assert np.array_equal(shown(tmp_path / "a.dcm"), shown(plain))


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["jpeg8", "jpegls", "jpeg2k", "htj2k"])
def test_compressed_colours(tmp_path, kind, bits):
    codecs = pytest.importorskip("imagecodecs")
    if not hasattr(codecs, f"{kind}_encode"):  # before its version 2026
        pytest.skip(f"nothing here encodes {kind}")
    pixels = noise((13, 9, 3), 2**bits)
    j2k = {"reversible": True, "level": 0, "codecformat": "j2k", "bitspersample": bits}
    plain = write(tmp_path / "plain.dcm", pixels, **RGB, BitsStored=bits, HighBit=bits - 1)
    syntax, stream = {
        "jpeg8": lambda: (uid.JPEGLosslessSV1, codecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits)),
        "jpegls": lambda: (uid.JPEGLSLossless, codecs.jpegls_encode(pixels, level=0)),
        "jpeg2k": lambda: (
            uid.JPEG2000Lossless,
            codecs.jpeg2k_encode(pixels, **j2k),
        ),
        "htj2k": lambda: (uid.HTJ2KLossless, codecs.htj2k_encode(pixels, reversible=True)),
    }[kind]()
    path = write(
        tmp_path / "a.dcm", pixels, syntax, **RGB, BitsStored=bits, HighBit=bits - 1, PixelData=encapsulate([stream])
    )
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(read_image(plain)))


def test_extended_jpeg_of_twelve_bits(tmp_path):
    """Lossy: near to the plain file."""
    codecs = pytest.importorskip("imagecodecs")
    pixels = (2048 + 2000 * np.sin(np.arange(40 * 48) / 200)).astype(np.uint16).reshape(40, 48)
    told = {"BitsStored": 12, "HighBit": 11}
    stream = codecs.jpeg8_encode(pixels, level=98, bitspersample=12)
    compressed(tmp_path / "a.dcm", pixels, stream, uid.JPEGExtended12Bit, **told)
    assert np.abs(shown(tmp_path / "a.dcm") - shown(write(tmp_path / "b.dcm", pixels, **told))).max() <= 3


def test_a_stream_of_another_size_is_refused(tmp_path):
    """Before memory is taken for what it promises."""
    codecs = pytest.importorskip("imagecodecs")
    pixels = noise((13, 9), 256)
    for encode, syntax, place in (
        (lambda: codecs.jpeg8_encode(pixels, lossless=True), uid.JPEGLosslessSV1, b"\xff\xc3"),
        (lambda: codecs.jpegls_encode(pixels), uid.JPEGLSLossless, b"\xff\xf7"),
    ):
        stream = bytearray(encode())
        assert jpeg.size_of(bytes(stream)) == (13, 9)
        at = stream.index(place) + 5
        stream[at : at + 4] = b"\xff" * 4
        path = compressed(tmp_path / "a.dcm", pixels, bytes(stream), syntax)
        with pytest.raises(ValueError, match=r"a\.dcm: .*65535 x 65535 pixels, not 13 x 9"):
            read_image(path)
        path = compressed(tmp_path / "a.dcm", pixels, b"\xff\xd8 no stream", syntax)
        with pytest.raises(ValueError, match=r"a\.dcm: .*no frame header"):
            read_image(path)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm", "MR_small_jpeg_ls_lossless", "JPGExtended"])
def test_a_missing_decoder_is_named(name, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == jpeg.PLUGIN else real(module))
    path = SHIPPED / f"{name}.dcm"
    decoder = reference.get_decoder(pydicom.dcmread(path).file_meta.TransferSyntaxUID)
    for known in (decoder._available, decoder._unavailable):
        monkeypatch.delitem(known, jpeg.PLUGIN, raising=False)
    with pytest.raises(ValueError, match=rf"{name}\.dcm: .*: pip install imagecodecs\)$"):
        read_image(path)


# ---- what is no image, or lacks what must be there -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (uid.RTStructureSetStorage, "RT Structure Set"),
        (uid.BasicTextSRStorage, "Basic Text SR"),
        (uid.EncapsulatedPDFStorage, "Encapsulated PDF"),
        (uid.GrayscaleSoftcopyPresentationStateStorage, "Presentation State"),
        (uid.RawDataStorage, "Raw Data"),
        (uid.CTImageStorage, "CT Image"),
        ("1.2.3.4.5", r"1\.2\.3\.4\.5"),
    ],
)
def test_files_without_pixels_are_named(tmp_path, kind, name):
    path = write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), SOPClassUID=kind, PixelData=None)
    with pytest.raises(ValueError, match=rf"a\.dcm: holds no image \({name}|a\.dcm: holds no image \(.*{name}"):
        read_image(path)
    assert slices_of(path) is None


def test_labels_and_directories_are_no_images(tmp_path):
    path = write(tmp_path / "a.dcm", np.ones((3, 4, 4), np.uint8), SOPClassUID=uid.SegmentationStorage)
    with pytest.raises(ValueError, match=r"a\.dcm: holds no image, but labels \(Segmentation Storage\)"):
        read_image(path)
    directory = SHIPPED / "dicomdirtests" / "DICOMDIR"
    (tmp_path / "dir.dcm").write_bytes(directory.read_bytes())
    with pytest.raises(ValueError, match=r"dir\.dcm: is a DICOMDIR"):
        read_image(tmp_path / "dir.dcm")
    (tmp_path / "text.dcm").write_text("This is no image at all, but a note of what was seen. " * 9)
    (tmp_path / "empty.dcm").write_bytes(b"")
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.dcm: (is not|cannot be read as) DICOM"):
            read_image(tmp_path / f"{name}.dcm")


@pytest.mark.parametrize(
    "name", ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "PixelRepresentation"]
)
def test_what_must_be_there_is_named(tmp_path, name):
    path = write(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), **{name: None})
    with pytest.raises(ValueError, match=rf"a\.dcm: .*lacks {name}"):
        read_image(path)


@pytest.mark.parametrize("name", ["SamplesPerPixel", "BitsStored", "HighBit", "PlanarConfiguration", "NumberOfFrames"])
def test_what_the_rest_tells_is_filled_in(tmp_path, name):
    """Empty or missing."""
    grey = np.arange(16, dtype=np.uint16).reshape(4, 4)
    colours = noise((4, 5, 3), 256)
    for pixels, told in ((grey, {}), (colours, {**RGB})):
        if name == "NumberOfFrames":
            told |= {name: 1}
        elif name == "PlanarConfiguration":
            told |= {name: 0}
        expected = np.asarray(read_image(write(tmp_path / "a.dcm", pixels, **told)))
        data = pydicom.dcmread(tmp_path / "a.dcm")
        setattr(data, name, None)
        data.save_as(tmp_path / "b.dcm")
        delattr(data, name)
        data.save_as(tmp_path / "c.dcm")
        for other in ("b.dcm", "c.dcm"):
            assert np.array_equal(np.asarray(read_image(tmp_path / other)), expected)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"Rows": 400}, "less than expected"),
        ({"Rows": 0}, "Rows"),
        ({"BitsStored": 20}, "Bits Stored"),
        ({"BitsAllocated": 12}, "Bits Allocated"),
        ({"SamplesPerPixel": 3}, "less than expected"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
        ({"PhotometricInterpretation": "CMYK"}, "CMYK"),
        ({"PhotometricInterpretation": "RGB"}, "RGB"),
        ({"PhotometricInterpretation": "GREY"}, "GREY"),
        ({"PixelRepresentation": 2}, "Pixel Representation"),
        ({"NumberOfFrames": 3}, "less than expected"),
    ],
    ids=str,
)
def test_headers_that_contradict_themselves(tmp_path, told, words):
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
    path = write(tmp_path / "a.dcm", pixels)
    data = pydicom.dcmread(path)
    for name, value in told.items():
        setattr(data, name, value)
    data.save_as(path)
    with pytest.raises(ValueError, match=rf"a\.dcm: .*{words}"):
        read_image(path)


def test_unknown_compression_is_named(tmp_path):
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
    path = write(tmp_path / "a.dcm", pixels, uid.MPEG2MPML, PixelData=encapsulate([b"\0" * 8]))
    with pytest.raises(ValueError, match=r"a\.dcm: .*MPEG2 Main Profile.*not read"):
        read_image(path)
    with pytest.raises(ValueError, match=r"a\.dcm: .*no frame 3,1, only 1"):
        read_image(tmp_path / "a.dcm[3,1]")


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_files_without_a_beginning(tmp_path, syntax):
    """Old files hold only the data set; a name in .dcm says that it is one. Whether its numbers are spelled out, and in
    which order, shows."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = write(tmp_path / "a.dcm", pixels, syntax, WindowCenter=30, WindowWidth=20)
    expected = shown(path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[140:144], "little")  # of the group that tells the transfer syntax
    (tmp_path / "b.dcm").write_bytes(whole[144 + length :])
    assert np.array_equal(shown(tmp_path / "b.dcm"), expected)
    deflated = pydicom.dcmread(path)
    if syntax == uid.ExplicitVRLittleEndian:
        deflated.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        deflated.save_as(tmp_path / "c.dcm")
        assert np.array_equal(shown(tmp_path / "c.dcm"), expected)


def test_overlays_are_not_drawn(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    expected = shown(write(tmp_path / "a.dcm", pixels))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    for tag, kind, value in (
        (0x60000010, "US", 8),
        (0x60000011, "US", 8),
        (0x60000040, "CS", "G"),
        (0x60000050, "SS", [1, 1]),
        (0x60000100, "US", 1),
        (0x60000102, "US", 0),
        (0x60003000, "OW", b"\xff" * 8),
    ):
        data.add_new(tag, kind, value)
    data.save_as(tmp_path / "b.dcm")
    assert np.array_equal(shown(tmp_path / "b.dcm"), expected)


def test_pydicom_is_quiet(tmp_path):
    """Its remarks on headers are not for whoever prepares a thousand files; our own are."""
    path = write(tmp_path / "a.dcm", np.arange(16, dtype=np.uint16).reshape(4, 4))
    data = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.StudyDate, data.PatientID = "no date", "x" * 99
        data.PixelData += b"\0" * 6
        data.save_as(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert shown(path).max() == 255
    assert said == []


def test_siemens_names(tmp_path):
    """Their suffix is .IMA; other files of that name are left alone."""
    path = write(tmp_path / "MR.1.2.IMA", np.arange(16, dtype=np.uint16).reshape(4, 4))
    (tmp_path / "notes.ima").write_text("no DICOM " * 40)
    assert find_images([tmp_path]) == [path]
    assert shown(path).max() == 255
