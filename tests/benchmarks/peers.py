"""Time the networks of other projects on a tile of 1000 x 1000 pixels at 40x, on one core.

python tests/benchmarks/peers.py NETWORK FOLDER PRECISION

instanseg and hovernet are read from a folder, which has them from
    pip install --no-deps --target FOLDER instanseg-torch einops tiatoolbox
stardist runs in a Python that has the packages stardist and tensorflow-cpu; FOLDER means nothing.
All have random weights. Prints a line 'took WALL CPU', in seconds, for each tile, as `speed.py`
reads it.
"""

import os
import runpy
import sys
import time
from collections.abc import Callable
from unittest.mock import MagicMock

SIDE = 1000  # pixels of the tile at 40x
TILES = 4  # and one before them to warm up
# HoVer-Net sees 256 pixels and tells what is in the 164 in their middle ("fast" mode).
HOVER_IN, HOVER_OUT = 256, 164
UNUSED = (  # what the file of HoVer-Net imports for other things than the network
    "dask", "dask.array", "pandas", "tiatoolbox", "tiatoolbox.models", "tiatoolbox.utils",
    "tiatoolbox.models.architecture", "tiatoolbox.utils.misc",
)  # fmt: skip


def instanseg(folder: str, half: bool) -> Callable[[], object]:
    """Its U-Net, on the tile at half the resolution, as it is used."""
    import torch

    # The file alone: the package loads a dozen other packages.
    names = runpy.run_path(folder + "/instanseg/utils/models/InstanSeg_UNet.py")
    network = names["InstanSeg_UNet"](3, [[2, 2, 1]])
    return _of_torch(network, torch.rand(1, 3, 512, 512), half)


def hovernet(folder: str, half: bool) -> Callable[[], object]:
    """Its three decoders at full resolution, patch by patch; one stands for all."""
    import torch

    architecture = folder + "/tiatoolbox/models/architecture"
    modules = {name: MagicMock() for name in UNUSED}
    modules["tiatoolbox.models.models_abc"] = MagicMock(ModelABC=torch.nn.Module)
    sys.modules |= modules
    utils = runpy.run_path(architecture + "/utils.py")
    names = ("UpSample2x", "centre_crop", "centre_crop_to_shape")
    sys.modules["tiatoolbox.models.architecture.utils"] = MagicMock(
        **{name: utils[name] for name in names}
    )
    network = runpy.run_path(architecture + "/hovernet.py")["HoVerNet"](mode="fast")
    patch = torch.rand(1, 3, HOVER_IN, HOVER_IN) * 255
    return _of_torch(network, patch, half)


def _of_torch(network, image, half: bool) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    network = network.eval().to(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            network(image)

    return step


def stardist(folder: str, half: bool) -> Callable[[], object]:
    """The network of its model for H&E, on the whole tile."""
    import numpy as np
    import tensorflow
    from stardist.models import Config2D, StarDist2D

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    model = StarDist2D(Config2D(n_channel_in=3, grid=(2, 2), n_rays=32), name=None, basedir=None)
    image = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    return lambda: model.predict(image)


def main() -> None:
    """Time the network that the command line names."""
    name, folder, precision = sys.argv[1:]
    sys.path.insert(0, folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    step = {"instanseg": instanseg, "hovernet": hovernet, "stardist": stardist}[name](
        folder, precision == "bf16"
    )
    parts = (SIDE / HOVER_OUT) ** 2 if name == "hovernet" else 1  # of a tile
    step()
    for _ in range(TILES):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print("took", wall * parts, cpu * parts)


if __name__ == "__main__":
    main()
