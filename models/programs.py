"""Networks that were exported with their code: programs of torch.export (`.pt2`) and TorchScript."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.outputs import last_line, scores_of

METADATA = "denoised_smoothing"  # entry of the files that we write


class Program(nn.Module):
    """An exported graph as an ordinary module. Such a graph has no modes. If the number of images is part of it
    (`batch`), images run in batches of that size, and copies of the last image fill the last batch."""

    def __init__(self, graph: nn.Module, batch: int | None = None) -> None:
        super().__init__()
        self.graph, self.batch = graph, batch

    def train(self, mode: bool = True) -> Program:
        for module in self.modules():  # a graph refuses to be asked
            module.training = mode
        return self

    def forward(self, x: Tensor) -> Any:
        if self.batch is None:
            return self.graph(x)
        filled = torch.cat([x, x[-1:].expand(-len(x) % self.batch, -1, -1, -1)])
        return torch.cat([scores_of(self.graph(part), self.batch) for part in filled.split(self.batch)])[: len(x)]


def load_program(flag: str, path: Path, device: torch.device | str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a file of torch.export, and what it says of its images: `channels` and `image_size` if they are
    part of the graph, and all that our own files say. Raises ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _moved(torch.export.load(path), device)
        (name,) = program.graph_signature.user_inputs
        (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == name)
        graph = program.module()
    except Exception as error:  # whatever a damaged file, a newer version or another device raises
        raise ValueError(f"{flag} {path}: not a readable program of torch.export: {last_line(error)}") from None
    if len(shape) != 4:
        raise ValueError(f"{flag} {path}: takes {list(shape)}, but a classifier takes images [B, C, H, W]")
    batch, channels, height, width = (side if isinstance(side, int) else None for side in shape)
    if height != width:
        raise ValueError(f"{flag} {path}: takes images of {height}×{width} px, but they must be square")
    read_off = {"channels": channels, "image_size": height}
    return Program(graph, batch), {
        **{key: each for key, each in read_off.items() if each is not None},
        **metadata_of(path),
    }


def metadata_of(path: Path) -> dict[str, Any]:
    """What `models.export` wrote of a network beside its program; {} in other files."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(f"/{METADATA}.json")]
        return json.loads(archive.read(names[0])) if names else {}


def _moved(program: Any, device: torch.device | str) -> Any:
    """A program on another device than that on which it was exported."""
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, str(device))


def load_torchscript(flag: str, path: Path, device: torch.device | str) -> nn.Module:
    """The network of a TorchScript file. Raises ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated is not the user's fault
            return torch.jit.load(path, map_location=device)
    except Exception as error:
        raise ValueError(f"{flag} {path}: not a readable TorchScript file: {last_line(error)}") from None
