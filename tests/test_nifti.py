"""NIfTI and Analyze volumes: which way is up, which slice and volume, what their numbers become, what is refused."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import run_script

from imaging.images import find_images, more_volumes, of_volume, read_image, slices_of, with_slice
from preparation.volumes import middle

SIZES = (9, 8, 7)


def volume(*more: int, seed: int = 0) -> np.ndarray:
    """Numbers that differ in every voxel, right, front and up."""
    return np.random.default_rng(seed).permutation(np.prod((*SIZES, *more))).reshape(*SIZES, *more).astype(np.int16)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, kind=nibabel.Nifti1Image, **header) -> Path:
    image = kind(data, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def grey(path: Path, window: tuple[float, float] | None = None) -> np.ndarray:
    """The grey levels of a file as we read it, `[H, W]`."""
    pixels = np.asarray(read_image(path, window)).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def stretched(plane: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """A slice `[x, y]` as it must be shown: front up, from the 1st to the 99th percentile."""
    plane = np.rot90(plane.astype(float))
    low, high = np.percentile(plane, (1, 99)) if low is None else (low, high)
    return 255 * np.clip((plane - low) / (high - low), 0, 1)


def oriented(order: tuple[int, ...], signs: tuple[int, ...], tilt: float = 0.0) -> np.ndarray:
    """The affine of a volume whose axis k in the file runs along axis `order[k]`, in the direction `signs[k]`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, k] = 2.0 * sign
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return turn @ affine


@pytest.mark.parametrize(("suffix", "tilt"), [("nii", 0.0), ("nii.gz", 0.3)])
def test_every_orientation_shows_the_same_slices(tmp_path, suffix, tilt):
    """All 48 ways in which a volume can lie in its file; as nibabel turns them to their canonical orientation."""
    wanted = volume()
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            data = np.flip(wanted, [axis for axis in range(3) if signs[order.index(axis)] < 0]).transpose(order)
            affine = oriented(order, signs, tilt)
            path = save(tmp_path / f"a.{suffix}", data, affine)
            assert slices_of(path) == 7
            canonical = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
            assert np.array_equal(canonical, wanted)
            for k in (1, 3):
                found = grey(tmp_path / f"a.{suffix}[{k}]")
                assert np.abs(found - stretched(wanted[:, :, k])).max() <= 1, (order, signs)
    assert "slice 3 of 0 to 6" in read_image(path).info["done"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_numbers_of_every_type(tmp_path, dtype, order):
    """In either order of bytes, packed and not, with and without rescaling."""
    data = (volume() % 100).astype(dtype)
    for name in ("a.nii", "a.nii.gz"):
        image = nibabel.Nifti1Image(data, np.eye(4), dtype=data.dtype)
        header = image.header.as_byteswapped() if order == ">" and np.little_endian else image.header
        path = tmp_path / name
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4), header), path)
        assert np.abs(grey(path) - stretched(data[:, :, 3])).max() <= 1
        assert np.abs(grey(path, (10, 40)) - stretched(data[:, :, 3], 10, 40)).max() <= 1


def with_scaling(path: Path, slope: float, inter: float) -> Path:
    """A file with these two numbers in its header, which nibabel would not write."""
    held = bytearray(save(path, volume()).read_bytes())
    held[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(held)
    return path


@pytest.mark.parametrize(
    ("slope", "inter", "scale"),
    [
        (1, 0, (1, 0)),
        (2, -30, (2, -30)),
        (-1, 0, (-1, 0)),
        (0.25, 1e3, (0.25, 1e3)),
        (0, 0, (1, 0)),
        (0, 7, (1, 0)),
        (np.nan, 0, (1, 0)),
        (np.nan, np.nan, (1, 0)),
        (np.inf, 0, (1, 0)),
    ],
)
def test_rescaling(tmp_path, slope, inter, scale):
    """A slope of 0 is none, says the standard, and nibabel says it of NaN and infinity too."""
    path = with_scaling(tmp_path / "a.nii", slope, inter)
    values = volume()[:, :, 3].astype(float) * scale[0] + scale[1]
    assert np.abs(grey(path) - stretched(values)).max() <= 1
    low, high = np.percentile(values, (20, 60))
    assert np.abs(grey(path, (low, high)) - stretched(values, low, high)).max() <= 1


@pytest.mark.parametrize(("slope", "inter"), [(1, np.inf), (1, np.nan)])
def test_rescaling_that_cannot_be(tmp_path, slope, inter):
    with pytest.raises(ValueError, match=r"a\.nii: cannot be read as NIfTI"):
        read_image(with_scaling(tmp_path / "a.nii", slope, inter))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_no_number_is_background(tmp_path, name):
    """Registered and functional volumes hold NaN outside of the head: as dark as the darkest, and said."""
    data = volume().astype(np.float32)
    filled = data[:, :, 3].copy()
    filled[:3] = filled[3:].min()
    data[:3] = np.nan
    path = save(tmp_path / name, data)
    assert np.abs(grey(path) - stretched(filled)).max() <= 1
    assert (grey(path)[:, :3] == 0).all()
    assert "NaN as the lowest value" in read_image(path).info["done"]
    assert np.abs(grey(path, (0, 500)) - stretched(filled, 0, 500)).max() <= 1
    for lost, value in ((np.s_[:], np.nan), (np.s_[4, 4, 3], np.inf), (np.s_[4, 4, 3], -np.inf)):
        data[lost] = value
        save(path, data)
        with pytest.raises(ValueError, match=rf"{name}: (72|1|25) of its 72 values are not finite"):
            read_image(path)
        data = np.ones(SIZES, np.float32)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_several_volumes(tmp_path, name):
    """Of four dimensions: the first, said and warned of, or the one that is named."""
    data = volume(3)
    path = save(tmp_path / name, data, oriented((1, 2, 0), (1, -1, 1)))
    data = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    assert more_volumes(path) == (3,)
    depth = data.shape[2]
    assert slices_of(path) == depth
    assert np.abs(grey(path) - stretched(data[:, :, depth // 2, 0])).max() <= 1
    assert "volume 0 of 0 to 2" in read_image(path).info["done"]
    for k, one in itertools.product((0, depth - 1), range(3)):
        assert of_volume(tmp_path / f"{name}[{k},{one}]") == (path, (k, one))
        assert np.abs(grey(tmp_path / f"{name}[{k},{one}]") - stretched(data[:, :, k, one])).max() <= 1
    with pytest.warns(UserWarning, match=rf"{name}: holds 3 volumes; the first is taken; .*\[{depth // 2},2\]"):
        assert with_slice(path) == tmp_path / f"{name}[{depth // 2}]"
    assert find_images([tmp_path / f"{name}[1,2]"]) == [tmp_path / f"{name}[1,2]"]
    for asked, said in (("[1,3]", "no volume 3, only 3"), ("[99,0]", "no slice 99"), ("[1,1,1]", "holds 3 volumes")):
        with pytest.raises(ValueError, match=rf"{name}: .*{said}"):
            read_image(tmp_path / f"{name}{asked}")


def test_more_dimensions(tmp_path):
    """Axes of one entry are none; of two others, each is named."""
    data = volume()
    for shape in ((*SIZES, 1), (*SIZES, 1, 1), (*SIZES, 1, 1, 1, 1)):
        path = save(tmp_path / "a.nii", data.reshape(shape))
        assert more_volumes(path) == ()
        assert np.abs(grey(path) - stretched(data[:, :, 3])).max() <= 1
        with pytest.raises(ValueError, match="holds one volume"):
            read_image(tmp_path / "a.nii[3,1]")
    data = volume(1, 2)
    path = save(tmp_path / "b.nii", data)
    assert more_volumes(path) == (2,)
    assert np.abs(grey(tmp_path / "b.nii[3,1]") - stretched(data[:, :, 3, 0, 1])).max() <= 1
    data = volume(2, 3)
    path = save(tmp_path / "c.nii", data)
    assert more_volumes(path) == (2, 3)
    assert np.abs(grey(path) - stretched(data[:, :, 3, 0, 0])).max() <= 1
    assert np.abs(grey(tmp_path / "c.nii[2,1,2]") - stretched(data[:, :, 2, 1, 2])).max() <= 1
    assert "volume 1 of 0 to 1; volume 2 of 0 to 2" in read_image(tmp_path / "c.nii[2,1,2]").info["done"]
    with pytest.raises(ValueError, match=r"c\.nii: holds 2 x 3 volumes, named by 2 number"):
        read_image(tmp_path / "c.nii[2,1]")


def test_a_blank_first_volume_is_not_taken_in_silence(tmp_path):
    """Time series may begin with an empty volume. Who names it gets it."""
    data = np.stack([np.zeros(SIZES, np.int16), volume()], axis=-1)
    path = save(tmp_path / "a.nii.gz", data)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: slice 3 of its first volume is blank; .* a\.nii\.gz\[3,1\]"):
        read_image(path)
    assert np.unique(grey(tmp_path / "a.nii.gz[3,0]")).tolist() == [0]
    assert np.abs(grey(tmp_path / "a.nii.gz[3,1]") - stretched(volume()[:, :, 3])).max() <= 1


@pytest.mark.parametrize("axis", range(3))
def test_one_slice(tmp_path, axis):
    """Across whichever axis it lies, and without a third axis, it is the image."""
    sizes = [9, 8, 7]
    sizes[axis] = 1
    data = volume()[tuple(slice(size) for size in sizes)]
    path = save(tmp_path / "a.nii", data)
    assert slices_of(path) == 1
    plane = np.squeeze(data)
    assert np.abs(grey(path) - stretched(plane)).max() <= 1
    with pytest.raises(ValueError, match="no slice 1, only 1"):
        read_image(tmp_path / "a.nii[1]")
    for signs in itertools.product((1, -1), repeat=2):
        turned = np.flip(plane, [k for k in range(2) if signs[k] < 0])
        path = save(tmp_path / "b.nii.gz", turned, oriented((0, 1, 2), (*signs, 1)))
        assert slices_of(path) == 1
        assert np.abs(grey(path) - stretched(plane)).max() <= 1


def test_masks_and_almost_constant_slices(tmp_path):
    """Where the percentiles fall together, the slice is stretched from its lowest to its highest value."""
    data = np.zeros((30, 30, 3), np.uint8)
    data[4, 5] = 1
    assert np.abs(grey(save(tmp_path / "a.nii", data)) - stretched(data[:, :, 1], 0, 1)).max() == 0
    sparse = data.astype(np.float32) * 1000
    sparse[9, 9] = 400
    assert np.abs(grey(save(tmp_path / "a.nii", sparse)) - stretched(sparse[:, :, 1], 0, 1000)).max() <= 1
    path = save(tmp_path / "a.nii", np.full((5, 5, 3), 7, np.int16))
    assert np.unique(grey(path)).tolist() == [0]


def test_colours_and_complex_numbers(tmp_path):
    for names in ("RGB", "RGBA"):
        data = np.zeros(SIZES, dtype=[(name, "u1") for name in names])
        for seed, name in enumerate(names):
            data[name] = volume(seed=seed) % 256
        path = save(tmp_path / "a.nii.gz", data, oriented((0, 1, 2), (-1, 1, 1)))
        expected = np.rot90(np.stack([data[name][::-1, :, 3] for name in "RGB"], axis=-1))
        assert np.array_equal(np.asarray(read_image(path)), expected)
        assert read_image(path).info["done"].endswith("colours of the file")
    data = volume() * np.exp(1j * volume(seed=1))
    for dtype in ("c8", "c16"):
        path = save(tmp_path / "b.nii", data.astype(dtype))
        assert np.abs(grey(path) - stretched(volume()[:, :, 3])).max() <= 1
        assert "magnitude" in read_image(path).info["done"]


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_names_that_do_not_tell_the_packing(tmp_path, kind):
    """A plain file called .nii.gz, a packed one called .nii, upper-case suffixes."""
    held = save(tmp_path / "a.nii", volume(), kind=kind).read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(held)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(held))
    (tmp_path / "UPPER.NII").write_bytes(held)
    (tmp_path / "UPPER.NII.GZ").write_bytes(gzip.compress(held))
    for name in ("a.nii", "plain.nii.gz", "packed.nii", "UPPER.NII", "UPPER.NII.GZ"):
        assert slices_of(tmp_path / name) == 7
        assert np.abs(grey(tmp_path / name) - stretched(volume()[:, :, 3])).max() <= 1


@pytest.mark.parametrize(
    "kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage, nibabel.Nifti1Pair, nibabel.Nifti2Pair]
)
def test_pairs_of_files(tmp_path, kind):
    """Header and image in two files are one image; another .hdr is none."""
    affine = np.diag([-1.0, 1, 1, 1])  # the only one that Analyze can mean
    save(tmp_path / "a.hdr", volume()[::-1], affine, kind)
    (tmp_path / "photo.hdr").write_bytes(b"#?RADIANCE\n")
    assert find_images([tmp_path]) == [tmp_path / "a.hdr"]
    for name in ("a.hdr", "a.img"):
        assert np.abs(grey(tmp_path / name) - stretched(volume()[:, :, 3])).max() <= 1
    assert ("no orientation" in read_image(tmp_path / "a.hdr").info["done"]) == ("Analyze" in kind.__name__)
    (tmp_path / "a.img").unlink()
    with pytest.raises(ValueError, match=r"a\.hdr: cannot be read as NIfTI"):
        read_image(tmp_path / "a.hdr")


def test_without_an_orientation(tmp_path):
    """No code in the header: as nibabel takes it, and said. One that cannot be inverted: as it lies in the file."""
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(volume(), None), path)
    wanted = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    assert np.abs(grey(path) - stretched(wanted[:, :, 3])).max() <= 1
    assert "no orientation in the header" in read_image(path).info["done"]
    save(path, volume())
    assert "orientation" not in read_image(path).info["done"]
    for affine in (np.zeros((4, 4)), np.diag([np.nan, 1, 1, 1]), np.diag([1.0, 0, 1, 1])):
        held = bytearray(save(path, volume()).read_bytes())
        held[280:328] = affine[:3].astype("<f4").tobytes()
        path.write_bytes(held)
        assert np.abs(grey(path) - stretched(volume()[:, :, 3])).max() <= 1
        assert "no orientation in the header" in read_image(path).info["done"]


def test_as_many_slices_as_are_asked_for():
    """From the middle half; of a volume that is too thin for that, from all of it."""
    assert middle(20, 3) == {6, 10, 13}
    assert middle(1, 1) == {0}
    for count, slices in itertools.product(range(1, 40), range(1, 12)):
        found = middle(count, slices)
        assert len(found) == min(count, slices)
        assert found <= set(range(count))


def test_nibabel_is_quiet(tmp_path, capfd):
    """It prints every slip of a header."""
    held = bytearray(save(tmp_path / "a.nii", volume()).read_bytes())
    held[80:84] = np.float32(-1).tobytes()  # a voxel of negative width
    (tmp_path / "a.nii").write_bytes(held)
    assert np.abs(grey(tmp_path / "a.nii") - stretched(volume()[:, :, 3])).max() <= 1
    assert capfd.readouterr() == ("", "")


def dims(path: Path, *sizes: int) -> Path:
    """The file with other sizes in its header."""
    held = bytearray(path.read_bytes())
    held[40:56] = np.array([len(sizes), *sizes, *[1] * (7 - len(sizes))], "<i2").tobytes()
    path.write_bytes(held)
    return path


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((0, 8, 7), "no pixels: its size is 0 x 8 x 7"),
        ((9, 8, 0), "no pixels"),
        ((9, 8, 7, 0), "no pixels"),
        ((504,), "no pixels"),
        ((-9, 8, 7), "cannot be read"),
        ((9, 8, 8), "cut off"),
        ((9, 8, 7, 2), "cut off"),
        ((32767, 32767, 32767), "cut off"),
        ((32767,) * 7, "cut off"),
    ],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True])
def test_sizes_that_cannot_be(tmp_path, sizes, words, packed):
    """Before memory is taken for them."""
    path = dims(save(tmp_path / "a.nii", volume()), *sizes)
    if packed:
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "a.nii.gz"
    with pytest.raises(ValueError, match=rf"a\.nii(\.gz)?: .*{words}"):
        read_image(path)


def test_damaged_files_are_named(tmp_path):
    whole = save(tmp_path / "whole.nii", volume()).read_bytes()
    packed = gzip.compress(whole)
    damaged = bytearray(packed)
    damaged[len(packed) - 6] ^= 255  # in its checksum
    for name, held in (
        ("half.nii", whole[: len(whole) // 2]),
        ("head.nii", whole[:300]),
        ("one.nii", whole[:-1]),
        ("half.nii.gz", packed[: len(packed) // 2]),
        ("tail.nii.gz", packed[:-3]),
        ("sum.nii.gz", bytes(damaged)),
        ("text.nii", b"no volume " * 99),
        ("text.nii.gz", b"no volume " * 99),
        ("empty.nii", b""),
        ("empty.nii.gz", b""),
        ("nothing.nii.gz", gzip.compress(b"")),
        ("zeros.nii", bytes(1000)),
    ):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(ValueError, match=rf"{name}: ") as said:
            read_image(tmp_path / name)
        assert "\n" not in str(said.value)
    scan = np.stack([volume()[:, :, 0]] * 2).reshape(2, 72)  # what CIFTI calls a matrix of greyordinates
    axes = (nibabel.cifti2.ScalarAxis(["a", "b"]), nibabel.cifti2.SeriesAxis(0, 1, 72))
    nibabel.save(nibabel.Cifti2Image(scan, axes), tmp_path / "matrix.nii")
    with pytest.raises(ValueError, match=r"matrix\.nii: holds no image, but what nibabel calls Cifti2Image"):
        read_image(tmp_path / "matrix.nii")


def test_prepare_data_chooses_a_volume(tmp_path, fails, capsys):
    """The first with a warning, or --volume; a manifest names it."""
    for c, name in enumerate("ab"):
        (tmp_path / "S" / name).mkdir(parents=True)
        for i in range(8):
            data = np.stack([volume(seed=100 * c + 10 * i + k) for k in range(2)], axis=-1)
            save(tmp_path / "S" / name / f"{i}.nii.gz", data)
        save(tmp_path / "S" / name / "single.nii", volume(seed=1000 + c))
    flags = ("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D")
    run_script("prepare_data", *flags)
    assert "warning: 16 file(s) hold several volumes (a/0.nii.gz: 2)" in capsys.readouterr().err
    assert "a/0.nii.gz[3]," in (tmp_path / "D" / "Mine" / "manifest.csv").read_text()
    run_script("prepare_data", *flags, "--volume", 1)
    assert "warning" not in capsys.readouterr().err
    manifest = (tmp_path / "D" / "Mine" / "manifest.csv").read_text()
    assert "a/0.nii.gz[3,1]" in manifest
    assert "a/single.nii[3]," in manifest
    fails(1, ("0.nii.gz", "no volume 2"), "prepare_data", *flags, "--volume", 2)
    for path in (tmp_path / "S").rglob("*.gz"):
        save(path, volume(seed=ord(path.name[0]) + ord(path.parent.name)))
    fails(1, ("--volume 1", "several volumes"), "prepare_data", *flags, "--volume", 1)
    fails(2, ("--volume",), "prepare_data", *flags, "--volume", -1)
