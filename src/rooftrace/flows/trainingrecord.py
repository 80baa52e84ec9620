"""The data that a bundle says it was trained on, as far as it can be opened here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rooftrace.core.config import expand_path
from rooftrace.core.errors import RooftraceError
from rooftrace.data.config import DataConfig, SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.data.source import SceneSet
from rooftrace.data.split import read_split
from rooftrace.models.bundle import ModelBundle

__all__ = ["TrainingRecord"]


class TrainingRecord:
    """What a bundle says of its training; what is not understood, or not here, is None.

    Args:
        bundle: the model; other parts of it are not looked at.
        base: where relative paths start; default what `config.json` beside the bundle tells. Where
            that is not known, what lies there is not looked for: a folder of that name in the
            current one would be another.
    """

    def __init__(self, bundle: ModelBundle, base: Path | None) -> None:
        self.bundle = bundle
        self._base = base or _base_of(bundle)
        self._data: DataConfig | None = None
        with suppress(ValidationError):
            self._data = DataConfig.model_validate(bundle.spec.training.get("data"))

    @cached_property
    def train(self) -> tuple[SceneSet | None, ...]:
        """Each set that was trained on; None where it cannot be opened here."""
        return () if self._data is None else self._part(self._data.train, "train")

    @cached_property
    def val(self) -> tuple[SceneSet | None, ...]:
        """Each set that the threshold was chosen on."""
        if self._data is None:
            return ()
        if self._data.val:
            return tuple(self._open(given) for given in self._data.val)
        return () if self._data.split is None else self._part(self._data.train, "val")

    def ids_of(self, path: Path, part: Literal["train", "val"]) -> dict[str, str]:
        """The scenes of a folder that are in a part, with the name of their set."""
        if self._data is None:
            return {}
        given = self._data.train if part == "train" or not self._data.val else self._data.val
        if path not in [self._found(one.path) for one in given]:
            return {}
        sets = zip(given, self.train if part == "train" else self.val)
        return {
            scene_id: one.name
            for config, one in sets
            if one is not None and self._found(config.path) == path
            for scene_id in one.ids
        }

    def _part(self, given: Sequence[SourceConfig], part: str) -> tuple[SceneSet | None, ...]:
        assert self._data is not None
        sets = tuple(self._open(one) for one in given)
        if self._data.split is None:
            return sets
        path = self._found(self._data.split)
        try:
            ids = () if path is None else read_split(path).ids(part, source=str(path))
        except RooftraceError:
            path = None
        return tuple(None if one is None or path is None else one.subset(ids) for one in sets)

    def _open(self, given: SourceConfig) -> SceneSet | None:
        assert self._data is not None
        try:
            if self._found(given.path) is None:
                return None
            return open_source(given, self._data.labels, self._base or Path("/"))
        except RooftraceError:
            return None

    def _found(self, text: str) -> Path | None:
        """Where a path of the record leads, if that is sure and something is there."""
        try:
            path = expand_path(text, self._base or Path(), key="path")
        except RooftraceError:
            return None
        sure = self._base is not None or expand_path(text, Path("/"), key="path") == path
        return path.resolve() if sure and path.exists() else None


def _base_of(bundle: ModelBundle) -> Path | None:
    """Where relative paths of the record started from, if the run is still beside the bundle."""
    try:
        text = Path(bundle.source).with_name("config.json").read_text(encoding="utf-8")
        return Path(json.loads(text)["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
