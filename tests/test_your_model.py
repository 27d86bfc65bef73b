"""Classifiers of others, by the flags that docs/your_model.md names: the answers of the library's own call, the
gradients of autograd, the certificates of a checkpoint of ours with the same weights. The networks are tiny and have
random weights; nothing is downloaded."""

from __future__ import annotations

import importlib
import json
import math
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, run_script
from torch import nn

import AE_DS_verify
from core import Smooth
from datasets import get_dataset
from models import QueriedClassifier, frozen, load_classifier, prepare, select_device
from models.flags import open_pipeline
from models.normalize import NAMED, Normalize, per_channel, statistics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your_model.md"
ROWS = re.findall(r"^\| (.+?) \|.*`(--classifier .+?)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
FLAGS = {shlex.split(flags)[1]: shlex.split(flags) for _, flags in ROWS}  # by what --classifier names
CHOSEN = [207, 281, 340, 12]  # of the outputs of a head of 1,000 classes
SIZE = 32
MODULE = """
import torch
from torchvision.models import resnet18
def build():
    net = resnet18(num_classes=4)
    net.load_state_dict(torch.load("net.pth", weights_only=True))
    return net
"""


def images(count: int, seed: int) -> torch.Tensor:
    """Noise of different contrast and brightness, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, SIZE, SIZE, generator=generator) - 0.5
    contrast, brightness = torch.rand(2, count, 3, 1, 1, generator=generator)
    return (noise * contrast + brightness).clamp(0, 1)


def lively(net: nn.Module, head: nn.Linear) -> nn.Module:
    """`net` in evaluation mode, its norms settled on noisy images, and its head so that these fall into all classes."""
    x = 4 * images(32, seed=1) - 2
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        net.train()(x)
        hook = head.register_forward_hook(lambda module, given, output: found.append(output))
        net.eval()(x)
        hook.remove()
        spread = found[0].std(dim=0).mean()
        head.bias.copy_((head.bias - found[0].mean(dim=0)) / spread)
        head.weight.div_(spread)
    return net


def resnet(classes: int = 4) -> nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net = resnet18(num_classes=classes)
    for name, module in net.named_modules():
        if name.endswith("bn2"):  # small residuals, as trained networks have them: rounding does not grow
            nn.init.constant_(module.weight, 0.2)
    return lively(net, net.fc)


def normalised(net: Callable, name: str) -> nn.Sequential:
    """`net` as people call it: on images that they normalise themselves."""
    mean, std = NAMED[name]
    return prepare(nn.Sequential(Normalize(per_channel(mean, 3), per_channel(std, 3)), net), "cpu").eval()


def checkpoint(path: Path, arch: str, own: nn.Sequential, **kwargs) -> Path:
    """A checkpoint of ours with these weights."""
    content = {
        "arch": arch,
        "arch_kwargs": {"num_classes": 4, "image_size": SIZE, "channels": 3, **kwargs},
        "state_dict": own.state_dict(),
        "dataset": "Phantom_MRI",
        "image_size": SIZE,
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder in which people's models lie."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        (folder / "my_model.py").write_text(MODULE)
        torch.save(resnet().state_dict(), "net.pth")
        yield folder
        sys.modules.pop("my_model", None)


# ---- the fourteen ways: each writes what --classifier names, and returns the library's own call and a checkpoint -----


def of_resnet(write: Callable[[nn.Module], None]):
    def make():
        net = resnet()
        write(net)
        own = normalised(net, "imagenet")
        return own, checkpoint(Path("ours.pth.tar"), "torchvision/resnet18", own)

    return make


def lightning(net):
    state = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    averaged = {f"ema_model.{name}": tensor * 2 for name, tensor in net.state_dict().items()}
    content = {"state_dict": state | averaged | {"criterion.weight": torch.ones(4)}, "pytorch-lightning_version": "2.5"}
    torch.save(content | {"hyper_parameters": {"lr": 0.1}}, "run.ckpt")


def whole(net):
    torch.save(net, "whole.pt")
    content = torch.load("whole.pt", weights_only=False)  # the two lines of the page
    torch.save(content.state_dict(), "whole_weights.pth")


def script(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, torch.rand(1, 3, SIZE, SIZE)).save("script.pt")


def program(net):
    batch = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(net, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},)), "net.pt2"
    )


def timm_model():
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=4)
    lively(net, net.fc)
    safetensors.save_file(net.state_dict(), "timm.safetensors")
    own = normalised(net, "half")
    return own, checkpoint(Path("timm.pth.tar"), "timm/test_resnet", own)


def imagenet():
    net = resnet(1000)
    torch.save(net.state_dict(), "imagenet.pth")
    four = resnet()
    four.load_state_dict({name: value for name, value in net.state_dict().items() if "fc." not in name}, strict=False)
    with torch.no_grad():
        four.fc.weight.copy_(net.fc.weight[CHOSEN])
        four.fc.bias.copy_(net.fc.bias[CHOSEN])
    own = normalised(net, "imagenet")
    ours = checkpoint(Path("chosen.pth.tar"), "torchvision/resnet18", normalised(four, "imagenet"))
    return lambda x: own(x)[:, CHOSEN], ours


def monai_model():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    net = nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=4)
    lively(net, net.class_layers.out)
    torch.save(net.state_dict(), "monai.pt")
    own = normalised(net, "none")
    return own, checkpoint(Path("monai.pth.tar"), "monai/densenet121", own)


def of_hugging_face(folder: str, family: str, config: dict, order: list[int]):
    """A folder whose labels are those of the data set in another order, and the preprocessor of which normalises."""

    def make():
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        names = dict(enumerate(CLASSES[label] for label in order))
        settings = transformers.AutoConfig.for_model(
            family, image_size=SIZE, id2label=names, label2id={name: number for number, name in names.items()}, **config
        )
        net = transformers.AutoModelForImageClassification.from_config(settings)
        lively(Logits(net), net.classifier)
        net.save_pretrained(folder)
        told = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "do_normalize": True, "resample": 2}
        told |= {"size": {"height": SIZE, "width": SIZE}, "do_rescale": True, "rescale_factor": 1 / 255}
        Path(folder, "preprocessor_config.json").write_text(json.dumps(told))
        place = [order.index(label) for label in range(4)]
        mean, std = (torch.tensor(told[f"image_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
        return lambda x: net(pixel_values=(x - mean) / std).logits[:, place], None

    return make


class Logits(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(pixel_values=x).logits


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}
WAYS = {
    "net.pth": of_resnet(lambda net: torch.save(net.state_dict(), "net.pth")),
    "run.ckpt": of_resnet(lightning),
    "whole_weights.pth": of_resnet(whole),
    "script.pt": of_resnet(script),
    "my_model:build": of_resnet(lambda net: None),
    "timm.safetensors": timm_model,
    "imagenet.pth": imagenet,
    "monai.pt": monai_model,
    "vit": of_hugging_face("vit", "vit", VIT, [2, 0, 3, 1]),
    "swin": of_hugging_face("swin", "swin", SWIN, [0, 1, 2, 3]),
    "net.pt2": of_resnet(program),
}
BLACK_BOXES = {"nhwc.onnx", "uint8.onnx", "fixed.onnx"}


def test_every_row_of_the_page_is_tested():
    assert len(ROWS) == 14
    assert set(FLAGS) == {*WAYS, *BLACK_BOXES}


def input_flags(data_dir: Path) -> tuple:
    return ("--dataset", "Phantom_MRI", "--data_dir", data_dir, "--image_size", SIZE, "--channels", 3)


def certified(path: Path) -> list[tuple[str, str, str, float]]:
    """idx, label, predict, radius of each line of a table."""
    lines = [line.split("\t")[:4] for line in path.read_text().splitlines()[1:]]
    return [(index, label, answer, float(radius)) for index, label, answer, radius in lines]


@pytest.fixture(scope="module")
def certify(data_dir, tmp_path_factory):
    """`certify(*flags)`: the table of AE_DS_verify.py for two images; a second call with the same flags returns it."""
    folder, known = tmp_path_factory.mktemp("certificates"), {}

    def run(*flags):
        key = tuple(map(str, flags))
        if key not in known:
            known[key] = folder / f"{len(known)}.tsv"
            run_script(
                "AE_DS_verify",
                *(*flags, "--sigma", 0.25, "--N0", 20, "--N", 100, "--max", 2, "--no-amp"),
                *("--no-sequential", "--batch", 60, "--outfile", known[key]),
            )
        return certified(known[key])

    return run


def by_hand(own: Callable, data_dir: Path) -> list[tuple[str, str, str, float]]:
    """What `certify` returns, by `core.Smooth` on the library's own call."""
    data, rows = get_dataset("Phantom_MRI", "test", SIZE, None, 3, data_dir), []
    smoothed = Smooth(own, 4, 0.25, seed=0, noise="exact")
    for i in range(2):
        with torch.no_grad():
            answer, radius = smoothed.certify(data[i][0], 20, 100, 0.001, 60, i)
        rows.append((str(i), str(data[i][1]), str(answer), math.floor(radius * 1e6) / 1e6))  # rounded down
    return rows


@pytest.mark.parametrize("way", WAYS)
def test_answers_gradients_and_certificates(way, world, data_dir, certify, capsys):
    own, ours = WAYS[way]()
    flags = [*FLAGS[way], *input_flags(data_dir)]
    parsed = AE_DS_verify.get_args_parser().parse_args([*map(str, flags), "--sigma", "1"])
    pipeline = open_pipeline(parsed, select_device("cpu"), freeze=False)
    assert f"--classifier {way}: " in capsys.readouterr().out
    x = images(3, seed=5)
    weights = torch.linspace(-1, 2, 12).view(3, 4)
    answers, gradients = [], []
    for classify in (pipeline.at(0), own):  # before it is frozen: rounding moves a ReLU's kink, and the gradient jumps
        given = x.clone().requires_grad_()
        answers.append(classify(given))
        gradients.append(torch.autograd.grad((weights * answers[-1]).sum(), given)[0])
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
    assert gradients[1].abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(frozen(pipeline.classifier)(x), answers[1], atol=1e-5, rtol=1e-4)
    found = certify(*flags)
    if ours is not None:
        assert found == certify("--classifier", ours, "--data_dir", data_dir)
    else:
        assert found == by_hand(own, data_dir)


@pytest.fixture(scope="module")
def onnx_files(world):
    """timm's test_resnet three times: it takes NHWC, 8-bit levels that it normalises itself, four images at a time."""
    timm, onnx = pytest.importorskip("timm"), pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=4)
    lively(net, net.fc)
    dynamic = ({0: torch.export.Dim("batch")},)
    written = torch.onnx.export(
        net, (images(2, 0),), input_names=["x"], output_names=["y"], dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    made, kinds = onnx.helper.make_node, onnx.TensorProto

    def save(name: str, kind: int, shape: list, *first) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(written.model_proto)
        graph = proto.graph
        del graph.input[:]
        graph.input.append(onnx.helper.make_tensor_value_info("given" if first else "x", kind, shape))
        nodes = [*first, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        for value, number in (("top", 255.0), ("half", 0.5)):
            graph.initializer.append(onnx.helper.make_tensor(value, kinds.FLOAT, [], [number]))
        onnx.save(proto, name)

    save("nhwc.onnx", kinds.FLOAT, ["n", SIZE, SIZE, 3], made("Transpose", ["given"], ["x"], perm=[0, 3, 1, 2]))
    steps = [made("Cast", ["given"], ["f"], to=kinds.FLOAT), made("Div", ["f", "top"], ["u"])]
    steps += [made("Sub", ["u", "half"], ["c"]), made("Div", ["c", "half"], ["x"])]
    save("uint8.onnx", kinds.UINT8, ["n", 3, SIZE, SIZE], *steps)
    save("fixed.onnx", kinds.FLOAT, [4, 3, SIZE, SIZE])
    own = normalised(net, "half")
    return own, checkpoint(Path("onnx.pth.tar"), "timm/test_resnet", own)


@pytest.mark.filterwarnings("ignore:.*takes levels from 0 to 255")
@pytest.mark.parametrize("name", sorted(BLACK_BOXES))
def test_onnx_files_answer_and_are_certified_alike(name, onnx_files, data_dir, certify):
    own, ours = onnx_files
    flags = [*FLAGS[name], *input_flags(data_dir)]
    parsed = AE_DS_verify.get_args_parser().parse_args([*map(str, flags), "--sigma", "1"])
    pipeline = open_pipeline(parsed, select_device("cpu"))
    assert isinstance(pipeline.classifier, QueriedClassifier)
    x = (images(6, seed=5) * 255).round() / 255
    with torch.no_grad():
        torch.testing.assert_close(pipeline.classifier(x), own(x), atol=1e-5, rtol=1e-4)
    if name == "uint8.onnx":  # it cuts off noise beyond 0 and 1
        assert certify(*flags) == by_hand(lambda x: own((x.clamp(0, 1) * 255).round() / 255), data_dir)
    else:
        assert certify(*flags) == certify("--classifier", ours, "--data_dir", data_dir)


# ---- what the file says, and what it means ---------------------------------------------------------------------------


def load(spec, **described):
    known = {"dataset": "Phantom_MRI", "num_classes": 4, "classes": CLASSES, "image_size": SIZE, "channels": 3}
    return load_classifier(spec, **{**known, **described})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda s: {"net": {f"module.{k}": v for k, v in s.items()}}, "net:module"),
        (lambda s: {"model_state_dict": {f"_orig_mod.{k}": v for k, v in s.items()}}, "model_state_dict:_orig_mod"),
        (lambda s: {f"model.backbone.{k}": v for k, v in s.items()}, "model.backbone"),
        (lambda s: {"model": s, "model_ema": {"module": {k: v * 0 for k, v in s.items()}}}, "model"),
        (lambda s: {**s, "total_ops": torch.zeros(1), "layer1.total_params": torch.zeros(1)}, "the whole file"),
    ],
)
def test_weights_are_found_under_any_key_and_prefix(content, found, world, tmp_path):
    state = torch.load("net.pth", weights_only=True)
    torch.save(content(state) | {"epoch": 3}, tmp_path / "f.pth")
    classifier, made = load(tmp_path / "f.pth", arch="resnet18", mean=["none"])
    assert f"weights in {found}" in made["kind"]
    x = images(2, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), prepare(resnet(), "cpu")(x))


def test_averages_are_named_and_chosen(world):
    lightning(resnet())
    plain, made = load("run.ckpt", arch="resnet18", mean=["none"])
    assert "also there: state_dict:ema_model" in made["kind"]
    chosen, _ = load("run.ckpt", arch="resnet18", mean=["none"], weights="ema_model")
    states = [each.state_dict() for each in (plain, chosen)]
    name = next(name for name in states[0] if name.endswith("conv1.weight"))
    torch.testing.assert_close(2 * states[0][name], states[1][name])
    with pytest.raises(ValueError, match=r"--weights nothing: run\.ckpt holds state_dict:model, state_dict:ema_model"):
        load("run.ckpt", arch="resnet18", mean=["none"], weights="nothing")


def test_channels_size_and_classes_are_read_off_the_weights(world, tmp_path):
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_vit", img_size=48, in_chans=1, num_classes=4)
    held = {"model": net.state_dict(), "class_to_idx": {name: k for k, name in enumerate(reversed(CLASSES))}}
    torch.save(held, tmp_path / "vit.pth")
    told = {"image_size": None, "channels": None, "arch": "timm/test_vit", "mean": [0.5], "std": [0.5]}
    classifier, made = load(tmp_path / "vit.pth", **told)
    assert (made["image_size"], made["arch_kwargs"]) == (48, {"channels": 1, "num_classes": 4})
    x = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), net.eval()((x - 0.5) / 0.5).flip(1))


MODULES = """
import torch
from torch import nn
class Net(nn.Module):
    outputs = 4
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, self.outputs)
    def scores(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))
    def forward(self, x):
        return self.scores(x)
class Tuple(Net):
    def forward(self, x): return self.scores(x), x
class Dictionary(Net):
    def forward(self, x): return {"features": x, "logits": self.scores(x)}
class Softmax(Net):
    def forward(self, x): return self.scores(x).softmax(1)
class Sigmoids(Net):
    def forward(self, x): return self.scores(x).sigmoid()
class Logit(Net):
    outputs = 1
class Probability(Logit):
    def forward(self, x): return self.scores(x).sigmoid().squeeze(1)
class Random(Net):
    def forward(self, x): return nn.functional.dropout(self.scores(x), training=True)
class OfTheBatch(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)
class NoGradients(Net):
    @torch.no_grad()
    def forward(self, x): return self.scores(x)
class Labels(Net):
    def forward(self, x): return self.scores(x).argmax(1)
class Map(Net):
    def forward(self, x): return self.conv(x)
class Needs(Net):
    def __init__(self, classes): super().__init__()
class Side(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 64 * 64, 4)
    def forward(self, x): return self.head(x.flatten(1))
net = Net()
def build(pretrained=False): return Net()
def annotated(x: torch.Tensor): return net.eval()(x)
def on_tensors(x): return net.eval()(x)
def on_arrays(images): return images.reshape(len(images), -1)[:, :4]
def fails(): raise RuntimeError("first\\nno key for the weights")
def fails_on_both(x): return x.nothing
number = 3
"""


@pytest.fixture(scope="module")
def modules(world):
    Path("kinds_of_nets.py").write_text(MODULES)
    sys.path.append(str(world))
    yield importlib.import_module("kinds_of_nets")
    del sys.modules["kinds_of_nets"]


@pytest.mark.parametrize("name", ["Net", "net", "build", "annotated", "on_tensors", "Tuple", "Dictionary", "Sigmoids"])
def test_modules_and_what_they_return(name, modules):
    classifier, made = load(f"kinds_of_nets:{name}")
    assert "gradients" in made["kind"]
    assert "no gradients" not in made["kind"]
    x = images(3, seed=2)
    expected = modules.Net().eval()(x)
    torch.testing.assert_close(classifier(x), expected, atol=1e-5, rtol=1e-5)
    frozen_too = frozen(classifier)
    torch.testing.assert_close(frozen_too(x), expected, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in frozen_too.parameters())


def test_probabilities_become_logarithms(modules):
    x = images(3, seed=2)
    expected = modules.Net().eval()(x).log_softmax(dim=1)
    torch.testing.assert_close(load("kinds_of_nets:Softmax")[0](x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["Logit", "Probability"])
def test_one_output_means_two_classes(name, modules):
    classifier, made = load(f"kinds_of_nets:{name}", num_classes=2, classes=("well", "ill"))
    assert made["arch_kwargs"]["num_classes"] == 2
    x = images(3, seed=2)
    logit = modules.Logit().eval()(x)
    torch.testing.assert_close(classifier(x).softmax(1)[:, 1:], logit.sigmoid(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"), [("Random", "stays random"), ("OfTheBatch", "other images are in the batch")]
)
def test_what_stays_random_is_reported(name, words, modules):
    with pytest.raises(ValueError, match=f"kinds_of_nets:{name}: answers differently .*{words}"):
        load(f"kinds_of_nets:{name}")


def test_a_little_randomness_is_a_warning(modules):
    net = modules.Net()
    net.head.register_forward_hook(lambda module, given, output: output + 1e-3 * torch.randn_like(output))
    modules.shaky = net
    with pytest.warns(UserWarning, match="some votes may change"):
        load("kinds_of_nets:shaky")


def test_a_part_that_is_named(modules):
    x = images(3, seed=2)
    expected = modules.Net().eval()(x)
    torch.testing.assert_close(load("kinds_of_nets:Dictionary", output="logits")[0](x), expected, atol=1e-5, rtol=1e-5)
    for output, words in (("features", "returned shape"), ("nothing", "--output nothing is no part of it")):
        with pytest.raises(ValueError, match=words):
            load("kinds_of_nets:Dictionary", output=output)


@pytest.mark.parametrize("name", ["NoGradients", "Labels", "on_arrays"])
def test_without_gradients_it_is_a_black_box(name, modules):
    classifier, _ = load(f"kinds_of_nets:{name}", scores="labels" if name == "Labels" else "logits")
    assert isinstance(classifier, QueriedClassifier)
    x = images(3, seed=2)
    if name != "on_arrays":
        assert torch.equal(classifier(x).argmax(1), modules.Net().eval()(x).argmax(1))


def test_order_and_colours(modules):
    x = images(3, seed=2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in NAMED["imagenet"])
    order = [CLASSES[label] for label in (2, 0, 3, 1)]
    net, boxed = modules.Net().eval(), modules.on_arrays
    told = {"mean": ["imagenet"], "bgr": True, "outputs": order}
    given = (x.flip(1) - mean) / std
    place = [order.index(name) for name in CLASSES]
    torch.testing.assert_close(load("kinds_of_nets:net", **told)[0](x), net(given)[:, place], atol=1e-5, rtol=1e-5)
    expected = torch.from_numpy(boxed(given.numpy()))[:, place]
    torch.testing.assert_close(load("kinds_of_nets:on_arrays", **told)[0](x), expected)


def test_numbers_from_0_to_255():
    assert statistics([127.5], [255.0]) == ([0.5], [1.0])
    assert statistics(["half"], None) == ([0.5], [0.5])
    for mean, std in (([0.5], [2.0]), ([-0.1], [1.0]), ([0.5], [0.0])):
        with pytest.raises(ValueError, match="must be numbers of images"):
            statistics(mean, std)


# ---- what is refused, by the command line ----------------------------------------------------------------------------


def test_refused(fails, modules, data_dir):
    common = ("--data_dir", data_dir, "--dataset", "Phantom_MRI")
    sized = (*common, "--image_size", SIZE, "--channels", 3)
    weights = ("--classifier", "net.pth", "--mean", "none")
    torch.save(resnet(), "whole.pt")

    def refuses(*words, flags):
        fails(1, words, "evaluate", *flags)

    refuses("whole.pt", "never read", "two lines", "torch.load('whole.pt'", flags=("--classifier", "whole.pt", *sized))
    nearest = ("--arch resnet50", "resnet18 (", "resnet34 (", "%)")
    refuses(*nearest, flags=(*weights, "--arch", "resnet50", *sized))
    refuses("--arch resnet19", "resnet18", flags=(*weights, "--arch", "resnet19", *sized))
    refuses("--mean", "--std", "imagenet, half, none", flags=("--classifier", "net.pth", "--arch", "resnet18", *sized))
    torch.save(resnet(6).state_dict(), "six.pth")
    six = ("--classifier", "six.pth", "--arch", "resnet18", "--mean", "none", *sized)
    refuses("six.pth", "6 classes", "Phantom_MRI has 4", "--classes", flags=six)
    refuses("--classes 0 1 2 6", "0 to 5", flags=(*six, "--classes", 0, 1, 2, 6))
    refuses("image_size", flags=(*weights, "--arch", "resnet18", *common))

    def of(name, *more):
        return ("--classifier", f"kinds_of_nets:{name}", *sized, *more)

    refuses("Map", "returned shape [2, 4, 15, 15]", flags=of("Map"))
    refuses("Side", "cannot take images of 32 px", "--image_size 64", flags=of("Side"))
    refuses("fails", "RuntimeError: no key for the weights", flags=of("fails"))
    refuses("fails_on_both", "on an array", "on a tensor", flags=of("fails_on_both"))
    refuses("Labels", "--scores labels", flags=of("Labels"))
    refuses("Needs", "constructor needs arguments", flags=of("Needs"))
    refuses("number", "cannot be called", flags=of("number"))
    refuses("--arch", "only for a file of weights", flags=of("net", "--arch", "resnet18"))
    refuses("--classes", "called a, b, c, d", "glioma_tumor", flags=of("net", "--classes", "a", "b", "c", "d"))
    refuses("--mean", "2 values", flags=of("net", "--mean", 0.5, 0.5, "--std", 0.5))
    fails(2, ("--mean", "imagenet, half or none"), "evaluate", *of("net", "--mean", "cifar"))
    Path("folder").mkdir()
    refuses("folder", "config.json", flags=("--classifier", "folder", *sized))
    for config, words in (
        ({"architectures": ["BertModel"], "model_type": "bert"}, "BertModel"),
        ({"architectures": ["MyForImageClassification"], "auto_map": {}, "model_type": "my"}, "never run"),
    ):
        Path("folder", "config.json").write_text(json.dumps(config))
        refuses("folder", words, flags=("--classifier", "folder", *sized))
    Path("cut.pt2").write_bytes(Path("net.pth").read_bytes()[:3000])
    refuses("cut.pt2", flags=("--classifier", "cut.pt2", *sized))


def test_a_missing_package_is_named(fails, world, data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    flags = ("--classifier", "net.pth", "--arch", "timm/resnet18", "--mean", "half", *input_flags(data_dir))
    fails(1, ("timm/resnet18", "needs timm", "pip install timm"), "evaluate", *flags)


def test_flags_of_others_do_not_touch_a_checkpoint_of_ours(fails, pipeline, data_dir):
    flags = ("--data_dir", data_dir, "--classifier", pipeline["classifier"])
    fails(1, ("--mean", "checkpoint of ours"), "evaluate", *flags, "--mean", "imagenet")


def test_the_denoiser_is_trained_by_its_gradients(world, pipeline, data_dir, tmp_path):
    """Somebody's weights and our checkpoint of them: the same loss after the same epoch."""
    ours = checkpoint(tmp_path / "f.pth.tar", "torchvision/resnet18", normalised(resnet(), "imagenet"))
    rows = []
    flags = ("--arch", "resnet18", "--mean", "imagenet", *input_flags(data_dir))
    for name, classifier in (("theirs", ("net.pth", *flags)), ("ours", (ours, "--data_dir", data_dir))):
        run_script(
            "main_ds",
            *("--classifier", *classifier, "--pretrained_denoiser", pipeline["mse"], "--epochs", 1, "--batch", 63),
            *("--no-amp", "--outdir", tmp_path / name),
        )
        rows.append(json.loads((tmp_path / name / "metrics.jsonl").read_text()))
    assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=1e-4)
