"""A real Label Studio server with rooftrace as its ML backend."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from labelstudio_server import TOKEN, Server, needs_server
from PIL import Image

from local_server import serving_app
from overlap import mask_iou
from rooftrace.core.types import GeoGrid
from rooftrace.io.gdal import rasterize
from rooftrace.labels.labelstudio_client import LabelStudio
from rooftrace.labels.labelstudio_export import label_of
from rooftrace.labels.labelstudio_regions import find_regions
from rooftrace.predict.predictor import Predictor, load
from rooftrace.service.service import Service
from town import generate_scene

SHAPE = (256, 320)
GSD_M = 0.3
KEY = "a-key-for-the-backend"
VIEW = (
    '<View><Image name="pic" value="$photo"/><{tag}Labels name="what" toName="pic" smart="true" '
    'rooftrace_gsd_m="0.3"><Label value="Road"/><Label value="Building" background="#c2410c"/>'
    '</{tag}Labels><KeyPointLabels name="point" toName="pic" smart="true">'
    '<Label value="Building" smart="true"/></KeyPointLabels></View>'
)

pytestmark = [pytest.mark.campaign, needs_server]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load()


@pytest.fixture(scope="module")
def backend(_labelstudio: Server) -> Iterator[str]:
    """Run `rooftrace serve --label-studio … --api-key …` without page and map."""
    pytest.importorskip("fastapi")
    from rooftrace.rest.api import create_api
    from rooftrace.rest.labelstudio import labelstudio_router
    from rooftrace.rest.security import LOOPBACK, Security

    service = Service.load()
    router = labelstudio_router(service, url=_labelstudio.url, token=TOKEN)
    app = create_api(service, security=Security(api_key=KEY, hosts=LOOPBACK), routers=[router])
    with serving_app(app) as url:
        yield url


def connected(server: Server, title: str, config: str, url: str, **options: Any) -> tuple[int, int]:
    """Create a project with the backend, and return the ids of both."""
    project = server.call("/api/projects", {"title": title, "label_config": config})["id"]
    body = {
        "project": project, "url": url, "title": "rooftrace", "is_interactive": True,
        "auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": KEY,
    }  # fmt: skip
    return project, server.call("/api/ml", body | options)["id"]


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("chips")
    paths = []
    for seed in range(3):
        paths.append(folder / f"chip {seed} ü.png")
        pixels = generate_scene(seed, SHAPE, GSD_M).image
        Image.fromarray(pixels.transpose(1, 2, 0)).save(paths[-1])
    return paths


def uploaded(server: Server, project: int, chips: list[Path]) -> list[dict[str, Any]]:
    """Create a task for each chip: uploads, and a local file of the server as the last one."""
    client = LabelStudio(server.url, TOKEN)
    references = [
        client.upload(project, chip.name, chip.read_bytes(), "image/png") for chip in chips[:-1]
    ]
    served = server.files / f"of project {project}"
    served.mkdir()
    shutil.copy(chips[-1], served / chips[-1].name)
    client.serve_folder(project, served)
    references.append(f"/data/local-files/?d={served.name}/{chips[-1].name}")
    client.import_tasks(project, [{"data": {"photo": one}} for one in references])
    query = f"/api/tasks?project={project}&fields=all&page_size=50"
    tasks = server.call(query)["tasks"]
    return sorted(tasks, key=lambda task: references.index(task["data"]["photo"]))


def retrieve(server: Server, project: int) -> Any:
    """Retrieve predictions of all tasks, as the data manager does."""
    body = {"selectedItems": {"all": True, "excluded": []}, "project": project}
    path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    return server.call(path, body)


def shown(results: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    regions, others = find_regions(results, "the server")
    assert others == []
    label = label_of([tuple((one, 1) for one in regions)], GeoGrid(SHAPE), "the server")
    return label.read().data == 1


@pytest.mark.parametrize(("tag", "at_least"), [("Brush", 1), ("Polygon", 0.9), ("Rectangle", 0.9)])
def test_predictions_are_those_of_the_model(
    labelstudio: Server, backend: str, predictor: Predictor, chips: list[Path],
    tag: str, at_least: float,
) -> None:  # fmt: skip
    project, number = connected(labelstudio, f"With {tag}", VIEW.replace("{tag}", tag), backend)
    tasks = uploaded(labelstudio, project, chips)
    assert retrieve(labelstudio, project)["processed_items"] == 3
    state = labelstudio.call(f"/api/ml/{number}")
    assert (state["readable_state"], state["error_message"]) == ("Connected", None)
    [version] = labelstudio.call(f"/api/ml/{number}/versions")["versions"]
    assert state["model_version"] == version
    bundle = predictor.bundle
    assert version == f"{bundle.spec.name}-{bundle.sha256[:8]}"
    for task, chip in zip(tasks, chips):
        [prediction] = labelstudio.call(f"/api/predictions?task={task['id']}")
        assert prediction["model_version"] == version
        assert 0 < prediction["score"] <= 1
        own = predictor.predict(chip, gsd_m=GSD_M)
        buildings = len(own.outlines)
        # A building with a hole is still one polygon.
        assert len(prediction["result"]) == (1 if tag == "Brush" else buildings) > 0
        assert {one["from_name"] for one in prediction["result"]} == {"what"}
        assert {tuple(one["value"][f"{tag.lower()}labels"]) for one in prediction["result"]} == {
            ("Building",)
        }
        boxes = rasterize(shapely.envelope(own.outlines.geometry), SHAPE)
        expected = (boxes if tag == "Rectangle" else own.mask.data) == 1
        assert mask_iou(shown(prediction["result"]), expected) >= at_least
        if tag != "Brush":
            scores = sorted(one["score"] for one in prediction["result"])
            assert scores == pytest.approx(sorted(own.outlines.score.tolist()), abs=1e-6)
    # Predictions of this version are not requested again.
    assert retrieve(labelstudio, project)["processed_items"] == 3
    assert len(labelstudio.call(f"/api/predictions?project={project}")) == 3

    # The editor sends this when an annotator places a point with the smart tool.
    task = tasks[0]
    own = predictor.predict(chips[0], gsd_m=GSD_M)
    inside = own.outlines.geometry[0].representative_point()
    point = {
        "id": "one", "type": "keypointlabels", "from_name": "point", "to_name": "pic",
        "original_width": SHAPE[1], "original_height": SHAPE[0], "image_rotation": 0,
        "value": {"x": inside.x / SHAPE[1] * 100, "y": inside.y / SHAPE[0] * 100, "width": 0.3,
                  "keypointlabels": ["Building"]},
    }  # fmt: skip
    path = f"/api/ml/{number}/interactive-annotating"
    said = labelstudio.call(path, {"task": task["id"], "context": {"result": [point]}})
    assert "errors" not in said
    [region] = said["data"]["result"]
    mask = shown([region])
    assert mask[int(inside.y), int(inside.x)]
    assert mask.sum() < (own.mask.data == 1).sum()

    # A point with the Alt key takes a building away; the editor sends both points.
    away = own.outlines.geometry[1].representative_point()
    place = {"x": away.x / SHAPE[1] * 100, "y": away.y / SHAPE[0] * 100}
    other = point | {"id": "two", "value": point["value"] | place}
    points = [point, other, other | {"id": "three", "is_positive": False}]
    said = labelstudio.call(path, {"task": task["id"], "context": {"result": points}})
    assert np.array_equal(shown(said["data"]["result"]), mask)
