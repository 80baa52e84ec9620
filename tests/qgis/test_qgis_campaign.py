"""The QGIS plugin in a real QGIS without a display, with the real command of this environment."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from zipfile import ZipFile

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.features import geometry_mask
from shapely import box
from test_qgis_plugin import FalseServer, load

from local_server import LocalServer, running
from map_servers import TiTiler, titiler
from raster_files import write_geotiff
from tiny_models import write_tiny_bundle
from town import generate_scene

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
# The script qgis_process of Debian adds an option that the program refuses.
QGIS_PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
SIDE_PX = 640


class Qgis(NamedTuple):
    """A QGIS with a profile of its own.

    Args:
        folder: Folder with `scene.tif` and `scene_truth.gpkg`.
        environment: Environment of its processes.
    """

    folder: Path
    environment: dict[str, str]

    def process(self, algorithm: str, **parameters: object) -> tuple[dict[str, Any], str]:
        """Run an algorithm and return its results and the log."""
        assert QGIS_PROCESS is not None
        given = [f"{name}={value}" for name, value in parameters.items()]
        done = subprocess.run(
            [QGIS_PROCESS, "--json", "run", f"rooftrace:{algorithm}", "--", *given],
            env=self.environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        try:
            results = json.loads(done.stdout[done.stdout.index("{") :])["results"]
        except (ValueError, KeyError):
            results = {}
        return results, done.stdout + done.stderr

    def script(self, text: str) -> dict[str, Any]:
        """Run a script in the Python of QGIS and return the JSON that it prints last.

        The script has no profile, and finds the command on PATH.
        """
        path = f"{self.folder / 'bin'}:{self.environment['PATH']}"
        done = subprocess.run(
            ["/usr/bin/python3", "-c", _BEFORE + text],
            env=self.environment | {"PATH": path}, capture_output=True, text=True, check=False,
            timeout=300, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


_BEFORE = """
import json, os, sys
sys.path[:0] = ["/usr/share/qgis/python/plugins", os.environ["QGIS_PLUGINPATH"]]
from qgis.core import *
application = QgsApplication([], False)
application.initQgis()
from processing.core.Processing import Processing
Processing.initialize()
import processing
from processing.gui.Postprocessing import handleAlgorithmResults
from rooftrace_plugin import classFactory
plugin = classFactory(None)
plugin.initProcessing()

def end(**found):
    print(json.dumps(found), flush=True)
    os._exit(0)  # QGIS without a window sometimes crashes while it ends
"""


@pytest.fixture(scope="module")
def qgis(tmp_path_factory: pytest.TempPathFactory) -> Qgis:
    if QGIS_PROCESS is None:
        pytest.skip("QGIS is not installed: apt-get install qgis python3-qgis")
    folder = tmp_path_factory.mktemp("qgis")
    generate_scene(3, shape_yx=(SIDE_PX, SIDE_PX)).write(folder, "scene")
    # The command of this environment, which QGIS finds only by its path.
    tool = folder / "bin" / "rooftrace"
    tool.parent.mkdir()
    python_path = os.environ.get("PYTHONPATH", "")
    tool.write_text(
        f"#!/bin/sh\nexport PYTHONPATH='{python_path}'\n"
        f"exec '{sys.executable}' -m rooftrace \"$@\"\n"
    )
    tool.chmod(0o755)
    settings = folder / "profile" / "profiles" / "default" / "QGIS" / "QGIS3.ini"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        "[PythonPlugins]\nrooftrace_plugin=true\n\n"
        f"[Processing]\nConfiguration\\ROOFTRACE_COMMAND={tool}\n"
    )
    (folder / "run").mkdir(mode=0o700)
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "DISPLAY")
    environment = {name: text for name, text in os.environ.items() if name not in dropped}
    environment |= {
        "QGIS_CUSTOM_CONFIG_PATH": str(folder / "profile"),
        "QGIS_PLUGINPATH": str(ROOT / "qgis"),
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "PATH": "/usr/bin:/bin",
    }
    return Qgis(folder, environment)


@pytest.fixture(scope="module")
def predicted(qgis: Qgis) -> Path:
    """The left half of the scene, predicted by QGIS."""
    with rasterio.open(qgis.folder / "scene.tif") as image:
        left, bottom, right, top = image.bounds
        crs = image.crs.to_string()
    out = qgis.folder / "predicted"
    area = f"{left},{(left + right) / 2},{bottom},{top} [{crs}]"
    results, log = qgis.process(
        "predict", INPUT=qgis.folder / "scene.tif", AREA=area, CELL=10, OUTPUT=out
    )
    assert set(results) == {"BUILDINGS", "COUNT", "DENSITY", "MASK", "OUTPUT"}, log
    buildings = gpd.read_file(results["BUILDINGS"])
    assert results["COUNT"] == len(buildings) > 0
    # Straightened outlines may leave the pixels of the area by a little.
    assert buildings.within(box(left, bottom, (left + right) / 2, top).buffer(1)).all()
    with rasterio.open(results["MASK"]) as mask:
        assert (mask.read(1)[:, SIDE_PX // 2 + 1 :] == 255).all()
        assert (mask.read(1)[:, : SIDE_PX // 2 - 1] == 255).sum() == 0
    with rasterio.open(results["DENSITY"]) as density:
        assert density.res == (10, 10)
    return out


def test_compare(qgis: Qgis, predicted: Path) -> None:
    folder = qgis.folder
    old = gpd.read_file(folder / "scene_truth.gpkg")
    old.assign(EGID=old["id"] + 5000).to_file(folder / "map.gpkg")
    results, log = qgis.process(
        "compare", NEW=predicted / "scene_buildings.gpkg", OLD=folder / "map.gpkg", ID="EGID",
        REFERENCE=True, IMAGERY=folder / "scene.tif", KEEP=1, OUTPUT=folder / "compared",
    )  # fmt: skip
    assert set(results) == {"CONFLATED", "OUTPUT", "REPORT", "STATUSES"}, log
    compared = gpd.read_file(results["STATUSES"])
    assert {*compared.id[compared["side"] == "old"].astype(int)} == {*(old["id"] + 5000)}
    assert {"same", "only in the map"} <= set(compared["status"])
    assert "of the map found one to one" in log


def test_review_with_the_real_server(qgis: Qgis, predicted: Path) -> None:
    tool = str(qgis.folder / "bin" / "rooftrace")
    review = load("review").start_review(tool, predicted, "Ada", lambda: False, {})
    try:
        assert review.refresh() == ([], [])
        total = review.counts["total"]
        first = review.following(None)
        second = review.following(first)
        assert review.change("accept", [first])[0]["status"] == "accepted"
        review.change("reject", [second])
        outlines = gpd.read_file(review.polygons).to_crs(4326).set_index("id").geometry
        corner, *_ = outlines[first].exterior.coords
        ring = [
            (corner[0] + x, corner[1] + y) for x, y in ((0, 0), (9e-5, 0), (9e-5, 9e-5), (0, 0))
        ]
        assert review.change("redraw", [first], ring)[0]["status"] == "changed"
        inside = outlines[first].representative_point()
        clicked = review.click([((inside.x, inside.y), True)])
        assert clicked is None or len(clicked) > 3
        review.undo()
        buildings, _ = review.refresh()
        assert {one["id"]: one["status"] for one in buildings} == {
            first: "accepted", second: "rejected",
        }  # fmt: skip
        assert (review.counts["reviewed"], review.counts["total"]) == (2, total)
        labels = gpd.read_file(review.export())
        assert len(labels) == total - 1
        assert (labels["class"] == "ignore").sum() == total - 2
        with pytest.raises(load("command").RooftraceProblem, match="outline"):
            review.change("add", outline=ring[:3])
    finally:
        review.close()


def test_compare_two_dates(qgis: Qgis, tmp_path: Path) -> None:
    """Compare two images with a model whose probability is the brightness of a pixel."""
    model = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=0.5)
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    files = []
    for name, count in (("new", 8), ("old", 6)):
        image = np.full((3, 200, 320), 5, np.uint8)
        for column in range(count):
            image[:, 60:80, 40 * column + 10 : 40 * column + 26] = 240
        image[:, 120:140, 10:26] = 150  # neither surely a building nor surely none
        files.append(write_geotiff(tmp_path / f"{name}.tif", image, **place))
    results, log = qgis.process(
        "compare", NEW_IMAGE=files[0], OLD_IMAGE=files[1], MODEL=model, THRESHOLD=0.5,
        OUTPUT=tmp_path / "out",
    )  # fmt: skip
    assert set(results) == {"OUTPUT", "REPORT", "STATUSES"}, log
    compared = gpd.read_file(results["STATUSES"])
    assert compared.status.value_counts().to_dict() == {"same": 14, "new": 2}
    assert compared[compared.status == "new"].change_share.min() > 0.9
    # One date is not enough, and a layer is no date.
    _, log = qgis.process(
        "compare", NEW_IMAGE=files[0], OLD=qgis.folder / "scene_truth.gpkg", OUTPUT=tmp_path / "bad"
    )
    assert "“Old buildings”, “Image of the new date” was given. Give either" in log, log


def test_cancel_then_layers_with_styles(qgis: Qgis, predicted: Path) -> None:
    """One QGIS for what needs a project, layers in memory, and a user who cancels."""
    with rasterio.open(qgis.folder / "scene.tif") as image:
        Image.fromarray(np.moveaxis(image.read(), 0, -1)).save(qgis.folder / "plain.png")
    text = """
import subprocess

class Impatient(QgsProcessingFeedback):
    texts = []
    def setProgressText(self, text):
        self.texts.append(text)
        self.cancel()

patient, canceled = QgsProcessingFeedback(), Impatient()
project = QgsProject.instance()
context = QgsProcessingContext()
context.setProject(project)

def run(name, feedback=patient, **parameters):
    algorithm = QgsApplication.processingRegistry().algorithmById("rooftrace:" + name).create()
    results, done = algorithm.run(parameters, context, feedback)
    handleAlgorithmResults(algorithm, context, feedback)
    log = feedback.textLog()
    print(log, file=sys.stderr)
    return results, done, log

class Layer:
    def __init__(self, name):
        self.layer, = project.mapLayersByName(name)
        self.shown = project.layerTreeRoot().findLayer(self.layer.id()).isVisible()

pixels = QgsRasterLayer("plain.png", "plain")
stopped = run("predict", canceled, INPUT="plain.png", GSD=0.3, OUTPUT="plain")
running = subprocess.run(["pgrep", "-f", "[p]redict plain.png -o"], capture_output=True)
left = pixels.extent().width() / 2
run("predict", INPUT=pixels, GSD=0.3, OUTPUTS=[0, 1], OUTPUT="plain",
    AREA=f"0,{left},-300,0")
plain, mask = Layer("plain buildings"), Layer("plain mask")

old = QgsVectorLayer("scene_truth.gpkg", "old", "ogr")
memory = QgsVectorLayer("Polygon?crs=" + old.crs().authid(), "memory", "memory")
memory.dataProvider().addFeatures([QgsFeature(feature) for feature in old.getFeatures()])
for layer in (old, memory):
    project.addMapLayer(layer)
compare, done, log = run("compare", NEW=memory.id(), OLD=old.id(), OUTPUT="in memory")
statuses = Layer("compared buildings")
web = QgsRasterLayer("type=xyz&url=https://tiles.invalid/%7Bz%7D/%7Bx%7D/%7By%7D.png", "w", "wms")
refused = run("predict", QgsProcessingFeedback(), INPUT=web, OUTPUT="web")

manager = QgsApplication.authManager()
manager.setMasterPassword("of the test", True)
login = QgsAuthMethodConfig("Basic")
login.setName("server")
login.setConfig("username", "any")
login.setConfig("password", "KEY")
manager.storeAuthenticationConfig(login)
pixels.setCrs(old.crs())
server = run("predictonserver", QgsProcessingFeedback(), INPUT=pixels, OUTPUT="far",
             SERVER="SERVER-ADDRESS", AUTH=login.id(), MIN_AREA=20)
end(
    stopped=stopped[0], texts=len(canceled.texts), log=stopped[2], running=running.stdout.decode(),
    pixels=plain.layer.extent().toString(2), crs=plain.layer.crs().isValid(),
    count=plain.layer.featureCount(), attribute=plain.layer.renderer().classAttribute(),
    mask=[mask.shown, [one[0] for one in mask.layer.renderer().legendSymbologyItems()]],
    rules=[rule.label() for rule in statuses.layer.renderer().rootRule().children()],
    statuses=sorted({feature["status"] for feature in statuses.layer.getFeatures()}),
    refused=refused, server=server,
)
"""
    with running(LocalServer(FalseServer)) as server:
        found = qgis.script(text.replace("SERVER-ADDRESS", f"{server.url}/refused"))
        body, authorization, path = server.received
    assert found["stopped"] == {}
    assert found["texts"] >= 1
    assert "Stopped. To resume" in found["log"]
    assert found["running"] == ""
    # Polygons in pixels lie upon the image, which QGIS draws below 0; only the area has any.
    left, bottom, right, top = (
        float(number) for corner in found["pixels"].split(" : ") for number in corner.split(",")
    )
    assert 0 <= left < right <= SIDE_PX / 2 + 1
    assert -301 <= bottom < top <= 0
    assert found["count"] > 0
    assert found["crs"] is False
    assert found["attribute"] == 'coalesce("score", -1)'  # a building that was drawn has none
    assert found["mask"] == [False, ["background", "building"]]
    assert {"new, or only found", "same", "moved: old outline"} <= set(found["rules"])
    assert found["statuses"] == ["same"]
    assert found["refused"][1] is False
    assert "“Area”" in found["refused"][2]
    assert found["server"][1] is False
    assert "The key is missing." in found["server"][2]
    assert authorization == "Basic " + base64.b64encode(b"any:KEY").decode()
    assert body.startswith(b"II")  # a GeoTIFF, since a PNG alone has not the CRS of its layer
    assert path.removeprefix("/refused") == (
        "/v1/jobs?filename=plain.tif&min_area=20.0&outputs=polygons&outputs=mask&outputs=density"
    )


def test_layers_count_as_qgis_has_them(qgis: Qgis, predicted: Path) -> None:
    """A CRS that the user set, one layer of a file, edits, and results that are in the project."""
    folder = qgis.folder
    place = rasterio.open(folder / "scene.tif").transform
    houses = gpd.read_file(folder / "scene_truth.gpkg")
    houses.to_file(folder / "bare.shp")
    (folder / "bare.prj").unlink()
    ground = geometry_mask(houses.geometry, (SIDE_PX, SIDE_PX), place)
    heights = np.where(ground, 50, 57).astype(np.float32)
    heights[:20, :20], heights[20:40, :20] = -9999, 0
    write_geotiff(folder / "bare.tif", heights, crs=None, transform=place, nodata=-9999)
    write_geotiff(folder / "flat.tif", np.full_like(heights, 50), crs=houses.crs, transform=place)
    with ZipFile(folder / "flat.zip", "w") as archive:
        archive.write(folder / "flat.tif", "flat.tif")
    shutil.copytree(predicted, folder / "two")
    for name in ("wards", "parcels"):
        gpd.read_file(predicted / "scene_density.gpkg").to_file(folder / "zones.gpkg", layer=name)
        houses.to_file(folder / "two/scene_buildings.gpkg", layer=name)
    text = """
log = QgsProcessingFeedback()
context = QgsProcessingContext()
context.setProject(QgsProject.instance())
houses, dsm = QgsVectorLayer("bare.shp", "houses"), QgsRasterLayer("bare.tif", "dsm")
for layer in (houses, dsm):
    layer.setCrs(QgsCoordinateReferenceSystem("CODE"))
dsm.dataProvider().setUserNoDataValue(1, [QgsRasterRange(0, 0)])
flat = QgsRasterLayer("/vsizip/flat.zip/flat.tif", "flat: ground")
mine = QgsVectorLayer("two/scene_buildings.gpkg|layername=scene_buildings", "mine")
for layer in (houses, dsm, mine, QgsVectorLayer("PREDICTED/scene_buildings.gpkg", "mine")):
    QgsProject.instance().addMapLayer(layer)

def run(name, **parameters):
    algorithm = QgsApplication.processingRegistry().algorithmById("rooftrace:" + name).create()
    results, done = algorithm.run(parameters, context, log)
    return results if done else log.textLog().splitlines()[-1]

temporary = QgsProcessingUtils.tempFolder() + "/a"
tall = run("heights", BUILDINGS=houses, SURFACE=dsm, TERRAIN=flat, PLANES=True, OUTPUT=temporary)
with_mask = log.textLog()
run("compare", NEW=mine.id(), OLD="scene_truth.gpkg", OUTPUT="f")
with_mask = log.textLog()[len(with_mask):]
mine.selectByIds([1])
some = run("heights", BUILDINGS=QgsProcessingFeatureSourceDefinition(mine.id(), True), SURFACE=flat,
           OUTPUT="g")["HEIGHTS"]
layers = [list(QgsVectorLayer(tall[name]).getFeatures()) for name in ("HEIGHTS", "ROOF_PLANES")]
zones = run("density", BUILDINGS="scene_truth.gpkg", ZONES="zones.gpkg|layername=wards", OUTPUT="d")
reasons = [run("predict", INPUT=image, **more) for image, more in (
    (QgsRasterLayer("bare.tif"), {"OUTPUT": "b"}), ("scene.tif", {"GSD": 50, "OUTPUT": "c"}),
    ("scene.tif", {"OUTPUT": "PREDICTED"}))]
houses.startEditing()
houses.deleteFeature(0)
end(
    reasons=[*reasons, run("density", BUILDINGS=houses, OUTPUT="e")], log=log.textLog(),
    crs=QgsVectorLayer(tall["HEIGHTS"]).crs().authid(), places=zones["PLACES"],
    vrt=open(temporary + "/surface/bare.vrt").read(), some=some, with_mask=with_mask,
    heights=[one["height"] for one in layers[0]], slopes=[one["slope_deg"] for one in layers[1]],
)
"""
    text = text.replace("CODE", str(houses.crs)).replace("PREDICTED", str(predicted))
    found = qgis.script(text)
    assert (found["crs"], len(found["heights"])) == (houses.crs, len(houses))
    assert (np.median(found["heights"]), max(found["slopes"]) < 1) == (7, True)
    assert gpd.read_file(found["places"])["built_up_share"].between(0.3, 1).any()
    parts = ("no coordinate system. Set it", "“Metres per pixel”", "is the layer mine", "not saved")
    for part, reason in zip(parts, found["reasons"], strict=True):
        assert part in reason
        assert "--gsd" not in reason
    assert "QGIS deletes" in found["log"]
    (folder / "bare.vrt").write_text(found["vrt"])
    with rasterio.open(folder / "bare.vrt") as file:
        assert file.read(1, masked=True).count() == SIDE_PX**2 - 800
    # The mask beside a whole layer counts, and that beside a selection does not.
    assert "scene_mask.tif" in found["with_mask"]
    assert (Path(found["some"]).name, len(gpd.read_file(found["some"]))) == ("mine_heights.gpkg", 1)
    assert "scene_mask.tif, which says which ground was seen, does not count" in found["log"]


def test_a_web_layer_has_the_buildings_of_its_image(qgis: Qgis) -> None:
    """A WMTS layer, which the command reads; and with a referer, so that QGIS draws it."""
    image = qgis.folder / "scene.tif"
    text = """
found = {}
image = QgsRasterLayer("scene.tif")
area = QgsReferencedRectangle(image.extent().buffered(-20), image.crs())
QgsProject.instance().setCrs(image.crs())
for name, more in (("read", ""), ("drawn", "http-header:referer=a&")):
    layer = QgsRasterLayer(more + "crs=EPSG:3857&format=image/png&layers=LAYER&styles=LAYER"
        "&tileMatrixSet=WebMercatorQuad&url=SERVICE", name, "wms")
    assert layer.isValid(), layer.error().message()
    found[name] = processing.run(
        "rooftrace:predict", dict(INPUT=layer, AREA=area, OUTPUTS=[0], OUTPUT=name))["BUILDINGS"]
found["file"] = processing.run(
    "rooftrace:predict", dict(INPUT="scene.tif", AREA=area, OUTPUTS=[0], OUTPUT="f"))["BUILDINGS"]
end(**found)
"""
    with titiler() as base:
        name = f"{image}_WebMercatorQuad_default"
        service = quote(TiTiler(base, image).wmts, safe="")
        files = qgis.script(text.replace("LAYER", name).replace("SERVICE", service))
    layers = {name: gpd.read_file(file).to_crs(32736) for name, file in files.items()}
    assert (qgis.folder / "drawn" / "image.tif").is_file()
    assert not (qgis.folder / "read" / "image.tif").is_file()
    expected = layers.pop("file").union_all()
    for layer in layers.values():
        found = layer.union_all()
        assert expected.intersection(found).area > 0.9 * expected.union(found).area


def test_panel_draws_reviews_and_explains(qgis: Qgis, tmp_path: Path) -> None:
    """Run the panel with a false server of reviews; CI does so in the images of QGIS, too."""
    done = subprocess.run(
        ["/usr/bin/python3", str(Path(__file__).with_name("panel_in_qgis.py"))], timeout=300,
        env=qgis.environment, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "the panel works in QGIS" in done.stdout, done.stderr
