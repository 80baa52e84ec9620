"""Folders of image/mask pairs as a `LabelSource`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rooftrace.core.config import expand_path
from rooftrace.core.errors import DataError
from rooftrace.core.types import Scene
from rooftrace.data.config import FolderConfig, nodata_rule
from rooftrace.data.labels import LabelFile, LabelRule
from rooftrace.data.layout import Pair, find_pairs, select
from rooftrace.io.raster import NodataRule, open_raster

__all__ = ["FolderSource"]


@dataclass(frozen=True)
class FolderSource:
    """Image/mask pairs of one folder.

    Iteration opens the header of each image in turn; pixels are read when a scene is.

    Args:
        name: what reports call it.
        pairs: the labelled pairs that take part, sorted by id.
        rule: how masks are read.
        nodata: what counts as nodata in the images.
        gsd_m: metres per pixel, where the person said so.
        share: weight in what training draws, where the person gave one.
        reading: the layout that was found.
        unlabelled: images without a mask.
    """

    name: str
    pairs: tuple[Pair, ...]
    rule: LabelRule
    nodata: NodataRule = field(default_factory=NodataRule)
    gsd_m: float | None = None
    share: float | None = None
    reading: str = ""
    unlabelled: tuple[Pair, ...] = ()

    @classmethod
    def open(cls, config: FolderConfig, rule: LabelRule, base: Path = Path()) -> FolderSource:
        """Look into the folder and pair its files.

        Raises:
            LayoutError: see `data.layout.find_pairs`.
            ConfigError: the path uses a variable that is not set.
        """
        root = expand_path(config.path, base, key="path")
        found = find_pairs(root, layout=config.layout, glob=config.globs)
        pairs = select(found.pairs, config.part)
        if not pairs:
            raise DataError(
                f"part = {config.part!r} leaves none of the {len(found.pairs)} pairs of {root}.",
                remedy="Correct the slice.",
            )
        return cls(
            name=config.name or root.resolve().name,
            pairs=pairs,
            rule=rule,
            nodata=nodata_rule(config.nodata),
            gsd_m=config.gsd_m,
            share=config.share,
            reading=found.reading,
            unlabelled=found.unlabelled,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rule.classes

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(pair.id for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Scene]:
        return (self._scene(pair) for pair in self.pairs)

    def subset(self, ids: Sequence[str]) -> FolderSource:
        """Only the scenes of `ids` that this folder has."""
        return self.where(frozenset(ids).__contains__)

    def where(self, keep: Callable[[str], bool]) -> FolderSource:
        """Only the scenes whose id `keep` accepts."""
        return replace(self, pairs=tuple(pair for pair in self.pairs if keep(pair.id)))

    def _scene(self, pair: Pair) -> Scene:
        image = open_raster(pair.image, nodata=self.nodata)
        label = None
        if pair.mask is not None:
            label = LabelFile(pair.mask, self.rule, image.grid, image.name)
        return Scene(pair.id, image, label, pair.group, self.gsd_m or image.grid.gsd_m)
