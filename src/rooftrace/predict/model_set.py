"""The models of a run: read, then made ready, here or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.models.artefact import read_model
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import Output
from rooftrace.predict.ensemble import check_weights, combine
from rooftrace.predict.ensemble_engine import Combine
from rooftrace.predict.ensemble_file import EnsembleFile, is_ensemble, read_ensemble
from rooftrace.predict.predictor import Predictor, default_bundle
from rooftrace.predict.tta import Tta, TtaEngine

__all__ = ["ModelSet", "Models", "load_models", "read_models"]

Models = Path | Sequence[Path | None] | None
"""One bundle or ensemble file, or several bundles that are combined; None is the one that comes
with rooftrace."""


@dataclass(frozen=True)
class ModelSet:
    """Models that were read, with all that is needed to make them ready; it can be pickled.

    Args:
        bundles: one, or several that answer as one.
        how, weights: of several, see `combine`.
        tta: each model is asked for mirrored tiles too, see `Tta`.
        engine, precision, output: of each, see `load`.
        file: the ensemble file that names them, and its path.
    """

    bundles: tuple[ModelBundle, ...]
    how: Combine = "average"
    weights: Sequence[float] | None = None
    tta: Tta | None = None
    engine: str | None = None
    precision: str | None = None
    output: Output = "probabilities"
    file: tuple[EnsembleFile, str] | None = None

    def ready(self, build: Callable[[ModelBundle], Engine] | None = None) -> Predictor:
        """The model, or several as one, with what was fitted for them.

        Args:
            build: an engine of a bundle; default that which was asked for.

        Raises:
            BundleError, ConfigError, GsdMismatch, MissingExtraError: as `load` and `combine`.
        """
        members = [self._member(bundle, build or self._engine) for bundle in self.bundles]
        if self.file is None:
            return members[0] if len(members) == 1 else combine(members, self.how, self.weights)
        made = combine(members, self.how, self.weights)
        file, path = self.file
        name = Path(path).name.removesuffix(".json").removesuffix(".ensemble")
        update: dict[str, Any] = {"name": name, "metrics": file.metrics}
        if file.threshold is not None:
            # A calibration is of one threshold.
            update |= {"threshold": file.threshold, "calibration": file.calibration}
        spec = made.bundle.spec.model_copy(update=update)
        return Predictor(ModelBundle(spec, {}, path, made.bundle.members), made.engine)

    def _engine(self, bundle: ModelBundle) -> Engine:
        return load_engine(bundle, engine=self.engine, precision=self.precision, output=self.output)

    def _member(self, bundle: ModelBundle, build: Callable[[ModelBundle], Engine]) -> Predictor:
        engine = build(bundle)
        if self.tta is not None:
            engine = TtaEngine(engine, self.tta)
        return Predictor(bundle.giving(self.output), engine)


def read_models(
    models: Models,
    how: Combine = "average",
    *,
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> ModelSet:
    """A model, or several as one, without an engine.

    Args:
        models: one is taken as it is; an ensemble file says itself how its models are combined.
        how, weights, tta, engine, precision, output: see `ModelSet`.

    Raises:
        BundleError: a file cannot be read; a member of an ensemble file is not there, or is
            another.
        ConfigError: weights that do not fit.
    """
    paths = [models] if models is None or isinstance(models, Path) else list(models)
    file = None
    files = [path for path in paths if path is not None and is_ensemble(path)]
    if files:
        _check_alone(files[0], paths, weights)
        read = read_ensemble(files[0])
        file = read, str(files[0])
        how, weights = read.combine, read.weights
        bundles = _members_of(read, files[0], output)
    else:
        check_weights(weights, how, len(paths))
        bundles = [_read(path) for path in paths]
    return ModelSet(tuple(bundles), how, weights, tta, engine, precision, output, file)


def load_models(
    models: Models,
    how: Combine = "average",
    *,
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Predictor:
    """A model, or several as one, ready to run; see `read_models`.

    Raises:
        As `read_models` and `ModelSet.ready`.
    """
    return read_models(
        models, how, weights=weights, tta=tta, engine=engine, precision=precision, output=output
    ).ready()


def _read(path: Path | None) -> ModelBundle:
    return default_bundle() if path is None else read_model(path)


def _check_alone(file: Path, paths: Sequence[Path | None], weights: Sequence[float] | None) -> None:
    if len(paths) > 1:
        raise ConfigError(
            f"{file} is an ensemble, and {len(paths)} models were given.",
            remedy="Give it alone, or make one of all bundles with rooftrace ensemble.",
        )
    if weights is not None:
        raise ConfigError(
            f"Weights were given, and {file} has its own.", remedy="Leave out --weights."
        )


def _members_of(file: EnsembleFile, path: Path, output: Output) -> list[ModelBundle]:
    """The bundles that an ensemble file names, which must be those that it was made with."""
    bundles = []
    for one in file.members:
        where = one.at(path)
        if where is not None and not _is_file(where):
            raise BundleError(
                f"{path} names the member {one.path!r}, and there is no bundle at {where}.",
                remedy="Put the bundle there, or make the ensemble again: rooftrace ensemble.",
            )
        bundle = _read(where)
        digest = bundle.giving(output).sha256
        if digest != one.sha256:
            raise BundleError(
                f"{path} was made with another bundle than {bundle.source}: expected "
                f"sha256 {one.sha256[:12]}…, received {digest[:12]}….",
                remedy="Put the bundle back, or make the ensemble again: rooftrace ensemble.",
            )
        bundles.append(bundle)
    return bundles


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
