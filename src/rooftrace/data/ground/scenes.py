"""What footprints over scenes and footprints over tiles have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rooftrace.core.errors import GeoreferenceError, LayoutError
from rooftrace.core.types import Scene
from rooftrace.data.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.data.ground.layer import LayerFile
from rooftrace.data.images import open_image
from rooftrace.data.source import Entry, SceneSet
from rooftrace.io.raster import NodataRule
from rooftrace.io.vector_read import is_vector_file

__all__ = ["one_vector_file", "placed_set", "vector_files"]


@dataclass(frozen=True)
class _OpenPlaced:
    """From an entry, whose key is the tile that its image shows or None, to its scene."""

    file: LayerFile
    nodata: NodataRule
    gsd_m: float | None
    by_scene: bool

    def __call__(self, entry: Entry) -> Scene:
        assert entry.image is not None
        image = open_image(entry.image, nodata=self.nodata, tile=entry.key)
        grid = image.grid
        if grid.crs is None:
            raise GeoreferenceError(
                f"The image {entry.image} has no coordinate system, so the footprints of "
                f"{self.file.path} have no place in it.",
                remedy="Assign the one it was made in: gdal_edit.py -a_srs EPSG:… -a_ullr …; or "
                "choose the images that have one with --glob.",
            )
        label = self.file.label(grid, entry.id if self.by_scene else None)
        return Scene(entry.id, image, label, entry.group, self.gsd_m or grid.gsd_m)


def placed_set(
    kind: str,
    name: str,
    entries: Sequence[Entry],
    file: LayerFile,
    config: SourceConfig,
    labels: LabelConfig,
    *,
    notes: tuple[str, ...] = (),
) -> SceneSet:
    """Images, and the layer that is drawn into them.

    Args:
        entries: whose key is the tile that an image shows, or None where the file says its place.
    """
    layer = file.load()
    if not len(layer):
        notes = (*notes, f"{file.path} holds no footprints: every label is empty.")
    return SceneSet(
        name=config.name or name,
        kind=kind,
        classes=labels.classes,
        building_class=labels.building_class,
        entries=tuple(sorted(entries, key=lambda entry: entry.id)),
        open_scene=_OpenPlaced(
            file,
            nodata_rule(config.nodata),
            config.gsd_m,
            by_scene=file.own and layer.names_any(entry.id for entry in entries),
        ),
        share=config.share,
        reading=f"{len(layer)} footprints of {file.path.name} in {layer.crs.name}",
        notes=(*notes, *layer.notes),
    )


def vector_files(folder: Path) -> list[Path]:
    """The vector files in a folder, sorted; hidden ones are left out."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in files if is_vector_file(path)]


def one_vector_file(folders: Sequence[Path]) -> Path:
    """The vector file of the first folder that has any.

    Raises:
        LayoutError: none has, or it has several.
    """
    for folder in folders:
        found = vector_files(folder)
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(path.name for path in found)
            raise LayoutError(
                f"{folder} holds {len(found)} vector files ({listed}); one was expected.",
                remedy="Name the one that is meant as DATA, and its images with --images.",
            )
    raise LayoutError(
        f"There is no vector file in {' or '.join(map(str, folders))}.",
        remedy="Put the footprints there, as GeoPackage or GeoJSON; or name their file as DATA "
        "and the images with --images.",
    )
