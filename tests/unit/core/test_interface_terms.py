"""Messages reach the API and the page in the words of those faces."""

import ast
import re
from pathlib import Path

import pytest

import rooftrace
from rooftrace.cli.commands import other_options
from rooftrace.core.text import API_PARAMETERS, in_api_terms, in_terms

FOLDER = Path(rooftrace.__file__).parent
REACHING = (
    "core/**/*.py", "tiling/**/*.py", "vector/**/*.py", "density/**/*.py", "predict/**/*.py",
    "service/**/*.py", "io/resample.py", "io/bands.py", "io/pixels.py", "io/raster.py",
    "io/gdal.py", "io/image_header.py", "io/companions.py", "io/area.py", "io/masks.py",
    "io/georeferenced.py", "io/nodata.py", "io/scene_sample.py",
)  # fmt: skip
"""Files whose messages a server shows. It accepts uploads, not addresses or catalogues."""

NOT_SHOWN = {
    "cluster", "workers", "gpus-per-worker", "address", "head", "mosaic", "weights", "set", "s",
    "json", "fit", "paper", "area", "crs", "ink", "schema", "surface", "terrain", "images",
}  # fmt: skip
"""Options of the command line alone: clusters, mosaics, ensembles, settings, sidecar files,
models of the surface, images of labels."""

OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")

OF_THE_SERVER = re.compile(r"rooftrace serve [^.;]*")
"""A command for its owner, which names itself: its options are in the right words."""


def messages() -> list[str]:
    found = []
    for pattern in REACHING:
        for file in sorted(FOLDER.glob(pattern)):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        part.value if isinstance(part, ast.Constant) else "1"
                        for part in node.values
                    ]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    # Docstrings with drawings have line breaks; messages have none.
    return [text for text in found if OPTION.search(text) and "\n" not in text]


def test_no_message_of_a_server_names_an_option_of_the_command_line() -> None:
    texts = messages()
    assert sum("--gsd" in text for text in texts) >= 4
    left = {
        (name, text)
        for text in texts
        for name in OPTION.findall(OF_THE_SERVER.sub("", in_api_terms(text)))
        if name not in NOT_SHOWN
    }
    assert not left


@pytest.mark.parametrize(("text", "api"), [
    (
        "--bands received '3,2', 2 bands. --stretch sets other values.",
        "The parameter bands received '3,2', 2 bands. The parameter stretch sets other values.",
    ),
    (
        "Use --scale 0.5, or --bands B4,B3,B2, for this.",
        "Use scale=0.5, or bands=B4,B3,B2, for this.",
    ),
])  # fmt: skip
def test_each_face_has_its_words(text: str, api: str) -> None:
    assert in_api_terms(text) == api


def test_the_parameters_of_the_api_are_those_of_the_schema() -> None:
    jobs = pytest.importorskip("rooftrace.rest.jobs")
    known = {one.alias.replace("_", "-") for one in jobs.JobQuery.model_fields.values()}
    assert known >= {*API_PARAMETERS}


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("catalogue", "Give the right one with --gsd.",
         "Give the right one with rooftrace predict --gsd."),
        ("predict", "Give the right one with --gsd.", "Give the right one with --gsd."),
        ("split", "Choose one, for example --zoom 19.",
         "Choose one, for example --set zoom=19."),
        ("split", "Set a part aside: rooftrace predict --zoom 3", None),
        ("evaluate", "rooftrace vectorize a.tif --class 5 --outline pixel -o OUT.gpkg", None),
        ("train", 'Give it with --layout, for example --layout "a/{id}.jpg=b/{id}_gt.png".',
         ("Give it with the key layout of the data, for example the key layout of the data: "
          '"a/{id}.jpg=b/{id}_gt.png".')),
        ("evaluate", "Give it with --layout.", None),
        ("export", "Use another engine with --engine.",
         "Use another engine with rooftrace predict --engine."),
    ],
)  # fmt: skip
def test_remedies_name_no_option_that_the_command_lacks(
    command: str, text: str, expected: str | None
) -> None:
    assert in_terms(text, other_options(command)) == (expected or text)
