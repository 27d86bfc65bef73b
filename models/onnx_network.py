"""The network of an ONNX file, run by onnxruntime: how images go in, and which answer comes out."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.answers import PROBABILITIES, Wanted, choose, misfit, to_array
from models.onnx_files import divides_by_255, known_of, makes_probabilities, operators, parts
from models.queries import Function

if TYPE_CHECKING:
    import onnx

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
WHOLE = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}  # levels 0 … 255
SMALLEST = 8  # px of an image's side

# ---- how images go in ------------------------------------------------------------------------------------------------

# How images may go in: a batch, a batch of grey ones, one image alone, one line of numbers per image.
WAYS = ("NCHW", "NHWC", "NHW", "CHW", "HWC", "N(CHW)", "N(HWC)")
Lengths = tuple[int | None, ...]  # of axes; None: any


def ways_of(shape: Lengths | None) -> list[str]:
    """How grey or RGB images may go into an input of this shape (None: it does not tell)."""
    if shape is None:
        return ["NCHW", "NHWC"]
    if len(shape) == 2:
        return ["N(CHW)", "N(HWC)"]

    def may_be(axis: str, length: int | None, way: str) -> bool:
        if axis == "C":
            return length in (1, 3) or (length is None and "N" in way)
        return axis == "N" or length is None or length >= SMALLEST

    there = (way for way in WAYS if len(way) == len(shape))
    return [way for way in there if all(may_be(axis, length, way) for axis, length in zip(way, shape, strict=True))]


def fits(shape: Lengths | None, way: str, channels: int, size: int) -> bool:
    """Whether an input of this shape takes images of so many channels and pixels in this way."""
    if shape is None:
        return True
    taken = {"N": None, "C": channels, "H": size, "W": size}
    lengths = (None, channels * size**2) if "(" in way else tuple(taken[axis] for axis in way)
    return all(None in (length, own) or length == own for length, own in zip(lengths, shape, strict=True))


def arranged(images: np.ndarray, way: str, kind: str, levels: bool) -> np.ndarray:
    """Images `[B, C, H, W]` in [0, 1] as the network takes them: in this way, as numbers of this type, with `levels` on
    the scale from 0 to 255."""
    if levels:
        images = images * np.float32(255)
    if kind in WHOLE:
        images = np.rint(np.clip(images, 0, 255))
    if "HWC" in way:
        images = images.transpose(0, 2, 3, 1)
    if "(" in way:
        images = images.reshape(len(images), -1)
    elif way == "NHW":
        images = images[:, 0]
    elif "N" not in way:
        images = images[0]
    return np.ascontiguousarray(images, dtype=(FLOATS | WHOLE)[kind])


def restored(answer: Any, count: int, fill: int, way: str) -> Any:
    """The answer to the first `count` of `fill` images, with an axis of images, and channels first."""
    if not isinstance(answer, np.ndarray):
        return answer[:count]
    if fill == 1 and (answer.ndim < 2 or len(answer) != 1):
        answer = answer[None]  # no axis of images
    if "HWC" in way and answer.ndim == 4:
        answer = answer.transpose(0, 3, 1, 2)
    return answer[:count] if answer.ndim and len(answer) == fill else answer


# ---- the network -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bound:
    """`function`: images `[B, C, H, W]` in [0, 1] → the output that is wanted. `probabilities`: whether the file says
    that these are probabilities."""

    function: Function
    probabilities: bool


class OnnxNetwork:
    """The network of an ONNX file. `known` is what it tells of itself: what `write_onnx` wrote, else the number of
    channels and the size of its images, if its shapes fix them.

    Raises FileNotFoundError, or ValueError that names the file if it cannot be read or takes something else than one
    batch of grey or RGB images.
    """

    def __init__(self, flag: str, path: Path) -> None:
        self.called = f"{flag} {path}"
        proto, (model, *_) = parts(flag, path)
        self._session = open_session(self.called, model, proto)
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._graph = proto.graph
        # Where scales are those of the whole batch, an image's answer depends on its company.
        self._one_by_one = any(node.op_type == "DynamicQuantizeLinear" for node in operators(proto.graph))
        self._input, self._kind, self._shape = self._images()
        self._levels = self._kind in WHOLE or divides_by_255(proto.graph, self._input)
        self.known = known_of(proto) or self._told()
        del proto.graph.initializer[:]  # weights, which the session holds

    def _images(self) -> tuple[str, str, Lengths | None]:
        """The name, type and shape of the input."""
        found = [(each.name, each.type, _lengths(each.shape)) for each in self._session.get_inputs()]
        listed = {name: f"{name} {kind} {_shown(shape)}" for name, kind, shape in found}
        images = [each for each in found if each[1] in (*FLOATS, *WHOLE) and ways_of(each[2])]
        if not images:
            takes = ", ".join(listed.values()) or "nothing"
            raise ValueError(f"{self.called}: takes {takes}, not grey or RGB images as floats or 8-bit levels")
        if len(found) > 1:
            name = max(images, key=lambda each: len(each[2] or ()))[0]
            others = ", ".join(text for other, text in listed.items() if other != name)
            raise ValueError(f"{self.called}: needs besides the images ({name}) also {others}; export it without")
        return images[0]

    def _told(self) -> dict[str, Any]:
        """Channels and size of the images, if the shape of the input can be read in one way only."""
        ways = ways_of(self._shape)
        if self._shape is None or len(ways) != 1:
            return {}
        lengths = dict(zip(ways[0], self._shape, strict=True))
        height, width = lengths["H"], lengths["W"]
        if None not in (height, width) and height != width:
            raise ValueError(f"{self.called}: takes images of {width}×{height} px, but images here are square")
        told = {"channels": lengths.get("C", 1), "image_size": height or width}
        return {name: value for name, value in told.items() if value is not None}

    def bind(self, channels: int, size: int, wanted: Callable[[int], Wanted], axes: str | None = None) -> Bound:
        """The function of images to the output that is wanted (`wanted(B)`). Each way in which images may go in is
        tried on two.

        Raises ValueError if no way works, several give different answers, or it is not clear which output is meant.
        """
        images = np.random.default_rng(0).random((2, channels, size, size), dtype=np.float32)
        works: dict[str, tuple[Bound, np.ndarray]] = {}
        doubts: list[str] = []
        for way in self._ways(channels, size, axes):
            for take, fill in self._batches(way):
                try:
                    works[way] = self._tried(images, wanted, way, take, fill)
                    break
                except ValueError as error:  # it answers, but not as is wanted
                    doubts.insert(0, str(error))
                    break
                except RuntimeError as error:
                    doubts.append(f"a query failed: {error}")
        if not works:
            raise ValueError(f"{self.called}: {doubts[0]}")
        (bound, answer), *others = works.values()
        if not all(other.shape == answer.shape and np.allclose(other, answer) for _, other in others):
            raise ValueError(
                f"{self.called}: its input does not say in which order its axes are; give --axes NCHW or NHWC"
            )
        if self._levels:
            said = ", with their noise, are cut off at 0 and 1, multiplied by 255 and rounded"
            how = said if self._kind in WHOLE else " are multiplied by 255, by which it divides them first"
            warnings.warn(f"{self.called}: takes levels from 0 to 255: images{how}", stacklevel=2)
        if self._one_by_one:
            warnings.warn(f"{self.called}: quantises by the whole batch, and so is asked image by image", stacklevel=2)
        return bound

    def _ways(self, channels: int, size: int, axes: str | None) -> list[str]:
        """How images of so many channels and pixels may go in."""
        ways = [way for way in ways_of(self._shape) if fits(self._shape, way, channels, size)]
        if channels == 1 and "N(CHW)" in ways:
            ways = ["N(CHW)"]
        if axes is not None:
            ways = [way for way in ways if way == "NHW" or ("HWC" in way) == (axes == "NHWC")]
        if not ways:
            order = f" in the order {axes}" if axes else ""
            raise ValueError(
                f"{self.called}: takes {_shown(self._shape)}, not images of {channels}×{size}×{size}{order}"
            )
        return ways

    def _batches(self, way: str) -> list[tuple[int | None, int | None]]:
        """(images per run, of which copies fill up the batch to this size; None: all at once)."""
        batch = 1 if "N" not in way else self._shape[0] if self._shape else None
        if self._one_by_one:
            return [(1, batch or 1)]
        return [(batch, batch)] if batch else [(None, None), (1, 1)]  # the second: some fix it only inside

    def _tried(
        self, images: np.ndarray, wanted: Callable[[int], Wanted], way: str, take: int | None, fill: int | None
    ) -> tuple[Bound, np.ndarray]:
        """The function of images that go in in this way, and its answer to `images`, which are as many as it takes."""
        some = np.resize(images, (take or len(images), *images.shape[1:]))
        named = dict(zip(self._outputs, self._run(some, self._outputs, way, take, fill), strict=True))
        want = wanted(len(some))
        output = choose(named, want)
        answer = to_array(named[output], dataclasses.replace(want, output=None))
        if answer.shape not in want.forms:
            others = f"; --output can also be {', '.join(each for each in named if each != output)}"
            raise ValueError(
                f"answers {len(some)} images with {output} {list(answer.shape)}, not {list(want.forms[0])}"
                f"{misfit(answer.shape, want)}{others if len(named) > 1 else ''}"
            )

        def function(images: np.ndarray) -> Any:
            return self._run(images, [output], way, take, fill)[0]

        single = answer.ndim < 2 or answer.shape[1] == 1
        called_so = want.output is None and output.lower() in PROBABILITIES
        return Bound(function, called_so or makes_probabilities(self._graph, output, single)), answer

    def _run(self, images: np.ndarray, outputs: list[str], way: str, take: int | None, fill: int | None) -> list[Any]:
        """These outputs for all images."""
        take, fill = take or len(images), fill or len(images)
        found = []
        for part in (images[first : first + take] for first in range(0, len(images), take)):
            filled = np.concatenate([part, np.repeat(part[-1:], fill - len(part), axis=0)])
            try:
                answers = self._session.run(outputs, {self._input: arranged(filled, way, self._kind, self._levels)})
            except Exception as error:  # onnxruntime has kinds of its own
                raise RuntimeError(reason(error)) from None
            found.append([restored(answer, len(part), fill, way) for answer in answers])
        if len(found) == 1:
            return found[0]
        return [
            np.concatenate(each) if isinstance(each[0], np.ndarray) else [row for rows in each for row in rows]
            for each in zip(*found, strict=True)
        ]


def _lengths(shape: list[int | str | None]) -> Lengths | None:
    """The lengths of axes as onnxruntime writes them, names for any; it writes [] if there is no shape."""
    return tuple(length if isinstance(length, int) and length > 0 else None for length in shape) or None


def _shown(shape: Lengths | None) -> str:
    return "of unknown shape" if shape is None else str(["any" if d is None else d for d in shape]).replace("'", "")


def open_session(called: str, path: Path, proto: onnx.ModelProto) -> Any:
    """A session of onnxruntime. Raises ValueError that says why there is none."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{called}: needs onnxruntime; install it with pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what it logs of an error, the error says
    there = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has kinds of its own
        text = reason(error)
        new = f"newer than onnxruntime {onnxruntime.__version__} knows: pip install --upgrade onnxruntime, or"
        opsets = ", ".join(f"{each.domain} {each.version}".strip() for each in proto.opset_import)
        if "IR version" in text:
            why = f"is written in version {proto.ir_version} of the format (IR), {new} export it with an older onnx"
        elif "opset" in text.lower():
            why = f"needs opset {opsets}, {new} export it again with a smaller opset_version"
        else:
            why = f"not a readable ONNX file: {text}"
        raise ValueError(f"{called}: {why}") from None


def reason(error: Exception) -> str:
    """What an error of onnxruntime says, without where in its source it was raised."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    text = re.sub(r"/onnxruntime_src/\S+ .*?\) (?=\S)", "", text)
    return text[:300]
