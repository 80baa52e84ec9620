"""The training that tests share: a configuration, and the data that it names."""

from pathlib import Path

TINY = """
gsd_m = 0.3
crop_px = 64
epochs = 2
samples_per_epoch = 8
batch_size = 4
precision = "fp32"
device = "cpu"

[model]
architecture = "Unet"
encoder = "tu-test_resnet"
encoder_weights = "none"
options.decoder_channels = [32, 16, 16, 8, 8]

[data]
split = "split.json"

[[data.train]]
path = "data"

[augment]
rotate_90 = 1.0
flip_horizontal = 0.5

[export]
name = "tiny"
attribution = "generated"
"""
"""A configuration that trains for a second and writes every file of a run, but learns little.

The encoder is the smallest available. Most of the time goes into the export, mainly of ReLU6.
"""

SQUARES = """
crop_px = 64
epochs = 2
samples_per_epoch = 32
batch_size = 4
precision = "fp32"
device = "cpu"
workers = 0
optimizer.lr = 0.02
export.int8 = false

[model]
architecture = "PlainUnet"
options = { filters = 4, depth = 2 }

[[data.train]]
path = "data"

[[data.val]]
path = "data"
"""
"""A configuration that trains for seconds, and learns squares that stand out in one band."""


def write_tiny_training(folder: Path) -> None:
    """Write `tiny.toml` into the folder, with six scenes and their split."""
    from rooftrace.flows.split import run_split
    from rooftrace.labels.config import SourceConfig
    from rooftrace.labels.split import SplitOptions
    from town import write_pairs

    write_pairs(folder / "data", range(6), shape_yx=(128, 128), gsd_m=0.3)
    data = SourceConfig(path=str(folder / "data"))
    run_split(data, folder / "split.json", SplitOptions(val=0.17, test=0.17))
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
