"""The client of docs/jobs.md, as it stands there, against a real server."""

from __future__ import annotations

import re
from pathlib import Path

import geopandas as gpd
import pytest

from jobs_server import jobs_app, write_model, write_town
from local_server import serving_app

pytestmark = pytest.mark.campaign

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def test_the_client_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    write_town(tmp_path / "scene.tif", 300)
    monkeypatch.chdir(tmp_path)
    app = jobs_app(tmp_path / "jobs", write_model(tmp_path))
    with serving_app(app) as url:
        assert 'SERVER = "http://127.0.0.1:8000"' in code
        exec(compile(code.replace("http://127.0.0.1:8000", url), PAGE.name, "exec"), {})
        printed = capsys.readouterr().out.splitlines()
        assert "done 100%" in printed
        found = gpd.read_file(tmp_path / "from-server" / "scene_buildings.gpkg")
        assert int(printed[-1]) == len(found) > 0
        assert found["area_m2"].min() >= 10
        assert app.state.store.newest(9) == []
        # What goes wrong is said in the server's words.
        (tmp_path / "scene.tif").write_text("no image")
        with pytest.raises(
            RuntimeError, match=r"scene\.tif has none of the supported image formats.* Send a"
        ):
            exec(compile(code.replace("http://127.0.0.1:8000", url), PAGE.name, "exec"), {})
