"""Pictures of certified images, as the pipeline sees them: clean, under noise, denoised, attacked. For reports."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from common import files
from datasets import ImageDataset
from evaluation.certificates import Certification
from evaluation.report.explorer import by_risk, tiles
from evaluation.report.page import answers_html
from evaluation.report.sources import Sources, noise_key, pictured
from evaluation.report.story import scale
from imaging.catalogue import DatasetInfo
from imaging.images import find_images, read_image, to_array, with_slice
from models import Pipeline, load_front
from models.inference import frozen
from smoothing.noise import Noise

LARGEST = 224  # px: pictures of larger images are made smaller
SMALL = 96  # px: up to here pictures can be exact; those of larger images would take too much room
QUALITY = 90  # of WebP, where it is not exact
STRONGER = 10  # times: how much a perturbation is enlarged to be seen

Pictures = dict[str, dict[str, str]]  # kind → image → data URI


def encoded(pixels: np.ndarray, exact: bool = False) -> str:
    """uint8 `[C, H, W]` as a data URI (WebP), no larger than `LARGEST`; `exact` keeps every pixel of a small image."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4, lossless=exact and max(image.size) <= SMALL)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def shown(image: Tensor) -> np.ndarray:
    """Values in [0, 1] (others are clipped) `[C, H, W]` as uint8."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def difference(attacked: np.ndarray, clean: np.ndarray, times: int) -> np.ndarray:
    """The perturbation between two images, uint8 `[C, H, W]`, `times` as strong, around middle grey."""
    return np.clip(128 + times * (attacked.astype(int) - clean), 0, 255).astype(np.uint8)


def under_noise(image: Tensor, settings: Mapping, index: int, front: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """The first draw of noise on an image `[C, H, W]`, as it is certified, and what the denoiser makes of it (None
    without a denoiser)."""
    noise = Noise(image, settings["sigma"], settings["seed"], index, settings["noise"])
    noisy = noise.noisy(0, 1)
    with torch.inference_mode():
        return noisy[0], None if front is None else front(noisy.contiguous(), settings["sigma"])[0]


def fronts(certifications: Sequence[Certification], others: Iterable[Path]) -> tuple[dict[int, nn.Module], list[str]]:
    """The denoiser of each certification by its place, and a sentence about those that cannot be had. A denoiser is
    where the settings say, or among `others`; its digest must be the certified one. An autoencoder in files of its own
    cannot be found."""
    digests = {files.sha256(path): path for path in others}
    found: dict[int, nn.Module] = {}
    missing: dict[str, None] = {}
    loaded: dict[str, nn.Module] = {}
    for place, each in enumerate(certifications):
        s = each.settings
        digest, named = s.get("denoiser_sha256"), Path(str(s.get("denoiser")))
        if not digest:
            continue
        if digest not in loaded:
            path = digests.get(digest) or (named if named.is_file() and files.sha256(named) == digest else None)
            if path is None or {"encoder_sha256", "decoder_sha256"} & set(s):
                missing[str(named)] = None
                continue
            loaded[digest] = frozen(load_front(s["channels"], s["image_size"], "cpu", path)[0])
        found[place] = loaded[digest]
    if not missing:
        return found, []
    return found, [f"no denoised pictures by {', '.join(missing)}: not here (name them with --denoisers)"]


class Album:
    """Collects pictures until `room` bytes are full. `pictures` has the kinds `clean`, `noisy KEY` (`noise_key`),
    `denoised PLACE`, `attacked SET`, `restored PLACE` (the attacked image under the same noise, denoised) and `times10
    SET`, and `worst IDX SET` with the perturbation once and `STRONGER` times."""

    def __init__(self, room: int) -> None:
        self.pictures: Pictures = {}
        self.room = room

    def add(self, kind: str, idx: object, pixels: np.ndarray) -> None:
        own = self.pictures.setdefault(kind, {})
        if str(idx) not in own:
            own[str(idx)] = encoded(pixels, kind == "clean" or kind.startswith("attacked"))
            self.room -= len(own[str(idx)]) + 16

    @property
    def is_full(self) -> bool:
        return self.room <= 0

    def add_noisy(
        self,
        idx: int,
        image: Tensor,
        places: Mapping[int, Certification],
        denoisers: Mapping[int, nn.Module],
        attacked: Mapping[int, tuple[int, Tensor]],
    ) -> None:
        """The image under noise and denoised, for each certification by its place. `attacked` has for some of them the
        number of the set and the attacked image that came closest."""
        for place, each in places.items():
            settings = {**each.settings, "sigma": each.sigma}
            if not {"seed", "noise"} <= set(settings):
                continue
            noisy, restored = under_noise(image, settings, idx, denoisers.get(place))
            self.add(f"noisy {noise_key(each)}", idx, shown(noisy))
            if restored is not None:
                self.add(f"denoised {place}", idx, shown(restored))
            if place in attacked:
                number, other = attacked[place]
                self.add(f"attacked {number}", idx, shown(other))
                self.add(f"times10 {number}", idx, difference(shown(other), shown(image), STRONGER))
                again = under_noise(other, settings, idx, denoisers.get(place))[1]
                if again is not None:
                    self.add(f"restored {place}", idx, shown(again))

    def add_worst(self, idx: int, number: int, image: Tensor, attacked: Tensor) -> None:
        """An attacked image, and its perturbation once and `STRONGER` times."""
        clean, other = shown(image), shown(attacked)
        for name, pixels in (
            ("clean", clean),
            ("attacked", other),
            ("times1", difference(other, clean, 1)),
            ("times10", difference(other, clean, STRONGER)),
        ):
            self.add(f"worst {idx} {number}", name, pixels)


def read_attacked_image(path: Path, size: int, channels: int) -> Tensor:
    """An attacked image that was saved, float32 `[C, H, W]` in [0, 1]."""
    return torch.from_numpy(to_array(read_image(path), size, channels).astype("float32") / 255)


class _Images:
    """The clean and the attacked images of a report, float32 `[C, H, W]` in [0, 1], by idx."""

    def __init__(self, sources: Sources, dataset: ImageDataset) -> None:
        self._dataset = dataset
        self._takes = dataset[0][0].shape[-1], dataset[0][0].shape[0]
        self._paths = [
            {int(row["idx"]): some.folder / row["path"] for row in some.rows if (some.folder / row["path"]).is_file()}
            for some in sources.attacks
        ]
        self._attempts = [sources.attempts(place) for place in range(len(sources.certifications))]

    def clean(self, idx: int) -> Tensor:
        return self._dataset[self._dataset.place(idx)][0]

    def attacked(self, number: int, idx: int) -> Tensor | None:
        """The attacked image of a set; None if its file has gone."""
        path = self._paths[number].get(idx)
        return None if path is None else read_attacked_image(path, *self._takes)

    def closest(self, idx: int) -> dict[int, tuple[int, Tensor]]:
        """Place of a certification → the set and the attacked image that is shown with it."""
        found = {}
        for place, attempts in enumerate(self._attempts):
            tried = attempts.get(idx, [])
            number = pictured(tried)
            kept = None if number is None else tried[number].found_in
            if kept is not None and (other := self.attacked(kept, idx)) is not None:
                found[place] = (kept, other)
        return found


def draw(
    sources: Sources, dataset: ImageDataset, album: Album, count: int, denoisers: Iterable[Path]
) -> tuple[list[str], list[str]]:
    """Put pictures of the images into the album: of the worst attacks at each radius; the clean images in at most half
    of the room; then all pictures of `count` images, those at the greatest risk first. Return what the page must say of
    them, and what is missing."""
    networks, missing = fronts(sources.certifications, denoisers)
    images = _Images(sources, dataset)
    certified = [set(each.rows["idx"].tolist()) for each in sources.certifications]
    chosen = set(tiles(sources))
    order = [idx for idx in by_risk(sources.main) if idx in chosen]
    order += sorted(chosen - set(order))

    for step in scale(sources):
        if (one := step["attack"]) and (other := images.attacked(one["set"], one["idx"])) is not None:
            album.add_worst(one["idx"], one["set"], images.clean(one["idx"]), other)
    half = album.room // 2
    for idx in order:
        if album.room < half:
            break
        album.add("clean", idx, shown(images.clean(idx)))
    whole = 0
    for idx in tqdm(order[:count], desc="pictures", disable=None, leave=False, unit="image"):
        if album.is_full:
            break
        image = images.clean(idx)
        album.add("clean", idx, shown(image))
        own = {place: each for place, each in enumerate(sources.certifications) if idx in certified[place]}
        album.add_noisy(idx, image, own, networks, images.closest(idx))
        whole += 1
    held = len(album.pictures.get("clean", {}))
    notes = []
    if held < len(order):
        notes.append(f"{held:,} of {len(order):,} tiles have a picture, the others a number.")
    if whole < len(order):
        notes.append(f"{whole:,} images have all their pictures, those at the greatest risk first.")
    return notes, missing


def page_of_files(
    pipeline: Pipeline,
    info: DatasetInfo,
    settings: dict,
    sigma: float,
    paths: Sequence[Path],
    answers: Sequence[dict],
    statement: str,
    device: torch.device,
) -> str:
    """The page about single files (--predict): their `answers`, what these prove (`statement`), and pictures at one
    `sigma`."""
    found: Pictures = {}
    for index, path in enumerate(map(with_slice, find_images(paths))):
        pixels = to_array(read_image(path, info.window), pipeline.image_size, pipeline.channels, info.fit)
        image = torch.from_numpy(pixels.astype("float32") / 255).to(device)
        noisy, restored = under_noise(image, {**settings, "sigma": sigma}, index, pipeline.denoiser)
        own = {"clean": pixels, "noisy": shown(noisy)} | ({} if restored is None else {"denoised": shown(restored)})
        found[str(path)] = {kind: encoded(each, kind == "clean") for kind, each in own.items()}
    return answers_html(answers, settings, statement, found)
