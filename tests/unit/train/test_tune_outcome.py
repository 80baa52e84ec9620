"""The output of a study: a configuration to train with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from optuna.study import Study
from optuna.trial import TrialState

from rooftrace.core.config import load_config
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import open_data
from rooftrace.train.tune import best_of, finished, summarise, write_config
from rooftrace.train.tune_space import Tuning, read_tuning

Open = Callable[..., AbstractContextManager[Study]]


def fill(study: Study, tuning: Tuning, values: list[float | str | None]) -> None:
    """Fill a study with trials that are complete, failed for a reason, pruned ("pruned") or lost
    (None).
    """
    for value in values:
        trial = study.ask()
        tuning.space.sample(trial)
        if isinstance(value, float):
            for epoch in (1, 2, 3):
                trial.report(value * epoch / 3, epoch)
            study.tell(trial, value)
        elif value == "pruned":
            trial.report(0.1, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            if value is not None:
                trial.set_user_attr("reason", value)
            study.tell(trial, state=TrialState.FAIL)


def test_a_summary_says_how_every_trial_ended(opened: Open, tuning: Tuning) -> None:
    with opened() as study:
        fill(study, tuning, [0.5, "pruned", "too large", None, 0.7, 0.6])
        summary = summarise(study, tuning)
    assert summary.counts == {
        "complete": 3, "pruned": 1, "failed": 1, "running": 0, "lost": 1,
    }  # fmt: skip
    assert summary.best is not None
    assert (summary.best.number, summary.best.value) == (4, 0.7)
    assert summary.importance == {}  # of three trials


def test_the_best_configuration_is_that_of_the_trial_and_leads_to_the_same_data(
    tiny_folder: Path, tmp_path: Path, opened: Open
) -> None:
    """The configuration works from another folder, with a variable and an absolute path."""
    text = (tiny_folder / "tiny.toml").read_text()
    (tiny_folder / "space.toml").write_text(
        text.replace("epochs = 2", "epochs = { low = 1, high = 9 }")
        + "\n[optimizer]\nlr = { low = 1e-4, high = 1e-1, log = true }\n"
        "encoder_lr = { choices = [{}, {}] }\n".replace("{}, {}", "{}")
        + f'[[data.val]]\npath = "{(tiny_folder / "data").as_posix()}"\npart = "[:1]"\n'
    )
    tuning = read_tuning(tiny_folder / "space.toml")
    out = tmp_path / "a" / "study"
    with opened(tuning=tuning) as study:
        fill(study, tuning, [0.3, 0.8, 0.4])
        done = finished(study)
        best = best_of(study, done)
        assert best is not None
        write_config(out / "best.toml", tuning, best, done)
    written = (out / "best.toml").read_text()
    assert written.startswith("# The best of 3 trials of 'space': trial 1, val_iou 0.8.")
    lr = best.params["optimizer.lr"]
    assert f"# optimizer.lr = {lr}, of 0.0001 to 0.1, logarithmic" in written
    assert "# optimizer.encoder_lr = default, of default" in written
    found = load_config(out / "best.toml", TrainConfig)
    meant = tuning.config(best.params, source="trial")
    plain, expected = found.model_dump(mode="json"), meant.model_dump(mode="json")
    assert plain["data"]["train"][0]["path"] != expected["data"]["train"][0]["path"]
    assert plain["data"]["val"] == expected["data"]["val"]
    assert {**plain, "data": None} == {**expected, "data": None}
    there, here = open_data(found, out), open_data(meant, tuning.base)
    assert there.train[0].ids == here.train[0].ids
    assert there.samples[0].image.tolist() == here.samples[0].image.tolist()
