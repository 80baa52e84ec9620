"""Every example of the README and of docs/ runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio
from shapely import box

import rooftrace
from rooftrace.cli import main
from rooftrace.core.config import parse_config
from rooftrace.testing import generate_scene, write_pairs

ROOT = Path(__file__).parents[2]
# In this order: a page may use what the page before it has made.
PAGES = ["docs/data.md", "docs/convert.md", "docs/training.md", "docs/augmentation.md",
         "docs/tuning.md", "docs/refinement.md", "docs/touching.md", "docs/recipes.md",
         "docs/prediction.md", "docs/ensembles.md", "docs/evaluation.md", "docs/vectorize.md",
         "docs/bundle.md", "docs/rle.md", "docs/labelstudio.md", "docs/footprints.md",
         "docs/density.md", "docs/contest.md", "docs/results.md",
         "docs/audit.md",
         "README.md"]  # fmt: skip

# Real enough to run, small enough to wait for.
QUICK = ["epochs=1", "samples_per_epoch=4", "batch_size=2", "crop_px=64", "val_tiles=2",
         "model.encoder=tu-test_resnet", "model.encoder_weights=none"]  # fmt: skip
# Done by CI itself, or by the person who measures.
ELSEWHERE = ("make ", "pip ", "python bench/", "python recipes/", "git ", "rooftrace label ")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs")
    write_pairs(folder / "data", seeds=range(10), shape_yx=(128, 128))
    generate_scene(3, shape_yx=(256, 256)).write(folder, "scene")
    write_wards(folder)
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
        for line in block.splitlines():
            if line and not line.startswith((*ELSEWHERE, "#", "export ")):
                run(line)


@pytest.mark.parametrize("page", PAGES)
def test_python(page: str, sandbox: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), {"rooftrace": rooftrace})


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
