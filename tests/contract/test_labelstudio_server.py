"""A real Label Studio server: pushed to, annotated over REST, pulled from."""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from labelstudio_server import ENVIRONMENT, TOKEN, Server, needs_server

from command_line import call
from overlap import mask_iou
from rooftrace.core.types import Footprints, GeoGrid
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.labelstudio import predictions
from rooftrace.labels.labelstudio_export import label_of
from rooftrace.labels.labelstudio_regions import decode_alpha, encode_brush, find_regions
from rooftrace.predict.predictor import load
from rooftrace.vector.trace import trace
from town import generate_scene, write_pairs

SHAPE = (256, 320)

pytestmark = [pytest.mark.campaign, needs_server]


def run(*arguments: object) -> dict[str, Any]:
    """Run a command that succeeds and return its JSON answer."""
    code, answer = call(*arguments)
    assert code == 0, answer
    return answer


def result(tool: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"one-{tool}", "from_name": tool, "to_name": "image", "type": f"{tool}labels",
        "original_height": SHAPE[0], "original_width": SHAPE[1], "image_rotation": 0,
        "value": value | {f"{tool}labels": ["building"]},
    }  # fmt: skip


def polygons_of(mask: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    traced = trace(mask)
    count = len(traced)
    found = Footprints(traced.polygons, np.ones(count, np.float32), np.full(count, np.nan), None)
    [prediction] = predictions(found, GeoGrid(SHAPE), "building", "none")
    return list(prediction["result"])


def test_pushed_annotated_and_pulled(labelstudio: Server, tmp_path: Path) -> None:
    data = tmp_path / "data"
    names = write_pairs(data, range(5), shape_yx=SHAPE, gsd_m=0.3, prefix="häuser é")
    pushed = run("label", "push", labelstudio.url, str(data), "--project", "Häuser <1>")
    assert (pushed["created"], pushed["pushed"], pushed["skipped"]) == (True, names, [])
    number = pushed["project"]
    assert pushed["url"] == f"{labelstudio.url}/projects/{number}"

    # The server has our predictions on the tasks, and they are those of the model.
    query = f"/api/tasks?project={number}&fields=all&page_size=50"
    tasks = {task["data"]["scene_id"]: task for task in labelstudio.call(query)["tasks"]}
    assert sorted(tasks) == names
    predictor = load()
    shown = 0
    for name, task in tasks.items():
        [prediction] = labelstudio.call(f"/api/predictions?task={task['id']}")
        assert prediction["model_version"] == predictor.bundle.version
        assert 0 < prediction["score"] <= 1
        shown += len(prediction["result"])
        regions, _ = find_regions(prediction["result"], name)
        drawn = label_of([tuple((one, 1) for one in regions)], GeoGrid(SHAPE), name).read()
        own = predictor.predict(data / "images" / f"{name}.tif")
        # Outlines are straightened, and specks left out: nearly the mask.
        assert mask_iou(drawn.data == 1, own.mask.data == 1) > 0.9
    assert shown == pushed["buildings"] > 0

    # Three of the tasks get a label each, by polygon, brush and rectangle.
    truths = [generate_scene(seed, SHAPE, 0.3).mask().astype(bool) for seed in range(5)]
    box = np.zeros(SHAPE, dtype=bool)
    box[64:128, 80:240] = True
    corner = {"x": 25.0, "y": 25.0, "width": 50.0, "height": 25.0, "rotation": 0}
    rle = {"format": "rle", "rle": list(encode_brush(truths[1]))}
    by_task = {
        names[0]: polygons_of(truths[0]),
        names[1]: [result("brush", rle)],
        names[2]: [result("rectangle", corner)],
        names[3]: [],
    }
    for name, results in by_task.items():
        labelstudio.call(f"/api/tasks/{tasks[name]['id']}/annotations", {"result": results})

    out = tmp_path / "pulled"
    pulled = run("label", "pull", labelstudio.url, "--project", "Häuser <1>", "-o", str(out))
    assert pulled == {
        "path": str(out), "tasks": 5, "annotated": 4, "downloaded": 5, "notes": []
    }  # fmt: skip
    for options in ({}, {"images": str(data)}):
        source = open_source(SourceConfig(path=str(out), **options))
        assert source.ids == tuple(names[:4])
        assert [entry.id for entry in source.unlabelled] == names[4:]
        masks = []
        for scene in source:
            assert scene.label is not None
            assert scene.gsd_m == pytest.approx(0.3, rel=1e-3)
            assert (scene.image.grid.crs is not None) == bool(options)
            mask = scene.label.read()
            assert mask.valid.all()
            masks.append(mask.data == 1)
        assert mask_iou(masks[0], truths[0]) >= 0.99
        assert mask_iou(masks[1], truths[1]) == 1.0
        assert mask_iou(masks[2], box) == 1.0
        assert not masks[3].any()

    # What is there is neither pushed nor downloaded again.
    again = run("label", "push", labelstudio.url, str(data), "--project", str(number))
    assert (again["created"], again["pushed"], again["skipped"]) == (False, [], names)
    options = ["--images", str(data), "-o", str(tmp_path / "only.json")]
    only = run("label", "pull", labelstudio.url, "--project", str(number), *options)
    assert (only["downloaded"], only["annotated"]) == (0, 4)

    # JSON-MIN of the same server says the same.
    query = f"/api/projects/{number}/export?exportType=JSON_MIN&download_all_tasks=true"
    short = tmp_path / "min.json"
    short.write_text(json.dumps(labelstudio.call(query)), encoding="utf-8")
    small = open_source(SourceConfig(path=str(short), images=str(data)))
    assert small.ids == tuple(names[:4])
    for scene, mask in zip(small, masks):
        assert scene.label is not None
        assert np.array_equal(scene.label.read().data == 1, mask)


def test_the_next_images_open_in_their_order(labelstudio: Server, tmp_path: Path) -> None:
    data = tmp_path / "data"
    names = write_pairs(data, range(7, 12), shape_yx=SHAPE, gsd_m=0.3, prefix="next")
    images = str(data / "images")
    start = ["label", "next", images, "--push", labelstudio.url, "--project", "Next"]
    first = run(*start, "-n", "2")
    chosen = [one["id"] for one in first["chosen"]]
    assert (first["push"]["pushed"], first["push"]["created"], first["labelled"]) == (
        chosen,
        True,
        0,
    )
    project = labelstudio.call(f"/api/projects/{first['push']['project']}")
    assert project["sampling"] == "Sequential sampling"
    second = run(*start, "-n", "2")
    later = [one["id"] for one in second["chosen"]]
    assert (second["labelled"], second["push"]["created"]) == (2, False)
    assert {*chosen, *later} <= set(names)
    assert len({*chosen, *later}) == 4
    # The server opens tasks by their numbers, which follow the order of the push.
    query = f"/api/tasks?project={project['id']}&fields=all&page_size=50"
    tasks = sorted(labelstudio.call(query)["tasks"], key=lambda task: int(task["id"]))
    assert [task["data"]["scene_id"] for task in tasks] == [*chosen, *later]
    shown = labelstudio.call(f"/api/projects/{project['id']}/next")
    assert shown["data"]["scene_id"] == chosen[0]


def test_a_project_of_somebody_else(labelstudio: Server, tmp_path: Path) -> None:
    """Another name of the image, of the control and of the label; images from the server's disk."""
    labelled = labelstudio.files / "set one"
    write_pairs(tmp_path, range(2), shape_yx=(96, 96))
    from PIL import Image

    for path in sorted((tmp_path / "images").iterdir()):
        target = labelled / "a" / f"{path.stem} ü.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target)
    config = (
        '<View><Image name="pic" value="$photo"/><PolygonLabels name="outline" toName="pic">'
        '<Label value="Road"/><Label value="Building"/></PolygonLabels></View>'
    )
    project = labelstudio.call("/api/projects", {"title": "theirs", "label_config": config})["id"]
    root = ["--local-files-root", str(labelstudio.files), "--gsd", "0.3"]
    command = ["label", "push", labelstudio.url, str(labelled), "--project", "theirs", *root]
    pushed = run(*command)
    assert (pushed["project"], pushed["created"], len(pushed["pushed"])) == (project, False, 2)
    assert run(*command)["pushed"] == []

    [task, _] = labelstudio.call(f"/api/tasks?project={project}&fields=all")["tasks"]
    reference = task["data"]["photo"]
    assert reference.startswith("/data/local-files/?d=set%20one/a/")
    request = Request(labelstudio.url + reference, headers={"Authorization": f"Token {TOKEN}"})
    with urlopen(request, timeout=60) as response:
        assert response.read(8) == b"\x89PNG\r\n\x1a\n"
    [prediction] = labelstudio.call(f"/api/predictions?task={task['id']}")
    for one in prediction["result"]:
        assert (one["from_name"], one["to_name"]) == ("outline", "pic")
        assert one["value"]["polygonlabels"] == ["Building"]
    labelstudio.call(f"/api/tasks/{task['id']}/annotations", {"result": []})
    out = tmp_path / "pulled"
    pulled = run(
        "label", "pull", labelstudio.url, "--project", "theirs", "-o", str(out), "--images",
        str(labelled),
    )  # fmt: skip
    assert (pulled["tasks"], pulled["annotated"], pulled["downloaded"]) == (2, 1, 0)
    source = open_source(SourceConfig(path=str(out)))
    assert [len(source.entries), len(source.unlabelled)] == [1, 1]
    assert source.open_scene(source.entries[0]).gsd_m == pytest.approx(0.3)


def test_a_personal_token(
    labelstudio: Server, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path
) -> None:  # fmt: skip
    """Personal tokens are exchanged for tokens that are valid for minutes."""
    token = labelstudio.call("/api/token/", {})["token"]
    assert token.count(".") == 2
    project = labelstudio.call(
        "/api/projects", {"title": "empty", "label_config": "<View></View>"}
    )["id"]  # fmt: skip
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    out = str(tmp_path / "x.json")
    assert run("label", "pull", labelstudio.url, "--project", str(project), "-o", out)["tasks"] == 0


SDK = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
for given in json.load(sys.stdin):
    mask = np.array(given["mask"], dtype=np.uint8) * 255
    decoded = decode_rle(given["rle"]).reshape(*mask.shape, 4)
    ours = bool((decoded == mask[..., None]).all())
    print(json.dumps({"ours": ours, "theirs": mask2rle(mask), "levels": mask2rle(mask // 3 * 2)}))
"""


def test_brushes_are_those_of_the_vendors_own_code() -> None:
    """Label Studio decodes our brushes to the same pixels, and we decode its brushes."""
    rng = np.random.default_rng(0)
    masks = [rng.random((17, 23)) < 0.5, np.zeros((4, 4), bool), np.ones((300, 300), bool),
             generate_scene(3, (128, 96)).mask() > 0, rng.random((1, 7)) < 0.5]  # fmt: skip
    given = [{"mask": m.astype(int).tolist(), "rle": list(encode_brush(m))} for m in masks]
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", SDK], input=json.dumps(given), text=True,
        capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(masks)
    for mask, one in zip(masks, answers):
        assert one["ours"]
        assert np.array_equal(decode_alpha(bytes(one["theirs"]), mask.shape), mask * 255)
        assert np.array_equal(decode_alpha(bytes(one["levels"]), mask.shape), mask * 170)
