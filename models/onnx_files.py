"""ONNX files: what they hold and need, what their graphs do, and how they are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from common import files
from models.arrays import said
from models.device import prepare
from models.reading import must_be_a_file

if TYPE_CHECKING:
    import onnx

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
    return known_of(parts(flag, path)[0])


def known_of(proto: onnx.ModelProto) -> dict[str, Any]:
    """What `write_onnx` stored in it."""
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


# ---- what a graph does -----------------------------------------------------------------------------------------------

FORMAL = (
    "Cast",
    "Identity",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
)  # operators that change no value


def operators(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All operators of a graph, those of its branches and loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from operators(inner)


def divides_by_255(graph: onnx.GraphProto, name: str) -> bool:
    """Whether the first that a network does to its input `name` is to divide it by 255."""
    users = [node for node in graph.node if name in node.input]
    while len(users) == 1 and users[0].op_type in FORMAL:
        users = [node for node in graph.node if users[0].output[0] in node.input]
    if len(users) != 1 or users[0].op_type not in ("Div", "Mul"):
        return False
    constants = _constants(graph)
    factors = [constants[other] for other in users[0].input if other in constants]
    return len(factors) == 1 and bool(np.isclose(factors[0], 255 if users[0].op_type == "Div" else 1 / 255))


def _constants(graph: onnx.GraphProto) -> dict[str, float]:
    """The single numbers that a graph stores beside its weights, by name."""
    from onnx import numpy_helper

    values = ((node.output[0], attribute.t) for node in graph.node for attribute in node.attribute)
    stored = [*((tensor.name, tensor) for tensor in graph.initializer), *values]
    single = [(name, each) for name, each in stored if each.data_type and np.prod(each.dims, dtype=int) == 1]
    return {
        name: float(numpy_helper.to_array(each).item())
        for name, each in single
        if each.data_location != each.EXTERNAL and each.data_type != each.STRING
    }


def makes_probabilities(graph: onnx.GraphProto, output: str, single: bool) -> bool:
    """Whether a graph makes probabilities of scores to give this output; `single`: it is one value per image."""
    made_by = {name: node for node in graph.node for name in node.output}
    node = made_by.get(output)
    while node is not None and node.op_type in FORMAL:
        node = made_by.get(node.input[0])
    return node is not None and (node.op_type in ("Softmax", "ZipMap") or (node.op_type == "Sigmoid" and single))


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
