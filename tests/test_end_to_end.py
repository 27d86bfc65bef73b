"""main_ds.py by its command line: every pipeline, what it trains, what it refuses, the queries it takes."""

from __future__ import annotations

import argparse
import json
import os
import signal

import pytest
import torch
from conftest import run_script

from models import BlackBox, load_model, load_pipeline
from models.autoencoders import Autoencoder, grid_side
from training.flags import fit_epochs
from training.zeroth_order import in_batches, rge, surrogate_loss

TRAIN, VAL = 126, 18  # images of the session's data set


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory, data_dir):
    outdir = tmp_path_factory.mktemp("runs") / "autoencoder"
    run_script(
        "ds_main",
        *("--model", "autoencoder", "--data_dir", data_dir, "--image_size", 32, "--latent", 128, "--epochs", 1),
        *("--batch", 16, "--outdir", outdir),
    )
    return outdir / "best.pth.tar"


@pytest.fixture
def train(pipeline, data_dir, tmp_path):
    """`train(*flags)`: one epoch of main_ds.py in front of the session's classifier; the run's folder."""

    def run(*flags, name="run"):
        run_script(
            "main_ds",
            *("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--pretrained_denoiser", pipeline["mse"]),
            *("--epochs", 1, "--batch", 40, "--outdir", tmp_path / name, *flags),
        )
        return tmp_path / name

    return run


def state(path):
    return torch.load(path, weights_only=True)["state_dict"]


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("size", "latent", "shape"),
    [(32, 192, (3, 8, 8)), (64, 576, (9, 8, 8)), (96, 192, (5, 6, 6)), (224, 1152, (24, 7, 7)), (384, 192, (5, 6, 6))],
)
def test_autoencoder_shapes(size, latent, shape):
    net = Autoencoder(size, channels=1, latent=latent, width=4)
    x = torch.rand(1, 1, size, size)
    with torch.no_grad():
        assert net.encoder(x).shape == (1, *shape) == (1, *net.latent_shape)
        y = net(x)
    assert y.shape == x.shape
    assert 0 <= y.min() <= y.max() <= 1


def test_a_new_autoencoder_starts_near_a_medical_image():
    torch.manual_seed(0)
    with torch.no_grad():
        assert Autoencoder(32)(torch.rand(4, 3, 32, 32)).mean().item() == pytest.approx(0.18, abs=0.05)


def test_sides_that_do_not_halve():
    for size in (8, 50, 100):
        with pytest.raises(ValueError, match=f"--image_size {size}"):
            grid_side(size)


@pytest.mark.parametrize("objective", ["stability", "classification"])
@pytest.mark.parametrize("model", ["DS", "AE_DS"])
@pytest.mark.parametrize("method", ["FO", "ZO"])
def test_every_pipeline_trains_its_parts_and_certifies(train, autoencoder, pipeline, method, model, objective):
    """Of nothing but the objective: without weight decay, weights change only where a gradient reaches them."""
    flags = ["--optimization_method", method, "--model_type", model, "--objective", objective, "--weight_decay", 0]
    if model == "AE_DS":
        flags += ["--pretrained_encoder", autoencoder]
    if method == "ZO":
        flags += ["--q", 2, "--zo_method", "RGE"]
    folder = train(*flags)
    after = state(folder / "best.pth.tar")
    assert changed(state(pipeline["mse"]), {k.removeprefix("denoiser."): v for k, v in after.items()})
    if model == "AE_DS":  # whole by default: the encoder learns, the decoder is behind the queries
        halves = {k.removeprefix("autoencoder."): v for k, v in after.items()}
        parts = {name.split(".")[0] for name in changed(state(autoencoder), halves)}
        assert parts == {"encoder"}
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    # Each image: q + 1 losses; stability also asks for its clean answer. Validation: that, and 8 draws.
    if method == "ZO":
        per_image = 4 if objective == "stability" else 3
        assert record["queries"] == TRAIN * per_image + VAL * 9
    loaded = load_pipeline(pipeline["classifier"], folder / "best.pth.tar")
    with torch.no_grad():
        assert loaded.at(0.25)(torch.rand(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("estimator", "queries"), [("RGE_antithetic", 4), ("CGE", 4), ("CGE_forward", 3), ("DCT", 3), ("RGE_orthogonal", 3)]
)
def test_every_estimator_trains(train, autoencoder, estimator, queries):
    """Two directions: each from both sides, or against the loss at z; with the denoiser's own error besides."""
    space = ("--zo_grey",) if estimator == "DCT" else ("--model_type", "AE_DS", "--pretrained_encoder", autoencoder)
    folder = train(
        *("--optimization_method", "ZO", "--zo_method", estimator, "--q", 2, "--objective", "classification"),
        *("--mse_weight", 1, *space),
    )
    assert json.loads((folder / "metrics.jsonl").read_text())["queries"] == TRAIN * queries + VAL * 9


def test_whole_plus_trains_the_decoder_and_part_only_the_denoiser(train, autoencoder):
    for method, parts in (("whole_plus", {"encoder", "decoder"}), ("part", set())):
        folder = train(
            "--model_type", "AE_DS", "--pretrained_encoder", autoencoder, "--train_method", method, name=method
        )
        halves = {k.removeprefix("autoencoder."): v for k, v in state(folder / "best.pth.tar").items()}
        assert {name.split(".")[0] for name in changed(state(autoencoder), halves)} == parts


def test_consistency_changes_what_is_learnt(train):
    plain, consistent = (train("--consistency", strength, name=f"run{strength}") for strength in (0, 5))
    losses = [json.loads((run / "metrics.jsonl").read_text())["train_loss"] for run in (plain, consistent)]
    assert losses[0] < losses[1]  # it adds what is never negative
    assert changed(state(plain / "best.pth.tar"), state(consistent / "best.pth.tar"))


def test_from_an_autoencoded_denoiser_and_from_scratch(train, autoencoder, pipeline, data_dir, tmp_path):
    first = train("--model_type", "AE_DS", "--latent", 64, name="first")
    assert load_model(first / "best.pth.tar", "denoiser")[0].autoencoder.latent_shape == (1, 8, 8)
    run_script(
        "main_ds",
        *("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--model_type", "AE_DS"),
        *("--pretrained_denoiser", first / "best.pth.tar", "--epochs", 1, "--outdir", tmp_path / "second"),
    )
    assert state(first / "best.pth.tar").keys() == state(tmp_path / "second" / "best.pth.tar").keys()


def test_budget_of_queries(train, fails, pipeline, data_dir, tmp_path):
    """Never more is spent: no step is taken that could not be validated. The schedule is one of as many epochs as the
    budget pays for; resuming adds nothing."""
    step, validation = 40 * 4, 9 * VAL
    flags = ("--optimization_method", "ZO", "--q", 2, "--mse_weight", 1, "--epochs", 9, "--query_budget")
    folder = train(*flags, 1100)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epoch = TRAIN * 4 + validation
    assert [row["queries"] for row in rows] == [epoch, epoch + step + validation]
    assert json.loads((folder / "args.json").read_text())["epochs"] == 2
    train(*flags, 1100, "--resume")
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == rows
    fails(
        1,
        ("--query_budget 321", f"{step + validation}"),
        "main_ds",
        *("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--batch", 40, "--outdir", tmp_path / "poor"),
        *(*flags, 321),
    )


@pytest.mark.parametrize(("budget", "epochs"), [(160, 1), (699, 1), (1049, 1), (1051, 2), (9_000, 10), (None, 10)])
def test_epochs_that_a_budget_pays_for(budget, epochs):
    args = argparse.Namespace(query_budget=budget, epochs=10, switch_epoch=None)
    for _ in range(2):  # a resumed run finds the same
        fit_epochs(args, least=160, epoch=700)
        assert args.epochs == epochs


def test_a_query_that_fails_loses_the_step_only(train, monkeypatch):
    """The last queries of the second step are never answered; the run goes on with that step, and what was asked of it
    counts."""
    query = BlackBox.query

    def dies(self, images):
        found = query(self, images)
        if self.queries > 250:
            raise ConnectionError("--classifier f: a query failed 6 times")
        return found

    flags = ("--optimization_method", "ZO", "--q", 2)
    monkeypatch.setattr(BlackBox, "query", dies)
    with pytest.raises(SystemExit):
        train(*flags)
    monkeypatch.undo()
    folder = train(*flags, "--resume")
    (row,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert row["queries"] == 320 + (TRAIN - 40) * 4 + VAL * 9
    assert json.loads((folder / "queries.json").read_text()) == {"queries": row["queries"]}


@pytest.mark.parametrize("model", ["DS", "AE_DS"])
def test_images_that_matter_are_drawn_from_a_pool(train, pipeline, autoencoder, model):
    """Pools of 120 and 6 images, two queries each (clean, and noisy), and one batch of 40 or 6 of it with q + 1; the
    denoiser in bfloat16."""
    space = ("--model_type", "AE_DS", "--pretrained_encoder", autoencoder) if model == "AE_DS" else ()
    folder = train("--optimization_method", "ZO", "--q", 2, "--zo_pool", 3, "--weight_decay", 0, "--amp", *space)
    row = json.loads((folder / "metrics.jsonl").read_text())
    assert row["queries"] == 120 * 2 + 40 * 3 + 6 * 2 + 6 * 3 + VAL * 9
    after = {name.removeprefix("denoiser."): value for name, value in state(folder / "best.pth.tar").items()}
    assert changed(state(pipeline["mse"]), after)


@pytest.mark.parametrize("end", ["terminated", "killed"])
def test_queries_of_a_run_that_ends_at_once_are_spent(train, tmp_path, monkeypatch, end):
    """SIGTERM counts what was asked; a kill, of which nobody learns, counts the step and the validation after it."""
    query = BlackBox.query

    def ends(self, images):
        found = query(self, images)
        if self.queries > 200:
            if end == "killed":
                monkeypatch.setattr("training.run_directory.RunDirectory.note_queries", lambda *args: None)
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(BlackBox, "query", ends)
    with pytest.raises(SystemExit) as stop:
        train("--optimization_method", "ZO", "--q", 2)
    assert stop.value.code == 130
    spent = json.loads((tmp_path / "run" / "queries.json").read_text())["queries"]
    assert spent == {"terminated": 240, "killed": 2 * 160 + VAL * 9}[end]


def test_grey_directions(train, pipeline, fails, autoencoder, data_dir, tmp_path):
    zo = ("--optimization_method", "ZO", "--zo_grey")
    folder = train(*zo, "--zo_method", "DCT", "--q", 2, "--weight_decay", 0)
    assert changed(state(pipeline["mse"]), state(folder / "best.pth.tar"))
    common = ("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--outdir", tmp_path / "no", *zo)
    fails(1, ("--q 1025", "1024 directions"), "main_ds", *common, "--q", 1025)
    fails(1, ("--zo_grey", "DS"), "main_ds", *common, "--model_type", "AE_DS", "--pretrained_encoder", autoencoder)
    fails(1, ("--zo_precision tf32", "CUDA"), "main_ds", *common, "--zo_precision", "tf32", "--device", "cpu")
    fails(1, ("--zo_grey", "guided"), "main_ds", *common, "--zo_method", "guided", "--surrogates", pipeline["mse"])


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
def test_precision_of_the_answers(train, pipeline, monkeypatch, precision):
    """The classifier answers in float32 unless bfloat16 is asked for, the losses are float32 in any case, and the step
    grows with the rounding."""
    modes = []
    query = BlackBox.query

    def watched(self, images):
        modes.append(torch.is_autocast_enabled("cpu"))
        answer = query(self, images)
        assert answer.dtype == torch.float32
        return answer

    monkeypatch.setattr(BlackBox, "query", watched)
    given = () if precision is None else ("--zo_precision", precision)
    folder = train("--optimization_method", "ZO", "--q", 2, "--weight_decay", 0, "--no-amp", *given)
    args = json.loads((folder / "args.json").read_text())
    assert args["mu"] == {None: 0.005, "float32": 0.005, "bfloat16": 0.5}[precision]
    assert args["lr"] == 3e-5
    assert set(modes) == ({False, True} if precision == "bfloat16" else {False})  # False: validation, with --no-amp
    assert changed(state(pipeline["mse"]), state(folder / "best.pth.tar"))


def test_resumed_zeroth_order_equals_uninterrupted(train, monkeypatch):
    import training.run_directory as module

    flags = ("--optimization_method", "ZO", "--q", 2, "--epochs", 2)
    whole = train(*flags, name="whole")
    record = module.RunDirectory.record

    def stop_after_one(self, *args):
        record(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.RunDirectory, "record", stop_after_one)
    with pytest.raises(SystemExit):
        train(*flags, name="cut")
    monkeypatch.undo()
    cut = train(*flags, "--resume", name="cut")
    assert not changed(state(whole / "checkpoint.pth.tar"), state(cut / "checkpoint.pth.tar"))
    queries = [
        [json.loads(line)["queries"] for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (whole, cut)
    ]
    assert queries[0] == queries[1]


def test_surrogates_train_in_the_place_of_the_classifier(train, pipeline, autoencoder, data_dir, tmp_path, fails):
    """Without a query in training; or one surrogate's gradient as the first of two directions."""
    other = tmp_path / "other" / "best.pth.tar"
    run_script(
        "train_classifier",
        *("--data_dir", data_dir, "--image_size", 32, "--arch", "mobilenet_v3_small", "--epochs", 1, "--batch", 40),
        *("--seed", 5, "--outdir", other.parent),
    )
    folder = train("--surrogates", other, pipeline["classifier"], name="surrogates")
    assert changed(state(pipeline["mse"]), state(folder / "best.pth.tar"))
    assert json.loads((folder / "metrics.jsonl").read_text())["queries"] == VAL * 9  # to choose the epoch
    folder = train(
        "--optimization_method",
        "ZO",
        "--model_type",
        "AE_DS",
        "--pretrained_encoder",
        autoencoder,
        "--zo_method",
        "guided",
        "--q",
        2,
        "--surrogates",
        other,
        name="guided",
    )
    row = json.loads((folder / "metrics.jsonl").read_text())
    assert row["queries"] == TRAIN * 4 + VAL * 9
    common = ("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--outdir", tmp_path / "run")
    fails(1, ("guided", "--surrogates"), "main_ds", *common, "--optimization_method", "ZO", "--zo_method", "guided")
    fails(1, (pipeline["mse"], "a classifier is needed"), "main_ds", *common, "--surrogates", pipeline["mse"])
    large = torch.load(other, weights_only=True) | {"image_size": 64}
    torch.save(large, tmp_path / "large.pth.tar")
    fails(
        1,
        ("--surrogates", "large.pth.tar", "image_size 64"),
        "main_ds",
        *common,
        *("--surrogates", tmp_path / "large.pth.tar"),
    )


def test_surrogate_loss_has_the_estimate_as_its_gradient():
    z = torch.randn(3, 2, 4, 4, requires_grad=True)
    targets = torch.tensor([1.0, 2.0, 3.0])

    def loss(points, sample):
        return targets[sample] * points.flatten(1).square().sum(dim=1)

    torch.manual_seed(0)
    value = surrogate_loss(z, loss, rge, 1e-2, 5, batch=4)
    found = torch.autograd.grad(value.sum(), z)[0]
    torch.manual_seed(0)
    expected, _ = rge(in_batches(loss, 4), z.detach(), 1e-2, 5, None, block=1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(value, loss(z, torch.arange(3)), rtol=0.05, atol=0)


def test_refused_combinations(fails, pipeline, autoencoder, data_dir, tmp_path):
    common = ("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--outdir", tmp_path / "run")
    ae = ("--model_type", "AE_DS", "--pretrained_encoder", autoencoder)
    zo = ("--optimization_method", "ZO")
    fails(1, ("whole_plus", "gradient"), "main_ds", *common, *ae, *zo, "--train_method", "whole_plus")
    fails(1, ("--consistency", "FO"), "main_ds", *common, *zo, "--consistency", 5)
    fails(1, ("CGE", "6144 queries per image", "--force"), "main_ds", *common, *zo, "--zo_method", "CGE")
    for flag in (
        ("--q", 2),
        ("--mu", 0.1),
        ("--zo_method", "CGE"),
        ("--zo_batch", 8),
        ("--query_budget", 9),
        ("--zo_grey",),
        ("--zo_pool", 2),
        ("--force",),
    ):
        fails(1, (flag[0], "--optimization_method ZO"), "main_ds", *common, *flag)
    fails(1, ("--q 129", "128 directions"), "main_ds", *common, *ae, *zo, "--q", 129)
    fails(1, ("--latent 64", autoencoder, "latent 128"), "main_ds", *common, *ae, "--latent", 64)
    fails(
        1,
        ("--latent 64", autoencoder, "latent 128"),
        "main_ds",
        *common,
        *("--model_type", "AE_DS", "--pretrained_denoiser", pipeline["mse"], "--pretrained_decoder", autoencoder),
        *("--latent", 64),
    )
    fails(1, ("--latent", "AE_DS"), "main_ds", *common, "--latent", 64)
    fails(
        1,
        ("--zo_precision", "os:getcwd", "--mu"),
        "main_ds",
        *common[:2],
        *("--classifier", "os:getcwd", *zo, "--zo_precision", "bfloat16", "--outdir", tmp_path / "run"),
    )
    fails(1, ("DS has no autoencoder",), "main_ds", *common, "--pretrained_encoder", autoencoder)
    fails(1, ("one part only",), "main_ds", *common, "--train_method", "whole")
    fails(
        1,
        (pipeline["mse"], "an encoder is needed"),
        "main_ds",
        *common,
        *("--model_type", "AE_DS", "--pretrained_encoder", pipeline["mse"]),
    )
    fails(2, ("--zo_method", "RGE"), "main_ds", *common, *zo, "--zo_method", "SPSA")
    assert not (tmp_path / "run").exists()
