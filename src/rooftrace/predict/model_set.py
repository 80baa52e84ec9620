"""Models of a run: read once, and loaded into engines here or on another machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import mul
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from rooftrace.core.config import Config, invalid_values
from rooftrace.core.errors import BundleError, ConfigError, RooftraceError
from rooftrace.core.text import plural, reason_of
from rooftrace.core.types import RasterSource
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.io.files import is_file, read_head, relative_name, write_atomically
from rooftrace.models.bundle import BUNDLE_SUFFIX, BUNDLED_MODELS, ModelBundle, bundles_in
from rooftrace.models.exported import read_model
from rooftrace.models.fingerprint import Fingerprint
from rooftrace.models.spec import BundleSpec, Calibration, MeasuredMetrics, Output
from rooftrace.predict.plan import SceneOptions, plan_scene
from rooftrace.predict.predictor import Predictor, TtaChoice, with_tta
from rooftrace.tiling.plan import check_probabilities

Models = str | Path | Sequence[str | Path | None] | None
"""One bundle or ensemble file, or several bundles to combine. A bundled model has its name in place
of a path; None is the default one."""


@dataclass(frozen=True)
class ModelSet:
    """Bundles that were read, with the settings for loading them; it can be pickled.

    Args:
        bundles: One bundle, or several bundles that are combined into one model.
        how, weights: Method of combination and weights of several bundles, see `combine`.
        tta: Test-time augmentation of each model; None for that of its contract.
        engine, precision, output: Settings of each model, see `load`.
        file: Ensemble file that names the bundles, and its path; None if there is none.
    """

    bundles: tuple[ModelBundle, ...]
    how: Combine = "average"
    weights: Sequence[float] | None = None
    tta: TtaChoice | None = None
    engine: str | None = None
    precision: str | None = None
    output: Output = "probabilities"
    file: tuple[EnsembleFile, str] | None = None

    @cached_property
    def predictor(self) -> Predictor:
        """The loaded model, see `ready`."""
        return self.ready()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the loaded model: another process loads its own."""
        return {name: value for name, value in vars(self).items() if name != "predictor"}

    def begin(self, image: RasterSource, options: SceneOptions) -> None:
        """Load the model, and begin to compile its network for an image of one tile."""
        spec, masks = self.predictor.bundle.spec, options.model_copy(update={"outputs": ("mask",)})
        with suppress(RooftraceError):  # the prediction raises it
            tiles = plan_scene(image, spec, masks).tiles
            if len(tiles) == 1:
                self.predictor.engine.expect((1, len(spec.bands), *tiles.tile_shape_yx))

    def ready(self, build: Callable[[ModelBundle], Engine] | None = None) -> Predictor:
        """Return the loaded model; several models are combined into one.

        The values that were fitted for an ensemble file are applied.

        Args:
            build: Function that returns the engine of a bundle; default: the engine of the
                settings.

        Raises:
            BundleError, ConfigError, MissingExtraError: As `rooftrace.load`.
        """
        members = []
        for bundle in self.bundles:
            engine = (
                build(bundle)
                if build is not None
                else load_engine(
                    bundle, engine=self.engine, precision=self.precision, output=self.output
                )
            )
            engine = with_tta(engine, bundle.spec, self.tta)
            members.append(Predictor(bundle.for_output(self.output), engine))
        if self.file is None:
            return members[0] if len(members) == 1 else combine(members, self.how, self.weights)
        combined = combine(members, self.how, self.weights)
        file, path = self.file
        name = Path(path).name.removesuffix(".json").removesuffix(".ensemble")
        update: dict[str, Any] = {
            "name": name,
            "metrics": file.metrics,
            "fitted_fingerprint": file.fitted_fingerprint,
        }
        if file.threshold is not None:
            # A calibration holds for one threshold only.
            update |= {"threshold": file.threshold, "calibration": file.calibration}
        spec = combined.bundle.spec.model_copy(update=update)
        return Predictor(ModelBundle(spec, {}, path, combined.bundle.members), combined.engine)


def model_paths(models: Models) -> list[Path | None]:
    """Return the paths and names of models; None for the default one."""
    given = [models] if models is None or isinstance(models, str | Path) else models
    return [None if path is None else Path(path) for path in given]


def read_models(
    models: Models,
    how: Combine = "average",
    *,
    weights: Sequence[float] | None = None,
    tta: TtaChoice | None = None,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> ModelSet:
    """Read one or several models without loading their engines, which `ModelSet.ready` does.

    Args:
        models: Models to read. An ensemble file determines itself how its members are combined.
        how, weights, tta, engine, precision, output: See `ModelSet`.

    Raises:
        BundleError: A file cannot be read; a member of an ensemble file is missing or has changed.
        ConfigError: The weights do not fit the models; an ensemble file was given with other models
            or with weights.
    """
    paths = model_paths(models)
    file = None
    files = [path for path in paths if path is not None and is_ensemble(path)]
    if files:
        _check_ensemble_file(files[0], paths, weights)
        read = read_ensemble(files[0])
        file = read, str(files[0])
        how, weights = read.combine, read.weights
        bundles = _members_of(read, files[0], output)
    else:
        if weights is not None:
            check_weights(weights, how, len(paths))
        bundles = [read_model(path) for path in paths]
    return ModelSet(tuple(bundles), how, weights, tta, engine, precision, output, file)


def _check_ensemble_file(
    file: Path, paths: Sequence[Path | None], weights: Sequence[float] | None
) -> None:
    """Raise ConfigError if an ensemble file was given with other models or with weights."""
    if len(paths) > 1:
        raise ConfigError(
            f"{file} is an ensemble file, but {len(paths)} models were given.",
            remedy="Give only this file, or combine all bundles with rooftrace fit.",
        )
    if weights is not None:
        raise ConfigError(
            f"Weights were given, but {file} contains its own.", remedy="Leave out --weights."
        )


def _members_of(file: EnsembleFile, path: Path, output: Output) -> list[ModelBundle]:
    """Return the bundles that an ensemble file names."""
    bundles = []
    for one in file.members:
        where = one.at(path)
        if one.path not in BUNDLED_MODELS and not is_file(where):
            raise BundleError(
                f"{path} names the member {one.path!r}, but there is no bundle at {where}.",
                remedy="Put the bundle there, or make the file again with rooftrace fit.",
            )
        bundle = read_model(where)
        digest = bundle.for_output(output).sha256
        if digest != one.sha256:
            raise BundleError(
                f"{path} was made with another bundle than {bundle.source}: expected "
                f"sha256 {one.sha256[:12]}…, received {digest[:12]}….",
                remedy="Restore that bundle, or make the file again with rooftrace fit.",
            )
        bundles.append(bundle)
    return bundles


Combine = Literal["average", "weighted"]
"""Methods of combination: `average`, mean of the probabilities; `weighted`, weighted mean."""


class EnsembleEngine(Engine):
    """Engine that runs several members.

    Args:
        members: Loaded models that `combine` accepts, all with the same tile size.
        how: Method of combination, see `Combine`.
        weights: Weight of each member; they sum to 1.
        notes: Notes on the members for the user.
    """

    name = "ensemble"

    def __init__(
        self,
        members: Sequence[Predictor],
        how: Combine,
        weights: Sequence[float],
        notes: Sequence[str] = (),
    ) -> None:
        self._members = tuple(members)
        # Factors are near 1, so that equal weights give exactly the mean.
        self._factors = [np.float32(weight * len(weights)) for weight in weights]
        self.notes = tuple(notes)
        self.precision = "+".join(
            dict.fromkeys(member.engine.precision for member in self._members)
        )
        self.settings: dict[str, Any] = {
            "combined_by": how,
            "members": [
                {
                    "name": member.bundle.spec.name,
                    "sha256": member.bundle.sha256,
                    "engine": member.engine.name,
                    "precision": member.engine.precision,
                    "settings": member.engine.settings,
                    "weight": round(weight, 6),
                }
                for member, weight in zip(self._members, weights)
            ],
        }

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) means."""
        total: NDArray[np.float32] | None = None
        for member, factor in zip(self._members, self._factors):
            spec = member.bundle.spec
            pixels = batch.astype(spec.numpy_dtype, copy=False)
            probability = member.engine.run(pixels)[:, : spec.channels]
            check_probabilities(probability, spec.name)
            part = factor * probability
            total = part if total is None else total + part
        assert total is not None
        return np.asarray(total / np.float32(len(self._members)), dtype=np.float32)

    def release(self) -> None:
        """Release the compiled networks of the members."""
        for member in self._members:
            member.engine.release()


_SHARED = (
    "bands", "dtype", "classes", "building_class", "gsd_m", "finest_gsd_m", "interpolated_gsd_m",
)  # fmt: skip
"""Fields of the contract that must be equal for all members."""


def combine(
    members: Sequence[Predictor], how: Combine = "average", weights: Sequence[float] | None = None
) -> Predictor:
    """Combine loaded models into one.

    The threshold is the mean of the members' thresholds, with their weights. A calibration belongs
    to the scores of one model: the ensemble has none, unless all members have the same one.

    Args:
        members: Loaded models.
        how: Method of combination, see `Combine`.
        weights: For `weighted`, one weight for each model, in any unit. Default: the mean IoU of
            each model on its validation data.

    Raises:
        BundleError: Bands, pixel type, classes or scale differ, or no size of tiles suits all.
        ConfigError: There is no model; the weights do not fit; there are no weights, and a bundle
            has no recorded IoU.
    """
    if not members:
        raise ConfigError("An ensemble needs at least one model.", remedy="Give bundles with -m.")
    bundles = [member.bundle for member in members]
    first = bundles[0].spec
    for bundle in bundles[1:]:
        for field in _SHARED:
            _check_alike(bundles[0], bundle, field)
    specs = [bundle.spec for bundle in bundles]
    multiple = math.lcm(*(one.input_multiple_px for one in specs))
    fixed = [bundle for bundle in bundles if bundle.spec.input_px is not None]
    for bundle in fixed[1:]:
        _check_alike(fixed[0], bundle, "input_px")
    only = fixed[0].spec.input_px if fixed else None
    if only is not None and only % multiple:
        raise BundleError(
            f"{fixed[0].source} takes tiles of {only} px alone, but the other models take "
            f"multiples of {multiple} px.",
            remedy="Combine models with one contract, or predict with each separately.",
        )
    if weights is not None:
        check_weights(weights, how, len(members))
    notes = []
    if how != "weighted":
        weights = [1.0] * len(members)
    elif weights is None:
        weights = [_validation_iou(bundle) for bundle in bundles]
        text = ", ".join(f"{spec.name} {iou:.3f}" for spec, iou in zip(specs, weights))
        notes.append(f"weighted by the IoU that each model had on its own validation data: {text}")
    shares = [weight / math.fsum(weights) for weight in weights]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(map(mul, values, weights)) / math.fsum(weights)

    is_calibrated = all(one.calibration == first.calibration for one in specs)
    spec = BundleSpec(
        name=f"{how} of {', '.join(spec.name for spec in specs)}",
        **{field: getattr(first, field) for field in _SHARED},
        colours=first.colours,
        mean=first.mean,
        std=first.std,
        threshold=mean([one.threshold for one in specs]),
        calibration=first.calibration if is_calibrated else None,
        input_px=only,
        input_multiple_px=multiple,
        context_px=max(one.context_px for one in specs),
        training={"ensemble": [bundle.sha256 for bundle in bundles], "weights": shares}
        | {key: value for key, value in first.training.items() if key == "data"},
    )
    source = " + ".join(bundle.source for bundle in bundles)
    engine = EnsembleEngine(members, how, shares, notes)
    return Predictor(ModelBundle(spec, {}, source, tuple(bundles)), engine)


def member_in_ensemble(member: Predictor, combined: BundleSpec) -> Predictor:
    """Return a member with the ensemble's tiles and contract, but its own threshold."""
    update = {"threshold": member.bundle.spec.threshold, "calibration": None}
    bundle = ModelBundle(combined.model_copy(update=update), {}, member.bundle.source)
    return Predictor(bundle, member.engine)


def _check_alike(first: ModelBundle, other: ModelBundle, field: str) -> None:
    value, expected = getattr(other.spec, field), getattr(first.spec, field)
    if value != expected:
        raise BundleError(
            f"{other.source} cannot be combined with {first.source}: its {field} is "
            f"{value}, but {expected} was expected.",
            remedy="Combine models with one contract, or predict with each separately.",
        )


def check_weights(weights: Sequence[float], how: Combine, count: int) -> None:
    """Raise ConfigError where weights do not fit the number of models or the method."""
    listed = ", ".join(f"{weight:g}" for weight in weights)
    if how != "weighted":
        raise ConfigError(
            f"The weights {listed} were given, but the models are combined by {how!r}.",
            remedy="Leave out the weights, or combine the models with the method 'weighted'.",
        )
    if len(weights) != count:
        raise ConfigError(
            f"{plural(len(weights), 'weight was', 'weights were')} given ({listed}) for "
            f"{plural(count, 'model')}; expected one weight for each model.",
            remedy="Give the weights in the order of the models.",
        )
    if not all(weight > 0 for weight in weights) or not math.isfinite(sum(weights)):
        raise ConfigError(
            f"The weights {listed} were given; each weight must be above 0 and finite.",
            remedy="Leave out models with weight 0.",
        )


def _validation_iou(bundle: ModelBundle) -> float:
    """Return the mean recorded IoU over a bundle's validation data."""
    # For a refined model, the metrics of the refined output come before those of its segmenter.
    ious: dict[str, float] = {}
    for measured in bundle.spec.metrics:
        if measured.split == "val" and "iou" in measured.values:
            ious.setdefault(measured.data, measured.values["iou"])
    mean = math.fsum(ious.values()) / len(ious) if ious else 0.0
    if not mean > 0:
        raise ConfigError(
            f"The bundle {bundle.source} contains no IoU on validation data to use as its weight.",
            remedy="Give the weights with --weights, or combine by average.",
        )
    return mean


_SUFFIX = ".json"
_MAX_MEMBERS = 64
"""Maximum number of members of an ensemble."""

_REMEDY = "Make the file again with rooftrace fit."

Unit = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class EnsembleMember(Config):
    """One bundle of an ensemble.

    Args:
        path: Path relative to the file's folder, with `/`, or one of `BUNDLED_MODELS`.
        sha256: `ModelBundle.sha256` of the bundle.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def at(self, file: Path) -> Path:
        """Return the path of the bundle, or its name if it is a bundled model."""
        return Path(self.path) if self.path in BUNDLED_MODELS else file.parent / self.path


class EnsembleFile(Config):
    """Content of an ensemble file.

    Args:
        members: Bundles in the order of the weights.
        combine: Method of combination, see `Combine`.
        weights: For `weighted`, one weight for each member, summing to about 1; otherwise None.
        threshold: Threshold on the building probability; None for the threshold of `combine`.
        calibration: Calibration of the scores at this threshold; None for the calibration of
            `combine`.
        metrics: Metrics, with the data on which they were measured.
        fitted_fingerprint: Data by which the scenes of the fit are recognised; None in older files.
    """

    schema_version: Literal[1] = 1
    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=1, max_length=_MAX_MEMBERS)]
    combine: Combine
    weights: tuple[Share, ...] | None = None
    threshold: Unit | None = None
    calibration: Calibration | None = None
    metrics: tuple[MeasuredMetrics, ...] = ()
    fitted_fingerprint: Fingerprint | None = None

    @model_validator(mode="after")
    def _consistent(self) -> EnsembleFile:
        if (self.weights is None) == (self.combine == "weighted"):
            raise ValueError(
                "weights are required for the method 'weighted', and not allowed otherwise"
            )
        if self.weights is not None and len(self.weights) != len(self.members):
            count = plural(len(self.weights), "weight was", "weights were")
            raise ValueError(f"{count} given for {plural(len(self.members), 'member')}")
        return self


def is_ensemble(path: Path | None) -> bool:
    """Return whether a path names an ensemble file, judged by its extension."""
    return path is not None and path.suffix.lower() == _SUFFIX


def is_model(path: Path) -> bool:
    """Return whether a path is that of a model, rather than of data.

    It is the name of a bundled model, a bundle, a folder with a bundle in it, a file that
    `rooftrace export` wrote, or an ensemble file.
    """
    suffix = path.suffix.lower()
    if str(path) in BUNDLED_MODELS or suffix in (BUNDLE_SUFFIX, ".onnx"):
        return True
    # Labels are JSON and XML, too; one may begin with <network>.
    mark = {_SUFFIX: b'"ensemble"', ".xml": b"<net "}.get(suffix)
    if mark is not None and path.is_file():
        return mark in read_head(path, 999)
    return bool(bundles_in(path))


def members_from(
    bundles: Sequence[Path | None], digests: Sequence[str], file: Path
) -> tuple[EnsembleMember, ...]:
    """Return the members of an ensemble file.

    Args:
        bundles: Paths of the bundles, or names of bundled models; None stands for the default.
        digests: `ModelBundle.sha256` of each bundle.
        file: Path of the ensemble file.
    """
    base, members = file.parent.resolve(), []
    for bundle, digest in zip(bundles, digests):
        name = str(bundle or "default")
        if bundle is not None and name not in BUNDLED_MODELS:
            name = relative_name(bundle, base)
        members.append(EnsembleMember(path=name, sha256=digest))
    return tuple(members)


def write_ensemble(path: Path, ensemble: EnsembleFile) -> None:
    """Write an ensemble file; its bytes depend only on the content."""
    write_atomically(path, (ensemble.model_dump_json(indent=1) + "\n").encode())


def read_ensemble(path: Path) -> EnsembleFile:
    """Read an ensemble file without opening its members."""
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise BundleError(
            f"The ensemble file {path} cannot be read: {reason}.",
            remedy="Give the path of a file that rooftrace fit has written.",
        ) from error
    try:
        return EnsembleFile.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"{path} is not an ensemble file: {invalid_values(error, EnsembleFile, 1)}",
            remedy=_REMEDY,
        ) from error
