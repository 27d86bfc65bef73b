"""Denoisers of others: diffusion models in one step, DRUNet files, modules by import path; the pipeline as one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_script
from torch import nn
from torch.nn import functional as F

from core import Smooth
from models import build, load_classifier, load_front, load_model, load_pipeline
from models.restoration import DRUNet

SIZE = 32
MODULE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, x): return x - self.conv(x)
class Told(Net):
    def forward(self, x, sigma): return (x - sigma * self.conv(x), "more")
class Optional(Net):
    def forward(self, x, features=False): return {"sample": super().forward(x)}
class Grey(Net):
    def forward(self, x): return x[:, :1]
def number(): return 3
class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Linear(8, 4)
        with torch.no_grad():
            self.head.weight.mul_(30)
            self.head.bias.copy_(-self.features(torch.full((1, 3, 32, 32), 0.5))[0] @ self.head.weight.T)
    def features(self, x): return self.norm.eval()(self.conv(x)).relu().mean((2, 3))
    def forward(self, x): return self.head(self.features(x))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("denoisers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        (folder / "denoisers_of_mine.py").write_text(MODULE)
        yield folder
        sys.modules.pop("denoisers_of_mine", None)


def diffusion(folder: str, apart: bool = True, unet: dict | None = None, **scheduler):
    """A folder as diffusers saves it, of a tiny model with random weights; the model and its scheduler."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    kwargs = {
        "sample_size": SIZE,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    model, steps = diffusers.UNet2DModel(**{**kwargs, **(unet or {})}), diffusers.DDPMScheduler(**scheduler)
    if apart:
        diffusers.DDPMPipeline(model, steps).save_pretrained(folder)
    else:
        model.save_pretrained(folder)
        steps.save_pretrained(folder)
    return model.eval(), steps


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("noise_sd", [0.05, 0.25, 1.0])
def test_one_step_is_that_of_the_scheduler(predicts, noise_sd, world):
    clip = predicts == "epsilon"
    model, steps = diffusion(f"ddpm_{predicts}", clip, prediction_type=predicts, clip_sample=clip)
    denoiser, described = load_front(3, SIZE, "cpu", Path(f"ddpm_{predicts}"))
    x = torch.rand(2, 3, SIZE, SIZE) + noise_sd * torch.randn(2, 3, SIZE, SIZE)
    kept = steps.alphas_cumprod
    t = int((((1 - kept) / kept).sqrt() - 2 * noise_sd).abs().argmin())
    ratio = ((1 - kept[t]) / kept[t]).item()
    assert ratio == pytest.approx((2 * noise_sd) ** 2, rel=0.1)  # as near as the steps lie
    with torch.no_grad():
        z = kept[t].sqrt() * (2 * x - 1)
        clean = steps.step(model(z, t).sample, t, z).pred_original_sample
        torch.testing.assert_close(denoiser(x, noise_sd), (clean + 1) / 2, atol=1e-5, rtol=1e-4)
        each = denoiser(x, torch.tensor([noise_sd, 0.5]))
        torch.testing.assert_close(each, torch.cat([denoiser(x[:1], noise_sd), denoiser(x[1:], 0.5)]))
    rebuilt = build(described["arch"], **described["arch_kwargs"])
    assert rebuilt.state_dict().keys() == denoiser.state_dict().keys()


def test_a_model_of_images_from_0_to_1(world):
    """Told by its configuration, or by the flag: σ² instead of (2σ)²; the model itself may centre its input."""
    model, steps = diffusion("centred", unet={"center_input_sample": True}, prediction_type="sample")
    x, kept = torch.rand(2, 3, SIZE, SIZE), steps.alphas_cumprod
    t = int((((1 - kept) / kept).sqrt() - 0.25).abs().argmin())
    with torch.no_grad():
        expected = model(kept[t].sqrt() * x, t).sample.clamp(0, 1)
        torch.testing.assert_close(load_front(3, SIZE, "cpu", Path("centred"))[0](x, 0.25), expected)
        model, _ = diffusion("plain", prediction_type="sample")
        expected = model(kept[t].sqrt() * x, t).sample.clamp(0, 1)
        found = load_front(3, SIZE, "cpu", Path("plain"), scale="unit")[0](x, 0.25)
    torch.testing.assert_close(found, expected)


def test_sides_that_do_not_halve_are_padded(world):
    diffusion("odd")
    denoiser, _ = load_front(3, 31, "cpu", Path("odd"))
    assert denoiser(torch.rand(1, 3, 31, 31), 0.25).shape == (1, 3, 31, 31)


def drunet(state: dict[str, torch.Tensor], x: torch.Tensor, sigma: float, blocks: int) -> torch.Tensor:
    """DRUNet written down once more, from the names of its weights: the network of KAIR and DPIR."""

    def conv(y, name, **how):
        return F.conv2d(y, state[f"{name}.weight"], **how)

    def residual(y, name):
        return y + conv(F.relu(conv(y, f"{name}.res.0", padding=1)), f"{name}.res.2", padding=1)

    def chain(y, name, first):
        for i in range(first, first + blocks):
            y = residual(y, f"{name}.{i}")
        return y

    skips = [conv(torch.cat([x, torch.full_like(x[:, :1], sigma)], dim=1), "m_head", padding=1)]
    for scale in (1, 2, 3):
        skips.append(conv(chain(skips[-1], f"m_down{scale}", 0), f"m_down{scale}.{blocks}", stride=2))
    y = chain(skips[-1], "m_body", 0)
    for scale in (3, 2, 1):
        y = F.conv_transpose2d(y + skips.pop(), state[f"m_up{scale}.0.weight"], stride=2)
        y = chain(y, f"m_up{scale}", 1)
    return conv(y + skips.pop(), "m_tail", padding=1)


@pytest.mark.parametrize("key", [None, "params", "state_dict"])
def test_files_of_drunet(key, tmp_path):
    state = DRUNet(1, (4, 6, 8, 10), 2).state_dict()
    torch.save(state if key is None else {key: state}, tmp_path / "drunet.pth")
    denoiser, described = load_front(1, SIZE, "cpu", tmp_path / "drunet.pth")
    assert described["arch_kwargs"] == {"channels": 1, "widths": [4, 6, 8, 10], "blocks": 2}
    x = torch.rand(2, 1, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, 0.2), drunet(state, x, 0.2, 2), atol=1e-5, rtol=1e-5)
        assert denoiser(torch.rand(1, 1, 30, 30), 0.2).shape == (1, 1, 30, 30)


def test_the_published_drunet_has_as_many_parameters():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DRUNet().parameters()) == 32_640_960


def test_modules_by_import_path(world):
    x = torch.rand(3, 3, SIZE, SIZE)
    net = load_front(3, SIZE, "cpu", Path("denoisers_of_mine:Net"))[0]
    conv = net.net.conv
    with torch.no_grad():
        torch.testing.assert_close(net(x, 0.25), x - conv(x))
        optional = load_front(3, SIZE, "cpu", Path("denoisers_of_mine:Optional"))[0]
        torch.testing.assert_close(optional(x, 0.25), x - conv(x))
        told = load_front(3, SIZE, "cpu", Path("denoisers_of_mine:Told"))[0]
        torch.testing.assert_close(told(x, torch.tensor([0.25] * 3)), x - 0.25 * conv(x))
        symmetric = load_front(3, SIZE, "cpu", Path("denoisers_of_mine:Told"), scale="symmetric")[0]
        z = 2 * x - 1
        torch.testing.assert_close(symmetric(x, 0.25), (z - 0.5 * conv(z) + 1) / 2)


# ---- by the command line ---------------------------------------------------------------------------------------------


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t")[:4] for line in path.read_text().splitlines()]


def test_trained_from_and_certified(world, pipeline, data_dir, tmp_path):
    """A diffusion model as it is, and as the start of main_ds.py, whose checkpoint rebuilds it."""
    diffusion("start")
    common = ("--data_dir", data_dir, "--classifier", pipeline["classifier"])
    certify = (*common, "--sigma", 0.25, "--N0", 10, "--N", 20, "--max", 2, "--no-amp")
    run_script("AE_DS_verify", *certify, "--denoiser", "start", "--outfile", tmp_path / "start.tsv")
    settings = json.loads((tmp_path / "start.tsv.json").read_text())
    assert len(settings["denoiser_sha256"]) == 64
    run_script(
        "main_ds",
        *(*common, "--pretrained_denoiser", "start", "--noise_sd", 0.1, 0.4, "--epochs", 1, "--batch", 63),
        *("--outdir", tmp_path / "run"),
    )
    trained = tmp_path / "run" / "best.pth.tar"
    assert load_model(trained, "denoiser")[1]["arch"] == "diffusion"
    for name, denoiser in (("trained", trained), ("imported", "denoisers_of_mine:Told")):
        run_script("AE_DS_verify", *certify, "--denoiser", denoiser, "--outfile", tmp_path / f"{name}.tsv")
        assert len(rows(tmp_path / f"{name}.tsv")) == 3
    run_script(
        "attacks.generate",
        *(*common, "--denoiser", "start", "--attack", "PGD", "--steps", 1, "--skip", 18, "--suffix", "_diffusion"),
    )
    run_script("evaluate", *common, "--denoiser", "start", "--noise_sd", 0.25, "--split", "val")
    run_script(
        "ds_main", "--mode", "test", "--data_dir", data_dir, "--pretrained_denoiser", "start", "--noise_sd", 0.25
    )


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_the_pipeline_as_one_file(suffix, world, data_dir, tmp_path, capsys):
    """The same votes as the pipeline, from Python and by the command line."""
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    parts = (
        "--classifier",
        "denoisers_of_mine:Classifier",
        "--mean",
        "imagenet",
        "--denoiser",
        "denoisers_of_mine:Told",
    )
    described = ("--dataset", "Phantom_MRI", "--data_dir", data_dir, "--image_size", SIZE, "--channels", 3)
    out = tmp_path / f"defended.{suffix}"
    run_script("export_model", *parts, *described, "--sigma", 0.25, "--outfile", out)
    assert "sigma 0.25" in capsys.readouterr().out
    whole = load_pipeline(
        *("denoisers_of_mine:Classifier", Path("denoisers_of_mine:Told")),
        **{"dataset": "Phantom_MRI", "num_classes": 4, "image_size": SIZE, "channels": 3, "mean": ["imagenet"]},
    ).at(0.25)
    exported, made = load_classifier(out)
    assert (made["dataset"], made["image_size"], made["arch_kwargs"]["num_classes"]) == ("Phantom_MRI", SIZE, 4)
    x = torch.full((3, SIZE, SIZE), 0.5)
    with torch.no_grad():
        votes = [Smooth(base, 4, 0.25, seed=0).sample(x, 100, 37, 0) for base in (whole, exported)]
    assert votes[0].tolist() == votes[1].tolist()
    assert (votes[0] > 0).sum() > 1
    certify = ("--data_dir", data_dir, "--sigma", 0.25, "--N0", 10, "--N", 50, "--max", 2, "--no-amp", "--batch", 32)
    run_script("AE_DS_verify", "--classifier", out, *certify, "--outfile", tmp_path / "one.tsv")
    run_script("AE_DS_verify", *parts, *described[:2], *described[4:], *certify, "--outfile", tmp_path / "parts.tsv")
    assert rows(tmp_path / "one.tsv") == rows(tmp_path / "parts.tsv")


def test_five_lines_of_the_page(world, tmp_path):
    """The Python of docs/your_model.md, as it stands there."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "your_model.md").read_text(encoding="utf-8")
    block = next(text for text in page.split("```python\n")[1:] if "torch.export.load" in text).split("```")[0]
    batch = torch.export.Dim("batch")
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4)).eval()
    program = torch.export.export(net, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "defended.pt2")
    found: dict = {"x": torch.rand(3, SIZE, SIZE)}
    exec(block.replace("10_000", "100"), found)
    assert -1 <= found["answer"] < 4


def test_refused(fails, world, pipeline, data_dir, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    common = ("--data_dir", data_dir, "--classifier", pipeline["classifier"])

    def refuses(*words, flags):
        fails(1, words, "evaluate", *common, *flags)

    Path("sd").mkdir()
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    Path("sd", "model_index.json").write_text(json.dumps(index))
    refuses("sd", "latents", flags=("--denoiser", "sd"))
    diffusion("latent", unet={"in_channels": 4, "out_channels": 4})
    refuses("latent", "4 channels", flags=("--denoiser", "latent"))
    diffusion("told", unet={"num_class_embeds": 4})
    refuses("told", "a class", flags=("--denoiser", "told"))
    diffusion("grey", unet={"in_channels": 1, "out_channels": 1})
    refuses("grey", "made for 1 channel", flags=("--denoiser", "grey"))
    diffusion("bare")
    Path("bare", "scheduler", "scheduler_config.json").unlink()
    refuses("scheduler_config.json", "missing", flags=("--denoiser", "bare"))
    diffusion("flow")
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(Path("flow", "scheduler"))
    refuses("flow", "FlowMatchEulerDiscreteScheduler", "DDPM", flags=("--denoiser", "flow"))
    Path("text").mkdir()
    Path("text", "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    refuses("text", "UNet2DConditionModel", flags=("--denoiser", "text"))
    refuses("Grey", "returned shape", flags=("--denoiser", "denoisers_of_mine:Grey"))
    refuses("number", "is function", flags=("--denoiser", "denoisers_of_mine:number"))
    refuses("--denoiser_scale", "none", flags=("--denoiser", pipeline["mse"], "--denoiser_scale", "unit"))
    refuses("--denoiser_scale", "no denoiser", flags=("--denoiser_scale", "unit"))

    def exports(*words, flags):
        fails(1, words, "export_model", *flags)

    exports("--sigma", "both", flags=(*common, "--denoiser", pipeline["mse"], "--outfile", tmp_path / "a.pt2"))
    exports("--model", "--classifier", flags=("--outfile", tmp_path / "a.pt2"))
    exports(".onnx or .pt2", flags=(*common, "--outfile", tmp_path / "a.zip"))
    assert not list(tmp_path.glob("a.*"))
