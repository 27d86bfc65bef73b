"""Reading image files: pictures of any depth, DICOM, NIfTI, and what is said of those that cannot be read."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from conftest import write_dicom, write_image
from PIL import Image

from imaging.images import find_images, read_image, slices_of, to_array, with_slice


def test_eight_bit_pictures_are_read_as_they_are(tmp_path):
    write_image(tmp_path / "a.png", 1)
    expected = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), expected)
    same_size = to_array(read_image(tmp_path / "a.png").resize((8, 8)), 8, 3)
    assert same_size.shape == (3, 8, 8)
    assert same_size.dtype == np.uint8
    assert to_array(read_image(tmp_path / "a.png"), 8, 1).shape == (1, 8, 8)


def test_damaged_and_missing_files_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.dcm").write_bytes(b"no dicom")
    (tmp_path / "a.nii").write_bytes(b"no nifti")
    for name in ("a.png", "a.dcm", "a.nii"):
        with pytest.raises(ValueError, match=rf"{name}: "):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize(("name", "library"), [("a.dcm", "pydicom"), ("a.nii.gz", "nibabel")])
def test_missing_library_is_named(name, library, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"")
    real = builtins.__import__

    def without(module, *rest):
        if module.split(".")[0] == library:
            raise ImportError(module)
        return real(module, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=f"pip install {library}"):
        read_image(tmp_path / name)


def test_dicom_goes_through_its_window(tmp_path):
    """The file's first window says what is black and what is white, whatever values the slice happens to hold."""
    values = np.array([[0, 700, 750], [900, 1000, 1100], [1250, 1300, 1600]])
    expected = [0, 0, 0, 76, 128, 178, 255, 255, 255]
    for name, chosen in (("wide", values), ("narrow", values[1:2])):
        for photometric, turned in (("MONOCHROME2", False), ("MONOCHROME1", True)):
            write_dicom(tmp_path / "a.dcm", chosen, photometric, WindowCenter=[1000, 40], WindowWidth=[500, 80])
            pixels = np.asarray(read_image(tmp_path / "a.dcm"))[:, :, 0].flatten().astype(int)
            wanted = np.array(expected if name == "wide" else expected[3:6])
            assert np.abs(pixels - (255 - wanted if turned else wanted)).max() <= 1
    asked = np.asarray(read_image(tmp_path / "a.dcm", (900, 1100)))[0, :, 0]
    assert asked.tolist() == [255, 128, 0]
    write_dicom(tmp_path / "a.dcm", values)  # without a window: from the least to the greatest
    assert np.asarray(read_image(tmp_path / "a.dcm"))[:, :, 0].flatten().tolist()[:2] == [0, 112]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_gives_its_colours(tmp_path, bits):
    dtype, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    tables = {"Red": [0, top, 0, top], "Green": [0, 0, top, top], "Blue": [0, 0, 0, top // 2]}
    tags = {f"{colour}PaletteColorLookupTableDescriptor": [4, 0, bits] for colour in tables}
    tags |= {
        f"{colour}PaletteColorLookupTableData": np.array(table, dtype).tobytes() for colour, table in tables.items()
    }
    write_dicom(tmp_path / "a.dcm", np.array([[0, 1], [2, 3]]), "PALETTE COLOR", **tags)
    pixels = np.asarray(read_image(tmp_path / "a.dcm"))
    assert pixels.reshape(4, 3).tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0], [255, 255, 127]]


def test_frames_of_a_dicom_file(tmp_path):
    frames = np.stack([np.full((4, 4), 100 * k) for k in range(5)])
    write_dicom(tmp_path / "a.dcm", frames, frames=5, WindowCenter=250, WindowWidth=500)
    assert slices_of(tmp_path / "a.dcm") == 5
    assert with_slice(tmp_path / "a.dcm") == tmp_path / "a.dcm[2]"
    for name, expected in (("a.dcm", 102), ("a.dcm[2]", 102), ("a.dcm[0]", 0), ("a.dcm[4]", 204)):
        assert np.unique(read_image(tmp_path / name)).tolist() == [expected]
    with pytest.raises(ValueError, match=r"a\.dcm: .*no frame 5, only 5"):
        read_image(tmp_path / "a.dcm[5]")
    write_dicom(tmp_path / "b.dcm", frames[3])
    assert slices_of(tmp_path / "b.dcm") is None
    assert with_slice(tmp_path / "b.dcm") == tmp_path / "b.dcm"


def test_dicom_without_a_suffix(tmp_path):
    """Scanners name files by number or UID; a DICOMDIR is no image, nor is any other file without a suffix."""
    for name in ("IM000001", "1.2.840.113619.2.5", "DICOMDIR"):
        write_dicom(tmp_path / name, np.arange(16).reshape(4, 4))
    (tmp_path / "README").write_text("read me " * 100)
    assert [path.name for path in find_images([tmp_path])] == ["1.2.840.113619.2.5", "IM000001"]
    assert read_image(tmp_path / "IM000001").size == (4, 4)


def test_nifti_gives_the_middle_slice(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((6, 5, 7), dtype=np.float32)
    volume[:, :, 3] = np.arange(30).reshape(6, 5)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert image.size == (6, 5)  # x to the right, y (anterior) up
    pixels = np.asarray(image)[:, :, 0].astype(int)
    assert pixels[-1, 0] == 0
    assert pixels[0, -1] == 255
    assert (np.diff(pixels, axis=1) >= 0).all()
    assert (np.diff(pixels, axis=0) <= 0).all()


def test_values_that_are_not_finite_are_refused(tmp_path):
    """One NaN among them would turn the whole picture black."""
    pixels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    pixels[2, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: 1 of its values are not finite"):
        read_image(tmp_path / "a.tif")


def test_a_slice_of_a_volume_is_named(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((8, 8, 5)), np.eye(4)), tmp_path / "a.nii.gz")
    assert find_images([tmp_path / "a.nii.gz[1]"]) == [tmp_path / "a.nii.gz[1]"]
    assert with_slice(tmp_path / "a.nii.gz") == tmp_path / "a.nii.gz[2]"
    assert with_slice(tmp_path / "a.nii.gz[1]") == tmp_path / "a.nii.gz[1]"
    assert read_image(with_slice(tmp_path / "a.nii.gz")).tobytes() == read_image(tmp_path / "a.nii.gz").tobytes()


def test_find_images(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "b/deep/3.nii.gz", "b/notes.txt", "a.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images([tmp_path / "a.dcm", tmp_path / "b"])
    assert [path.name for path in found] == ["a.dcm", "1.JPG", "2.png", "3.nii.gz"]
    (tmp_path / "empty").mkdir()
    for name in ("._1.png", ".2.tmp.png", ".thumbnails/3.png"):  # of macOS, of interrupted runs, of file managers
        (tmp_path / "empty" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "empty" / name).write_bytes(b"")
    with pytest.raises(ValueError, match="no images"):
        find_images([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="gone"):
        find_images([tmp_path / "gone"])


def test_links_are_followed_but_not_in_circles(tmp_path):
    write_image(tmp_path / "elsewhere" / "patient" / "1.png", 1)
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "patient" / "back").symlink_to(tmp_path / "S")
    assert find_images([tmp_path / "S"]) == [tmp_path / "S" / "linked" / "patient" / "1.png"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, forbid):
    write_image(tmp_path / "S" / "1.png", 1)
    write_image(tmp_path / "S" / "secret" / "2.png", 2)
    forbid(tmp_path / "S" / "secret")
    with pytest.raises(PermissionError, match="secret"):
        find_images([tmp_path / "S"])
