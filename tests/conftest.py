"""What all tests share: real imagery where it is given, and one tiny model trained once."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from rooftrace.flows.train import TrainReport

# Two threads that wait for one another at every step of a tiny network take twenty times as long
# on a busy machine. Before torch is imported, and for the commands that the tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine must not fail a test that is right.
# In CI the examples are the same each time: what fails there fails again, and what is found by luck
# is found at a desk.
settings.register_profile(
    "rooftrace",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=60,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("rooftrace")

# Torch traces its exports to whoever listens, and pytest does.
logging.getLogger("torch.__trace").addFilter(lambda record: False)

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
"""Learns next to nothing, in a second; everything that a run leaves is there.

The encoder is the smallest there is: what takes long is the export, and most of that by ReLU6.
"""


@dataclass(frozen=True)
class TinyRun:
    """A run of the tiny configuration.

    Args:
        folder: `tiny.toml` with `data/` (6 pairs of 128 px at 0.3 m) and `split.json` (4, 1, 1).
        run: what came out.
    """

    folder: Path
    run: Path
    report: TrainReport

    @property
    def config(self) -> Path:
        return self.folder / "tiny.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def bundle(self) -> Path:
        return self.run / "best_iou.rooftrace"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real imagery; its README says what lies in it."""
    folder = os.environ.get("ROOFTRACE_DATA")
    if not folder:
        pytest.skip("ROOFTRACE_DATA is not set: no real imagery to read")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"ROOFTRACE_DATA = {folder!r} is not a folder")
    return path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny.toml` and what it names."""
    from rooftrace.data.config import SourceConfig
    from rooftrace.flows.split import run_split
    from rooftrace.testing import write_pairs

    folder = tmp_path_factory.mktemp("tiny")
    write_pairs(folder / "data", range(6), shape_yx=(128, 128), gsd_m=0.3)
    data = SourceConfig(path=str(folder / "data"))
    run_split(data, folder / "split.json", val=0.17, test=0.17)
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_folder: Path) -> TinyRun:
    """The tiny configuration, trained once for all tests that need a bundle."""
    pytest.importorskip("torch")
    from rooftrace.flows.train import run_train

    report = run_train(tiny_folder / "tiny.toml", tiny_folder / "run")
    return TinyRun(tiny_folder, tiny_folder / "run", report)
