"""Runs are compared in any state of their folders."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows.runs import (
    ABSENT,
    RunRecord,
    as_text,
    compare_runs,
    draw_figure,
    find_runs,
    runs_page,
)

COLUMNS = "epoch,train_loss,val_loss,val_iou,val_dice,lr,seconds,images_per_s"


def write(folder: Path, ious: list[float], **config: Any) -> Path:
    folder.mkdir(parents=True)
    plain = {"epochs": len(ious), "model": {"encoder": "a"}, "data": {"train": [{"path": "x"}]},
             "stop": {"monitor": "val_iou", "patience": 0}, "base": str(folder)}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(plain | config))
    lines = [f"{n},0.5,{1 - iou},{iou},{iou + 0.1},1e-3,30,20" for n, iou in enumerate(ious, 1)]
    (folder / "metrics.csv").write_text("\n".join([COLUMNS, *lines]) + "\n")
    return folder


def test_what_came_out(tmp_path: Path) -> None:
    write(tmp_path / "a", [0.25, 0.75, 0.5])
    (run,) = find_runs(tmp_path)
    best = run.best("val_iou"), run.best("val_loss")
    assert [(b.value, b.epoch) for b in best if b is not None] == [(0.75, 2), (0.25, 2)]
    assert (run.name, run.epochs, run.minutes, run.images_per_s) == ("a", 3, 1.5, 20)
    assert run.at(2, "val_dice") == 0.85
    assert (run.status, run.problems) == ("finished", ())


def test_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a", "study/trial_1", "study/trial_0", "study/trial_0/again", ".hidden/b"):
        write(tmp_path / name, [0.5])
    write(tmp_path / "a/checkpoints/kept", [0.5])
    other = tmp_path / "weights"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "link").symlink_to(tmp_path / "a")
    names = [run.name for run in find_runs(tmp_path)]
    assert names == ["a", "study/trial_0", "study/trial_0/again", "study/trial_1"]
    assert [run.name for run in find_runs(tmp_path / "a")] == ["a"]


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_no_runs_are_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=name) as caught:
        find_runs(tmp_path / name)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("config", "packaged", "status"),
    [
        ({}, False, "finished"),
        ({"epochs": 9}, False, "unfinished: 3 of 9 epochs"),
        ({"epochs": 9}, True, "stopped early"),
        ({"epochs": 9, "stop": {"monitor": "val_iou", "patience": 2}}, False, "stopped early"),
        (
            {"epochs": 9, "stop": {"monitor": "val_iou", "patience": 3}},
            False,
            "unfinished: 3 of 9 epochs",
        ),
        # It rises by 0.5, which is less than min_delta, so that the first epoch stays the best.
        (
            {
                "epochs": 9,
                "stop": {"monitor": "val_loss", "mode": "max", "patience": 2, "min_delta": 0.6},
            },
            False,
            "stopped early",
        ),
        # Three epochs of 30 s, and no time for a fourth.
        ({"epochs": 9, "stop": {"monitor": "val_iou", "minutes": 1.9}}, False, "stopped early"),
        (
            {"epochs": 9, "stop": {"monitor": "val_iou", "minutes": 2.1}},
            False,
            "unfinished: 3 of 9 epochs",
        ),
        ({"epochs": 9, "stop": {"minutes": "many"}}, False, "unfinished: 3 of 9 epochs"),
        ({"epochs": "many"}, False, "damaged"),
    ],
)
def test_how_far_a_run_has_come(
    config: dict[str, Any], packaged: bool, status: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", [0.75, 0.5, 0.25], **config)
    if packaged:
        (folder / "best_iou.rooftrace").write_bytes(b"")
    assert find_runs(tmp_path)[0].status == status


@pytest.mark.parametrize("monitor", ["val_loss", "val_iou"])
def test_a_run_whose_figure_was_no_number_has_stopped(monitor: str, tmp_path: Path) -> None:
    """A loss stops a run at once, and another figure after `patience` epochs."""
    stop = {"monitor": monitor, "patience": 3}
    write(tmp_path / "a", [math.nan] * 3, epochs=9, stop=stop)
    assert find_runs(tmp_path)[0].status == "stopped early"


def test_a_run_without_an_epoch_yet(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [0.5])
    (folder / "metrics.csv").unlink()
    assert find_runs(tmp_path)[0].status == "unfinished: no epoch"


def test_a_cut_row_is_no_measurement(tmp_path: Path) -> None:
    """Half of 0.75 is not 0.7."""
    folder = write(tmp_path / "a", [0.25, 0.5, 0.75])
    whole = (folder / "metrics.csv").read_bytes()
    last = whole.rstrip().rfind(b"\n") + 1
    for length in range(last + 1, len(whole)):
        (folder / "metrics.csv").write_bytes(whole[:length])
        (run,) = find_runs(tmp_path)
        assert [row["val_iou"] for row in run.rows] == [0.25, 0.5]
        assert "metrics.csv is damaged: line 4 is left out" in run.problems[0]


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("nan,1,1,1,1,1,1,1", False),
        ("0,1,1,1,1,1,1,1", False),
        ("1.5,1,1,1,1,1,1,1", False),
        ("1e99,1,1,1,1,1,1,1", False),
        ("2,1,1", False),
        ("2,1,1,1,1,1,1,1,1,1", False),
        ("2,nan,inf,0.5,,x,1e300,1", True),
    ],
)
def test_damaged_rows(line: str, kept: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [0.25])
    with (folder / "metrics.csv").open("a") as stream:
        stream.write(line + "\n")
    (run,) = find_runs(tmp_path)
    assert run.epochs == 1 + kept
    assert bool(run.problems) != kept
    if kept:
        assert run.rows[-1] == {"epoch": 2, "val_iou": 0.5, "images_per_s": 1}


def test_what_differed(tmp_path: Path) -> None:
    write(tmp_path / "a", [0.5], optimizer={"lr": 1, "why": None})
    write(tmp_path / "b", [0.7], optimizer={"lr": 1.0}, model={"encoder": "b"})
    write(tmp_path / "c", [0.6], optimizer={"lr": True}, data={"train": [{"path": "x"}, {"p": 3}]})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    (tmp_path / "broken/metrics.csv").write_text(COLUMNS + "\n")
    made = compare_runs(find_runs(tmp_path))
    assert [run.name for run in made.runs] == ["b", "c", "a", "broken"]
    # Not where they lay, nor what says nothing.
    assert set(made.keys) == {"model.encoder", "optimizer.lr", "data.train.1.p"}
    assert made.differing(made.runs[0]) == {"model.encoder": "b", "optimizer.lr": 1.0}
    assert made.holders("model.encoder") == {"b": [1], "a": [2, 3]}
    assert made.holders("data.train.1.p") == {"–": [1, 3], "3": [2]}
    assert made.usual == {"model.encoder": "a", "data.train.1.p": "–"}
    output = made.to_json()
    json.dumps(output, allow_nan=False)
    assert output["runs"][0]["best_iou"] == {"value": 0.7, "epoch": 1}
    assert output["runs"][3]["best_iou"] is None


def test_a_key_without_a_value_is_a_key_that_a_run_does_not_have(tmp_path: Path) -> None:
    write(tmp_path / "a", [0.5], optimizer={"kind": "adamw", "momentum": None, "betas": [0.9, 1]})
    write(tmp_path / "b", [0.7], optimizer={"kind": "sgd", "momentum": 0.9, "betas": None})
    made = compare_runs(find_runs(tmp_path))
    assert made.holders("optimizer.momentum") == {"0.9": [1], "–": [2]}
    assert made.differing(made.runs[0]) == {"optimizer.kind": "sgd", "optimizer.momentum": 0.9}
    assert "null" not in runs_page(made)


def test_order(tmp_path: Path) -> None:
    write(tmp_path / "a", [0.5, 0.6])
    write(tmp_path / "b", [0.7])
    (write(tmp_path / "c", [0.1]) / "metrics.csv").write_text(COLUMNS + "\n")
    runs = find_runs(tmp_path)

    def order(sort: str) -> str:
        return "".join(run.name for run in compare_runs(runs, sort).runs)

    assert order("val_iou") == order("val_loss") == order("val_dice") == "bac"
    assert (order("name"), order("epochs"), order("minutes")) == ("abc", "abc", "bac")
    with pytest.raises(ConfigError, match="Did you mean 'val_iou'"):
        compare_runs(runs, "val_iuo")


class Reader(HTMLParser):
    """Parses a page into its elements and the text outside of its script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_all_and_asks_for_nothing(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"run{number}", [0.1, 0.5 + number / 100], optimizer={"lr": number % 2})
    evil = "<img src=x onerror=alert(1)> & \"quotes' </script>"
    write(tmp_path / "<b>日本</b>", [0.3], loss=evil, epochs=5)
    page = runs_page(compare_runs(find_runs(tmp_path)))
    read = Reader(page)
    names = [tag for tag, _ in read.tags]
    assert names.count("script") == 1
    assert not {"img", "link", "iframe"} & set(names)
    assert not any("src" in attrs or "href" in attrs for _, attrs in read.tags)
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert evil in read.text
    assert "<b>日本</b>" in read.text
    assert "unfinished: 1 of 5 epochs" in read.text
    # A line, a number and a name in the legend for each run, in each figure that it has.
    figures = [attrs["data-figure"] for _, attrs in read.tags if "data-figure" in attrs]
    assert figures[:2] == ["val_iou", "val_loss"]
    drawn = [a["data-series"] for tag, a in read.tags if tag == "g" and "data-series" in a]
    assert len(drawn) == 13 * len(figures)
    assert sum("data-toggle" in attrs for _, attrs in read.tags) == 13
    marked = [attrs for tag, attrs in read.tags if tag == "td" and attrs.get("class") == "other"]
    assert marked


def test_twenty_runs_look_different() -> None:
    rows = tuple({"epoch": float(n), "val_iou": n / 10} for n in (1, 2))
    runs = [RunRecord(str(n), Path(), {}, rows) for n in range(20)]
    drawn = str(draw_figure(runs, "val_iou"))
    styles = re.findall(r'<polyline [^>]*?(style="[^"]*"[^/]*)/>', drawn)
    assert len(styles) == len(set(styles)) == 20
    # All end at one point; their numbers do not lie over one another.
    heights = sorted(float(y) for y in re.findall(r'class="series end"[^>]* y="([^"]*)"', drawn))
    assert min(b - a for a, b in pairwise(heights)) >= 12


@given(
    st.lists(
        st.lists(st.floats(-1e15, 1e15, allow_nan=False), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    )
)
@example([[1.8e7, 1.6e-301]])
@example([[1.0, 5e-324]])
def test_curves_lie_in_their_frame(values: list[list[float]]) -> None:
    runs = [
        RunRecord(
            "x", Path(), {}, tuple({"epoch": float(n), "f": v} for n, v in enumerate(line, 1))
        )
        for line in values
    ]
    drawn = str(draw_figure(runs, "f"))
    points = re.findall(r'points="([^"]*)"', drawn)
    for x, y in (map(float, p.split(",")) for line in points for p in line.split()):
        assert 0 <= x <= 1060
        assert 0 <= y <= 420


def table_with(column: str) -> bytes:
    return f"epoch,{column},\n1,2,3\n".encode("utf-8", "replace")


@pytest.mark.campaign
@settings(max_examples=40)
@given(figures=st.binary(max_size=200), config=st.binary(max_size=60), column=st.text(max_size=9))
def test_nothing_in_a_folder_is_a_crash(
    figures: bytes, config: bytes, column: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for name, record, table in (
        ("a", config, figures),
        ("b", b'{"epochs": 3, "x": NaN, "y": 1e999, "z": "\\ud800\\u001b"}', b"epoch,val_iou\n1,"),
        ("c", json.dumps({column: column}).encode(), table_with(column) + figures),
        ("d", b"[" * 100_000, b"epoch,val_iou\n1,0.5\n" + figures),
    ):  # fmt: skip
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes(record)
        (folder / name / "metrics.csv").write_bytes(table)
    made = compare_runs(find_runs(folder))
    assert len(made.runs) == 4
    json.dumps(made.to_json(), allow_nan=False)
    runs_page(made).encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(ABSENT, "–"), (None, "null"), ("", '""'), ("a\nb", "a\ufffdb"), (1.5, "1.5"), (True, "true"),
     ("\x1b[31m", "\ufffd[31m"), ({}, "{}")],
)  # fmt: skip
def test_values_as_text(value: Any, expected: str) -> None:
    assert as_text(value) == expected


def test_none_of_it_needs_torch() -> None:
    code = "import sys, rooftrace.flows.runs, rooftrace.cli.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_real_run(tiny_run: Any) -> None:
    pytest.importorskip("torch")
    (run,) = find_runs(tiny_run.run)
    assert (run.name, run.status, run.problems) == ("run", "finished", ())
    best = run.best("val_iou")
    assert best is not None
    epoch, value, _ = tiny_run.report.best["best_iou"]
    assert best.epoch == epoch
    assert best.value == pytest.approx(value, rel=1e-5)
    assert run.minutes is not None
    assert math.isfinite(run.minutes)
