"""Fetch a data set from Kaggle, or say how to do it by hand."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from imaging.catalogue import DatasetInfo
from preparation.folder_names import split_of
from preparation.sources import find_images


def download_kaggle(info: DatasetInfo, name: str) -> Path:
    """Download through kagglehub (public sets need no login) and return the folder that holds the classes, or Training/
    and Testing/.

    Raises OSError with the manual steps when kagglehub is missing, the network is, or the archive is not as expected.
    """
    if info.kaggle is None:
        raise ValueError(f"--download: {name} is not on Kaggle")
    try:
        import kagglehub

        root = Path(kagglehub.dataset_download(info.kaggle))
    except ImportError:
        raise OSError(f"--download needs kagglehub (pip install kagglehub). {_by_hand(info, name)}") from None
    except Exception as error:  # kagglehub raises requests', its own and urllib's errors alike
        raise OSError(f"--download failed ({type(error).__name__}). {_by_hand(info, name)}") from error
    for folder in (root, *sorted(path for path in root.rglob("*") if path.is_dir())):
        try:
            records, _ = find_images(folder, info)
        except ValueError:
            continue
        first, *others = {PurePosixPath(record.path).parts[0] for record in records}
        if others or first == "process" or split_of(first):  # else a folder within is the one
            return folder
    raise OSError(f"--download: {root} is not laid out as expected. {_by_hand(info, name)}")


def _by_hand(info: DatasetInfo, name: str) -> str:
    return (
        f"By hand: 1. open kaggle.com/datasets/{info.kaggle} and press Download; 2. unzip the archive; "
        f"3. run: python prepare_data.py --dataset {name} --source FOLDER"
    )
