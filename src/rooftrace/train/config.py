"""What a training run is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rooftrace.core.config import Config
from rooftrace.data.augment import AugmentConfig
from rooftrace.data.config import DataConfig
from rooftrace.data.sampling import Balance
from rooftrace.data.separation import Separation
from rooftrace.models.losses import parse_loss
from rooftrace.models.zoo import ModelConfig
from rooftrace.train.monitor import Mode
from rooftrace.train.optimizer import OptimizerConfig
from rooftrace.train.refine_config import RefineConfig
from rooftrace.train.schedule import ScheduleConfig
from rooftrace.train.watch.config import WatchConfig

__all__ = [
    "ExportConfig",
    "NormaliseConfig",
    "SeparationConfig",
    "StopConfig",
    "TrainConfig",
]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class StopConfig(Config):
    """Early stopping.

    Args:
        monitor: any figure of metrics.csv that tells how good an epoch was: `val_iou`, `val_loss`,
            `val_iou/FOLDER`, `train_loss`, …
        mode: whether `min` or `max` is better; `auto`: `min` for a loss, else `max`.
        patience: epochs without a better value of `monitor`; 0 never stops early.
        min_delta: what counts as better.
    """

    monitor: str = "val_iou"
    mode: Mode = "auto"
    patience: Annotated[int, Field(ge=0)] = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class ExportConfig(Config):
    """What the bundles hold.

    Args:
        name: of the model; default that of the run's folder.
        licence, attribution: of the weights, for the bundle's record.
        weights: also `weights.safetensors`, to train on from.
        half_weights: the weights are rounded to fp16, before anything is measured, and stored so
            (half the size; the arithmetic of fp32 stays).
        int8: also an int8 variant, kept if IoU falls by less than `int8_max_drop` on every
            validation folder.
        int8_samples: how many training samples the quantisation looks at.
    """

    name: str = ""
    licence: str = ""
    attribution: str = ""
    weights: bool = True
    half_weights: bool = False
    int8: bool = False
    int8_max_drop: Annotated[float, Field(ge=0)] = 0.005
    int8_samples: Count = 150


class NormaliseConfig(Config):
    """What is taken from a pixel value before the network sees it, and what it is divided by.

    Args:
        mean, std: one of each per band, in pixel values as they are in the image.
    """

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _alike(self) -> NormaliseConfig:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values, but std has {len(self.std)}")
        return self


class SeparationConfig(Config):
    """A second head that tells touching buildings apart; see `data.separation`.

    Measured with one network and budget (3,360 samples, one seed), F1 of buildings and IoU of
    pixels: in a dense town (Banepa, 16 chips of OpenAerialMap) 0.14 and 0.749 without a head, 0.40
    and 0.733 with `border`, 0.51 and 0.751 with `distance`; in generated rows that share their
    walls 0.05 and 0.919, 0.73 and 0.906, 0.33 and 0.917. Each at the threshold that suits the
    place best. A distance that reaches 3 px instead of 6 came to 0.47 and 0.28.

    Args:
        kind: `border`: the strips along walls and gaps between two buildings; `distance`: how deep
            a pixel lies in its building.
        reach_px: model pixels: how far a border reaches to each side, default 2; the depth from
            which a pixel is in the middle, default 6.
        weight: of its loss beside `loss`.
    """

    kind: Separation = "distance"
    reach_px: Count | None = None
    weight: Positive = 1.0

    @property
    def reach(self) -> int:
        """`reach_px`, or the default of the kind."""
        return self.reach_px or {"border": 2, "distance": 6}[self.kind]


class TrainConfig(Config):
    """A training run, whole: what `rooftrace train CONFIG.toml` reads.

    Args:
        seed: of everything that is drawn.
        gsd_m: metres per pixel of the model; None trains without metres, pixel for pixel.
        crop_px: side of a training sample.
        full_scale: the brightest pixel value, of which colour changes are shares; default 255,
            65535 or 1 by the dtype. Such as 4095 for 12 bits in 16.
        normalise: `imagenet`: mean and standard deviation of ImageNet, for three bands; `dataset`:
            measured on training samples; or given; `auto`: `imagenet` for three bands, else
            `dataset`. What comes out is part of the bundle.
        balance: what training draws alike: `area`, `image`, `class` or `built_up`; see
            `data.sampling.make_sampler`.
        loss: a sum of registered losses with weights: see `models.losses`.
        separation: a second head for touching buildings; default none.
        refine: a refinement of the trained segmenter's maps; default none.
        epochs: at most so many.
        samples_per_epoch: default: the pixels of the training folders divided by those of a crop.
        batch_size: samples of a batch, over all devices.
        val_crop_px: side of a validation tile; default `crop_px`.
        val_tiles: at most so many tiles of each validation folder.
        precision: `auto`: bf16 where the device computes in it fast, else fp16 on a GPU, else fp32.
        workers: processes that prepare samples, for each that trains; 0 prepares them in the
            training process. `auto`: 0 on a CPU, on a GPU as many as there are other cores, up to
            8. On Linux they have the decoded images in common; elsewhere each decodes its own.
        device: `auto`, `cpu` or `cuda`.
        devices: of each machine that train together, one process on each; of `cpu`, processes.
        nodes: machines that train together; the command is started on each.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    gsd_m: Positive | None = None
    crop_px: Annotated[int, Field(ge=32)] = 256
    full_scale: Positive | None = None
    normalise: Literal["auto", "imagenet", "dataset"] | NormaliseConfig = "auto"
    balance: Balance = "area"
    loss: str = "0.6*ce + 0.4*dice"
    epochs: Count = 50
    samples_per_epoch: Count | None = None
    batch_size: Count = 16
    val_crop_px: Annotated[int, Field(ge=32)] | None = None
    val_tiles: Count = 400
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Count = 1
    nodes: Count = 1
    model: ModelConfig = ModelConfig()
    separation: SeparationConfig | None = None
    refine: RefineConfig | None = None
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    stop: StopConfig = StopConfig()
    watch: WatchConfig = WatchConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if not self.data.val and self.data.split is None:
            raise ValueError(
                "there is nothing to validate on: give [[data.val]] folders, or data.split = "
                '"split.json" made by rooftrace split'
            )
        if self.augment.gsd_range_m is not None and self.gsd_m is None:
            raise ValueError("augment.gsd_range_m needs gsd_m, the metres per pixel of the model")
        if self.balance == "class" and self.augment.prefer_buildings > 0:
            raise ValueError(
                'balance = "class" and augment.prefer_buildings both say where a sample has its '
                "centre; set augment.prefer_buildings = 0"
            )
        if self.batch_size % self.processes:
            below = self.batch_size // self.processes * self.processes
            near = [str(n) for n in (below, below + self.processes) if n]
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be shared out alike to {self.processes} "
                f"devices; the nearest that can: {' and '.join(near)}"
            )
        if self.refine is not None and self.processes > 1:
            raise ValueError(
                "refine is for one device: train on several without it, and then resume with it "
                "and devices = 1, nodes = 1"
            )
        if self.refine is not None:
            self.refine.check_crop(self.crop_px, "crop_px")
            if self.val_crop_px is not None:
                self.refine.check_crop(self.val_crop_px, "val_crop_px")
        if self.optimizer.encoder_lr is not None and self.model.encoder is None:
            raise ValueError(
                f"optimizer.encoder_lr is given, but {self.model.architecture} has no encoder"
            )
        parse_loss(self.loss).check(len(self.data.labels.classes))
        return self

    @property
    def outputs(self) -> int:
        """Channels of the network: those of the classes, and the second head's."""
        return self.data.labels.channels + (self.separation is not None)

    @property
    def processes(self) -> int:
        """That train together, on all devices of all machines."""
        return self.devices * self.nodes

    @property
    def samples_per_step(self) -> int:
        """Of the optimiser, over all devices."""
        return self.batch_size * self.optimizer.accumulate

    def relative_to(self, base: Path) -> dict[str, object]:
        """Plain data for the record, with the folder that relative paths start from."""
        return {"base": str(base), **self.model_dump(mode="json")}
