"""Reading image files: pictures of any depth, DICOM, NIfTI, and what is said of those that cannot be read."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from conftest import write_image
from PIL import Image

from images import find_images, read_image, to_array, with_slice


def test_eight_bit_pictures_are_read_as_they_are(tmp_path):
    write_image(tmp_path / "a.png", 1)
    expected = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), expected)
    same_size = to_array(read_image(tmp_path / "a.png").resize((8, 8)), 8, 3)
    assert same_size.shape == (3, 8, 8)
    assert same_size.dtype == np.uint8
    assert to_array(read_image(tmp_path / "a.png"), 8, 1).shape == (1, 8, 8)


def test_sixteen_bit_pictures_are_stretched(tmp_path):
    values = np.linspace(1000, 3000, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png"))[:, :, 0]
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 255)
    assert np.array_equal(pixels, np.round((values - 1000.0) / 2000 * 255).astype(np.uint8))


def test_constant_image_is_black_not_nan(tmp_path):
    Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).max() == 0


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
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    def write(photometric: str) -> None:
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = MRImageStorage
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 4, 1, photometric
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.WindowCenter, data.WindowWidth = 1000, 500
        data.PixelData = np.arange(0, 1600, 100, dtype=np.uint16).tobytes()
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)

    write("MONOCHROME2")
    pixels = np.asarray(read_image(tmp_path / "a.dcm"))[:, :, 0].flatten()
    assert (pixels[:7] == 0).all()  # below 750
    assert (pixels[13:] == 255).all()  # above 1250
    assert (np.diff(pixels[7:13].astype(int)) > 0).all()
    write("MONOCHROME1")
    inverted = np.asarray(read_image(tmp_path / "a.dcm"))[:, :, 0].flatten()
    assert np.abs(inverted.astype(int) + pixels - 255).max() <= 1


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
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.stack([pixels] * 3, axis=2), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a\.nii\.gz: 1 of its values are not finite"):
        read_image(tmp_path / "a.nii.gz")


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
    with pytest.raises(ValueError, match="no images"):
        find_images([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="gone"):
        find_images([tmp_path / "gone"])
