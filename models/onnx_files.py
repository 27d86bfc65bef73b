"""ONNX files: what they hold and need, how images go in and answers come out; and how they are written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from common import files
from models.answers import PROBABILITIES, Wanted, choose, misfit, said, to_array
from models.device import prepare
from models.queries import Function
from models.reading import must_be_a_file

if TYPE_CHECKING:
    import onnx

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
WHOLE = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}  # levels 0 … 255
AXES = ("NCHW", "NHWC")
SMALLEST = 8  # px of an image's side
PASSED_ON = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")  # operators that change no value


# ---- files -----------------------------------------------------------------------------------------------------------


def parts(flag: str, path: Path) -> tuple[onnx.ModelProto, list[Path]]:
    """The graph of an ONNX file, without weights that lie in files of their own, and all its files: itself first, then
    these, by name. Raises FileNotFoundError or ValueError that says what is wrong or missing."""
    try:
        import onnx
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data
    except ImportError:
        raise ValueError(f"{flag} {path}: needs onnx; install it with pip install onnx onnxruntime") from None
    must_be_a_file(f"{flag} {path}", path)
    try:
        proto = onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf has kinds of its own
        raise ValueError(f"{flag} {path}: not a readable ONNX file, or an incomplete one: {said(error)}") from None
    needed: dict[str, int] = {}  # file → bytes
    for tensor in filter(uses_external_data, _tensors(proto.graph)):
        where = ExternalDataInfo(tensor)
        needed[where.location] = max(needed.get(where.location, 0), (where.offset or 0) + (where.length or 0))
    if not all((path.parent / name).is_file() for name in needed):
        path = path.resolve()  # a link to a file that its weights lie beside
    for name, size in needed.items():
        other = path.parent / name
        if not other.is_file():
            raise FileNotFoundError(f"{flag} {path}: keeps weights in {name} beside it, and there is no such file")
        must_be_a_file(f"{flag} {path}: its file {name}", other)
        if other.stat().st_size < size:
            raise ValueError(
                f"{flag} {path}: its file {name} is incomplete: {other.stat().st_size} bytes of at least {size}"
            )
    return proto, [path, *(path.parent / name for name in sorted(needed))]


def digest(flag: str, path: Path) -> str:
    """SHA-256 of an ONNX file; if it keeps weights in other files, one of the names and digests of all."""
    _, (model, *others) = parts(flag, path)
    own = files.sha256(model)
    lines = [f"{other.relative_to(model.parent).as_posix()} {files.sha256(other)}" for other in others]
    return hashlib.sha256("\n".join([own, *lines]).encode()).hexdigest() if others else own


def metadata(flag: str, path: Path) -> dict[str, Any]:
    """What `write_onnx` knew of the network; {} of a file from elsewhere. Raises what `parts` does."""
    return _metadata(parts(flag, path)[0])


def _metadata(proto: onnx.ModelProto) -> dict[str, Any]:
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    return json.loads(texts.get("denoised_smoothing", "{}"))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors that a graph stores, those of its branches and loops included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


# ---- how images go in ------------------------------------------------------------------------------------------------

# How images may go in: a batch, a batch of grey ones, one image alone, one line of numbers per image.
WAYS = ("NCHW", "NHWC", "NHW", "CHW", "HWC", "N(CHW)", "N(HWC)")
Lengths = tuple[int | None, ...]  # of axes; None: any


def ways_of(shape: Lengths | None) -> list[str]:
    """How grey or RGB images may go into an input of this shape (None: it does not tell)."""
    if shape is None:
        return [*AXES]
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
    output: str
    probabilities: bool


class OnnxFile:
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
        self._made_by = {
            name: (node.op_type, node.input[0]) for node in proto.graph.node for name in node.output if node.input
        }
        # Where scales are those of the whole batch, an image's answer depends on its company.
        self._one_by_one = any(node.op_type == "DynamicQuantizeLinear" for node in _nodes(proto.graph))
        self._input, self._kind, self._shape = self._images()
        self._levels = self._kind in WHOLE or divides_by_255(proto, self._input)
        self.known = _metadata(proto) or self._told()

    def _images(self) -> tuple[str, str, Lengths | None]:
        """The name, type and shape of the input."""
        found = [
            (each.name, each.type, tuple(d if isinstance(d, int) and d > 0 else None for d in each.shape) or None)
            for each in self._session.get_inputs()
        ]
        listed = {name: f"{name} {kind} {_shown(shape)}" for name, kind, shape in found}
        images = [each for each in found if each[1] in (*FLOATS, *WHOLE) and ways_of(each[2])]
        if not images:
            raise ValueError(
                f"{self.called}: takes {', '.join(listed.values()) or 'nothing'}, not grey or RGB images "
                "as floats or 8-bit levels"
            )
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
        sure = self._is_probability(output, single) or (want.output is None and output.lower() in PROBABILITIES)
        return Bound(function, output, sure), answer

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

    def _is_probability(self, output: str, single: bool) -> bool:
        """Whether the graph makes probabilities of scores to give this output; `single`: it is one value per image."""
        made, source = self._made_by.get(output, ("", ""))
        while made in PASSED_ON:
            made, source = self._made_by.get(source, ("", ""))
        return made in ("Softmax", "ZipMap") or (made == "Sigmoid" and single)


def divides_by_255(proto: onnx.ModelProto, name: str) -> bool:
    """Whether the first that a network does to its input `name` is to divide it by 255."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    stored |= {
        node.output[0]: attribute.t
        for node in proto.graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    users = [node for node in proto.graph.node if name in node.input]
    while len(users) == 1 and users[0].op_type in ("Cast", "Identity", "Transpose", "Unsqueeze", "Reshape"):
        users = [node for node in proto.graph.node if users[0].output[0] in node.input]
    if len(users) != 1 or users[0].op_type not in ("Div", "Mul"):
        return False
    by = [stored[other] for other in users[0].input if other in stored]
    if len(by) != 1 or by[0].data_location == by[0].EXTERNAL or np.prod(by[0].dims, dtype=int) != 1:
        return False
    factor = float(numpy_helper.to_array(by[0]).item())
    return bool(np.isclose(factor, 255 if users[0].op_type == "Div" else 1 / 255))


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


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_onnx(model: nn.Module, known: dict[str, Any], path: Path) -> None:
    """Write a network from images `[B, C, H, W]` in [0, 1] as ONNX for any batch size, with what is `known` of it
    (`channels`, `image_size` and others) as metadata. Raises ValueError if the packages that write it are missing."""
    try:
        import onnx
        import onnxscript  # noqa: F401 — what torch.onnx.export writes with
    except ImportError as error:
        raise ValueError(f"--outfile {path}: needs {error.name}; pip install onnx onnxscript") from None

    program = torch.onnx.export(
        prepare(model, "cpu").float(),
        (torch.rand(2, known["channels"], *[known["image_size"]] * 2),),
        input_names=["images"],
        output_names=["scores"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None  # None is for exporters of old
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"denoised_smoothing": json.dumps(known)})
    with files.replacing(path) as temporary:
        onnx.save(proto, temporary)
