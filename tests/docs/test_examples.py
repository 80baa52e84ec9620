"""Every example of the README and of docs/ runs, and prints what the page says it prints."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import geopandas as gpd
import pytest
import rasterio
from shapely import box
from typer.main import get_command

import rooftrace
from rooftrace.cli import app, main
from rooftrace.core.config import parse_config
from rooftrace.testing import generate_scene, write_pairs
from rooftrace.testing.scene import write_tif

ROOT = Path(__file__).parents[2]
# In this order, since a page may use what the page before it has made; all others follow.
FIRST = ["data", "convert", "training", "augmentation", "tuning", "refinement", "touching",
         "recipes", "prediction", "ensembles", "evaluation", "vectorize", "bundle", "rle",
         "labelstudio", "footprints", "density", "contest", "results", "audit"]  # fmt: skip
ORDERED = [f"docs/{name}.md" for name in FIRST]
TUTORIALS = [f"docs/tutorials/{path.name}" for path in sorted(ROOT.glob("docs/tutorials/*.md"))]
SERVICE = "docs/tutorials/service.md"
OTHERS = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")}
PAGES = [*ORDERED, *sorted(OTHERS - {*ORDERED, *TUTORIALS}), "README.md"]

# Real enough to run, small enough to wait for.
QUICK = ["epochs=1", "samples_per_epoch=4", "batch_size=2", "crop_px=64", "val_tiles=2",
         "model.encoder=tu-test_resnet", "model.encoder_weights=none"]  # fmt: skip
# Done by CI itself, or by the person who measures.
ELSEWHERE = ("make ", "pip ", "python bench/", "python recipes/", "git ", "rooftrace label ",
             "mkdocs ", "pre-commit ")  # fmt: skip


def steps(page: str) -> list[tuple[str, str, str]]:
    """Blocks of a page in order: the line before each, its language, what it holds."""
    text = (ROOT / page).read_text(encoding="utf-8")
    form = r"^([^\n]*)\n+^```(\w+)\n(.*?)^```"
    return re.findall(form, text, flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [block for _, kind, block in steps(page) if kind == language]


def commands(block: str) -> list[str]:
    """The lines of a block that run here."""
    lines = block.splitlines()
    return [line for line in lines if line and not line.startswith((*ELSEWHERE, "#", "export "))]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs")
    write_pairs(folder / "data", seeds=range(10), shape_yx=(128, 128))
    generate_scene(3, shape_yx=(256, 256)).write(folder, "scene")
    write_wards(folder)
    write_scenes(folder)
    (folder / "train.toml").write_text(blocks("docs/training.md", "toml")[0], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def write_wards(folder: Path) -> None:
    """What docs/density.md counts by, and labels of the masks in data/."""
    with rasterio.open(folder / "scene.tif") as scene:
        left, bottom, right, top = scene.bounds
        middle = (left + right) / 2
        halves = [box(left, bottom, middle, top), box(middle, bottom, right, top)]
        wards = gpd.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=scene.crs)
    wards.to_file(folder / "wards.gpkg")
    wards[:1].to_file(folder / "area.geojson")
    masks = sorted((folder / "data" / "masks").iterdir())
    rows = [f"{path.name},{('sparse', 'dense')[number % 2]}" for number, path in enumerate(masks)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")


def write_scenes(folder: Path) -> None:
    """What docs/catalogue.md names: two scenes in every form."""
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
    gpd.GeoDataFrame({"location": paths}, geometry=bounds, crs=4326).to_parquet(
        folder / "scenes.parquet"
    )
    items = [
        {"type": "Feature", "id": path, "bbox": list(place.bounds),
         "assets": {"visual": {"href": path, "type": "image/tiff"}}}
        for path, place in zip(paths, bounds)
    ]  # fmt: skip
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))


def run(command: str) -> None:
    arguments = shlex.split(command, comments=True)
    assert arguments[0] == "rooftrace", command
    if arguments[1] == "train":
        arguments += [part for setting in QUICK for part in ("--set", setting)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments[1:])
    assert stopped.value.code == 0, command


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str, sandbox: Path) -> None:
    for block in blocks(page, "bash"):
        for line in commands(block):
            run(line)


@pytest.mark.parametrize("page", PAGES)
def test_python(page: str, sandbox: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), {"rooftrace": rooftrace})


@pytest.mark.parametrize("page", [page for page in TUTORIALS if page != SERVICE])
def test_tutorials(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From nothing to the end, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    told = ""
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
            told = "".join(capsys.readouterr())
        elif kind == "text" and told:
            check_shown(page, block, told)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a running `rooftrace serve`."""
    pytest.importorskip("gradio")
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
        except OSError:  # not ready is an HTTPError, which is one
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def test_the_tutorial_of_the_service(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    told, asked = "", 0
    for _, kind, block in steps(SERVICE):
        block = block.replace("http://127.0.0.1:8000", server)
        if kind == "python":
            capsys.readouterr()
            exec(compile(block, SERVICE, "exec"), {})
            told = capsys.readouterr().out
        elif kind == "console" and block.startswith("$ curl") and shutil.which("curl"):
            first, *shown = block.splitlines()
            done = subprocess.run(shlex.split(first[2:]), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            asked += 1
            if shown:
                (line,) = shown
                assert done.stdout.startswith(line.partition(" …")[0]), done.stdout
        elif kind == "text":
            check_shown(SERVICE, block, told)
    assert asked == 2 or not shutil.which("curl")
    if asked:
        found = json.loads(Path("buildings.geojson").read_text(encoding="utf-8"))
        assert f"holds {len(found['features'])} buildings" in (ROOT / SERVICE).read_text("utf-8")


def check_shown(page: str, shown: str, told: str) -> None:
    """Each line that a page shows is, but for its figures, among those that were printed."""
    lines = {shape(line) for line in told.splitlines()}
    for line in shown.splitlines():
        assert shape(line) in lines, f"{page} shows {line!r}, but there is\n{told}"


def shape(line: str) -> str:
    """A line without its figures, which are of the run that the page is of."""
    return " ".join(re.sub(r"[-+−]?\d[\d.,]*", "#", line).split())


def annotate() -> None:
    """What docs/tutorials/label-team.md pulls: true labels of its chips, as the server has them."""
    for number in range(24):
        place = (500_000 + 200 * number, 9_320_000)
        scene = generate_scene(300 + number, (320, 320), 0.3, origin_xy=place)
        for kind, pixels in (("images", scene.image), ("masks", scene.mask()[None] * 255)):
            folder = Path("drawn", kind)
            folder.mkdir(parents=True, exist_ok=True)
            write_tif(folder / f"chip_{number:02d}.tif", pixels, scene.grid)
    run("rooftrace convert drawn --to labelstudio -o labels/tasks.json")
    card = 'path = "tasks.json"\nkind = "labelstudio"\nimages = "../chips"\n'
    Path("labels", "rooftrace.toml").write_text(card, encoding="utf-8")


def test_every_tutorial_is_here() -> None:
    assert len(TUTORIALS) == 5
    for page in TUTORIALS:
        assert steps(page), page


def test_a_search_space(tmp_path: Path) -> None:
    from rooftrace.train.tune.config import read_tuning

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
    """Options of each verb, by its words."""
    known = {}
    for name, command in get_command(app).commands.items():
        below = getattr(command, "commands", {})
        for words, one in [(name, command)] + [(f"{name} {sub}", c) for sub, c in below.items()]:
            options = {o for p in one.params for o in (*p.opts, *p.secondary_opts)}
            known[words] = {"--help", *options}
    return known


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS, "bench/README.md"])
def test_every_verb_and_option_that_a_page_names_exists(page: str) -> None:
    """In blocks that do not run here, too, and in the text."""
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
