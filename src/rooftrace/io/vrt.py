"""The files that a VRT mosaic names, looked at before any of their pixels is needed.

GDAL notices a missing part when it comes to it, which may be after hours.
https://gdal.org/en/stable/drivers/raster/vrt.html
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from rooftrace.core.errors import DataError

__all__ = ["check_vrt"]

_MOST_LISTED = 3
_HEAD_BYTES = 16


def check_vrt(path: Path) -> None:
    """That all files are there which a VRT, and each VRT among them, is made of.

    Only files count as parts: what lies on a server or in an archive is refused, since a mosaic
    that somebody sent would otherwise decide what this machine calls; and as images, since it
    could show the bytes of any other file. Code in it is never run.

    Args:
        path: of a file that GDAL opens as a VRT.

    Raises:
        DataError: a part is missing, no file or no image, or a VRT is made of itself.
    """
    _check(path.absolute(), (), set())


def _check(path: Path, above: tuple[Path, ...], sound: set[Path]) -> None:
    if path in above:
        raise DataError(
            f"The VRT {above[0]} is made of itself, by way of {path}.",
            remedy="Build it again from the images themselves: gdalbuildvrt OUT.vrt *.tif",
        )
    missing: list[Path] = []
    nested: dict[Path, None] = {}
    for part in _parts(path):
        if not part.is_file():
            missing.append(part)
        elif part not in sound and _is_vrt(part):
            nested[part] = None
    if missing:
        listed = ", ".join(map(str, missing[:_MOST_LISTED]))
        more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
        raise DataError(
            f"The VRT {path} names {len(missing)} files that are not there: {listed}{more}.",
            remedy="Put them back beside it, or build it again: gdalbuildvrt OUT.vrt *.tif",
        )
    for part in nested:
        _check(part, (*above, path), sound)
    sound.add(path)


def _parts(path: Path) -> list[Path]:
    try:
        # The parser of Python expands no outside entities, and stops at those that multiply.
        root = ElementTree.parse(path).getroot()  # noqa: S314
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(
            f"The VRT {path} cannot be read: {error}.",
            remedy="Build it again: gdalbuildvrt OUT.vrt *.tif",
        ) from error
    if any(band.get("subClass") == "VRTRawRasterBand" for band in root.iter("VRTRasterBand")):
        raise DataError(
            f"The VRT {path} takes the bytes of any file for pixels (VRTRawRasterBand).",
            remedy="Export it where it was made: gdal_translate IN.vrt OUT.tif",
        )
    parts: dict[Path, None] = {}
    for tag in ("SourceFilename", "SourceDataset"):
        for element in root.iter(tag):
            name = (element.text or "").strip()
            if name.startswith("/vsi") or "://" in name:
                raise DataError(
                    f"The VRT {path} is made of {name!r}, which is no file.",
                    remedy="Copy what it names to this machine, and build it again: "
                    "gdalbuildvrt OUT.vrt *.tif",
                )
            relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
            parts[(path.parent / name if relative else Path(name)).absolute()] = None
    return list(parts)


def _is_vrt(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES).lstrip().startswith(b"<VRTDataset")
