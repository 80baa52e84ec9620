"""The QGIS plugin's client of jobs against a real server."""

import importlib
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest

from jobs_server import jobs_app, write_model, write_town
from local_server import serving_app

pytestmark = pytest.mark.campaign

PLUGIN = Path(__file__).parents[2] / "qgis"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    return tuple(importlib.import_module(f"rooftrace_plugin.{n}") for n in ("server", "command"))


def test_plugin_predicts_on_a_server(tmp_path: Path, modules: tuple[Any, Any]) -> None:
    server, command = modules
    image = write_town(tmp_path / "town.tif", 300)
    app = jobs_app(tmp_path / "jobs", write_model(tmp_path))
    steps: list[str] = []
    with serving_app(app) as url:
        client = server.Server(f"{url}/", {}, lambda: False)
        options = {"min_area": "20.0", "outputs": ["polygons", "mask"]}
        job = client.predict(image, tmp_path / "out", options, lambda one: steps.append(one.step))
        found = gpd.read_file(tmp_path / "out" / "town_buildings.gpkg")
        assert job["figures"]["buildings"] == len(found) > 0
        assert found["area_m2"].min() >= 20
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"town_buildings.gpkg", "town_mask.qml", "town_mask.tif", "run.json"}
        assert {steps[0], steps[-1]} == {"upload", "download"}
        assert app.state.store.newest(9) == []
        # The user cancels while the job waits or runs: nothing stays on the server.
        client = server.Server(url, {}, lambda: bool(app.state.store.newest(9)))
        with pytest.raises(command.Canceled):
            client.predict(image, tmp_path / "canceled", options, lambda _: None)
        assert app.state.store.newest(9) == []
        (tmp_path / "bad.tif").write_text("no image")
        client = server.Server(url, {}, lambda: False)
        with pytest.raises(command.RooftraceProblem, match=r"bad\.tif has none of the supported"):
            client.predict(tmp_path / "bad.tif", tmp_path / "bad", {}, lambda _: None)
