"""The verbs of the command line under attack: their options, and the files that they read.

Each verb is a target. A try runs the real command in the process, in an empty folder that holds
valid files. Either one of them is mutated, or the arguments are: `args.json` is a list of them.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    chdir,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
)
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from fuzz_labels import compare_coco, compare_table
from fuzz_mutate import Rng, mutate
from fuzz_target import Files, Target, check, json_bytes, second_reader
from PIL import Image
from pyproj import CRS

from rooftrace.core.errors import RooftraceError
from rooftrace.core.failures import DEBUG

__all__ = ["TARGETS"]

ARGUMENTS = "args.json"
SERVER = "SERVER"
"""Word in place of the address of a server that runs during a try."""

_KEPT = ("out", "work", "cluster", "address", "workers", "push", "help", "as_json", "version",
         "gpus_per_worker", "out_path", "trials")  # fmt: skip
"""Parameters that are not attacked: they lead out of the folder, start other machines or, as a
thousand trials, ask for hours of work."""

_WORDS = (
    "", " ", "0", "1", "-1", "2", "0.5", "7", "nan", "inf", "1e308", "-1e-5", "1e-320", "9" * 30,
    "1_000", "0x10", "٣", "auto", "none", "a", "a=b", "=", "a=", "labels.names.building=1",
    "order=column", "model.encoder=x", "epochs=0", "optimizer.lr=nan", "[:15]", "[::0]", "3,2,1",
    "red,green,blue", "1,1,1", "0,0,0", "2%", "3px", "average", "vote", "flips", "d4",
    "{id}.png", "a/{id}.tif=b/{id}.png", "(", "(?P<x>", "*", "[", "é\u202e", "\udce9", "a" * 3000,
    "http://127.0.0.1:9/", "https://127.0.0.1:9/a.tif", "/nonexistent/x", "../none", ".",
    "/dev/null", "split.json:train",
    "split.json:none", ":", "default", "openvino", "onnxruntime", "torch",
    "fp32", "int8", "2024-01-01", "2024-13-99", "osm", "224x224", "64x64", "0x0", "mask,polygons",
    "max", "union", "majority", "building", "background,building", "sigmoid",
)  # fmt: skip
"""Values of options, besides the choices of the option and the names of the files."""

_PYDANTIC = ("Input should be", "Value error,", "validation error", "errors.pydantic", "Traceback",
             "object at 0x")  # fmt: skip
"""Words of Python that no message has."""

_GRID = (500_000.0, 9_300_000.0, 0.5)
"""Left edge, upper edge and metres per pixel of the images."""


def _square(left: float, top: float, side: float) -> Any:
    x, y = _GRID[0] + left * _GRID[2], _GRID[1] - top * _GRID[2]
    return shapely.box(x, y - side * _GRID[2], x + side * _GRID[2], y)


@cache
def _common() -> Files:
    """Return small valid files of every kind that a command reads."""
    import geopandas
    from rasterio.transform import from_origin

    from raster_files import write_geotiff
    from rooftrace.flows.split import run_split
    from rooftrace.labels.config import SourceConfig
    from stac_scenes import stac_item
    from tiny_models import write_tiny_bundle
    from video_files import town, write_video

    rng = np.random.default_rng(0)
    place: dict[str, Any] = {"crs": "EPSG:32736", "transform": from_origin(*_GRID[:2], 0.5, 0.5)}
    with tempfile.TemporaryDirectory() as name, chdir(name):
        folder = Path()
        mask = np.zeros((64, 64), np.uint8)
        mask[8:28, 8:28] = mask[36:56, 30:60] = 1
        image = np.where(mask, 220, 40)[None] + rng.integers(0, 20, (3, 64, 64))
        for stem in ("a", "b"):
            write_geotiff(folder / f"{stem}.tif", image.astype(np.uint8), **place)
        write_geotiff(folder / "mask.tif", mask, **place)
        write_geotiff(folder / "score.tif", mask.astype(np.float32) * 0.8, **place)
        frame = geopandas.GeoDataFrame(
            {"name": ["a", "b"]}, geometry=[_square(8, 8, 20), _square(30, 36, 20)],
            crs=CRS.from_epsg(32736),
        )  # fmt: skip
        frame.to_file(folder / "houses.gpkg")
        frame.to_file(folder / "houses.geojson")
        frame.assign(geometry=frame.geometry.translate(3, 1)).to_file(folder / "old.geojson")
        frame.assign(geometry=frame.geometry.buffer(9)).to_file(folder / "zones.geojson")
        write_tiny_bundle(folder / "tiny.rooftrace", gsd_m=0.5)
        for kind in ("images", "masks"):
            (folder / "pairs" / kind).mkdir(parents=True)
        for number in range(6):
            pair = np.roll(image, 5 * number, 2).astype(np.uint8)
            label = np.roll(mask, 5 * number, 1)
            write_geotiff(folder / f"pairs/images/{number}.tif", pair, **place)
            Image.fromarray(label * 255).save(folder / f"pairs/masks/{number}.png")
        pairs = SourceConfig(path="pairs")
        run_split(pairs, folder / "split.json", val=0.34, test=0.17, by="image")
        write_video(folder / "clip.mp4", (town(n, (32, 48)) for n in range(5)))
        (folder / "list.txt").write_text("a.tif\nb.tif\n")
        items = [stac_item(Path("a.tif"), "2024-05-01"), stac_item(Path("b.tif"), "2024-06-01")]
        document = {"type": "FeatureCollection", "features": items}
        (folder / "items.json").write_text(json.dumps(document))
        rows = "".join(f"{number}.png,{number % 2}\n" for number in range(6))
        (folder / "dense.csv").write_text("image,label\n" + rows)
        (folder / "sample.csv").write_text("ImageId,EncodedPixels\na.tif,1 3\nb.tif,\n")
        return _files(folder)


def _files(folder: Path) -> Files:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@cache
def _trained() -> Files:
    """Return a training run and its data, and weights and a graph of another program."""
    from rooftrace.flows.train import run_train
    from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, read_bundle
    from tiny_training import write_tiny_training

    with tempfile.TemporaryDirectory() as name, chdir(name):
        write_tiny_training(Path())
        run_train(Path("tiny.toml"), Path("runs/run"), overrides=["epochs=1"])
        bundle = read_bundle(Path("runs/run/best_iou.rooftrace"))
        Path("start.rooftrace").write_bytes(Path("runs/run/best_iou.rooftrace").read_bytes())
        Path("weights.safetensors").write_bytes(bundle.part(WEIGHTS_NAME))
        Path("graph.onnx").write_bytes(bundle.part(GRAPH_NAME))
        return _files(Path())


_SEARCH = """
[optimizer]
lr = { low = 1e-4, high = 1e-1, log = true }

[tune]
pruner = "none"
"""


@cache
def _searched() -> Files:
    """Return the data of `_trained` and a search space of one epoch."""
    text = _trained()["tiny.toml"].decode().replace("epochs = 2", "epochs = 1")
    space = 'loss = { choices = ["ce", "dice"] }\n' + text + _SEARCH
    return _trained() | {"search.toml": space.encode()}


@cache
def _project() -> Files:
    """Return the answers of a Label Studio server that has a project, by path."""
    from fake_labelstudio import FakeServer, serve_project

    server = FakeServer()
    serve_project(server, 7, range(3))
    server.server_close()
    return {
        f"server{path}" + ("" if path.endswith(".png") else ".json"): answer[1]
        for path, answer in server.answers.items()
        if not callable(answer)
    }


@contextmanager
def _label_studio(root: Path) -> Iterator[str]:
    """Serve the answers in the folder `server`; yield the address."""
    from fake_labelstudio import FakeServer
    from local_server import running

    server = FakeServer()
    for name, data in _files(root / "server").items():
        server.answers["/" + name.removesuffix(".json")] = (200, data, {})
    with running(server):
        yield server.url


@cache
def _sam() -> Files:
    from sam_models import save_tiny

    with tempfile.TemporaryDirectory() as name:
        save_tiny(Path(name) / "sam", "sam2")
        return _files(Path(name))


def _labels() -> Files:
    from fuzz_labels import TARGETS as READERS

    made = {one.name: one.make() for one in READERS if one.name in ("coco", "rle")}
    return {name: data for files in made.values() for part in files for name, data in part.items()}


def _parameters(verb: str) -> list[Any]:
    from rooftrace.cli.commands import load_command

    name, _, part = verb.partition(" ")
    command = load_command(name)
    return (command.commands[part] if part else command).params


def _mutate_arguments(rng: Rng, given: Sequence[str], verb: str, files: Sequence[str]) -> list[str]:
    """Return arguments with options added, values replaced, or one file in place of another."""
    made = list(given)
    options = [p for p in _parameters(verb) if p.param_type_name == "option"]
    options = [p for p in options if p.name not in _KEPT]

    def word(parameter: Any | None = None) -> str:
        choices = [str(one) for one in getattr(getattr(parameter, "type", None), "choices", ())]
        pools = [_WORDS, files, choices or _WORDS]
        pool = pools[int(rng.choice(3, p=[0.55, 0.15, 0.3]))]
        return str(pool[int(rng.integers(0, len(pool)))])

    way = rng.random()
    places = [n for n, one in enumerate(made) if n and one in files and made[n - 1] != "-o"]
    if way < 0.2 and places:
        made[places[int(rng.integers(0, len(places)))]] = word()
        return made
    for _ in range(int(rng.integers(1, 4))):
        if not options:
            break
        one = options[int(rng.integers(0, len(options)))]
        names = [*one.opts, *one.secondary_opts]
        made.append(names[int(rng.integers(0, len(names)))])
        if not one.is_flag:
            made.append(word(one))
    return made


def _mutate(verb: str, rng: Rng, name: str, data: bytes, others: list[bytes]) -> bytes:
    if name != ARGUMENTS:
        return mutate(rng, name, data, others)
    names = [*_common(), "pairs", "images", "out"]
    return json_bytes(_mutate_arguments(rng, json.loads(data), verb, names))


def run_command(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, its output and its messages."""
    from rooftrace.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stopped:
            code = stopped.code
    return code, out.getvalue(), err.getvalue()


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_server(root: Path) -> AbstractContextManager[str]:
    """Serve nothing."""
    return nullcontext("")


def _read(
    arguments: Sequence[str],
    agrees: Callable[[Path, str], None],
    serve: Callable[[Path], AbstractContextManager[str]],
    path: Path,
) -> None:
    """Run the command in the folder of `path`, and check the contract of every command.

    Raises:
        RooftraceError: The command refused, as the contract wants it.
        WrongAnswer: The exit code, the JSON or the message breaks the contract.
    """
    root = next(one for one in path.parents if (one / "PLACE").exists())
    if path.name == ARGUMENTS:
        arguments = json.loads(path.read_bytes())
    # A defect is raised, so that its traceback is kept.
    os.environ[DEBUG] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    with chdir(root), serve(root) as address:
        given = [address if one == SERVER else one for one in arguments]
        code, out, err = run_command([*given, "--json"])
        left = [one.name for one in Path().rglob(".*") if ".part" in one.name]
    check(not left, "a partial file is left")
    check("Traceback" not in err, "a traceback is on stderr")
    if code == 0 and "--help" in arguments:
        return
    check(out.count("\n") == 1, "stdout has not one line")
    answer = json.loads(out, parse_constant=_refused)
    check(isinstance(answer, dict), "stdout has no JSON object")
    if code == 0:
        check("error" not in answer, "an error has the exit code 0")
        with second_reader():
            agrees(root, path.name)
        return
    check(code in (2, 3, 4, 5, 6), f"the exit code is {code}")
    error = RooftraceError.from_json(answer["error"])
    check(type(error).__name__ == answer["error"]["type"], "the error is not one of the tree")
    check(error.exit_code == code, "the exit code is not that of the error")
    check(bool(error.message.strip()), "the error has no message")
    words = [one for one in _PYDANTIC if one in str(error)]
    check(not words, f"the message has {words}")
    raise error


def _no_second_reader(root: Path, name: str) -> None:
    """Compare nothing."""


def _converted(root: Path, name: str) -> None:
    """Compare the masks that `convert` wrote with those that a second reader draws."""
    masks = {}
    for path in (root / "out/masks").glob("*.png"):
        pixels = np.asarray(Image.open(path))
        masks[path.name.removeprefix("img__")] = np.where(pixels == 255, 255, pixels > 0)
    if name == "coco.json":
        compare_coco(root / name, masks)
    elif name == "t.csv":
        compare_table(root / name, masks)


def _areas(root: Path, name: str) -> None:
    """Compare the area of polygons with the pixels of the mask that they were traced from."""
    import rasterio

    if name != "mask.tif":
        return
    with rasterio.open(root / "mask.tif") as file:
        pixels, scale = file.read(1), abs(file.transform.determinant)
    drawn = [
        shapely.from_geojson(json.dumps(feature["geometry"]))
        for feature in json.loads((root / "out.geojson").read_text())["features"]
    ]
    check(all(map(shapely.is_valid, drawn)), "a polygon is not valid")
    if set(np.unique(pixels)) <= {0, 1} and scale == 0.25:
        # Each outline is straightened, by less than a pixel along its length.
        check(bool(drawn) == bool((pixels == 1).sum() > 60), "polygons and mask disagree")


def _verb(
    name: str,
    arguments: str,
    attacked: Sequence[str] = (),
    more: Callable[[], Files] = dict,
    agrees: Callable[[Path, str], None] = _no_second_reader,
    seconds: float = 60.0,
    serve: Callable[[Path], AbstractContextManager[str]] = _no_server,
) -> Target:
    """Return the target of a command.

    Args:
        name: Name of the target.
        arguments: Valid arguments, separated by spaces.
        attacked: Files that are mutated, besides the arguments.
        more: Function that returns further valid files.
        agrees: Comparison of an accepted file, by root folder and name, with a second reader.
        seconds: Time limit of a try.
        serve: Function that runs a server for the time of a try, given the root folder.
    """
    given = arguments.split()
    verb = " ".join(given[:2]) if given[0] == "label" else given[0]

    def make() -> tuple[Files, Files]:
        files = {**_common(), **more()}
        seeds = {ARGUMENTS: json_bytes(given)} | {one: files[one] for one in attacked}
        return seeds, {"PLACE": b"", **files}

    return Target(
        name, make, partial(_read, given, agrees, serve), partial(_mutate, verb), seconds
    )  # fmt: skip


_MODEL = "-m tiny.rooftrace"

TARGETS = (
    _verb("v-predict", f"predict a.tif -o out {_MODEL}", ["tiny.rooftrace"]),
    _verb(
        "v-refine",
        f"predict a.tif -o out {_MODEL} --refine sam --sam-weights sam",
        ["sam/config.json", "sam/preprocessor_config.json", "sam/model.safetensors"],
        _sam,
    ),
    _verb("v-catalogue", f"catalogue list.txt -o out {_MODEL}", ["list.txt", "a.tif"]),
    _verb("v-items", f"catalogue items.json -o out {_MODEL}", ["items.json"]),
    _verb("v-submit", f"submit a.tif b.tif -o out.csv {_MODEL} --sample sample.csv",
          ["sample.csv", "a.tif"]),
    _verb("v-video", f"video clip.mp4 -o out.mp4 {_MODEL} --table out.csv", ["clip.mp4"]),
    _verb("v-vectorize", "vectorize mask.tif -o out.geojson", ["mask.tif"], agrees=_areas),
    _verb("v-vectorize-score", "vectorize score.tif -o out.gpkg --threshold 0.5", ["score.tif"]),
    _verb("v-density", "density mask.tif houses.gpkg -o out --cell 10",
          ["mask.tif", "houses.gpkg"]),
    _verb("v-zones", "density mask.tif -o out --zones zones.geojson", ["zones.geojson"]),
    _verb("v-dense", "density pairs/masks -o out --by-image --fit dense.csv", ["dense.csv"]),
    _verb("v-compare", "compare houses.geojson old.geojson -o out --area zones.geojson",
          ["houses.geojson", "old.geojson", "zones.geojson"]),
    _verb("v-dates", f"compare a.tif b.tif -o out {_MODEL}", ["b.tif"]),
    _verb("v-inspect", "inspect pairs --against a.tif",
          ["pairs/masks/0.png", "pairs/images/0.tif"]),
    _verb("v-split", "split pairs -o out.json --val 0.34 --by image", ["pairs/masks/0.png"]),
    _verb("v-convert", "convert coco.json --to folder -o out", ["coco.json"], _labels, _converted),
    _verb("v-convert-rle", "convert t.csv --to folder -o out", ["t.csv"], _labels, _converted),
    _verb("v-next", f"label next pairs/images -o out.txt -n 2 {_MODEL}", ["pairs/images/0.tif"]),
    _verb("v-evaluate", "evaluate tiny.rooftrace pairs --split split.json:val",
          ["split.json", "pairs/masks/0.png"]),
    _verb("v-threshold", "threshold tiny.rooftrace pairs -o out.rooftrace",
          ["tiny.rooftrace", "pairs/masks/0.png"]),
    _verb("v-calibrate", "calibrate tiny.rooftrace pairs -o out.rooftrace",
          ["tiny.rooftrace", "pairs/masks/0.png"]),
    _verb("v-ensemble", "ensemble tiny.rooftrace tiny.rooftrace pairs -o out.ensemble.json",
          ["pairs/masks/0.png"]),
    _verb("v-card", "card tiny.rooftrace -o out", ["tiny.rooftrace"]),
    _verb("v-export", "export tiny.rooftrace --to onnx -o out.onnx --check pairs/images",
          ["tiny.rooftrace"]),
    _verb("v-import", "import weights.safetensors -o out.rooftrace --gsd 0.3 --normalise imagenet "
          "--architecture unet --encoder tu-test_resnet "
          "--set options.decoder_channels=[32,16,16,8,8]", ["weights.safetensors"], _trained),
    _verb("v-import-onnx", "import graph.onnx -o out.rooftrace --gsd 0.3 --normalise imagenet "
          "--activation none",
          ["graph.onnx"], _trained),
    _verb("v-runs", "runs runs", ["runs/run/metrics.csv", "runs/run/config.json"], _trained),
    # The length of a training is the user's choice: 65,536 samples are no hang.
    _verb("v-train", "train tiny.toml -o out --set epochs=1 --set samples_per_epoch=16",
          ["tiny.toml", "split.json"], _trained, seconds=120.0),
    _verb("v-finetune", "finetune data -o out -m start.rooftrace --minutes 0.1 --val 0.34",
          ["start.rooftrace"], _trained, seconds=180.0),
    _verb("v-tune", "tune search.toml -o out --trials 1", ["search.toml"], _searched,
          seconds=180.0),
    _verb("v-pull", f"label pull {SERVER} --project 7 --token t0ken -o out",
          ["server/api/projects/7.json", "server/api/projects/7/export.json",
           "server/data/upload/7/0a1b2c3d-chip000.png"],
          _project, serve=_label_studio),
)  # fmt: skip
