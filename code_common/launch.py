"""From the options to what they stand for: device, tiling, recipe; and the start of a script."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from code_common.config import as_json, shown_fields
from code_common.errors import InputError, run_script
from code_common.files.contents import hash_by_name
from code_common.files.run_folder import colours_path
from code_common.inference.tiling import VIEWS, Tiling
from code_common.inference.trained_run import start_from
from code_common.learning import distributed, hardware
from code_common.learning.checkpoints import load_encoder
from code_common.learning.colours import read_colours
from code_common.learning.network import OUTPUTS, ResUNet
from code_common.learning.precision import choose_precision
from code_common.learning.training import Recipe
from code_common.options import CommonOptions, InferenceOptions, is_weights_file


def choose_device(options: InferenceOptions) -> torch.device:
    """The device of this process; InputError where it is absent."""
    number, gpus = distributed.local_rank() or 0, options.gpus
    if gpus and number >= len(gpus):
        raise InputError(f"--gpus: {len(gpus)} GPUs, but this is process {number + 1}")
    return hardware.choose_device(options.device, gpus[number] if gpus else None)


def tiling_of(options: InferenceOptions, device: torch.device) -> Tiling:
    """How images are cut for inference, and how the network computes."""
    return Tiling(
        tile=options.tile,
        overlap=options.overlap,
        batch_size=options.test_batch_size,
        views=VIEWS[options.views],
        precision=choose_precision(options.precision, device),
    )


def first_network(options: CommonOptions, stage: str) -> tuple[ResUNet, dict[str, str]]:
    """A stage's network with its first weights, and what it started from, for options.json.

    Its colours are those of the training images, or of the model that it starts from.
    """
    colours = read_colours(colours_path(options.save_dir))
    network = ResUNet(options.model, OUTPUTS[stage], *colours, options.width, options.stem_stride)
    return network, {"pretrained_loaded": load_first_weights(network, options, stage)}


def load_first_weights(network: ResUNet, options: CommonOptions, stage: str) -> str:
    """Give a stage's network its first weights; returns which. Raises InputError where they are
    not there or do not fit.
    """
    if options.start_from:
        return start_from(options.start_from, network, stage)
    return load_encoder(network, options.model, options.pretrained)


def recipe_of(options: CommonOptions, device: torch.device, seed: int, **changes: float) -> Recipe:
    """What the training loop needs of the options; `changes` are those of one phase."""
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        batch_parts=options.batch_parts,
        lr=options.lr,
        weight_decay=options.weight_decay,
        seed=seed,
        workers=hardware.choose_workers(options.workers, device),
        val_every=options.val_every,
        precision=choose_precision(options.precision, device),
        dropout=options.dropout,
        compile=options.compile,
        tensorboard=options.tensorboard,
        schedule=options.schedule,
    )
    return replace(recipe, **changes)


def made_of(
    options: CommonOptions,
    script: type,
    files: Mapping[str, Sequence[Path]],
    but: Collection[str] = (),
) -> dict[str, object]:
    """What a training is made of beside its recipe, by name: see `training.fit`.

    These are the options of `script`, the class of those of train.py, that the result depends on,
    without those in `but`; and hashes of `files`: what they are -> their paths, which need not be
    there.
    """
    values = as_json(options)
    others = {*options.NOT_IN_RESULT, *(field.name for field in fields(Recipe)), *but}
    names = [field.name for field in shown_fields(script) if field.name not in others]
    first = options.start_from or Path(options.pretrained)
    hashes = {k: hash_by_name(paths) for k, paths in {"first weights": [first], **files}.items()}
    # A file of first weights counts by its hash, wherever it lies.
    made = {n: values[n] for n in names if not is_weights_file(n, values[n])}
    return made | {name: f"of hash {content}" for name, content in hashes.items()}


def together(action: Callable[[InferenceOptions], object], options: InferenceOptions) -> object:
    """Do a script's action: in this process or, with several --gpus, in one for each.

    Returns what it returns in the first process.
    """
    if len(options.gpus) > 1 and distributed.local_rank() is None:
        sys.exit(distributed.launch(len(options.gpus)))
    return distributed.work_together(choose_device(options), lambda: action(options))


def run(action: Callable[[InferenceOptions], object], options: InferenceOptions) -> None:
    """Run a script: do its action, print the words that it returns, end errors in one line."""
    message = run_script(lambda: together(action, options))
    if isinstance(message, str):
        print(message)
