"""Python functions by name: where they are found, and what is said if they are not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script

from common import files
from models import fingerprint, is_foreign, load_classifier
from models.functions import python_function

SOURCE = "VALUE = {}\n\n\ndef f(images):\n    return VALUE\n"
DESCRIBED = {"dataset": "Mine", "image_size": 8, "channels": 1, "num_classes": 2}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("mine.py", "mine"),
        ("mine.py", "mine.py"),
        ("mine.py", "./mine.py"),
        ("my-model.py", "my-model"),
        ("deep/er/mine.py", "deep/er/mine.py"),
        ("a b/my model.py", "a b/my model.py"),
        ("package/mine.py", "package.mine"),
        ("models.py", "models"),  # of ours
        ("evaluate.py", "evaluate"),
        ("json.py", "json"),  # of Python's
        ("yaml.py", "yaml"),  # of a package
        ("deep/torch.py", "deep/torch.py"),
        ("12:30/mine.py", "12:30/mine.py"),
    ],
)
def test_found(path, module):
    written = write(path, SOURCE.format(repr(path)))
    assert is_foreign(f"{module}:f")
    assert python_function("--classifier", f"{module}:f")(None) == path
    assert fingerprint(f"{module}:f") == f"{module}:f {files.sha256(written)}"
    import json

    import models

    assert hasattr(models, "load_classifier")
    assert hasattr(json, "dumps")


def test_modules_beside_a_file_are_found_and_the_folder_stays(here):
    write("deep/part.py", SOURCE.format(3))
    write("deep/mine.py", "import os\n\nimport part\n\nos.chdir('/')\nf = part.f\n")
    assert python_function("--classifier", "deep/mine.py:f")(None) == 3
    assert Path.cwd() == here


def test_functions_in_objects():
    write(
        "mine.py",
        "class Model:\n    def predict(self, x):\n        return 5\n\n    __call__ = predict\n\n\nm = Model()\n",
    )
    assert python_function("--classifier", "mine:m.predict")(None) == 5
    assert python_function("--classifier", "mine:m")(None) == 5


@pytest.mark.parametrize(
    "spec",
    [
        "runs/12:30/best.pth.tar",
        r"C:\runs\best.pth.tar",
        "C:/runs/best.pth.tar",
        r"C:\runs\f.onnx",
        "runs/f:best",
        "host:runs/f.pth",
        ":f",
        ".needy:f",
        "mine::f",
        "best.pth.tar",
        "mine",
    ],
)
def test_a_missing_file_is_one(spec):
    with pytest.raises(FileNotFoundError, match="no such file") as failed:
        load_classifier(spec, **DESCRIBED)
    assert f"--classifier {spec}" in str(failed.value)


def test_a_file_whose_name_holds_a_colon_is_no_function():
    write("mine:f", "no checkpoint")
    assert not is_foreign("mine:f")
    with pytest.raises(ValueError, match="mine:f: not a checkpoint"):
        load_classifier("mine:f", **DESCRIBED)


@pytest.mark.parametrize(
    ("source", "spec", "words"),
    [
        ("", "gone:f", "no such file, and no module gone in the current folder"),
        ("", "gone.py:f", r"gone\.py: no such file"),
        ("", "mine.gone:f", "no module mine.gone"),
        ("import gone_too\n", "mine:f", "ModuleNotFoundError: No module named 'gone_too'"),
        ("def f(:", "mine:f", r"SyntaxError: .*mine\.py, line 1"),
        ("raise RuntimeError('no key\\nfor the service')", "mine:f", "RuntimeError: no key for the service"),
        ("import sys\nsys.exit(0)", "mine:f", "calls sys.exit"),
        ("def g(x):\n    return x\n", "mine:f", "mine has no f; there is g"),
        ("f = 3", "mine:f", "is int, and cannot be called"),
        ("class f:\n    pass\n", "mine:f", "is a class"),
        ("async def f(x):\n    return x\n", "mine:f", "async function.*asyncio"),
        ("def f(x):\n    yield x\n", "mine:f", "generator"),
        ("def f():\n    return 3\n", "mine:f", r"takes \(\); a function of one batch"),
        ("def f(net, x):\n    return 3\n", "mine:f", r"takes \(net, x\)"),
        ("", "mine.py", r"name a function in it, mine\.py:FUNCTION"),
        ("", "http://localhost/predict", "is a web address"),
    ],
)
def test_no_function(source, spec, words):
    write("mine.py", source)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as failed:
        load_classifier(spec, **DESCRIBED)
    assert str(failed.value).startswith("--classifier ")
    assert "\n" not in str(failed.value)


def test_a_folder_of_a_name_that_is_taken():
    """A package of ours cannot be another one at the same time; the message says how to name the file."""
    write("attacks/mine.py", SOURCE.format(3))
    with pytest.raises(
        ValueError, match=r"attacks is also the name of .*attacks/__init__\.py; .*attacks/mine\.py:FUNC"
    ):
        python_function("--classifier", "attacks.mine:f")
    assert python_function("--classifier", "attacks/mine.py:f")(None) == 3


def test_a_module_that_prints_and_bears_a_name_of_ours(data_dir, capsys):
    write("models.py", "print('loading')\n\n\ndef f(images):\n    return images.reshape(len(images), -1)[:, :4]\n")
    run_script(
        "evaluate",
        *("--classifier", "models:f", "--dataset", "Phantom_MRI", "--data_dir", data_dir, "--image_size", 32),
        *("--channels", 1, "--predictions", "p.tsv"),
    )
    assert capsys.readouterr().out.startswith("loading")
    assert np.loadtxt("p.tsv", skiprows=1).shape == (36, 4)
