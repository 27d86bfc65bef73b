"""Networks on shapes, published parameter counts and closed forms; checkpoints; pipelines."""

from __future__ import annotations

import copy
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import run_script
from torch import nn

from models import (
    DenoisedClassifier,
    bf16_is_fast,
    build,
    instruction_set,
    load_model,
    load_pipeline,
    prepare,
)
from models.denoisers import NAFBlock
from models.inference import frozen
from models.normalize import Normalize
from models.small_maps import SmallMapConv2d, products, with_small_maps


def test_normalize():
    x = torch.rand(2, 3, 4, 4)
    out = Normalize([0.1, 0.2, 0.3], [0.5, 1.0, 2.0])(x)
    torch.testing.assert_close(out[:, 2], (x[:, 2] - 0.3) / 2.0)


def test_dncnn_as_published():
    """Parameter counts and keys of the published denoisers (RGB and grey)."""
    net = build("dncnn")
    assert sum(p.numel() for p in net.parameters()) == 558_400
    assert sum(p.numel() for p in build("dncnn", channels=1).parameters()) == 556_096
    keys = list(net.state_dict())
    assert len(keys) == 93
    assert all(key.startswith("dncnn.") for key in keys)


@pytest.mark.parametrize("arch", ["dncnn", "nafnet", "nafnet4"])
@pytest.mark.parametrize(("channels", "size"), [(3, (64, 64)), (1, (40, 56)), (3, (37, 50))])
def test_denoisers_keep_the_shape_and_start_as_the_identity(arch, channels, size):
    net = build(arch, channels=channels).eval()
    x = torch.rand(2, channels, *size)
    with torch.no_grad():
        torch.testing.assert_close(net(x, 0.25), x)


@pytest.mark.parametrize("arch", ["nafnet", "nafnet4"])
def test_nafnet_is_conditioned_on_the_noise_level(arch):
    torch.manual_seed(0)
    net = build(arch).eval()
    torch.nn.init.normal_(net.outro.weight, std=0.1)
    x = torch.rand(3, 3, 32, 32)
    levels = torch.tensor([0.1, 0.5, 1.0])
    with torch.no_grad():
        mixed = net(x, levels)
        for i, level in enumerate(levels.tolist()):
            torch.testing.assert_close(mixed[i : i + 1], net(x[i : i + 1], level), atol=1e-5, rtol=1e-4)
        assert (net(x, 0.1) - net(x, 1.0)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="noise_sd"):
        net(x, None)


@pytest.mark.parametrize("arch", ["nafnet", "nafnet4"])
def test_nafnet_rows_do_not_see_each_other(arch):
    torch.manual_seed(0)
    net = prepare(build(arch).eval(), "cpu")
    torch.nn.init.normal_(net.outro.weight, std=0.1)
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(x, 0.5)[3:4], net(x[3:4], 0.5), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_nafnet4_learns(channels):
    """A few steps take most of the noise off flat images."""
    torch.manual_seed(0)
    net = build("nafnet4", channels=channels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        clean = torch.rand(8, channels, 1, 1).expand(-1, -1, 16, 16)
        losses.append((net(clean + 0.5 * torch.randn(clean.shape), 0.5) - clean).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0].item() == pytest.approx(0.25, rel=0.1)
    assert sum(losses[-10:]).item() / 10 < 0.25 / 3


def test_nafnet_is_what_its_checkpoints_hold():
    """The default until nafnet4: its keys and shapes stay."""
    net = build("nafnet")
    assert sum(p.numel() for p in net.parameters()) == 1_720_908
    assert net.intro.weight.shape == (32, 13, 3, 3)
    assert len(net.state_dict()) == 175


@pytest.mark.parametrize(
    ("arch", "channels", "size"),
    [("resnet18", 3, 64), ("resnet18", 1, 32), ("resnet18", 3, 160), ("mobilenet_v3_small", 1, 64)],
)
def test_classifiers(arch, channels, size):
    net = build(arch, num_classes=5, image_size=size, channels=channels, mean=[0.2], std=[0.2]).eval()
    with torch.no_grad():
        assert net(torch.rand(2, channels, size, size)).shape == (2, 5)
    assert net[0].mean.shape == (1, channels, 1, 1)


def test_unknown_architecture():
    with pytest.raises(ValueError, match="resnet19"):
        build("resnet19", num_classes=2, image_size=32)
    with pytest.raises(ValueError, match="width_of"):
        build("nafnet", width_of=3)


def save(path, built="nafnet4", **changes):
    net = build(built, channels=1)
    content = {
        "arch": built,
        "arch_kwargs": {"channels": 1},
        "dataset": "Phantom_MRI",
        "image_size": 32,
        "state_dict": net.state_dict(),
        **changes,
    }
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return net


@pytest.mark.parametrize("arch", ["nafnet", "nafnet4"])
def test_checkpoint_round_trip(arch, tmp_path):
    net = save(tmp_path / "a.pth.tar", arch)
    loaded, checkpoint = load_model(tmp_path / "a.pth.tar", "denoiser")
    assert not loaded.training
    assert checkpoint["dataset"] == "Phantom_MRI"
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_refused_checkpoints(tmp_path):
    path = tmp_path / "a.pth.tar"
    with pytest.raises(FileNotFoundError, match=r"a\.pth\.tar"):
        load_model(path, "denoiser")
    path.write_bytes(b"<html>not a checkpoint</html>")
    with pytest.raises(ValueError, match=r"a\.pth\.tar: not a checkpoint"):
        load_model(path, "denoiser")
    torch.save(build("nafnet"), path)  # a pickled module would run code when it is read
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_model(path, "denoiser")
    for junk in (b"hello\n", b"epoch\tlr\n1\t0.1\n", b"", bytes(range(256))):
        path.write_bytes(junk)
        with pytest.raises(ValueError, match=r"a\.pth\.tar: not a checkpoint"):
            load_model(path, "denoiser")
    save(path, arch_kwargs=None)
    with pytest.raises(ValueError, match="no arch"):
        load_model(path, "denoiser")
    save(path)
    with pytest.raises(ValueError, match=r"holds a denoiser \(nafnet4\), but a classifier is needed"):
        load_model(path, "classifier")
    save(path, arch="dncnn")
    with pytest.raises(ValueError, match="do not fit the architecture dncnn"):
        load_model(path, "denoiser")


def test_pipeline_is_the_composition(pipeline, monkeypatch):
    loaded = load_pipeline(pipeline["classifier"], pipeline["mse"])
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = loaded.classifier(loaded.denoiser(x, 0.3))
        torch.testing.assert_close(loaded.at(0.3)(x), expected)
        torch.testing.assert_close(DenoisedClassifier(loaded.denoiser, loaded.classifier, 0.3)(x), expected)
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(ValueError, match="--compile: needs a C"):
            loaded.at(0.3, compiled=True)
        monkeypatch.setenv("CXX", sys.executable)  # never called: see the next line
        with torch.compiler.set_stance("force_eager"):  # the way there, without minutes of compilation
            torch.testing.assert_close(loaded.at(0.3, compiled=True)(x), expected)
        alone = load_pipeline(pipeline["classifier"], None)
        torch.testing.assert_close(alone.at(0.3)(x), loaded.classifier(x))
    assert (loaded.dataset, loaded.image_size, loaded.channels, loaded.num_classes) == ("Phantom_MRI", 32, 3, 4)


def test_frozen_networks_compute_the_same():
    """Batch norms are folded away where they follow a convolution, and only there."""
    torch.manual_seed(0)
    for net, size, folds in (
        (build("resnet18", num_classes=4, image_size=64), 64, True),
        (build("densenet121", num_classes=4, image_size=64), 64, False),  # norms that come before convolutions
        (build("dncnn", channels=1, depth=4, width=8), 16, True),
    ):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        x = torch.rand(2, 1 if size == 16 else 3, size, size)
        with torch.no_grad():
            expected = net.eval()(x)
            fast = frozen(net)
            torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        assert any(isinstance(module, nn.BatchNorm2d) for module in fast.modules()) != folds
        assert not any(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", range(2, 9))
def test_a_filter_over_a_line_in_few_products(size, stride):
    rng = np.random.default_rng(size)
    x, w = rng.standard_normal(size), rng.standard_normal(3)
    b, g, a = products(size, stride)
    y = np.einsum("opt,p,pt->o", a, g @ w, b @ x)
    np.testing.assert_allclose(y, np.correlate(np.pad(x, 1), w)[::stride], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "stride", "channels", "faster"),
    [
        ((4, 4), 1, (8, 6), True),
        ((2, 2), 1, (8, 6), True),
        ((2, 4), 1, (8, 6), True),
        ((3, 4), 2, (8, 6), True),
        ((8, 8), 1, (128, 130), True),
        ((8, 2), 1, (128, 130), True),
        ((5, 7), 1, (128, 130), True),
        ((8, 8), 1, (8, 130), False),
        ((8, 8), 2, (128, 130), False),
        ((1, 4), 1, (8, 6), False),
        ((9, 4), 1, (128, 130), False),
    ],
)
def test_small_maps(size, stride, channels, faster):
    """Convolutions of small maps, their gradients, and the cases that are left to the usual kernel."""
    torch.manual_seed(0)
    usual = nn.Conv2d(*channels, 3, stride=stride, padding=1)
    conv = with_small_maps(nn.Sequential(copy.deepcopy(usual).requires_grad_(False)))[0]
    x = torch.randn(3, channels[0], *size)
    assert conv.is_faster(x) == faster
    assert conv.state_dict().keys() == usual.state_dict().keys()
    expected = usual(x)
    with torch.inference_mode():  # what is kept from here serves gradients too
        torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(conv(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(conv(x[:1]), usual(x[:1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv(x), usual(x))
    assert torch.equal(conv.double()(x.double()), usual.double()(x.double()))
    usual, conv = usual.float(), conv.float()
    x.requires_grad_()
    (wanted,), (got,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (usual, conv))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)


def test_only_plain_convolutions_of_three_by_three_are_changed():
    plain = [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)]
    others = [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 5, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ]
    net = with_small_maps(nn.Sequential(*plain, *others))
    assert [isinstance(layer, SmallMapConv2d) for layer in net] == [True] * 2 + [False] * 6


def test_nafnet_scales_its_residuals():
    """The scale on the weights of the projection is the scale on its output."""
    torch.manual_seed(0)
    block = NAFBlock(8)
    nn.init.normal_(block.scale1)
    nn.init.normal_(block.scale2)
    x = torch.randn(2, 8, 5, 5)
    gate = lambda h: h[:, :8] * h[:, 8:]  # noqa: E731
    h = gate(block.depthwise(block.expand1(block.norm1(x))))
    y = x + block.project1(h * block.attention(h.mean((2, 3), keepdim=True))) * block.scale1
    expected = y + block.project2(gate(block.expand2(block.norm2(y)))) * block.scale2
    torch.testing.assert_close(block(x), expected)


def test_a_classifier_without_normalisation(pipeline, tmp_path):
    checkpoint = torch.load(pipeline["classifier"], weights_only=True)
    checkpoint["state_dict"] = {k.removeprefix("1."): v for k, v in checkpoint["state_dict"].items() if k[0] != "0"}
    torch.save(checkpoint, tmp_path / "raw.pth.tar")
    with pytest.raises(ValueError, match=r"raw\.pth\.tar: holds no normalisation"):
        load_model(tmp_path / "raw.pth.tar", "classifier")


def test_parts_must_fit(pipeline, tmp_path):
    save(tmp_path / "grey.pth.tar")
    with pytest.raises(ValueError, match="1 channel"):
        load_pipeline(pipeline["classifier"], tmp_path / "grey.pth.tar")


def test_local_torchvision_weights(tmp_path):
    """A file of torchvision weights fills what fits (not the 1000-class head or the 7×7 stem) and says what did not."""
    from torchvision.models import resnet18

    from models.classifiers import load_weights

    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    net = build("resnet18", num_classes=4, image_size=64)
    fresh = load_weights(net, tmp_path / "resnet18.pth")
    assert set(fresh) == {"conv1.weight", "fc.weight", "fc.bias"}
    stored = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert torch.equal(net[1].layer1[0].conv1.weight, stored["layer1.0.conv1.weight"])
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: holds no tensor that fits"):
        load_weights(net, tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError):
        load_weights(net, tmp_path / "gone.pth")


def test_exported_checkpoints(pipeline, tmp_path, fails):
    """Smaller, loaded like any other, the same network up to bfloat16's rounding of its matrices."""
    for name, kind in (("classifier", "classifier"), ("mse", "denoiser")):
        out = tmp_path / f"{name}.pth.tar"
        run_script("export_model", "--model", pipeline[name], "--outfile", out)
        before = out.read_bytes()
        run_script("export_model", "--model", pipeline[name], "--outfile", out)
        assert out.read_bytes() == before
        assert out.stat().st_size < 0.25 * pipeline[name].stat().st_size
        (full, _), (slim, made) = (load_model(path, kind) for path in (pipeline[name], out))
        assert "optimizer" not in made
        assert made["manifest"] == torch.load(pipeline[name], weights_only=True)["manifest"]
        for key, value in full.state_dict().items():
            matrix = key.endswith("weight") and value.ndim > 1
            assert torch.equal(slim.state_dict()[key], value.bfloat16().float() if matrix else value), key
    fails(
        1,
        (pipeline["mse"], "the model itself"),
        "export_model",
        "--model",
        pipeline["mse"],
        "--outfile",
        pipeline["mse"],
    )
    fails(1, ("--outfile", ".onnx"), "export_model", "--model", pipeline["mse"], "--outfile", tmp_path / "x.bin")
    fails(1, ("--model", "neither"), "export_model", "--model", pipeline["mse"], "--outfile", tmp_path / "x.onnx")


def test_a_classifier_that_does_not_say_what_it_was_trained_on(pipeline, data_dir, tmp_path, fails):
    checkpoint = torch.load(pipeline["classifier"], weights_only=True)
    unsaid = {name: value for name, value in checkpoint.items() if name not in ("dataset", "image_size", "info")}
    torch.save(unsaid, tmp_path / "f.pth.tar")
    flags = ("evaluate", "--classifier", tmp_path / "f.pth.tar", "--data_dir", data_dir)
    fails(1, (tmp_path / "f.pth.tar", "does not say its dataset; give"), *flags)
    run_script(*flags, "--dataset", "Phantom_MRI")


FAULTS = """
import resource, sys, torch
from models import select_device
if sys.argv[1] == "kept":
    select_device("cpu")
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: its memory is left alone")
def test_freed_memory_is_kept():
    """Ten times 64 MiB, page by page: from the kernel each time, or from what was freed before."""
    found = [int(subprocess.check_output([sys.executable, "-c", FAULTS, mode])) for mode in ("as it is", "kept")]
    assert found[0] > 10 * found[1]
    assert found[1] < 1000


def test_instruction_set_is_the_best_that_the_cpu_has(monkeypatch):
    """As PyTorch tells; a version that tells nothing has none."""
    checks = {
        "_is_amx_tile_supported": "amx",
        "_is_avx512_bf16_supported": "avx512_bf16",
        "_is_avx512_supported": "avx512",
        "_is_avx2_supported": "avx2",
    }
    for first in range(len(checks) + 1):
        for place, check in enumerate(checks):
            monkeypatch.setattr(torch.cpu, check, lambda there=place >= first: there, raising=False)
        assert instruction_set("cpu") == [*checks.values(), "none"][first]
        assert bf16_is_fast("cpu") == (first < 2)
    for check in checks:
        monkeypatch.delattr(torch.cpu, check)
    assert instruction_set("cpu") == "none"
    assert instruction_set("cuda") == "none"


def test_a_frozen_network_prints_no_traceback_of_its_own(capsys):
    """As modules that torch.fx has traced do on any error, such as a lack of memory that is then dealt with."""
    folded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = frozen(folded)
    assert isinstance(model, torch.fx.GraphModule)
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 8, 8))
    assert capsys.readouterr().err == ""
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 6, 6)
