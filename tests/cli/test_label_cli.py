"""`rooftrace label` through the real command; a real server is in tests/contract."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import command
from tiny_models import write_tiny_bundle

TOKEN = "s3cret-t0ken"
UNREACHABLE = "http://127.0.0.1:9"


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


def fails(*arguments: object, code: int) -> str:
    done = command(*arguments)
    assert done.code == code, done.err
    text = done.out + done.err
    assert TOKEN not in text
    assert "Traceback" not in text
    return " ".join(text.split())


def test_what_must_be_said(images: Path) -> None:
    pull = ["label", "pull", UNREACHABLE, "--project", "1", "-o", "x"]
    assert "LABEL_STUDIO_API_KEY" in fails(*pull, code=2)
    assert "DATA" in fails("label", "push", UNREACHABLE, "--token", TOKEN, code=2)
    assert "--project" in fails("label", "push", UNREACHABLE, str(images), "--token", TOKEN, code=2)


def test_images_that_the_server_does_not_see(images: Path) -> None:
    push = ["label", "push", UNREACHABLE, str(images), "--token", TOKEN, "--project", "town",
            "--local-files-root"]  # fmt: skip
    elsewhere = str(images.parent.parent / "elsewhere")
    assert f"is not below --local-files-root {elsewhere}" in fails(*push, elsewhere, code=2)
    assert "serves only the folders below it" in fails(*push, str(images), code=2)
    Image.new("RGB", (64, 64)).save(images / "b.tif")
    assert "is not an upright PNG or JPEG" in fails(*push, str(images.parent), code=2)


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Images of noise around three brightnesses, which are probabilities to the tiny model."""
    folder = tmp_path / "town"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, brightness in {"[sure]": 220, "unsure": 128, "half": 170, "dark": 97}.items():
        coarse = rng.integers(-15, 16, (8, 8, 1)) + brightness
        pixels = np.repeat(np.kron(coarse[..., 0], np.ones((8, 8)))[..., None], 3, axis=2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def test_next_prints_a_table_and_writes_a_list(town: Path, tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "tiny.rooftrace", threshold=0.9)
    done = command(
        "label", "next", town, "-n", 3, "-m", model, "--gsd", 0.3, "-o", tmp_path / "next.txt"
    )
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "next.txt").read_text().splitlines()[0] == str(town / "unsure.png")
    rows = [line.split() for line in done.err.splitlines()]
    head = rows.index(["image", "entropy", "disagreement", "built-up"])
    assert rows[head + 1][:3] == ["1", "unsure", "1.00"]
    assert "[sure]" in {rows[head + 2][1], rows[head + 3][1]}
    assert "3 of 4 images chosen; left out: 1 without anything like a building" in done.err
    again = command("label", "next", town, "-n", 1, "-m", model, "--json")
    assert [one["id"] for one in again.json["chosen"]] == ["unsure"]
    assert (again.json["empty"], again.json["list"], again.json["push"]) == (["dark"], None, None)


def test_next_replaces_none_of_its_inputs(town: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("img_id,img_path,mask_rle\nunsure,town/unsure.png,\n")
    (tmp_path / "rooftrace.toml").write_text('path = "labels.csv"\n')
    before = labels.read_bytes()
    for given in ([labels], [tmp_path], [town, "--labelled", tmp_path]):
        text = fails("label", "next", *given, "-o", labels, code=2)
        assert f"would replace the input {labels}" in text
        assert labels.read_bytes() == before
