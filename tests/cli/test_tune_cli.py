"""`rooftrace train --trials` as a person calls it: killed, continued, and trained from."""

import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from command_line import command
from rooftrace.models.bundle import read_bundle

pytestmark = pytest.mark.campaign

SEARCH = """
[optimizer]
lr = { low = 1e-4, high = 1e-2, log = true }

[tune]
pruner = "none"
"""


@pytest.fixture(scope="module")
def space(tiny_folder: Path) -> Path:
    """One epoch of two steps, with the loss that is drawn."""
    text = (tiny_folder / "tiny.toml").read_text().replace("epochs = 2", "epochs = 1")
    path = tiny_folder / "search.toml"
    path.write_text('loss = { choices = ["ce", "dice"] }\n' + text + SEARCH)
    return path


@pytest.fixture(scope="module")
def killed(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose process was killed while it ran its second trial."""
    out = tmp_path_factory.mktemp("tune") / "study"
    command = [sys.executable, "-m", "rooftrace", "train", str(space), "-o", str(out)]
    process = subprocess.Popen([*command, "--trials", "9"], stderr=subprocess.DEVNULL)
    try:
        while not (out / "trial_0001" / "config.json").is_file():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    return out


def test_a_study_goes_on_until_it_has_all_its_trials(space: Path, killed: Path) -> None:
    code, output, said = command("train", space, "-o", killed, "--trials", 3, "--json")
    assert code == 0, said
    answer = json.loads(output)
    assert answer["trials"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0, "lost": 1}
    assert "trial 1  lost with its process" in said
    best = answer["best"]
    found = {path.name for path in killed.iterdir()}
    assert found >= {"best.toml", "best.rooftrace", "study.db", "study.json"}
    kept = [path.parent.name for path in killed.glob("trial_*/checkpoints")]
    assert kept == [f"trial_{best['trial']:04d}"]
    assert json.loads((killed / "study.json").read_text()) == answer
    spec = read_bundle(Path(best["bundle"])).spec
    assert spec.training["optimizer"]["lr"] == best["params"]["optimizer.lr"]
    assert spec.training["epochs"] == 1
    recorded = json.loads((killed / f"trial_{best['trial']:04d}" / "config.json").read_text())
    assert recorded["optimizer"]["lr"] == best["params"]["optimizer.lr"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "batch_size=2"], "batch_size was 4, is 2"),
        (["--set", "optimizer.lr={ low = 2, high = 1 }"], "The search of optimizer.lr"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_trained(
    space: Path, killed: Path, arguments: list[str], expected: str
) -> None:
    folders = sorted(killed.iterdir())
    code, out, _ = command("train", space, "-o", killed, "--trials", 20, *arguments, "--json")
    assert code == 2
    assert expected in json.loads(out)["error"]["message"]
    assert sorted(killed.iterdir()) == folders


def test_what_is_not_installed_is_named(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a configuration, as `rooftrace train` does, does not need the package."""
    for name in [name for name in sys.modules if name.startswith("rooftrace.train.tune")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    importlib.import_module("rooftrace.train.tune_space")
    code, output, _ = command("train", space, "-o", tmp_path, "--trials", 1, "--json")
    assert code == 6
    error = json.loads(output)["error"]
    assert "'optuna'" in error["message"]
    assert "rooftrace[tune]" in error["remedy"]


def test_ctrl_c_stops_a_study_and_the_same_command_ends_it(space: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    program = [sys.executable, "-m", "rooftrace", "train", str(space), "-o", str(out)]
    process = subprocess.Popen(
        [*program, "--trials", "9"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not (out / "trial_0000" / "config.json").is_file():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    code, output, said = command("train", space, "-o", out, "--trials", 1, "--json")
    assert code == 0, said
    assert json.loads(output)["trials"]["complete"] >= 1
