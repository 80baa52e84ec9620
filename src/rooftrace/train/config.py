"""Configuration of a training run: the TOML file that `rooftrace train` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rooftrace.core.config import Config, KindConfig, read_config, replace_paths
from rooftrace.core.errors import ConfigError
from rooftrace.core.scales import WorkingScales
from rooftrace.core.text import plural
from rooftrace.labels.config import DataConfig, relative_text
from rooftrace.models.losses import parse_loss
from rooftrace.models.pix2pix import PatchDiscriminator
from rooftrace.models.start import fill_from_start
from rooftrace.models.zoo import ModelConfig
from rooftrace.samples.augment import AugmentConfig
from rooftrace.samples.sampling import Balance
from rooftrace.train.early_stopping import Mode, StopConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


_OPEN_KEYS = {"low", "high", "choices"}
"""Keys that make a table a value that `rooftrace train --trials` searches for."""

_NEVER_OPEN = "labels"
"""Table in which these keys may be names of classes."""

TUNE_TABLE = "tune"
"""Name of the table with the settings of a study."""

Key = tuple[str | int, ...]
"""Path to a value: keys of tables, and indices of lists."""


Decay = Annotated[float, Field(ge=0)]


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(KindConfig):
    """Optimiser of the weights.

    Args:
        kind: `adamw` (Loshchilov and Hutter 2019), `adam` (Kingma and Ba 2015) or `sgd`.
        lr: Learning rate of all weights except a pretrained encoder.
        encoder_lr: Learning rate of the encoder; default the same.
        weight_decay: Weight decay. `adamw` applies it separately from the gradient, default 0.01;
            `adam` and `sgd` as an L2 penalty within the gradient, default 0, as in torch.optim.
        betas: For `adam` and `adamw`: decay of the means of the gradient and of its square; default
            (0.9, 0.999).
        momentum: Momentum of `sgd`; default 0.9.
        nesterov: Nesterov's momentum for `sgd`, as Sutskever et al. (2013) write it.
        accumulate: Batches whose mean gradient makes one step of the optimiser. Warm-up, schedule
            and average count such steps; an epoch has whole ones only.
        clip_norm: Maximum norm of the gradient; 0 clips nothing.
        ema_decay: Decay of an exponential average of the weights over steps, which is validated and
            exported (Polyak and Juditsky 1992). It is faster at first: at most (1 + n) / (10 + n)
            after n steps. 0 turns it off.
        freeze_statistics: Keep the means and variances of BatchNorm layers as they are in the
            start model, for little data; default false. Their weights are trained.
    """

    KEYS: ClassVar = {
        "adamw": {"weight_decay": 1e-2, "betas": (0.9, 0.999)},
        "adam": {"weight_decay": 0.0, "betas": (0.9, 0.999)},
        "sgd": {"weight_decay": 0.0, "momentum": 0.9, "nesterov": False},
    }

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-3
    encoder_lr: Positive | None = None
    weight_decay: Decay = 0.0  # KEYS has the default of each kind
    betas: tuple[Beta, Beta] | None = None
    momentum: Beta | None = None
    nesterov: bool | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    freeze_statistics: bool | None = None

    @model_validator(mode="after")
    def _consistent(self) -> OptimizerConfig:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = true needs a momentum above 0")
        return self


Share = Annotated[float, Field(gt=0, lt=1)]


class ScheduleConfig(KindConfig):
    """Schedule of the learning rate over the run.

    Args:
        kind: `plateau`: multiplied by `factor` when `monitor` stops improving; `step`: by `factor`
            every `step_epochs` epochs; `cosine`: down to `min_lr` over all steps of the run
            (Loshchilov and Hutter 2017, without restarts); `none`.
        factor: Factor of `plateau`, default 0.5, and of `step`, default 0.1.
        patience: For `plateau`: epochs without a better `monitor` before the rate falls; default 3.
        min_lr: Lower limit of `plateau` and `cosine`; default 1e-6. It is lower in proportion for
            an encoder with its own rate.
        monitor: Figure of metrics.csv that `plateau` observes; default `val_loss`.
        mode: For `plateau`: whether `min` or `max` is better; `auto` is `min` for a loss, else
            `max`.
        step_epochs: Epochs between two steps of `step`; default 10.
        warmup_steps: Number of steps over which the rate first rises linearly from 0.
    """

    KEYS: ClassVar = {
        "plateau": {
            "factor": 0.5, "patience": 3, "min_lr": 1e-6, "monitor": "val_loss", "mode": "auto",
        },
        "step": {"factor": 0.1, "step_epochs": 10},
        "cosine": {"min_lr": 1e-6},
        "none": {},
    }  # fmt: skip

    kind: Literal["plateau", "step", "cosine", "none"] = "plateau"
    factor: Share | None = None
    patience: Annotated[int, Field(ge=0)] | None = None
    min_lr: Annotated[float, Field(ge=0)] | None = None
    monitor: str | None = None
    mode: Mode | None = None
    step_epochs: Annotated[int, Field(ge=1)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class RefineConfig(Config):
    """Settings of a Pix2Pix refinement after the segmenter, see `models.pix2pix`. Data, crops,
    augmentation, precision and seed are those of the run.

    Args:
        epochs: Maximum number of epochs of the refiner.
        batch_size: Samples per batch; default that of the run. The paper uses 1.
        patience: Epochs without a better `val_iou` after which training stops; 0 never stops early.
        filters, depth, dropout, residual: Parameters of the generator. `crop_px` must be a multiple
            of 2 to the power of `depth`.
        discriminator_filters, discriminator_layers: Parameters of the discriminator; 3 layers judge
            patches of 70 px.
        l1_weight: λ, the weight of the mean difference of probabilities beside the adversarial
            loss. The larger it is, the less the discriminator counts.
        loss_weight: Weight of the run's own `loss` beside both.
        lr, beta1: Learning rate and first beta of Adam, for both networks.
    """

    epochs: Count = 20
    batch_size: Count | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    filters: Count = 64
    depth: Annotated[int, Field(ge=1, le=10)] = 5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    residual: bool = True
    discriminator_filters: Count = 64
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = 3
    l1_weight: NotNegative = 100.0
    loss_weight: NotNegative = 0.0
    lr: Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def check_crop(self, side_px: int, key: str) -> None:
        """Raise ValueError if a crop with this side does not pass through both networks."""
        if side_px % 2**self.depth:
            raise ValueError(
                f"{key} = {side_px} is not a multiple of {2**self.depth}, which refine.depth = "
                f"{self.depth} needs"
            )
        least = PatchDiscriminator.smallest_px(self.discriminator_layers)
        if side_px < least:
            raise ValueError(
                f"{key} = {side_px} is too small for refine.discriminator_layers = "
                f"{self.discriminator_layers}, which needs {least}"
            )


class ExportConfig(Config):
    """Content of the bundles.

    Args:
        name: Name of the model; default the name of the run's folder.
        licence, attribution: Licence and attribution of the weights, for the bundle's record.
        weights: Include `weights.safetensors`, from which training can continue.
        half_weights: Round the weights to fp16 before anything is measured, and store them so (half
            the size; the arithmetic stays fp32).
        int8: Include an int8 variant if its IoU falls by at most `int8_max_drop` on every
            validation folder.
        int8_max_drop: Maximum loss of IoU of that variant.
        int8_samples: Number of training samples that the quantisation uses.
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
    """Values that are subtracted from pixel values, and by which they are divided, before the
    network sees them.

    Args:
        mean, std: One value per band, in the units of the image's pixel values.
    """

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _alike(self) -> NormaliseConfig:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {plural(len(self.mean), 'value')}, but std has {len(self.std)}"
            )
        return self


class ClickConfig(Config):
    """A network for clicks on buildings, see `train.click_task`.

    Args:
        rounds: Maximum number of predictions that simulated clicks correct in training, and the
            number of clicks in validation.
    """

    rounds: Annotated[int, Field(ge=1, le=20)] = 3


class TrainConfig(Config):
    """A complete training run: the file that `rooftrace train CONFIG.toml` reads.

    Args:
        seed: Seed of all random draws, below 2^32.
        gsd_m: Ground sample distance of the model in metres per pixel; None trains pixel for pixel.
        finest_gsd_m: If given, the model predicts and is validated on an image between these metres
            per pixel and `gsd_m` at the image's own. `augment.gsd_range_m` should include them.
        interpolated_gsd_m: If given, an image coarser than `gsd_m` is interpolated to these metres
            per pixel for predictions and for validation, instead of to `gsd_m`.
        crop_px: Side of a training sample.
        full_scale: Brightest pixel value, of which colour changes are shares; default 255, 65535 or
            1 by the dtype. Give 4095 for 12 bits stored in 16.
        normalise: `imagenet`: mean and standard deviation of ImageNet, for three bands; `dataset`:
            measured on training samples; or given values; `auto`: `imagenet` for three bands, else
            `dataset`. The resulting values are part of the bundle.
        balance: Unit that training samples evenly: `area`, `image`, `class` or `built_up`; see
            `samples.sampling.make_sampler`.
        loss: Weighted sum of registered losses, see `models.losses`.
        epochs: Maximum number of epochs.
        samples_per_epoch: Samples per epoch; default the pixels of the training folders divided by
            those of a crop.
        batch_size: Samples of a batch.
        val_crop_px: Side of a validation tile; default `crop_px`.
        val_tiles: Maximum number of tiles of each validation folder; of more ground than they have,
            a model is measured on windows that are spread evenly.
        precision: Precision of the arithmetic. `auto`: bf16 where the device computes it fast, else
            fp16 on a GPU, else fp32.
        workers: Processes that prepare samples; 0 prepares them in the training process. `auto`: 0
            on a CPU; on a GPU the number of other cores, up to 8.
            On Linux they share the decoded images; elsewhere each decodes its own.
        device: `auto`, `cpu` or `cuda`.
        track: Experiment trackers that receive configuration and figures, see `train.tracking`.
        refine: A refinement of the trained segmenter's maps; default none.
        clicks: Train a network for clicks on single buildings, see `ClickConfig`; default none.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    gsd_m: Positive | None = None
    finest_gsd_m: Positive | None = None
    interpolated_gsd_m: Positive | None = None
    crop_px: Annotated[int, Field(ge=32)] = 256
    full_scale: Positive | None = None
    normalise: Literal["auto", "imagenet", "dataset"] | NormaliseConfig = "auto"
    balance: Balance = "area"
    loss: str = "0.6*ce + 0.4*dice"
    epochs: Count = 50
    samples_per_epoch: Count | None = None
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 16
    val_crop_px: Annotated[int, Field(ge=32)] | None = None
    val_tiles: Count = 400
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    track: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    model: ModelConfig = ModelConfig()
    refine: RefineConfig | None = None
    clicks: ClickConfig | None = None
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    stop: StopConfig = StopConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="before")
    @classmethod
    def _without_search(cls, raw: Any) -> Any:
        """Raise ConfigError for a file of a search: it has a search space or `[tune]`."""
        open_key = next((".".join(map(str, key)) for key, _ in find_open_values(raw)), None)
        if open_key is not None:
            problem = f"{open_key} is a search space"
        elif isinstance(raw, dict) and TUNE_TABLE in raw:
            problem = f"[{TUNE_TABLE}] holds settings of a study"
        else:
            return raw
        raise ConfigError(
            f"{problem}, but a training run needs one value for each key.",
            remedy="Add --trials N to search for the best values; it writes a best.toml to train.",
        )

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.augment.gsd_range_m is not None and self.gsd_m is None:
            raise ValueError("augment.gsd_range_m needs gsd_m, the metres per pixel of the model")
        WorkingScales.of(self.gsd_m, self.finest_gsd_m, self.interpolated_gsd_m)
        if self.balance == "class" and self.augment.prefer_buildings > 0:
            raise ValueError(
                'balance = "class" and augment.prefer_buildings both decide the centre of a '
                "sample; set augment.prefer_buildings = 0"
            )
        if self.refine is not None:
            self.refine.check_crop(self.crop_px, "crop_px")
            if self.val_crop_px is not None:
                self.refine.check_crop(self.val_crop_px, "val_crop_px")
        if self.clicks is not None:
            self._check_clicks()
        if self.optimizer.encoder_lr is not None and self.model.encoder is None:
            raise ValueError(
                f"optimizer.encoder_lr is given, but {self.model.architecture} has no encoder"
            )
        if self.optimizer.freeze_statistics and self.model.start is None:
            raise ValueError(
                "optimizer.freeze_statistics keeps the statistics of a start model: give "
                'model.start, such as "default"'
            )
        parse_loss(self.loss).check(len(self.data.labels.classes))
        return self

    def _check_clicks(self) -> None:
        """Raise ValueError for keys that a click network does not have: its encoder is not trained,
        and its decoder does not come from the start model.
        """
        if self.data.labels.channels != 1:
            raise ValueError(
                "clicks segments one building, so it needs two classes; data.labels.classes has "
                f"{len(self.data.labels.classes)}"
            )
        for key, is_set, expected in (
            ("refine", self.refine is not None, "leave it out"),
            ("export.int8", self.export.int8, "set it to false"),
            (
                "export.weights",
                self.export.weights and "weights" in self.export.model_fields_set,
                "leave it out",
            ),
            ("optimizer.encoder_lr", self.optimizer.encoder_lr is not None, "leave it out"),
            # That of a start model is filled in, also where no user gave it.
            ("model.dropout", self.model.dropout > 0 and self.model.start is None, "leave it out"),
        ):
            if is_set:
                raise ValueError(f"a network for clicks has no {key}: {expected}")

    @property
    def scales(self) -> WorkingScales | None:
        """Metres per pixel at which the model will work; None trains pixel for pixel."""
        return WorkingScales.of(self.gsd_m, self.finest_gsd_m, self.interpolated_gsd_m)

    @property
    def samples_per_step(self) -> int:
        """Number of samples per step of the optimiser."""
        return self.batch_size * self.optimizer.accumulate

    def without_home(self, base: Path) -> TrainConfig:
        """Return the configuration for a bundle that others receive.

        Paths are relative to the folder `base`, see `labels.config.relative_text`.
        """
        return replace_paths(self, partial(relative_text, base=base))

    def relative_to(self, base: Path) -> dict[str, object]:
        """Return plain data for the record, with the folder that relative paths start from."""
        return {"base": str(base), **self.model_dump(mode="json")}


def read_train_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read the TOML file of `rooftrace train` as plain data.

    The network is that of the start model, see `models.start.fill_from_start`.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder; the path of a configuration was expected.",
            remedy="Give the path of a TOML file; recipes/ holds examples. To train on labelled "
            f"images without one: rooftrace finetune {path}",
        )
    return fill_from_start(read_config(path, overrides), path.parent)


def find_open_values(raw: object, key: Key = ()) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Yield the path and the table of each open value of plain data, well formed or not."""
    if isinstance(raw, list):
        for index, entry in enumerate(raw):
            yield from find_open_values(entry, (*key, index))
    elif isinstance(raw, dict):
        if key and _OPEN_KEYS & raw.keys():
            yield key, raw
            return
        for name, entry in raw.items():
            if name != _NEVER_OPEN:
                yield from find_open_values(entry, (*key, name))
