"""What lies where predictions are said to be, before any of it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rooftrace.core.errors import DataError, LayoutError
from rooftrace.data.ground.scenes import vector_files
from rooftrace.data.layout import images_under, is_image_file
from rooftrace.data.rle.table import is_table
from rooftrace.flows.peer.names import plain_name
from rooftrace.io.vector_read import is_vector_file

__all__ = ["Found", "find_predictions"]

_HEAD_BYTES = 512
_NOT_JUDGED = ("_preview", "_density")
"""How files of `rooftrace predict` end that are no predictions themselves."""

_KINDS = (
    "masks or probabilities (PNG, GeoTIFF, …), polygons (GPKG, GeoJSON, FlatGeobuf, GeoParquet, "
    "Shapefile), a table of run lengths (CSV), or COCO results (JSON)"
)


@dataclass(frozen=True)
class Found:
    """Files of predictions.

    Args:
        path: that was given.
        rasters: masks, or probabilities.
        vectors: files of polygons; beside rasters, their outlines.
        table: of run lengths.
        results: of COCO.
    """

    path: Path
    rasters: tuple[Path, ...] = ()
    vectors: tuple[Path, ...] = ()
    table: Path | None = None
    results: Path | None = None

    @property
    def kind(self) -> str:
        """In a word or two."""
        if self.table is not None:
            return "run lengths"
        if self.results is not None:
            return "COCO results"
        both = [name for name, files in (("rasters", self.rasters), ("polygons", self.vectors))
                if files]  # fmt: skip
        return " and ".join(both)

    def names(self, files: tuple[Path, ...]) -> list[str]:
        """What files are called below the path, without their endings."""
        top = self.path if self.path.is_dir() else self.path.parent
        return [file.relative_to(top).with_suffix("").as_posix() for file in files]


def find_predictions(path: Path) -> Found:
    """Tell what kind of predictions a file or a folder holds.

    What `rooftrace predict` writes beside masks and polygons is left aside.

    Raises:
        DataError: there is nothing.
        LayoutError: it is none of the kinds, or a folder of several.
    """
    if not path.exists():
        raise DataError(f"There are no predictions at {path}.", remedy="Check the path.")
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == ".csv":
        return Found(path, table=path)
    if is_vector_file(path):
        return Found(path, vectors=(path,))
    if path.suffix.lower() == ".json" and _is_list(path):
        return Found(path, results=path)
    if is_image_file(path):
        return Found(path, rasters=(path,))
    raise LayoutError(
        f"{path} holds no predictions; expected {_KINDS}.",
        remedy="Name the file or folder that holds them.",
    )


def _in_folder(path: Path) -> Found:
    tables = [file for file in sorted(path.glob("*.csv")) if is_table(file)]
    vectors = [file for file in vector_files(path) if _is_judged(file)]
    rasters = [file for file in images_under(path) if _is_judged(file) and file not in vectors]
    if len(tables) > 1 or (tables and (vectors or rasters)):
        held = [*tables, *vectors, *rasters]
        raise LayoutError(
            f"{path} holds predictions of several kinds: {', '.join(f.name for f in held[:4])}, …; "
            "one kind was expected.",
            remedy="Name the table itself, or move it away.",
        )
    if not (tables or vectors or rasters):
        raise LayoutError(
            f"The folder {path} holds no predictions; expected {_KINDS}.",
            remedy="Name the file or folder that holds them.",
        )
    return Found(path, tuple(rasters), tuple(vectors), tables[0] if tables else None)


def _is_judged(file: Path) -> bool:
    return not plain_name(file.stem).endswith(_NOT_JUDGED)


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
