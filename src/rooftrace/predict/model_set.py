"""Models of a run: read once, and loaded into engines here or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.io.files import is_file
from rooftrace.models.bundle import BUNDLED_MODELS, ModelBundle, default_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import Output
from rooftrace.predict.ensemble import Combine, check_weights, combine
from rooftrace.predict.ensemble_file import EnsembleFile, is_ensemble, read_ensemble
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice, with_tta

Models = Path | Sequence[Path | None] | None
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

    def ready(self, build: Callable[[ModelBundle], Engine] | None = None) -> Predictor:
        """Return the loaded model; several models are combined into one.

        The values that were fitted for an ensemble file are applied.

        Args:
            build: Function that returns the engine of a bundle; default: the engine of the
                settings.

        Raises:
            BundleError, ConfigError, GsdMismatch, MissingExtraError: See `load` and `combine`.
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
        made = combine(members, self.how, self.weights)
        file, path = self.file
        name = Path(path).name.removesuffix(".json").removesuffix(".ensemble")
        update: dict[str, Any] = {"name": name, "metrics": file.metrics}
        if file.threshold is not None:
            # A calibration holds for one threshold only.
            update |= {"threshold": file.threshold, "calibration": file.calibration}
        spec = made.bundle.spec.model_copy(update=update)
        return Predictor(ModelBundle(spec, {}, path, made.bundle.members), made.engine)


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
    paths = [models] if models is None or isinstance(models, Path) else list(models)
    file = None
    files = [path for path in paths if path is not None and is_ensemble(path)]
    if files:
        _check_ensemble_file(files[0], paths, weights)
        read = read_ensemble(files[0])
        file = read, str(files[0])
        how, weights = read.combine, read.weights
        bundles = _members_of(read, files[0], output)
    else:
        check_weights(weights, how, len(paths))
        bundles = [_read(path) for path in paths]
    return ModelSet(tuple(bundles), how, weights, tta, engine, precision, output, file)


def _read(path: Path | None) -> ModelBundle:
    return default_bundle() if path is None else read_model(path)


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
    """Return the bundles that an ensemble file names.

    Raises:
        BundleError: A bundle is missing, or is not the one that the file was made with.
    """
    bundles = []
    for one in file.members:
        where = one.at(path)
        if one.path not in BUNDLED_MODELS and not is_file(where):
            raise BundleError(
                f"{path} names the member {one.path!r}, but there is no bundle at {where}.",
                remedy="Put the bundle there, or make the file again with rooftrace fit.",
            )
        bundle = _read(where)
        digest = bundle.for_output(output).sha256
        if digest != one.sha256:
            raise BundleError(
                f"{path} was made with another bundle than {bundle.source}: expected "
                f"sha256 {one.sha256[:12]}…, received {digest[:12]}….",
                remedy="Restore that bundle, or make the file again with rooftrace fit.",
            )
        bundles.append(bundle)
    return bundles
