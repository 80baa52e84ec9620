"""One study of two processes that share nothing but its storage, as two machines would."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from rooftrace.models.bundle import read_bundle  # noqa: E402

pytestmark = pytest.mark.campaign

SEARCH = """
[optimizer]
lr = { low = 1e-4, high = 1e-2, log = true }

[tune]
pruner = "none"
"""
TRIALS = 4
PASSWORD = "canary-of-a-password"


@pytest.fixture(scope="module")
def space(tiny_folder: Path) -> Path:
    text = (tiny_folder / "tiny.toml").read_text().replace("epochs = 2", "epochs = 1")
    path = tiny_folder / "shared.toml"
    path.write_text(text + SEARCH)
    return path


def start(space: Path, out: Path, storage: str, trials: int = TRIALS) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "rooftrace", "tune", str(space), "-o", str(out), "--trials",
        str(trials), "--storage", storage, "--study", "shared", "--json",
    ]  # fmt: skip
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_together(space: Path, folder: Path, storage: str) -> list[dict[str, object]]:
    processes = [start(space, folder / name, storage) for name in ("one", "other")]
    answers = []
    for process in processes:
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
        assert PASSWORD not in output + errors
        answers.append(json.loads(output))
    return answers


def check(answers: list[dict[str, object]], folder: Path, storage: object) -> None:
    """Check a study that two processes ran together."""
    study = optuna.load_study(study_name="shared", storage=storage)
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(done) == TRIALS
    values = [trial.params["optimizer.lr"] for trial in done]
    assert len(set(values)) == TRIALS
    # Each trial was run in one folder, and both took part.
    folders = [{path.name for path in (folder / n).glob("trial_*")} for n in ("one", "other")]
    assert not folders[0] & folders[1]
    assert len(folders[0] | folders[1]) == TRIALS
    assert all(folders)
    best = [answer["best"] for answer in answers]
    assert {one["trial"] for one in best} == {study.best_trial.number}  # type: ignore[index]
    # The model is where it was trained.
    bundles = [one["bundle"] for one in best]  # type: ignore[index]
    assert sum(bundle is not None for bundle in bundles) == 1
    (bundle,) = [bundle for bundle in bundles if bundle is not None]
    assert read_bundle(Path(str(bundle))).spec.name == "tiny"
    configs = [(folder / name / "best.toml").read_text() for name in ("one", "other")]
    assert "lr" in configs[0]
    assert "lr" in configs[1]


def test_a_file_on_a_shared_folder(space: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared' / 'study.db'}"
    answers = run_together(space, tmp_path, storage)
    check(answers, tmp_path, storage)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of the test's own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on the PATH")
    # Its server refuses to be root.
    user = None
    if os.getuid() == 0:
        if shutil.which("runuser") is None or _has_no_user("postgres"):
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = "postgres"
    folder = Path(f"/tmp/rooftrace-pg-{os.getpid()}")
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "password").write_text(PASSWORD)
    if user:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)

    def do(*command: str) -> None:
        output = subprocess.run(
            [*(["runuser", "-u", user, "--"] if user else []), *command],
            capture_output=True, text=True, cwd=folder, check=False,
        )  # fmt: skip
        assert output.returncode == 0, output.stderr

    data = str(folder / "data")
    do("initdb", "-D", data, "-U", "study", "-A", "scram-sha-256",
       f"--pwfile={folder / 'password'}", "--no-sync")  # fmt: skip
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    do("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
    yield f"postgresql+psycopg://study:{PASSWORD}@127.0.0.1:{port}/postgres"
    do("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def _has_no_user(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return True
    return False


def test_a_database(space: Path, tmp_path: Path, database: str) -> None:
    answers = run_together(space, tmp_path, database)
    storage = optuna.storages.RDBStorage(database)
    try:
        check(answers, tmp_path, storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()
    assert all("***" in str(answer["storage"]) or PASSWORD not in str(answer) for answer in answers)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in left
