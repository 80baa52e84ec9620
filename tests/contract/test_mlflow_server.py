"""A run on a real MLflow server: everything is there exactly once, also after interruptions."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("flask", reason="the whole package mlflow, whose server it is, is missing")
pytest.importorskip("mlflow")

from rich.console import Console

from rooftrace.core.config import load_config
from rooftrace.core.errors import ConfigError
from rooftrace.train.callbacks import OnEpoch
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit

pytestmark = pytest.mark.campaign


class Server:
    """An MLflow tracking server with a database of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        quiet = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port"]
        stores = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
                  "--artifacts-destination", str(folder / "files"), "--workers", "1"]  # fmt: skip
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [*command, str(port), *stores], env=os.environ | quiet, cwd=folder,
            stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def wait(self, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"the MLflow server did not start in {seconds:.0f} s")

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def close(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def ask(self, what: str, **query: str) -> Any:
        address = f"{self.address}/api/2.0/mlflow/{what}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)

    def history(self, run_id: str, figure: str) -> list[dict[str, Any]]:
        asked = self.ask("metrics/get-history", run_id=run_id, metric_key=figure)
        metrics: list[dict[str, Any]] = asked.get("metrics", [])
        return metrics


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        started.wait()
        yield started
    finally:
        started.close()


def train(
    folder: Path, run: Path, *overrides: str, resume: bool = False, on_epoch: OnEpoch | None = None
) -> str:
    """Train, and return the printed text."""
    console = Console(record=True, file=io.StringIO(), width=400)
    config = load_config(folder / "tiny.toml", TrainConfig, ["watch.panel=2", *overrides])
    fit(config, run, base=folder, resume=resume, console=console, on_epoch=on_epoch)
    return console.export_text()


def test_a_run_that_is_stopped_and_goes_on_is_one_run(
    server: Server, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "first"
    watch = (f"watch.mlflow={server.address}", "watch.experiment=häuser", "watch.tensorboard=true")

    def stop(epoch: int, figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_folder, run, *watch, "epochs=3", on_epoch=stop)
    run_id = json.loads((run / "mlflow.json").read_text())["run_id"]
    assert server.ask("runs/get", run_id=run_id)["run"]["info"]["status"] == "KILLED"
    # The second epoch was output, and not kept: it is trained again.
    assert [point["step"] for point in server.history(run_id, "val_iou")] == [1, 2]

    # The server hangs from then on, and is back when the run has ended.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def hang(epoch: int, figures: Mapping[str, float]) -> None:
        server.send(signal.SIGSTOP if epoch < 4 else signal.SIGCONT)
        if epoch == 4:
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")

    output = train(tiny_folder, run, *watch, "epochs=4", resume=True, on_epoch=hang)
    assert output.count("warning: MLflow at") == 1
    assert "its figures are in metrics.csv" in output
    assert json.loads((run / "mlflow.json").read_text())["run_id"] == run_id
    found = server.ask("runs/get", run_id=run_id)["run"]
    assert (found["info"]["status"], found["info"]["run_name"]) == ("FINISHED", "first")
    written = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    columns = dict(zip(written[0], zip(*written[1:])))
    assert columns.pop("epoch") == ("1", "2", "3", "4")
    for name, values in columns.items():
        points = server.history(run_id, name.replace("/", "."))
        assert [point["step"] for point in points] == [1, 2, 3, 4]
        if name not in ("seconds", "images_per_s"):
            sent = [point["value"] for point in points]
            assert sent == pytest.approx(list(map(float, values)), rel=1e-5)

    params = {one["key"]: one["value"] for one in found["data"]["params"]}
    assert (params["epochs"], params["optimizer.lr"]) == ("3", "0.001")
    assert params["data.train.0.path"] == "data"
    assert not any(key.startswith("watch") for key in params)
    tags = {one["key"]: one["value"] for one in found["data"]["tags"]}
    assert tags["resumed.epochs"] == "4"
    best = {one["key"]: one for one in found["data"]["metrics"]}["best_val_iou"]
    values = list(map(float, columns["val_iou"]))
    assert best["value"] == pytest.approx(max(values), rel=1e-5)
    assert best["step"] == values.index(max(values)) + 1
    files = server.ask("artifacts/list", run_id=run_id)["files"]
    assert {one["path"] for one in files} == {
        "metrics.csv", "curves.svg", "panel.png", "panel_best.png"
    }  # fmt: skip
    experiment = server.ask("experiments/get", experiment_id=found["info"]["experiment_id"])
    assert experiment["experiment"]["name"] == "häuser"
    check_tensorboard(run, columns)


def check_tensorboard(run: Path, columns: Mapping[str, tuple[str, ...]]) -> None:
    """Each epoch is there once, although one was trained twice."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for figure, column in (("iou/val", "val_iou"), ("loss/train", "train_loss"), ("lr", "lr")):
        assert [event.step for event in events.Scalars(figure)] == [1, 2, 3, 4]
        values = [event.value for event in events.Scalars(figure)]
        assert values == pytest.approx(list(map(float, columns[column])), rel=1e-5)
    assert "iou/val/data" in events.Tags()["scalars"]
    assert events.Tags()["images"] == ["panel"]


def test_a_run_that_fails_is_reported(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    def fail(epoch: int, figures: Mapping[str, float]) -> None:
        raise RuntimeError("no room left")

    run = tmp_path / "run"
    named = (f"watch.mlflow={server.address}", "watch.run_name=zwei")
    with pytest.raises(RuntimeError, match="no room left"):
        train(tiny_folder, run, *named, "epochs=1", on_epoch=fail)
    run_id = json.loads((run / "mlflow.json").read_text())["run_id"]
    info = server.ask("runs/get", run_id=run_id)["run"]["info"]
    assert (info["status"], info["run_name"]) == ("FAILED", "zwei")


def test_a_run_that_the_server_does_not_have(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(tiny_folder, run, "epochs=1")
    record = run / "mlflow.json"
    record.write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
    again = (f"watch.mlflow={server.address}", "epochs=2")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        train(tiny_folder, run, *again, resume=True)
    assert str(record) in caught.value.remedy
    record.write_text("[]")
    with pytest.raises(ConfigError, match=r"mlflow\.json.* cannot be read") as caught:
        train(tiny_folder, run, *again, resume=True)
    assert "Remove it" in caught.value.remedy


def test_figures_that_are_no_numbers(
    server: Server, tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Figures that cannot be sent do not keep others from being sent; stdout stays empty."""
    run = tmp_path / "run"
    astray = ("optimizer.lr=1e30", "optimizer.clip_norm=0", "epochs=2")
    with pytest.raises(ConfigError, match="not a finite number"):
        train(tiny_folder, run, f"watch.mlflow={server.address}", *astray)
    run_id = json.loads((run / "mlflow.json").read_text())["run_id"]
    for figure in ("val_loss", "val_iou", "lr"):
        assert [point["step"] for point in server.history(run_id, figure)] == [1, 2]
    assert server.ask("runs/get", run_id=run_id)["run"]["info"]["status"] == "FAILED"
    assert capfd.readouterr().out == ""
