"""The command line that all scripts share: flags, configuration files, messages about wrong values.

What a script does with them, and how it ends: `common/script.py`.
"""

from __future__ import annotations

from common.script import in_one_line

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Number = TypeVar("Number", int, float)


# What flags can be added to: a parser, or a group of its flags.
Flags = argparse._ActionsContainer


def amp_flag(group: Flags) -> None:
    """Add --amp/--no-amp; None stands for bfloat16 where the hardware is fast at it."""
    group.add_argument(
        "--amp",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compute in bfloat16 (default: where the hardware is fast at it)",
    )


def classifier_flags(group: Flags, required: bool = True, arch: Sequence[str] = ("--arch",)) -> None:
    """Add --classifier and the flags that describe one which does not store what must be known of it. `arch` are the
    spellings of --classifier_arch besides this one."""
    group.add_argument(
        "--classifier",
        "--base_classifier",
        type=Path,
        required=required,
        metavar="F",
        help="the classifier f: a checkpoint, weights (with --arch), a module or function in Python "
        "(package.module:name, or path/to/file.py:name), a program of torch.export, a TorchScript or ONNX file, or a "
        "folder of Hugging Face (docs/your_model.md)",
    )
    group.add_argument(
        "--scores",
        choices=["logits", "probabilities", "labels"],
        default="logits",
        help="what the classifier returns; for a checkpoint, weights or a folder of Hugging Face: what it reveals "
        "(other than logits, it is a black box)",
    )
    image_flags(group)
    description_flags(group, arch)


def description_flags(group: Flags, arch: Sequence[str] = ("--arch",)) -> None:
    """Add what a classifier from elsewhere cannot say itself."""
    group.add_argument(
        "--classifier_arch",
        *arch,
        metavar="NAME",
        help="architecture of a file of weights: NAME of torchvision, timm/NAME or monai/NAME",
    )
    group.add_argument(
        "--weights",
        metavar="ENTRY",
        help="which weights of a file that holds several: an entry such as model_ema, or a prefix of names",
    )
    for name, what in (("mean", "mean"), ("std", "standard deviation")):
        group.add_argument(
            f"--{name}",
            type=statistic,
            nargs="+",
            metavar="V",
            help=f"{what} by which the classifier's images are normalised: one number, or one per channel, for images "
            "in [0, 1]; or imagenet, half (0.5), none; only for a classifier from elsewhere that does not do it itself",
        )
    group.add_argument(
        "--bgr", action="store_true", default=None, help="the classifier takes blue, green, red (images of OpenCV)"
    )
    group.add_argument(
        "--classes",
        nargs="+",
        metavar="C",
        help="names of the classifier's outputs in their order, or the numbers (from 0) of the outputs that are the "
        "data set's classes (default: output k is class k)",
    )


def image_flags(group: Flags) -> None:
    """Add the shape of images, for networks that do not store it."""
    group.add_argument(
        "--image_size",
        type=positive_int,
        help="input size in pixels; needed only if the network does not store it: a Python function, or a "
        "file from elsewhere",
    )
    group.add_argument(
        "--channels", type=int, choices=[1, 3], help="1: grey, 3: RGB; needed only if the network does not store it"
    )
    group.add_argument(
        "--output",
        metavar="NAME",
        help="the answer of a network from elsewhere, if it gives several: an output of an ONNX file, or the key of a "
        "dictionary (default: known by its name or shape)",
    )
    group.add_argument(
        "--axes",
        choices=["NCHW", "NHWC"],
        help="order of the axes of the images that an ONNX file takes; needed only if its shapes do not tell",
    )


def scale_flag(group: Flags) -> None:
    """Add the scale of the images of a denoiser from elsewhere."""
    group.add_argument(
        "--denoiser_scale",
        choices=["unit", "symmetric"],
        help="images that a diffusion model or package.module:name takes: unit: [0, 1]; symmetric: [-1, 1] (default: "
        "as the diffusion model's configuration says; else unit)",
    )


def reconstructor_flags(group: Flags, required: bool = True) -> None:
    """Add --reconstructor and what it reconstructs from, for networks that do not store that."""
    group.add_argument(
        "--reconstructor",
        type=Path,
        required=required,
        metavar="R",
        help="the network R from measurements to images: a checkpoint, an ONNX file, or a Python function "
        "package.module:function",
    )
    group.add_argument(
        "--measurement",
        help="what R reconstructs from: undersampled (lines of k-space), gaussian (random projections), or"
        " a Python function package.module:function; needed only if R does not store it",
    )
    group.add_argument(
        "--acceleration",
        type=positive_float,
        help="numbers of the image per measured number (default: 4); needed only if R does not store it",
    )


class Parser(argparse.ArgumentParser):
    """ArgumentParser without abbreviations. It takes `-` for `_` in flags, reads --config, and errs in one line."""

    def __init__(self, description: str | None = None, resumes: bool = True, **kwargs) -> None:
        """`resumes`: the same command resumes the script after an interruption."""
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(description=description, allow_abbrev=False, **kwargs)
        self.resumes = resumes

    def add_common_flags(self, seed: int | None = 0, seed_help: str = "seed of all random numbers") -> None:
        """Add --seed, --device, --config and --debug, which every script takes; `seed` is the default."""
        group = self.add_argument_group("common")
        group.add_argument("--seed", type=non_negative_int, default=seed, help=seed_help)
        group.add_argument(
            "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: cuda if there is a GPU, else cpu"
        )
        group.add_argument(
            "--config", metavar="FILE.yaml", help="read flags from a YAML file; flags on the command line override it"
        )
        group.add_argument("--debug", action="store_true", help="on an error show where it happened (its traceback)")

    def add_data_flags(self, dataset_help: str) -> None:
        """Add --dataset, --data_dir and --protocol."""
        group = self.add_argument_group("data")
        group.add_argument("--dataset", help=dataset_help)
        group.add_argument(
            "--data_dir", type=Path, default=Path("Dataset"), help="folder that prepare_data.py wrote to"
        )
        group.add_argument(
            "--protocol",
            choices=["official", "stratified"],
            help="raise an error if the data was split by the other protocol",
        )

    def add_pipeline_flags(self, split: bool = True, required: bool = True, amp: bool = True) -> None:
        """Add the parts of a trained pipeline and its images; `split` is False for a script with its own --split, `amp`
        for one that computes nothing."""
        group = self.add_argument_group("pipeline")
        classifier_flags(group, required)
        group.add_argument(
            "--pretrained_denoiser",
            "--denoiser",
            type=Path,
            help="the denoiser D: a checkpoint, weights of a DRUNet, a folder of diffusers, or package.module:name "
            "(default: none, the classifier alone)",
        )
        scale_flag(group)
        group.add_argument(
            "--pretrained_encoder",
            type=Path,
            help="for AE_DS: checkpoint of the autoencoder, or of its encoder; needed only if D's checkpoint "
            "does not hold it",
        )
        group.add_argument(
            "--pretrained_decoder",
            type=Path,
            help="for AE_DS: checkpoint of the decoder; needed only if the encoder's file does not hold it",
        )
        if amp:
            amp_flag(group)
        self.add_data_flags("name of a prepared data set (default: the one that the classifier was trained on)")
        if split:
            self.add_argument("--split", choices=["train", "val", "test"], default="test", help="split to use")

    def add_split_flag(self) -> None:
        """Add a --split that also takes saved images of an attack (`attacks.folder.open_images`)."""
        self.add_argument(
            "--split",
            default="test",
            help="train, val, test, or attacked images, by the end of their folder's name: FGSM for those of the test "
            "split in AT_FGSM, FGSM:val for those of the validation split",
        )

    def parse_args(  # type: ignore[override]  # the overloads of argparse are for namespaces of other classes
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        argv = [self._canonical(token) for token in (sys.argv[1:] if args is None else args)]
        config = _value_of(argv, "--config")
        if config is not None:
            argv = self._config_tokens(Path(config)) + argv
        return super().parse_args(argv, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {in_one_line(message)} (see --help)\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """As argparse does, but that nobody takes the help is an error (`script.start`)."""
        if message and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)

    def _canonical(self, token: str) -> str:
        """Spell `--noise-sd=1` as the flag that is registered, `--noise_sd=1`; leave everything else alone."""
        if not token.startswith("--"):
            return token
        flag, equals, value = token.partition("=")
        spelled = {option.replace("-", "_"): option for option in self._option_string_actions}
        return spelled.get(flag.replace("-", "_"), flag) + equals + value

    def _config_tokens(self, path: Path) -> list[str]:
        """The flags of a YAML file as command-line tokens, so that argparse checks them like any others."""
        import yaml

        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            self.error(f"--config {path}: cannot be read: {' '.join(str(error).split())}")
        if not isinstance(settings, dict):
            self.error(f"--config {path}: must hold lines 'flag: value'")
        tokens: list[str] = []
        for key, value in settings.items():
            flag = self._canonical(f"--{key}")
            action = self._option_string_actions.get(flag)
            if action is None or flag == "--config":
                self.error(f"--config {path}: unknown flag {key!r}")
            if isinstance(value, bool):
                if value or isinstance(action, argparse.BooleanOptionalAction):
                    tokens.append(flag if value else f"--no-{flag[2:]}")
            elif value is not None:
                tokens += [flag, *map(str, value if isinstance(value, list) else [value])]
        if any("\0" in token for token in tokens):
            self.error(f"--config {path}: holds a null byte, which no value can have")
        return tokens


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults where the help does not, and keep the line breaks of the script's docstring."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default, text = action.default, action.help or ""
        if default is None or default is False or default in ([], "", argparse.SUPPRESS) or "(default" in text:
            return action.help
        if isinstance(default, bool):
            return f"{text} (default: on)"
        if isinstance(default, (list, tuple)):
            return f"{text} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def _value_of(argv: Sequence[str], flag: str) -> str | None:
    for i, token in enumerate(argv):
        if token == flag and i + 1 < len(argv):
            return argv[i + 1]
        if token.startswith(f"{flag}="):
            return token.partition("=")[2]
    return None


# ---- types for add_argument(type=...): the error message of each says what would be right ----------------------------


def positive_float(text: str) -> float:
    """A finite float > 0, e.g. --sigma."""
    value = _number(text, float)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text}")
    return value


def non_negative_float(text: str) -> float:
    """A finite float >= 0, e.g. --noise_sd."""
    value = _number(text, float)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a number >= 0, got {text}")
    return value


def statistic(text: str) -> float | str:
    """A number, or the name of a normalisation, e.g. --mean."""
    if text in ("imagenet", "half", "none"):
        return text
    try:
        return _number(text, float)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a number, imagenet, half or none, got {text!r}") from None


def share(text: str) -> float:
    """A float from 0 to 1, e.g. --label_smoothing."""
    value = _number(text, float)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def probability(text: str) -> float:
    """A float strictly between 0 and 1, e.g. --alpha."""
    value = _number(text, float)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie strictly between 0 and 1, got {text}")
    return value


def positive_share(text: str) -> float:
    """A float above 0 and up to 1, e.g. --near."""
    value = _number(text, float)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must lie above 0 and be at most 1, got {text}")
    return value


def positive_int(text: str) -> int:
    """An integer from 1 to 2^31 - 1, e.g. --batch."""
    value = _number(text, int)
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {2**31 - 1}, got {text}")
    return value


def non_negative_int(text: str) -> int:
    """An integer from 0 to 2^63 - 1, e.g. --seed."""
    value = _number(text, int)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**63 - 1}, got {text}")
    return value


def shard(text: str) -> tuple[int, int]:
    """`I/K` with 0 <= I < K, e.g. --shard 0/4."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"must be I/K with 0 <= I < K, got {text!r}")
    return int(part), int(parts)


def _number(text: str, kind: type[Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}") from None
