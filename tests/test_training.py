"""Losses, noise, schedules and the loop, against closed forms; resuming equals not being interrupted."""

from __future__ import annotations

import copy
import json
import math
import shutil

import pytest
import torch
from conftest import run_script

from models import load_classifier
from training import losses, validation
from training.engine import gradients
from training.noise import add_fixed_noise, add_noise, noise_range
from training.optim import AdamThenSGD, lr_factor
from training.run_directory import RunDirectory

# ---- losses ----------------------------------------------------------------------------------------------------------


def test_reconstruction_is_the_mean_square_per_image():
    clean = torch.zeros(2, 3, 4, 4)
    denoised = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 2.0)])
    torch.testing.assert_close(losses.reconstruction(denoised, clean), torch.tensor([0.25, 4.0]))


def test_cross_entropies():
    """Uniform scores cost log K, whatever the target; stability's target is the clean prediction, not the label."""
    uniform = torch.zeros(3, 4)
    torch.testing.assert_close(losses.classification(uniform, torch.tensor([0, 1, 2])), torch.full((3,), math.log(4)))
    torch.testing.assert_close(losses.stability(uniform, torch.randn(3, 4)), torch.full((3,), math.log(4)))
    sure = torch.tensor([[0.0, 50.0, 0.0]])
    assert losses.stability(sure, torch.tensor([[1.0, 3.0, 2.0]])).item() == pytest.approx(0, abs=1e-6)
    assert losses.stability(sure, torch.tensor([[3.0, 1.0, 2.0]])).item() == pytest.approx(50, rel=1e-6)


def test_consistency_is_the_entropy_of_the_mean_and_the_divergence_from_it():
    alike = torch.tensor([[[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]])
    p = alike[0].softmax(dim=1)
    entropy = -(p * p.log()).sum(dim=1)
    torch.testing.assert_close(losses.consistency(alike.expand(3, 2, 3), 7.0), 0.5 * entropy)
    # Two sure and opposite draws: KL((½, ½) ‖ (1 - e, e)) is infinite as e goes to 0, and symmetric in the draws.
    opposite = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]]])
    e = 1 / (1 + math.exp(4))
    divergence = math.log(0.5) - 0.5 * (math.log(e) + math.log(1 - e))
    assert losses.consistency(opposite, 3.0, entropy=0).item() == pytest.approx(3 * divergence, rel=1e-5)
    assert losses.consistency(opposite, 0.0).item() == pytest.approx(0.5 * math.log(2), rel=1e-5)


def test_label_smoothing():
    """(1 - s) CE(y) + s times the mean over classes of -log p."""
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    logp = logits.log_softmax(dim=1)
    expected = -0.9 * logp[torch.arange(5), labels] - 0.1 * logp.mean(dim=1)
    torch.testing.assert_close(losses.classification(logits, labels, 0.1), expected)


def test_mixup_is_linear_in_the_two_losses():
    """For a classifier that ignores its input the loss is λ CE(y_i) + (1 - λ) CE(y_j), between the two; strength 0 is
    plain classification; the images given to the classifier are convex combinations of two of the batch."""
    images = torch.eye(4).view(4, 1, 2, 2)
    labels = torch.tensor([0, 1, 2, 3])
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(4, 4)
    seen = []

    def classifier(x):
        seen.append(x)
        return logits

    plain = losses.mixup(classifier, images, labels, 0.0)
    torch.testing.assert_close(plain, losses.classification(logits, labels))
    torch.manual_seed(0)
    mixed = losses.mixup(classifier, images, labels, 1.0)
    weights = seen[-1].flatten(1)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(mixed, weights @ plain)


def test_losses_are_float32_under_autocast():
    logits = torch.randn(2, 4).bfloat16()
    assert losses.classification(logits, torch.tensor([0, 1])).dtype == torch.float32
    assert losses.stability(logits, logits).dtype == torch.float32
    assert losses.reconstruction(torch.rand(2, 1, 2, 2).bfloat16(), torch.rand(2, 1, 2, 2)).dtype == torch.float32


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_has_the_standard_deviation_it_says():
    torch.manual_seed(0)
    images = torch.full((400, 1, 16, 16), 0.5)
    noisy, sd = add_noise(images, (0.1, 1.0))
    assert sd.min() >= 0.1
    assert sd.max() <= 1.0
    # log-uniform: mean of the logarithm halfway, standard deviation width / sqrt(12)
    assert sd.log().mean().item() == pytest.approx(math.log(0.1) / 2, abs=4 * math.log(10) / math.sqrt(12 * 400))
    standardised = (noisy - images) / sd.view(-1, 1, 1, 1)
    assert standardised.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * standardised.numel()))
    _, fixed = add_noise(images, (0.25, 0.25))
    assert (fixed == 0.25).all()


def test_validation_noise_repeats_and_leaves_training_noise_alone():
    images = torch.zeros(10, 1, 4, 4)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, sd = add_fixed_noise(images, (0.2, 0.6), seed=5)
    assert torch.equal(torch.rand(3), expected)
    second, _ = add_fixed_noise(images, (0.2, 0.6), seed=5)
    assert torch.equal(first, second)
    torch.testing.assert_close(sd.sort().values, 0.2 * 3 ** ((torch.arange(10) + 0.5) / 10))


def test_noise_range():
    assert noise_range([0.25]) == (0.25, 0.25)
    assert noise_range([0.1, 0.5]) == (0.1, 0.5)
    assert noise_range([0.0]) == (0.0, 0.0)
    for bad in ([0.5, 0.1], [0.0, 0.5], [0.1, 0.2, 0.3], []):
        with pytest.raises((ValueError, IndexError)):
            noise_range(bad)


# ---- validation ------------------------------------------------------------------------------------------------------


def test_psnr_of_a_known_error():
    """A constant error of 0.1 is 20 dB."""
    loader = [(torch.full((4, 1, 8, 8), 0.5), torch.zeros(4))]
    psnr = validation.psnr(lambda x, sd: torch.full_like(x, 0.6), loader, torch.device("cpu"), (0.1, 0.1))
    assert psnr == pytest.approx(20, abs=1e-4)


def test_accuracy_against_labels_and_against_a_reference():
    loader = [(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1])), (torch.zeros(1, 1, 2, 2), torch.tensor([1]))]

    def always_one(x, sd=None):
        return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    device = torch.device("cpu")
    assert validation.accuracy(always_one, loader, device, (0, 0)) == {"val_accuracy": 0.75}
    both = validation.accuracy(always_one, loader, device, (0, 0), always_one)
    assert both == {"val_accuracy": 0.75, "val_agreement": 1.0}


def test_validation_takes_several_draws_of_noise():
    """A coin that the noise throws: eight throws per image, the same ones every time, and other images' are others."""
    thrown = []

    def coin(x, sd):
        thrown.append(x[:, 0, 0, 0] > 0.5)
        return torch.stack([torch.zeros(len(x)), thrown[-1].float() - 0.5], dim=1)

    loader = [(torch.full((50, 1, 2, 2), 0.5), torch.ones(50, dtype=torch.long))] * 2
    found = [validation.accuracy(coin, loader, torch.device("cpu"), (0.25, 0.25)) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]["val_accuracy"] == pytest.approx(torch.cat(thrown[:16]).float().mean().item())
    assert found[0]["val_accuracy"] == pytest.approx(0.5, abs=3 * 0.5 / 800**0.5)
    assert len({tuple(each.tolist()) for each in thrown}) == 16


def test_validation_counts_the_images_that_every_draw_finds():
    """A classifier that is wrong where its first pixel is large: rare at 0.2, in about every second image over 8 draws
    at 0.85."""
    seen = []

    def classify(x, sd):
        seen.append(x[:, 0, 0, 0] < 1.2)
        return torch.stack([torch.zeros(len(x)), seen[-1].float() - 0.5], dim=1)

    for pixel, expected in ((0.2, 1.0), (0.85, (0.5 + 0.5 * math.erf(1.4 / 2**0.5)) ** 8)):
        seen.clear()
        loader = [(torch.full((400, 1, 2, 2), pixel), torch.ones(400, dtype=torch.long))]
        found = validation.accuracy(classify, loader, torch.device("cpu"), (0.25, 0.25))
        assert found["val_unanimous"] == pytest.approx(torch.stack(seen).all(dim=0).float().mean().item())
        assert found["val_unanimous"] == pytest.approx(expected, abs=0.08)
        assert found["val_unanimous"] <= found["val_accuracy"]


# ---- schedules -------------------------------------------------------------------------------------------------------


def test_schedules():
    def factor(name, t):
        return lr_factor(name, t, int(t * 100), step_size=30, gamma=0.1)

    assert factor("onecycle", 0) == pytest.approx(1 / 25)
    assert factor("onecycle", 0.3) == pytest.approx(1)
    assert factor("onecycle", 1) == pytest.approx(0)
    assert factor("onecycle", 0.65) == pytest.approx(0.5)
    assert factor("cosine", 0) == 1
    assert factor("cosine", 0.5) == pytest.approx(0.5)
    assert [factor("step", t) for t in (0, 0.29, 0.3, 0.6)] == pytest.approx([1, 1, 0.1, 0.01])
    assert factor("constant", 0.7) == 1


# ---- the loop, by the real scripts -----------------------------------------------------------------------------------


@pytest.fixture
def train(data_dir, tmp_path, pipeline):
    """`train(script, outdir, *more)` with tiny settings."""
    specific = {
        "train_classifier": ("--image_size", 16, "--noise_sd", 0.1),
        "ds_main": ("--image_size", 16, "--noise_sd", 0.1, 0.5),
        "main_ds": (
            *("--classifier", pipeline["classifier"], "--pretrained_denoiser", pipeline["mse"], "--mse_weight", 10),
        ),
    }

    def run(script, outdir, *more):
        flags = ("--data_dir", data_dir, "--epochs", 3, "--batch", 16, "--outdir", tmp_path / outdir, "--no-amp")
        run_script(script, *flags, *specific[script], *more)
        return tmp_path / outdir

    return run


def same_weights(a, b):
    first, second = (torch.load(path, weights_only=True) for path in (a, b))
    assert first["epoch"] == second["epoch"]
    for part in ("state_dict", "optimizer", "scheduler"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)


class KilledError(BaseException):
    """Stands for a SIGKILL: nobody may catch it."""


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("train_classifier", ("--optimizer", "SGD", "--schedule", "step", "--lr_step_size", 2, "--gamma", 0.5)),
        ("ds_main", ("--optimizer", "AdamThenSGD", "--switch_epoch", 2, "--workers", 2)),
        ("ds_main", ("--optimizer", "Adam", "--schedule", "cosine")),
        ("main_ds", ()),
    ],
)
def test_resumed_equals_uninterrupted(train, script, flags, monkeypatch):
    whole = train(script, "whole", *flags)
    from training.run_directory import RunDirectory

    record = RunDirectory.record

    def record_then_die(self, row, checkpoint, best):
        record(self, row, checkpoint, best)
        if row["epoch"] == 2:
            raise KilledError

    monkeypatch.setattr(RunDirectory, "record", record_then_die)
    with pytest.raises(KilledError):
        train(script, "cut", *flags)
    monkeypatch.undo()
    cut = train(script, "cut", *flags, "--resume")
    for name in ("checkpoint.pth.tar", "best.pth.tar"):
        same_weights(whole / name, cut / name)
    histories = [[json.loads(line) for line in (d / "metrics.jsonl").read_text().splitlines()] for d in (whole, cut)]
    for a, b in zip(*histories, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    again = train(script, "cut", *flags, "--resume")  # finished: nothing changes
    same_weights(whole / "checkpoint.pth.tar", again / "checkpoint.pth.tar")


@pytest.mark.parametrize(("error", "step"), [(OSError, 3), (KeyboardInterrupt, 11)])
def test_interrupted_in_an_epoch_equals_uninterrupted(train, error, step, monkeypatch):
    """In the first epoch (of 8 steps) and in the second: the steps done are kept, batch norm's statistics too."""
    flags = ("--arch", "dncnn", "--epochs", 2)
    whole = train("ds_main", "whole", *flags)
    done = []
    reconstruction = losses.reconstruction

    def stops(denoised, clean):
        if torch.is_grad_enabled():
            done.append(len(clean))
            if len(done) == step:
                raise error("stopped")
        return reconstruction(denoised, clean)

    monkeypatch.setattr(losses, "reconstruction", stops)
    with pytest.raises(SystemExit):
        train("ds_main", "cut", *flags)
    monkeypatch.setattr(losses, "reconstruction", lambda *args: (done.append(0), reconstruction(*args))[1])
    done.clear()
    train("ds_main", "cut", *flags, "--resume")
    same_weights(whole / "checkpoint.pth.tar", whole.parent / "cut" / "checkpoint.pth.tar")
    rows = [json.loads((whole.parent / run / "metrics.jsonl").read_text().splitlines()[1]) for run in ("whole", "cut")]
    assert (rows[0]["train_loss"], rows[0]["lr"]) == (rows[1]["train_loss"], rows[1]["lr"])


def test_loader_processes_change_nothing(train):
    one, two = (train("ds_main", f"{n}", "--arch", "dncnn", "--epochs", 2, "--workers", n) for n in (0, 2))
    same_weights(one / "checkpoint.pth.tar", two / "checkpoint.pth.tar")


def test_flags_that_would_be_ignored(fails, data_dir, tmp_path):
    common = ("ds_main", "--data_dir", data_dir, "--outdir", tmp_path / "run")
    for flag, value in (("momentum", 0.5), ("switch_epoch", 2), ("sgd_lr", 0.1)):
        fails(1, (f"--{flag}", "--optimizer", "AdamThenSGD"), *common, f"--{flag}", value)
    for flag in ("lr_step_size", "gamma"):
        fails(1, (f"--{flag}", "--schedule step"), *common, f"--{flag}", 2)
    fails(1, ("--switch_epoch 3", "never"), *common, "--optimizer", "AdamThenSGD", "--switch_epoch", 3, "--epochs", 3)
    assert not (tmp_path / "run").exists()


def test_adam_then_sgd():
    """Adam until the switch, SGD from there on, exactly as each alone; a state restored in between goes on alike."""

    def run(kind: str, steps: int, start=None, save_at=None):
        x = torch.nn.Parameter(torch.tensor([3.0, -2.0]) if start is None else start["x"].clone())
        if kind == "both":
            optimizer = AdamThenSGD([x], 0.1, 0.9, 0.01, adam_steps=3)
        else:
            optimizer = (
                torch.optim.Adam([x], 0.1, weight_decay=0.01)
                if kind == "Adam"
                else torch.optim.SGD([x], 0.1, momentum=0.9, weight_decay=0.01)
            )
        if start is not None and "optimizer" in start:
            optimizer.load_state_dict(start["optimizer"])
        saved = None
        for step in range(steps):
            optimizer.zero_grad()
            (x * x * torch.tensor([1.0, 2.0])).sum().backward()
            optimizer.step()
            if step + 1 == save_at:
                saved = {"x": x.detach().clone(), "optimizer": copy.deepcopy(optimizer.state_dict())}
        return x.detach(), saved

    adam, _ = run("Adam", 3)
    expected, _ = run("SGD", 2, {"x": adam})
    found, saved = run("both", 5, save_at=4)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(run("both", 1, saved)[0], expected)


def test_sgd_may_have_a_rate_of_its_own():
    """In its phase, SGD at `sgd_lr`, scheduled as the other rate is."""
    x, alone = (torch.nn.Parameter(torch.tensor([3.0, -2.0])) for _ in range(2))
    optimizer = AdamThenSGD([x], 0.1, 0.9, 0.0, adam_steps=0, sgd_lr=0.02)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    expected = torch.optim.SGD([alone], 0.02, momentum=0.9)
    for step in range(3):
        expected.param_groups[0]["lr"] = 0.02 * 0.5**step
        for parameter, each in ((x, optimizer), (alone, expected)):
            each.zero_grad()
            parameter.square().sum().backward()
            each.step()
        scheduler.step()
    torch.testing.assert_close(x, alone)


def test_killed_before_the_checkpoint_repeats_the_epoch(train, monkeypatch):
    whole = train("ds_main", "whole")
    save = torch.save
    calls = []

    def die_in_epoch_two(content, path):  # a stream
        calls.append(content["epoch"])
        if content["epoch"] == 2:
            path.write(b"half a file")
            raise KilledError
        save(content, path)

    monkeypatch.setattr(torch, "save", die_in_epoch_two)
    with pytest.raises(KilledError):
        train("ds_main", "cut")
    monkeypatch.undo()
    cut = train("ds_main", "cut", "--resume")
    same_weights(whole / "checkpoint.pth.tar", cut / "checkpoint.pth.tar")
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 3


def test_run_directory_holds_what_it_should(train):
    folder = train("main_ds", "run", "--epochs", 1)
    names = {path.name for path in folder.iterdir()}
    assert names == {"args.json", "best.pth.tar", "checkpoint.pth.tar", "log.txt", "metrics.jsonl", "progress.png"}
    assert json.loads((folder / "args.json").read_text())["objective"] == "stability"
    assert (folder / "log.txt").read_text().startswith("epoch\tlr\ttrain_loss\tval_accuracy\tval_agreement")
    checkpoint = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    contract = {
        "arch",
        "arch_kwargs",
        "dataset",
        "image_size",
        "state_dict",
        "optimizer",
        "scheduler",
        "epoch",
        "best_metric",
        "rng",
        "args",
    }
    assert contract <= set(checkpoint)


def test_a_run_is_not_overwritten_and_settings_are_held(train, capsys):
    folder = train("ds_main", "run", "--epochs", 1)
    before = (folder / "checkpoint.pth.tar").read_bytes()

    def refused(script, *more) -> str:
        with pytest.raises(SystemExit) as stop:
            train(script, "run", "--epochs", 1, *more)
        assert stop.value.code == 1
        return capsys.readouterr().err

    message = refused("ds_main")
    assert "holds a run already" in message
    assert "--resume" in message
    for script in ("ds_main", "main_ds", "train_classifier"):
        assert "(now 0.01)" in refused(script, "--lr", 0.01, "--resume")
    assert (folder / "checkpoint.pth.tar").read_bytes() == before
    args = json.loads((folder / "args.json").read_text())
    other = shutil.copytree(folder, folder.parent / "other")
    (other / "args.json").write_text(json.dumps({**args, "arch": "dncnn"}))
    with pytest.raises(SystemExit):  # its weights are another network's
        train("ds_main", "other", "--epochs", 1, "--arch", "dncnn", "--lr", args["lr"], "--resume")
    assert "of another run or model" in capsys.readouterr().err


def test_non_finite_loss_stops_with_epoch_and_step(train, capsys):
    with pytest.raises(SystemExit) as stop:
        train("ds_main", "run", "--lr", 1e30, "--schedule", "constant")
    assert stop.value.code == 1
    assert "in epoch" in (message := capsys.readouterr().err)
    assert "step" in message
    assert "\n" not in message.strip()


def test_the_frozen_classifier_stays_frozen_and_the_denoiser_learns(train, monkeypatch):
    seen = []

    def watched(*args, **kwargs):
        classifier, made = load_classifier(*args, **kwargs)
        seen.append((classifier, copy.deepcopy(classifier.state_dict())))
        return classifier, made

    monkeypatch.setattr("training.tasks.load_classifier", watched)
    folder = train("main_ds", "run", "--objective", "classification")
    ((classifier, before),) = seen
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_from_scratch(train, pipeline, tmp_path, data_dir):
    run_script(
        "main_ds",
        *("--data_dir", data_dir, "--classifier", pipeline["classifier"], "--arch", "dncnn", "--epochs", 1),
        *("--outdir", tmp_path / "scratch"),
    )
    checkpoint = torch.load(tmp_path / "scratch" / "best.pth.tar", weights_only=True)
    assert checkpoint["arch"] == "dncnn"
    shutil.rmtree(tmp_path / "scratch")


def test_a_batch_that_does_not_fit_names_one_that_does():
    weight = torch.nn.Parameter(torch.ones(()))

    def loss_fn(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if len(images) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return weight * images

    images, paid = torch.ones(32), []

    def loss_of(count: int, reserve=lambda count: not paid.append(count)) -> torch.Tensor:
        return gradients(loss_fn, images[:count], images[:count], torch.device("cpu"), False, reserve)

    assert loss_of(4) == 1
    assert weight.grad == 1
    with pytest.raises(ValueError, match="--batch 32: a step needs more memory than there is; --batch 4 fits"):
        loss_of(32)
    assert paid == [16, 8, 4]  # a black box is asked for these, too
    with pytest.raises(MemoryError):
        loss_of(32, reserve=lambda count: False)


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    with (
        RunDirectory(tmp_path / "a", {}, resume=False),
        pytest.raises(ValueError, match=r"--outdir .*a: another run is writing to it; wait .* or name another"),
    ):
        RunDirectory(tmp_path / "a", {}, resume=False)
    with RunDirectory(tmp_path / "a", {}, resume=False) as run:
        assert run.history == []
