"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rooftrace.core.errors import ConfigError
from rooftrace.core.scales import LEAST_GSD_M, MOST_GSD_M

MODEL, IMAGES, POLYGONS = "Model", "Images, scale and area", "Polygons"
OUTPUTS, CATALOGUE, CLUSTER = "Outputs", "Catalogue", "Cluster"
"""Titles of the groups of options in a command's help."""


def option(group: str, *names: str, rare: bool = False, **settings: Any) -> Any:
    """Return an option as `typer.Option` does, in a group of the command's help.

    Args:
        group: Title of the group.
        names: Names of the option; default: that of the parameter.
        rare: Whether only `--help-all` lists the option.
        settings: See `typer.Option`.
    """
    return typer.Option(*names, rich_help_panel=group, hidden=rare, **settings)


Order = Literal["row", "column"]
"""Order in which the runs of a mask visit its pixels."""

NODATA_HELP = "Nodata value or colour (255,0,255), besides the file's; none ignores those."
GSD_HELP = "Metres per pixel, where the files do not state it."

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
_MODEL_OPTION = option(
    MODEL, "-m", "--model", metavar="MODEL", help="A .rooftrace file, a run's folder, or accurate."
)
ModelFile = Annotated[Path | None, _MODEL_OPTION]
ModelFiles = Annotated[list[Path] | None, _MODEL_OPTION]
Nodata = Annotated[str | None, option(IMAGES, metavar="VALUE", help=NODATA_HELP)]
Gsd = Annotated[
    float | None,
    option(IMAGES, "--gsd", min=LEAST_GSD_M, max=MOST_GSD_M, metavar="M", help=GSD_HELP),
]
Crs = Annotated[
    str | None,
    option(
        IMAGES, "--crs", rare=True, metavar="CRS",
        help="CRS of images that have a position and state none: EPSG:32645.",
    ),
]  # fmt: skip
ImageryDate = Annotated[
    str | None,
    option(
        IMAGES, "--imagery-date", rare=True, metavar="DATE",
        help="Date of the images, for the polygons; default: the date in the files.",
    ),
]  # fmt: skip
ImagerySource = Annotated[
    str | None,
    option(
        IMAGES, "--source", rare=True, metavar="TEXT",
        help="Source of the images, for the polygons; default: name or URL of each.",
    ),
]  # fmt: skip
Threshold = Annotated[
    float | None,
    option(
        MODEL, min=0, max=1, metavar="P",
        help="Least building probability; default: the model's.",
    ),
]  # fmt: skip
Ensemble = Annotated[
    Literal["average", "weighted"] | None,
    option(
        MODEL, rare=True, metavar="HOW",
        help="Combine several -m: average or weighted (average).",
    ),
]  # fmt: skip
Weights = Annotated[
    str | None,
    option(
        MODEL, rare=True, metavar="2,1,1",
        help="Weights for --ensemble weighted; default: each model's validation IoU.",
    ),
]  # fmt: skip
Tta = Annotated[
    Literal["mirror", "flips", "d4", "none"] | None,
    option(
        MODEL, rare=True, metavar="HOW",
        help="Average over 2 mirrored tiles (mirror), 4 (flips) or 8 (d4), or none.",
    ),
]  # fmt: skip
EngineName = Annotated[
    str | None,
    option(
        MODEL, "--engine", rare=True, metavar="NAME",
        help="Inference engine, such as openvino; rooftrace doctor lists them.",
    ),
]  # fmt: skip
Precision = Annotated[
    str | None,
    option(
        MODEL, rare=True, metavar="TYPE",
        help="fp32, bf16, fp16 or int8; default: the fastest that suits this machine.",
    ),
]  # fmt: skip
Layer = Annotated[
    str | None,
    option(IMAGES, "--layer", metavar="NAME", help="Layer of files with several; * joins them."),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:PART",
        help="Part of a split: split.json:test; or test alone, of data in folders train and test.",
    ),
]

_FILE_SUFFIXES = frozenset(
    (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".kml", ".csv", ".tif", ".png",
     ".html", ".rooftrace")
)  # fmt: skip
"""Endings of a single result, which users give to `-o` in the place of a folder."""


def results_folder(text: str | Path) -> Path:
    """Return the folder for results; raise ConfigError for a URL, a file, or the name of one.

    typer also passes the default of the option, which is a path.
    """
    folder = _local_path(text, "folder")
    if folder.suffix.lower() in _FILE_SUFFIXES and not folder.is_dir():
        raise ConfigError(
            f"-o received {text}; expected a folder, since there are several results.",
            remedy=f"Name a folder: -o {folder.with_suffix('')}",
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"-o received {text}, which is a file; expected a folder for the results.",
            remedy="Give the name of a folder: -o results",
        )
    return folder


def result_file(text: str | Path) -> Path:
    """Return the file for a result; raise ConfigError for a URL, or for an existing folder.

    An existing geodatabase is a folder that a result may replace, see `check_outputs`.
    """
    file = _local_path(text, "file")
    if file.is_dir() and file.suffix.lower() != ".gdb":
        raise ConfigError(
            f"-o received {text}, which is a folder; expected a file.",
            remedy=f"Name a file in it: -o {file / 'NAME'}",
        )
    return file


def _local_path(text: str | Path, kind: str) -> Path:
    if "://" in str(text):
        raise ConfigError(
            f"-o received {text}; expected a {kind} on this machine.",
            remedy=f"Upload the results afterwards, such as: aws s3 sync FOLDER {text}",
        )
    return Path(text)


def out_option(help_text: str, metavar: str = "FILE", **settings: Any) -> Any:
    """Return the option `-o`; settings as for `typer.Option`."""
    return typer.Option("-o", "--out", metavar=metavar, help=help_text, **settings)


OutFolder = Annotated[
    Path,
    out_option(
        "Folder for the results.", "FOLDER", rich_help_panel=OUTPUTS, show_default=False,
        parser=results_folder,
    ),
]  # fmt: skip
Results = Annotated[Path, out_option("Folder for the results.", "FOLDER", parser=results_folder)]
PolygonFormats = Annotated[
    list[str] | None,
    option(
        OUTPUTS, "--format", metavar="FORMAT",
        help="Also xlsx, csv, kml, kmz, geojson, osm, shp, gdb, dxf, fgb, parquet or pmtiles; "
        "repeatable.",
    ),
]  # fmt: skip
Stac = Annotated[
    bool,
    option(
        OUTPUTS, "--stac", rare=True,
        help="Describe results of images with a known date as a STAC collection.",
    ),
]  # fmt: skip


def model_of(given: Path) -> Path | None:
    """Return the path of one model; None for `default`, which stands for the bundled model."""
    return None if str(given) == "default" else given
