"""How long a run will take on this machine, and what it will write."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from code_common.files.contents import is_done
from code_common.files.data_set import ImageFiles
from code_common.files.images import image_shape
from code_common.files.run_folder import marker_paths
from code_common.launch import choose_device, recipe_of
from code_common.learning.network import ResUNet, mixed_precision
from code_common.learning.patches import windows
from code_common.options import CommonOptions
from code_common.runs.same_run import refuse_other_options
from code_common.runs.steps import Step

BESIDE = 1.3  # time of a run over that of its networks alone: crops, labels, files, imports
BYTES_PER_PIXEL = 30  # of what a repeat writes for an image, at most
CHECKPOINTS = 3  # that a stage holds beside one for each training: the one in progress has Adam's


def training_work(images: Sequence[ImageFiles], options: CommonOptions, epochs: int) -> float:
    """Work of training in megapixels through the network, three passes a step."""
    patches = sum(len(windows(image_shape(i.image), options.patch_size)) for i in images)
    return 3e-6 * epochs * patches * options.input_size**2


def inference_work(images: Sequence[ImageFiles], options: CommonOptions, views: int) -> float:
    """Work of inference in megapixels through the network."""
    tiling = options.tile, options.overlap
    tiles = sum(len(windows(image_shape(i.image), *tiling)) for i in images)
    return 1e-6 * tiles * options.tile**2 * views


def validation_work(images: Sequence[ImageFiles], options: CommonOptions, epochs: int) -> float:
    """Work of all validations of a training in megapixels through the network."""
    return -(-epochs // options.val_every) * inference_work(images, options, views=1)


@dataclass(frozen=True)
class Estimate:
    """What a run takes from here on."""

    seconds: float
    size: float  # in bytes, of the whole run
    done: int  # steps that are done
    steps: int  # of all


def seconds_per_megapixel(options: CommonOptions, network: ResUNet) -> float:
    """What a megapixel through the network takes on this machine, of three in a training step."""
    device = choose_device(options)
    network.to(device, memory_format=torch.channels_last)
    precision = recipe_of(options, device, seed=0).precision
    image = torch.rand(min(4, options.batch_size), 3, *2 * [options.input_size], device=device)
    for _ in range(2):  # the first one makes memory and kernels ready
        began = time.perf_counter()
        with mixed_precision(precision, device):
            loss = network(image).float().square().mean()
        loss.backward()
        loss.item()
        step = time.perf_counter() - began
    return step / (3e-6 * len(image) * options.input_size**2)


def estimate(
    stages: Sequence[tuple[CommonOptions, list[Step]]],
    image_files: Sequence[ImageFiles],
    repeats: int,
    begins: bool = True,
) -> Estimate:
    """What a run of some stages takes: the options and the steps of each.

    begins: it is about to begin. Then InputError is raised where a run that is there has other
    options, so that it could not go on.
    """
    pixels = sum(int(np.prod(image_shape(files.image))) for files in image_files)
    size = float(pixels * BYTES_PER_PIXEL * repeats)
    seconds, done, count = 0.0, 0, 0
    for options, steps in stages:
        network = ResUNet(options.model, 2, width=options.width, stem_stride=options.stem_stride)
        speed = seconds_per_megapixel(options, network)
        weights = sum(4 * p.numel() for p in network.parameters())
        trainings = sum(step.name.startswith("train") for step in steps)
        size += repeats * (trainings + CHECKPOINTS) * weights
        for repeat in range(options.repeat, options.repeat + repeats):
            now = options  # the first repeat may have a --save-dir of its own
            if repeat > options.repeat:
                now = replace(options, save_dir=None, repeat=repeat).resolved()
            folder = now.save_dir
            if begins and marker_paths(folder) and not options.restart:
                refuse_other_options(folder, now)
            for step in steps:
                ready = is_done(folder, step.name) and not options.restart
                done, count = done + ready, count + 1
                seconds += 0 if ready else step.work * speed
    return Estimate(seconds * BESIDE, size, done, count)
