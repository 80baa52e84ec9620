"""Every example of the README and of docs/ runs and prints the output that the page shows."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from shapely import box

import rooftrace
from data_set_samples import xbd
from label_samples import yolo_roboflow
from pages import blocks, check_shown, steps
from raster_files import write_geotiff
from rooftrace.cli import main
from rooftrace.cli.commands import COMMANDS, load_command
from rooftrace.core.config import parse_config
from rooftrace.io.web_mercator import TileName
from town import generate_scene, write_pairs
from town.scene import write_tif

ROOT = Path(__file__).parents[2]
# The order matters, because a page may use results of an earlier page; all other pages follow.
FIRST = ["data", "convert", "training", "augmentation", "tuning", "refinement", "touching",
         "recipes", "prediction", "ensembles", "evaluation", "vectorize", "bundle", "rle",
         "labelstudio", "footprints", "density", "contest", "results", "audit"]  # fmt: skip
ORDERED = [f"docs/{name}.md" for name in FIRST]
TUTORIALS = [f"docs/tutorials/{path.name}" for path in sorted(ROOT.glob("docs/tutorials/*.md"))]
SERVICE = "docs/tutorials/service.md"
LOOP = "docs/tutorials/labelling-loop.md"
"""Tutorial that a test in tests/contract runs against a Label Studio server."""

OTHERS = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")}
PAGES = [*ORDERED, *sorted(OTHERS - {*ORDERED, *TUTORIALS}), "README.md"]

# Settings that make the examples short enough for a test.
QUICK = ["epochs=1", "samples_per_epoch=4", "batch_size=2", "crop_px=64", "val_tiles=2",
         "model.encoder=tu-test_resnet", "model.encoder_weights=none"]  # fmt: skip
# Commands that CI or a person runs.
ELSEWHERE = ("make ", "pip ", "python bench/", "python recipes/", "git ", "rooftrace label ",
             "mkdocs ", "pre-commit ")  # fmt: skip


def commands(block: str) -> list[str]:
    """Return the lines of a block that run here."""
    lines = block.splitlines()
    return [line for line in lines if line and not line.startswith((*ELSEWHERE, "#", "export "))]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs")
    write_sandbox(folder)
    write_foreign_models(folder)
    if find_spec("transformers"):
        from sam_models import save_tiny

        save_tiny(folder / "weights" / "sam2", "sam2")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Many pages begin with what docs/prediction.md makes.
        run("rooftrace predict scene.tif -o out")
        yield folder


def write_sandbox(folder: Path) -> None:
    """Write the files that the pages name, except those of other programs."""
    write_pairs(folder / "data", seeds=range(10), shape_yx=(128, 128))
    write_pairs(folder / "elsewhere", seeds=range(50, 55), shape_yx=(64, 64))
    generate_scene(3, shape_yx=(256, 256)).write(folder, "scene")
    generate_scene(4, shape_yx=(256, 256)).write(folder, "scene_2021")
    write_wards(folder)
    write_heights(folder)
    write_tiles(folder / "tiles")
    write_scenes(folder)
    yolo_roboflow(folder / "my-export")
    xbd(folder)
    (folder / "train.toml").write_text(blocks("docs/training.md", "toml")[0], encoding="utf-8")


def write_tiles(folder: Path) -> None:
    """Write the slippy tiles of docs/footprints.md, 2 by 2, with a building in each."""
    tiles = [TileName(19, row, col) for row in (261_610, 261_611) for col in (309_606, 309_607)]
    for number, tile in enumerate(tiles):
        path = folder / "images" / f"{tile}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((256, 256, 3), 60 + 40 * number, np.uint8)).save(path)
    houses = [box(left + 9, low + 9, left + 30, low + 20) for left, low, _, _ in
              (tile.bounds_xy for tile in tiles)]  # fmt: skip
    frame = gpd.GeoDataFrame(geometry=houses, crs=3857).to_crs(4326)
    frame.to_file(folder / "labels.geojson")


def write_wards(folder: Path) -> None:
    """Write the zones of docs/density.md, and labels of the masks in data/."""
    with rasterio.open(folder / "scene.tif") as scene:
        left, bottom, right, top = scene.bounds
        middle = (left + right) / 2
        halves = [box(left, bottom, middle, top), box(middle, bottom, right, top)]
        wards = gpd.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=scene.crs)
    wards.to_file(folder / "wards.gpkg")
    wards.assign(counted=[20, 25]).to_file(folder / "squares.gpkg")
    wards[:1].to_file(folder / "area.geojson")
    wards.boundary.to_frame("geometry").to_file(folder / "lines.gpkg")
    wards[:1].buffer(-20).to_frame("geometry").to_file(folder / "clouds.gpkg")
    (folder / "people.csv").write_text("name,people\nwest,120\neast,90\n")
    lon, lat = wards.to_crs(4326).geometry[0].centroid.coords[0]
    rows = [f"000,{lat},{lon}", f"001,{lon},{lat}", "002,0,0", "003,,"]
    (folder / "addresses.csv").write_text("\n".join(["policy,lat,lon", *rows]))
    (folder / "field.csv").write_text(f"lon,lat,grade\n{lon},{lat},5\n")
    masks = sorted((folder / "data" / "masks").iterdir())
    rows = [f"{path.name},{('sparse', 'dense')[number % 2]}" for number, path in enumerate(masks)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")


def write_heights(folder: Path) -> None:
    """Write the buildings of docs/heights.md, their surface and terrain, and points of these."""
    import laspy

    town = generate_scene(3, shape_yx=(256, 256))
    crs, shape = town.grid.crs, town.grid.shape
    gpd.GeoDataFrame(geometry=list(town.buildings), crs=crs).to_file(folder / "buildings.gpkg")
    terrain = np.full(shape, 20.0, np.float32)
    surface = terrain + 6 * (town.mask() == 1)
    for name, heights in (("dsm", surface), ("dtm", terrain)):
        write_geotiff(folder / f"{name}.tif", heights, crs=crs, transform=town.grid.transform)
    rows, cols = np.indices(shape).reshape(2, -1)
    points = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    points.x, points.y = town.grid.to_world(cols + 0.5, rows + 0.5)
    points.z = surface.ravel()
    points.return_number = points.number_of_returns = np.ones(len(rows), np.uint8)
    (folder / "scans").mkdir()
    points.write(folder / "scans" / "tile.laz")


def skip_without_extra(page: str) -> None:
    if page == "docs/sam.md":
        pytest.importorskip("transformers")


def execute(block: str, page: str) -> None:
    """Run a block of Python."""
    with warnings.catch_warnings():
        # The exporter of PyTorch uses what PyTorch itself is about to change.
        warnings.simplefilter("ignore", FutureWarning)
        exec(compile(block, page, "exec"), {"rooftrace": rooftrace})


def write_foreign_models(folder: Path) -> None:
    """Write the files that docs/bundle.md imports, as the page itself does."""
    (block,) = [block for block in blocks("docs/bundle.md", "python") if "torch.save" in block]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        execute(block, "docs/bundle.md")


def write_scenes(folder: Path) -> None:
    """Write the inputs of docs/catalogue.md: two scenes in every form."""
    paths, bounds = [], []
    for number, name in enumerate(("west", "east")):
        place = (524_000.0 + 60 * number, 9_318_000.0)
        scene = generate_scene(number, shape_yx=(256, 256), origin_xy=place)
        (folder / "scenes" / name).mkdir(parents=True)
        path, _ = scene.write(folder / "scenes" / name, name)
        paths.append(path.relative_to(folder).as_posix())
        with rasterio.open(path) as image:
            bounds.append(gpd.GeoSeries([box(*image.bounds)], crs=image.crs).to_crs(4326)[0])
    (folder / "scenes.txt").write_text("\n".join(paths))
    items = [
        {"type": "Feature", "id": path, "bbox": list(place.bounds),
         "assets": {"visual": {"href": path, "type": "image/tiff"}}}
        for path, place in zip(paths, bounds)
    ]  # fmt: skip
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    links = []
    for number, item in enumerate(items):
        link = {"rel": "item", "href": f"item_{number}.json"}
        href = f"../{paths[number]}"
        item |= {"properties": {"datetime": "2024-06-01T10:00:00Z"}, "links": [],
                 "assets": {"visual": {"href": href, "type": "image/tiff"}}}  # fmt: skip
        (folder / "stac").mkdir(exist_ok=True)
        (folder / "stac" / link["href"]).write_text(json.dumps(item))
        links.append(link)
    catalog = {"type": "Catalog", "stac_version": "1.1.0", "id": "town", "links": links}
    (folder / "stac" / "catalog.json").write_text(json.dumps(catalog))


def run(command: str) -> None:
    arguments = shlex.split(command, comments=True)
    assert arguments[0] == "rooftrace", command
    if arguments[1] == "train":
        arguments += [part for setting in QUICK for part in ("--set", setting)]
    if arguments[1] == "finetune":
        arguments += ["--minutes", "0.2", "--config", "epochs=1", "--config", "samples_per_epoch=4",
                      "--config", "batch_size=2"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(arguments[1:])
    assert stopped.value.code == 0, command


@pytest.mark.campaign
@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str, sandbox: Path) -> None:
    skip_without_extra(page)
    for block in blocks(page, "bash"):
        for line in commands(block):
            run(line)


@pytest.mark.campaign
@pytest.mark.parametrize("page", PAGES)
def test_python(page: str, sandbox: Path) -> None:
    skip_without_extra(page)
    for block in blocks(page, "python"):
        execute(block, page)


@pytest.mark.campaign
@pytest.mark.parametrize("page", [page for page in TUTORIALS if page not in (SERVICE, LOOP)])
def test_tutorials(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run all steps of a tutorial in an empty folder."""
    monkeypatch.chdir(tmp_path)
    printed = ""
    for before, kind, block in steps(page):
        if kind == "python":
            exec(compile(block, page, "exec"), {})
        elif kind == "toml":
            (name,) = re.findall(r"`(\w+\.toml)`", before)
            Path(name).write_text(block, encoding="utf-8")
        elif kind == "bash":
            if "rooftrace label pull" in block:
                annotate()
            capsys.readouterr()
            for line in commands(block):
                run(line)
            printed = "".join(capsys.readouterr())
        elif kind == "text" and printed:
            check_shown(page, block, printed)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a running `rooftrace serve`."""
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "rooftrace", "serve", "--port", "0", "--json",
               "--jobs", str(tmp_path / "jobs")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["url"]
            wait_until_ready(address)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urlopen(f"{address}/readyz", timeout=10).close()
        except OSError:  # a server that is not ready raises HTTPError, an OSError
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


@pytest.mark.campaign
def test_the_tutorial_of_the_service(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed, asked = "", 0
    for _, kind, block in steps(SERVICE):
        block = block.replace("http://127.0.0.1:8000", server)
        if kind == "python":
            capsys.readouterr()
            exec(compile(block, SERVICE, "exec"), {})
            printed = capsys.readouterr().out
        elif kind == "console" and block.startswith("$ curl") and shutil.which("curl"):
            first, *shown = block.splitlines()
            done = subprocess.run(shlex.split(first[2:]), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            asked += 1
            if shown:
                (line,) = shown
                assert done.stdout.startswith(line.partition(", …")[0]), done.stdout
        elif kind == "text":
            check_shown(SERVICE, block, printed)
    assert asked == 3 or not shutil.which("curl")
    if asked:
        found = json.loads(Path("buildings.geojson").read_text(encoding="utf-8"))
        shown = re.search(r"holds about (\d+) buildings", (ROOT / SERVICE).read_text("utf-8"))
        assert shown is not None
        # Outlines differ a little from processor to processor, and from build to build.
        assert len(found["features"]) == pytest.approx(int(shown[1]), rel=0.03)


def annotate() -> None:
    """Write the labels that docs/tutorials/label-team.md pulls from the server."""
    for number in range(24):
        place = (500_000 + 200 * number, 9_320_000)
        scene = generate_scene(300 + number, (320, 320), 0.3, origin_xy=place)
        for kind, pixels in (
            ("chips", scene.image),
            ("drawn/images", scene.image),
            ("drawn/masks", scene.mask()[None] * 255),
        ):
            Path(kind).mkdir(parents=True, exist_ok=True)
            write_tif(Path(kind, f"chip_{number:02d}.tif"), pixels, scene.grid)
    run("rooftrace convert drawn --to labelstudio -o labels/tasks.json")
    card = 'path = "tasks.json"\nkind = "labelstudio"\nimages = "../chips"\n'
    Path("labels", "rooftrace.toml").write_text(card, encoding="utf-8")


def test_every_tutorial_is_here() -> None:
    assert len(TUTORIALS) == 6
    assert LOOP in TUTORIALS
    for page in TUTORIALS:
        assert steps(page), page


def test_a_search_space(tmp_path: Path) -> None:
    from rooftrace.train.tune_space import read_tuning

    (block,) = blocks("docs/tuning.md", "toml")
    path = tmp_path / "search.toml"
    path.write_text(block + '[data]\nsplit = "split.json"\ntrain = [{ path = "data" }]\n')
    assert len(read_tuning(path).space.parameters) == 4


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/tuning.md"])
def test_configurations(page: str) -> None:
    from rooftrace.train.config import TrainConfig

    for block in blocks(page, "toml"):
        raw = tomllib.loads(block)
        data = raw.setdefault("data", {})
        data.setdefault("train", [{"path": "data"}])
        if "val" not in data:
            data.setdefault("split", "split.json")
        parse_config(raw, TrainConfig, source=page)


def test_every_recipe_is_a_configuration() -> None:
    from rooftrace.train.config import TrainConfig

    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    assert recipes
    for recipe in recipes:
        parse_config(tomllib.loads(recipe.read_text()), TrainConfig, source=recipe.name)


def verbs() -> dict[str, set[str]]:
    """Return the options of each verb, by its words."""
    known = {}
    for name in COMMANDS:
        command = load_command(name)
        below = getattr(command, "commands", {})
        for words, one in [(name, command)] + [(f"{name} {sub}", c) for sub, c in below.items()]:
            options = {o for p in one.params for o in (*p.opts, *p.secondary_opts)}
            known[words] = {"--help", "--help-all", *options}
    return known


@pytest.mark.campaign
@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS, "bench/README.md"])
def test_every_verb_and_option_that_a_page_names_exists(page: str) -> None:
    """The check includes blocks that do not run here, and the text."""
    known = verbs()
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    form = r"rooftrace ((?:label )?[a-z]+)\b([^`\n]*)"
    named = re.findall(rf"^(?:\$ )?{form}", "\n".join(fenced), re.MULTILINE)
    named += re.findall(rf"(?:^ {{4,}}|`){form}", text, re.MULTILINE)
    for verb, rest in named:
        assert verb in known, f"{page}: rooftrace {verb}"
        options = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest.split(" #")[0])
        for option in options:
            assert option in known[verb], f"{page}: rooftrace {verb} {option}"
