"""Networks in train mode are not certified: their votes depend on each other, and they change."""

from __future__ import annotations

import functools
import types

import pytest
import torch
from torch import nn

from core import Smooth
from smoothing.modes import modules_of, must_be_in_eval_mode

IMAGE = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """With what acts in train mode only, by an attribute."""

    def __init__(self, **attributes):
        super().__init__()
        self.__dict__.update(attributes)


class DropPath(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p


class GeM(nn.Module):
    """Its p is an exponent."""

    p = 3.0


def network(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), layer, nn.Flatten(), nn.LazyLinear(3))


def spectral() -> nn.Module:
    return torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))


ACTING = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "sync batch norm": lambda: nn.SyncBatchNorm(4),
    "instance norm with statistics": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "dropout": lambda: nn.Dropout(0.1),
    "dropout of channels": lambda: nn.Dropout2d(0.1),
    "alpha dropout": lambda: nn.AlphaDropout(0.1),
    "random slopes": lambda: nn.RReLU(),
    "attention": lambda: nn.MultiheadAttention(4, 2, dropout=0.1),
    "recurrent": lambda: nn.LSTM(4, 4, 2, dropout=0.1),
    "spectral norm": spectral,
    "spectral norm of old": lambda: torch.nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)),
    "drop path": lambda: DropPath(0.1),
    "rate in a parent": lambda: Block(drop_rate=0.2),
    "scripted": lambda: torch.jit.script(nn.BatchNorm2d(4)),
}
HARMLESS = {
    "convolution": lambda: nn.Conv2d(4, 4, 3),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "no dropout": lambda: nn.Dropout(0.0),
    "an exponent": GeM,
    "batch norm in eval mode": lambda: nn.BatchNorm2d(4).eval(),
}


@pytest.mark.parametrize("kind", ACTING)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_layers_that_act_in_train_mode(kind):
    net = network(ACTING[kind]()).train()
    with pytest.raises(ValueError, match=r"in train mode: 1\S* \(.*call \.eval\(\)"):
        must_be_in_eval_mode(net)
    must_be_in_eval_mode(net.eval())


@pytest.mark.parametrize("kind", HARMLESS)
def test_layers_that_do_not(kind):
    net = nn.Sequential(HARMLESS[kind]())
    assert net.training
    must_be_in_eval_mode(net)


def test_batch_norm_without_statistics_is_no_function_in_any_mode():
    net = network(nn.BatchNorm2d(4, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match=r"also in eval mode: 1 .*no running statistics"):
        must_be_in_eval_mode(net)


NET = nn.Sequential(nn.BatchNorm2d(1))


def by_its_global_name(x):
    return NET(x).mean((2, 3))


class Wrapper:
    def __init__(self, net):
        self.parts = {"net": [net]}

    def __call__(self, x):
        return self.parts["net"][0](x)

    def predict(self, x):
        return self(x)


@functools.wraps(by_its_global_name)
def decorated(*args):
    return by_its_global_name(*args)


def holders(net):
    wrapper = Wrapper(net)
    return {
        "closure": lambda x: net(x),
        "default": lambda x, f=net: f(x),
        "partial": functools.partial(lambda f, x: f(x), net),
        "object": wrapper,
        "method": wrapper.predict,
        "method of the module": net.forward,
        "default that holds": lambda x, f=wrapper.predict: f(x),
        "inside another module": nn.Sequential(nn.Identity(), net),
    }


@pytest.mark.parametrize("kind", holders(NET))
def test_what_a_callable_holds(kind):
    net = nn.Sequential(nn.BatchNorm2d(1))
    held = holders(net)[kind]
    with pytest.raises(ValueError, match="in train mode"):
        must_be_in_eval_mode(held)
    net.eval()
    must_be_in_eval_mode(held)


def test_what_a_function_names():
    assert modules_of(by_its_global_name) == [NET] == modules_of(decorated)
    attribute = types.SimpleNamespace(NET=len)
    assert modules_of(lambda x: attribute.NET(x)) == []  # its own attribute, not the variable of that name


@pytest.mark.parametrize("use", ["certify", "predict", "sample", "certify_images"])
def test_nothing_is_changed(use):
    net = network(nn.BatchNorm2d(4))
    net(IMAGE[None].repeat(2, 1, 1, 1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    smoothed = Smooth(net, 3, 0.25, seed=0)
    calls = {
        "certify": lambda: smoothed.certify(IMAGE, 10, 20, 0.01, 10),
        "predict": lambda: smoothed.predict(IMAGE, 20, 0.01, 10),
        "sample": lambda: smoothed.sample(IMAGE, 20, 10),
        "certify_images": lambda: list(smoothed.certify_images([(0, IMAGE)], 10, 20, 0.01, 10)),
    }
    with pytest.raises(ValueError, match=r"in train mode: 1 \(BatchNorm2d\)"):
        calls[use]()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    calls[use]()


def test_in_eval_mode_the_batch_size_changes_nothing():
    net = network(nn.BatchNorm2d(4))
    net(torch.rand(8, 1, 6, 6))
    smoothed = Smooth(net.eval(), 3, 0.25, seed=0)
    assert len({smoothed.certify(IMAGE, 10, 50, 0.01, batch, index=1) for batch in (5, 60)}) == 1
