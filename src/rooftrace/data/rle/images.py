"""Which image a row of a table is about."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rooftrace.core.errors import DataError, LayoutError
from rooftrace.data.layout import images_under
from rooftrace.data.rle.table import RleTable, Row

__all__ = ["NamedImages", "find_images"]

_LISTED = 3


def find_images(table: RleTable, path: Path, folder: Path | None) -> dict[str, Path]:
    """The image of each id of a table, none of them opened.

    Where the table has a column of paths these are followed, from `folder` or else from the
    table's own; else the names are looked for there, with any ending and in folders inside.

    Args:
        path: of the table.
        folder: where the person says that the images lie.

    Raises:
        DataError: an image is missing; names the first row and how many there are.
        LayoutError: two images have the name; one id has two paths, or one image two ids.
    """
    if folder is not None and not folder.is_dir():
        raise LayoutError(
            f"The images of {path} are said to lie in {folder}, which is no folder.",
            remedy="Correct images, or leave it out where they lie beside the table.",
        )
    top = folder or path.parent
    by_name = None if table.columns.path is not None else NamedImages(images_under(top))
    found: dict[str, Path] = {}
    missing: list[tuple[Row, str]] = []
    for row in table.rows:
        name = table.image_id(row)
        if by_name is not None:
            if name in found:
                continue
            image = by_name.find(name)
            expected = f"{top / name} with the ending of an image"
        else:
            image = _followed(table.image_path(row), path, folder)
            expected = str(image)
        if image is None or not _is_there(image):
            missing.append((row, expected))
        elif found.setdefault(name, image) != image:
            raise LayoutError(
                f"{path}, row {row.line}: the image {name!r} is {image}, but {found[name]} in a "
                "row before.",
                remedy="Give an image one path, and each image its own name.",
            )
    if missing:
        raise _missing(path, missing, len(table.rows))
    _check_apart(path, found)
    return found


class NamedImages:
    """Images found by their name, with or without its ending.

    Args:
        images: all that may be meant.
    """

    def __init__(self, images: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for path in images:
            for name in {path.stem, path.name}:
                self._by_name.setdefault(name, []).append(path)

    def find(self, name: str) -> Path | None:
        """The image of a name such as `a`, `a.png` or `place/a`; None where there is none.

        Raises:
            LayoutError: there are several.
        """
        wanted = PurePosixPath(name)
        fitting = [
            path
            for path in self._by_name.get(wanted.name, ())
            if path.parts[-len(wanted.parts) : -1] == wanted.parts[:-1]
        ]
        if len(fitting) > 1:
            raise LayoutError(
                f"{len(fitting)} images are called {name!r}: "
                f"{', '.join(str(path) for path in fitting[:_LISTED])}.",
                remedy="Say which folder is meant, or add a column img_path.",
            )
        return fitting[0] if fitting else None


def _followed(text: str, table: Path, folder: Path | None) -> Path:
    relative = Path(text.replace("\\", "/"))
    if folder is None:
        return table.parent / relative
    # The folder that holds the images, or the one that the paths start from.
    by_name = folder / relative.name
    return by_name if _is_there(by_name) else folder / relative


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _missing(path: Path, missing: list[tuple[Row, str]], count: int) -> DataError:
    row, expected = missing[0]
    return DataError(
        f"{path}, row {row.line}: there is no image {expected}"
        + (f" ({len(missing)} of {count} rows have none)." if len(missing) > 1 else "."),
        remedy="Say where the images lie with images = FOLDER, or take the rows out.",
    )


def _check_apart(path: Path, found: dict[str, Path]) -> None:
    names: dict[Path, str] = {}
    for name, image in found.items():
        other = names.setdefault(image, name)
        if other != name:
            raise LayoutError(
                f"{path} calls the image {image} both {other!r} and {name!r}.",
                remedy="Call an image by one name in all of its rows.",
            )
