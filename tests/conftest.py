"""Shared set-up: scripts run in this process by their real command lines; one tiny data set and pipeline for all."""

from __future__ import annotations

from common.script import start

import importlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

settings.register_profile("long", max_examples=2000)  # of test_fuzz.py
torch.set_num_threads(1)  # tiny networks gain nothing from more, and lose much on a busy machine
CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


def our_files(pattern: str) -> list[Path]:
    """The files of the project that match, such as `*.py`: those that git tracks, without a repository all but hidden
    folders, runs and data. A user's own files beside them are none of ours."""
    root = Path(__file__).resolve().parents[1]
    told = subprocess.run(["git", "ls-files", "--", pattern], cwd=root, capture_output=True, text=True, check=False)
    if told.returncode == 0 and (root / ".git").exists():
        return sorted(root / name for name in told.stdout.splitlines() if (root / name).is_file())
    elsewhere = {"runs", "Dataset"}
    parts = {path: path.relative_to(root).parts[0] for path in root.rglob(pattern)}
    return sorted(path for path, top in parts.items() if top not in elsewhere and not top.startswith("."))


def run_script(module: str, *argv: object) -> None:
    """Run a script by its command line; SystemExit carries the exit code when something is wrong."""
    script = importlib.import_module(module)
    start(script.get_args_parser, script.main, [str(token) for token in argv])


@pytest.fixture
def fails(capsys):
    """`fails(code, words, script, *argv)`: the script must stop with that exit code and one line holding the words."""

    def check(code: int, words: tuple[str, ...], module: str, *argv: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_script(module, *argv)
        assert stop.value.code == code
        message = capsys.readouterr().err.strip()
        assert "\n" not in message, message
        assert "Traceback" not in message
        for word in words:
            assert str(word) in message, f"{word!r} not in: {message}"
        return message

    return check


def write_image(path: Path, seed: int, size: tuple[int, int] = (20, 16), **options) -> None:
    """A random RGB image that only `seed` decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def write_dicom(
    path: Path, pixels: np.ndarray, photometric: str = "MONOCHROME2", frames: int | None = None, **tags
) -> None:
    """A DICOM file of 16-bit `pixels` `[…, rows, columns]` with these tags."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    if frames:
        data.NumberOfFrames = frames
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def forbid(monkeypatch):
    """`forbid(folder)`: it may not be read from now on, by root neither."""

    def check(folder: Path) -> None:
        real = os.scandir

        def scandir(path="."):
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return check


@pytest.fixture
def made_up_tree(tmp_path) -> Path:
    """Kaggle's layout: per class 20 different images in Training and 5 in Testing, lossless."""
    source = tmp_path / "archive"
    seed = 0
    for split, count in (("Training", 20), ("Testing", 5)):
        for name in CLASSES:
            for i in range(count):
                write_image(source / split / name / f"{i:02d}.png", seed)
                seed += 1
    return source


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A folder with a small prepared Phantom_MRI."""
    root = tmp_path_factory.mktemp("Dataset")
    run_script("prepare_data", "--dataset", "Phantom_MRI", "--data_dir", root, "--subjects", 60, "--phantom_size", 48)
    return root


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory, data_dir) -> dict[str, Path]:
    """Checkpoints of a classifier and of a denoiser, barely trained, at 32 px."""
    root = tmp_path_factory.mktemp("runs")
    common = ("--data_dir", data_dir, "--epochs", 1, "--image_size", 32, "--batch", 16)
    run_script("train_classifier", *common, "--arch", "regnet_y_400mf", "--outdir", root / "classifier")
    run_script("ds_main", *common, "--noise_sd", 0.1, 0.5, "--outdir", root / "mse")
    return {name: root / name / "best.pth.tar" for name in ("classifier", "mse")}


@pytest.fixture(scope="session")
def brain_tumor_source() -> Path:
    """The real images; on a machine without them the test is skipped."""
    folder = os.environ.get("BRAIN_TUMOR_SOURCE")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real images: set BRAIN_TUMOR_SOURCE to the unzipped Kaggle archive")
    return Path(folder)
