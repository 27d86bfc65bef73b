"""Architectures and files of the reference repositories."""

from __future__ import annotations

import pytest
import torch
from conftest import run_script

from models import build, kind_of, load_front, load_model
from models.published import PUBLISHED

COUNTS = {
    "cifar_dncnn": 558_400,
    "imagenet_dncnn": 558_400,
    "cifar_dncnn_wide": 2_222_720,
    "memnet": 1_436_678,
    "imagenet_memnet": 1_436_678,
    "cifar_encoder_192_24": 159_336,
    "cifar_decoder_192_24": 159_147,
    "cifar_resnet20": 272_474,
    "cifar_resnet110": 1_730_714,
}


def save(folder, name, prefix="", **more):
    """A file as published: {epoch, arch, state_dict, optimizer}; the network in it."""
    arch, kwargs, _ = PUBLISHED[name]
    torch.manual_seed(0)
    net = build(arch, **kwargs)
    for buffer in net.buffers():  # no fresh network's statistics: what is loaded must show
        if buffer.is_floating_point() and buffer.dim() == 1:
            buffer.uniform_(0.5, 1.5)
    state = {prefix + k: v for k, v in net.state_dict().items() if not k.startswith("0.")}
    torch.save({"epoch": 3, "arch": name, "state_dict": state, "optimizer": {}, **more}, folder / f"{name}.pth.tar")
    return net.eval(), folder / f"{name}.pth.tar"


def kind(name):
    return {"encoder": "encoder", "decoder": "decoder", "resnet20": "classifier", "resnet110": "classifier"}.get(
        name.removeprefix("cifar_").removesuffix("_192_24"), "denoiser"
    )


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_loading(name, tmp_path):
    net, path = save(tmp_path, name, prefix="module." if name.startswith("imagenet") else "")
    assert sum(p.numel() for p in net.parameters()) == COUNTS[name]
    assert build(name).state_dict().keys() == net.state_dict().keys()
    assert kind_of(name) == kind(name)
    loaded, checkpoint = load_model(path, kind(name))
    assert checkpoint["epoch"] == 3
    x = torch.rand(2, 192, 1, 1) if "decoder" in name else torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), net(x))


def test_names_of_weights(tmp_path):
    def keys(name):
        return set(torch.load(save(tmp_path, name)[1], weights_only=True)["state_dict"])

    assert {"dncnn.0.bias", "dncnn.2.weight", "dncnn.3.running_var", "dncnn.47.weight"} <= keys("cifar_dncnn")
    assert len(keys("cifar_dncnn")) == 93
    assert {
        "feature_extractor.bn.weight",
        "dense_memory.2.recursive_unit.5.relu_conv2.conv.weight",
        "dense_memory.0.gate_unit.conv.weight",
        "reconstructor.conv.weight",
    } <= keys("memnet")
    assert keys("cifar_encoder_192_24") == {f"encoder.{i}.{k}" for i in (0, 2, 4, 6) for k in ("weight", "bias")}
    assert keys("cifar_decoder_192_24") == {f"decoder.{i}.{k}" for i in (0, 2, 4, 6) for k in ("weight", "bias")}
    assert {
        "1.conv1.weight",
        "1.bn1.weight",
        "1.layer1.17.conv2.weight",
        "1.layer2.0.downsample.1.running_mean",
        "1.fc.bias",
    } <= keys("cifar_resnet110")


def test_encoder_and_decoder_fit_each_other(tmp_path):
    """32 px → 192 numbers → 32 px, behind a denoiser: AE-DS from three published files."""
    paths = [save(tmp_path, name)[1] for name in ("cifar_dncnn", "cifar_encoder_192_24", "cifar_decoder_192_24")]
    front, described = load_front(3, 32, "cpu", *paths)
    assert described["arch_kwargs"]["autoencoder"]["arch"] == "pair"
    assert front.autoencoder.latent_shape == (192, 1, 1)
    x = torch.rand(2, 3, 32, 32)
    parts = [load_model(path, k)[0] for path, k in zip(paths, ("denoiser", "encoder", "decoder"), strict=True)]
    with torch.no_grad():
        expected = parts[2](parts[1](parts[0](x)))
        torch.testing.assert_close(front.eval()(x, 0.25), expected)
    assert build(described["arch"], **described["arch_kwargs"]).state_dict().keys() == front.state_dict().keys()
    with pytest.raises(ValueError, match=r"holds an encoder .* but a decoder is needed"):
        load_front(3, 32, "cpu", *paths[:2])
    with pytest.raises(ValueError, match="made for 32 px"):
        load_front(3, 64, "cpu", *paths)


def test_published_names_are_trained(tmp_path, data_dir):
    common = ("--data_dir", data_dir, "--image_size", 32, "--epochs", 1, "--batch", 40, "--no-amp")
    run_script("ds_main", *common, "--dataset", "Phantom_MRI", "--arch", "cifar_dncnn", "--outdir", tmp_path / "mse")
    run_script("train_classifier", *common, "--arch", "cifar_resnet20", "--outdir", tmp_path / "f")
    run_script(
        "main_ds",
        *("--data_dir", data_dir, "--epochs", 1, "--batch", 40, "--no-amp"),
        *("--pretrained_denoiser", tmp_path / "mse" / "best.pth.tar", "--classifier", tmp_path / "f" / "best.pth.tar"),
        *("--outdir", tmp_path / "run"),
    )
    assert load_model(tmp_path / "run" / "best.pth.tar", "denoiser")[1]["arch"] == "cifar_dncnn"


def test_published_files_are_trained_on_and_certified(tmp_path, pipeline, data_dir):
    """Three files into main_ds.py, one comes out; the same three certify as they are."""
    d, e, dec = (save(tmp_path, name)[1] for name in ("cifar_dncnn", "cifar_encoder_192_24", "cifar_decoder_192_24"))
    common = (
        *("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--pretrained_denoiser", d),
        *("--pretrained_encoder", e, "--pretrained_decoder", dec),
    )
    run_script("main_ds", *common, "--model_type", "AE_DS", "--epochs", 1, "--outdir", tmp_path / "run")
    verify = ("--sigma", 0.25, "--N0", 10, "--N", 10, "--max", 1)
    run_script("AE_DS_verify", *common, *verify, "--outfile", tmp_path / "parts.tsv")
    run_script(
        "AE_DS_verify",
        *("--data_dir", data_dir, "--classifier", pipeline["classifier"]),
        *("--pretrained_denoiser", tmp_path / "run" / "best.pth.tar", *verify, "--outfile", tmp_path / "whole.tsv"),
    )
    assert len((tmp_path / "whole.tsv").read_text().splitlines()) == 2
