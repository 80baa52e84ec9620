"""`rooftrace label` as people and programs call it; what needs a server is in tests/contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from rooftrace.cli import main

TOKEN = "s3cret-t0ken"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL_STUDIO_API_KEY",):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "set"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), (90, 80, 70)).save(folder / "a.png")
    return folder


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    told = capsys.readouterr()
    assert stopped.value.code == code, told.err
    text = told.out + told.err
    assert TOKEN not in text
    assert "Traceback" not in text
    return " ".join(text.split())


def test_what_must_be_said(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pull = ["label", "pull", NOBODY, "--project", "1", "-o", "x"]
    assert "LABEL_STUDIO_API_KEY" in fails(capsys, *pull, code=2)
    assert "data" in fails(capsys, "label", "push", NOBODY, "--token", TOKEN, code=2)
    assert "--project" in fails(
        capsys, "label", "push", NOBODY, str(images), "--token", TOKEN, code=2
    )


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_nobody_is_there(
    verb: str, images: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    more = [str(images)] if verb == "push" else ["-o", str(tmp_path / "out")]
    told = fails(capsys, "label", verb, NOBODY, *more, "--project", "town", "--json", code=3)
    error = json.loads(told)["error"]
    assert error["type"] == "DataError"
    assert NOBODY in error["message"]
    assert not (tmp_path / "out").exists()


def test_no_address_and_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    pull = ["--project", "1", "-o", "x"]
    told = fails(capsys, "label", "pull", "file:///etc", *pull, "--token", TOKEN, code=2)
    assert "'file:///etc' was given; expected the address of a Label Studio server" in told
    told = fails(capsys, "label", "pull", NOBODY, *pull, "--token", f"{TOKEN}\n", code=2)
    assert "holds signs that no token has" in told


def test_images_that_the_server_does_not_see(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ["label", "push", NOBODY, str(images), "--token", TOKEN, "--project", "town",
            "--local-files-root"]  # fmt: skip
    elsewhere = str(images.parent.parent / "elsewhere")
    assert f"is not below --local-files-root {elsewhere}" in fails(capsys, *push, elsewhere, code=2)
    assert "serves only the folders below it" in fails(capsys, *push, str(images), code=2)
    Image.new("RGB", (64, 64)).save(images / "b.tif")
    assert "is no upright PNG or JPEG" in fails(capsys, *push, str(images.parent), code=2)


def test_images_that_are_not_there(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push = ["label", "push", NOBODY, str(images / "none"), "--token", TOKEN]
    assert "There is no data at" in fails(capsys, *push, "--project", "town", code=3)
