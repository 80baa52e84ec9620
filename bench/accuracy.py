"""Accuracy for the time spent: IoU on places that were not trained on, against a plain loop.

Both sides train the recipe's network from the recipe's weights on the recipe's places, and take
turns. A benchmark that was stopped resumes; so does one with a larger `--minutes`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import PART, RECIPE, WORK, argument_parser, measure_part, rounded, say, start

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

SIDES = ("ours", "plain", "ours_fp32")

TURN_MINUTES = 2.0
"""Processor minutes: on two cores that is one by the clock."""


def main() -> dict[str, Any]:
    options = _options()
    if "plain" in options.sides and not (options.work / "tiles" / "count.json").exists():
        say("cutting the tiles of the plain loop")
        measure_part(__file__, "tiles", recipe=options.recipe, work=options.work)
    wanted = sorted({*options.minutes, *_multiples(options.every, max(options.minutes))})
    running = [_Side(name, options, wanted) for name in options.sides]
    waiting = [side for side in running if side.missing]
    while waiting:
        waiting = [side for side in waiting if side.take_turn()]
    points = {side.name: side.points for side in running}
    return {
        "minutes_are": "processor minutes of a process and its workers, validation left out",
        "points": points,
        "by_minutes": {
            f"{minutes:g}": {name: _row(points[name], minutes) for name in options.sides}
            for minutes in options.minutes
        },
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 20, 40])
    parser.add_argument("--every", type=float, default=5, help="minutes between measurements")
    parser.add_argument("--turn", type=float, default=TURN_MINUTES, help="minutes of a turn")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES[:2])
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.set_defaults(work=WORK / "accuracy")
    options = parser.parse_args()
    if min(*options.minutes, options.every, options.turn) <= 0:
        parser.error("--minutes, --every and --turn are above 0")
    return options


def _multiples(step: float, limit: float) -> list[float]:
    return [number * step for number in range(1, int(limit / step + 1e-9) + 1)]


class _Side:
    """A process that trains while it is its turn, and what it measured, kept in a file.

    Args:
        wanted: minutes at which it is to be measured.
    """

    def __init__(self, name: str, options: argparse.Namespace, wanted: Sequence[float]) -> None:
        self.name = name
        self._file = options.work / f"{name}.json"
        kept = json.loads(self._file.read_text("utf-8")) if self._file.exists() else []
        self._points: list[dict[str, Any]] = kept
        self._wanted = wanted
        self._given = {"recipe": options.recipe, "work": options.work, "turn": options.turn}
        self._process: subprocess.Popen[str] | None = None

    @property
    def missing(self) -> list[float]:
        known = {point["minutes"] for point in self._points}
        return [minutes for minutes in self._wanted if minutes not in known]

    @property
    def points(self) -> list[dict[str, Any]]:
        """Points that were asked for, in order."""
        asked = [point for point in self._points if point["minutes"] in self._wanted]
        return sorted(asked, key=lambda point: float(point["minutes"]))

    def take_turn(self) -> bool:
        """Let the side train for a turn; return False if it has finished."""
        if self._process is None:
            given = json.dumps({**self._given, "marks": self.missing}, default=str)
            self._process = subprocess.Popen(
                [sys.executable, __file__, PART, self.name, given],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            message = json.loads(line)
            if "point" in message:
                self._keep(message["point"])
            elif "rests_at" in message:
                say(f"{self.name}: {message['rests_at']:.1f} minutes")
                return True
        if self._process.wait() != 0 or self.missing:
            raise SystemExit(f"error: {self.name} ended with {self._process.returncode}")
        return False

    def _keep(self, point: dict[str, Any]) -> None:
        self._points.append(point)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self._points, indent=1) + "\n", "utf-8")
        partial.replace(self._file)
        say(f"{self.name}: {point['minutes']:g} minutes, IoU {point['mean_iou']:.3f}")


def _row(points: Sequence[dict[str, Any]], minutes: float) -> dict[str, Any]:
    """Return the last point of a side before this time, and its best value so far."""
    reached = [point for point in points if point["minutes"] <= minutes]
    return {**reached[-1], "best_mean_iou_so_far": max(point["mean_iou"] for point in reached)}


# What follows runs in processes of its own.


def tiles(*, recipe: str, work: str) -> dict[str, Any]:
    from plain_training import write_tiles
    from rooftrace.train.datamodule import open_data

    config = _config(Path(recipe))
    data = open_data(config, Path(recipe).parent)
    count = write_tiles(data.train, Path(work, "tiles"), config.gsd_m)
    Path(work, "tiles", "count.json").write_text(json.dumps(count), "utf-8")
    return {"tiles": count}


def _config(recipe: Path, **changes: Any) -> TrainConfig:
    """The recipe, made for a run that may be looked at, and ended, at any time."""
    from rooftrace.core.config import parse_config
    from rooftrace.train.config import TrainConfig

    raw = tomllib.loads(recipe.read_text(encoding="utf-8"))
    warmup = raw.get("schedule", {}).get("warmup_steps", 0)
    raw["schedule"] = {"kind": "none", "warmup_steps": warmup}
    raw |= {"epochs": 10**6, "device": "cpu", "stop": {"patience": 0}}
    raw |= changes
    return parse_config(raw, TrainConfig, source=str(recipe))


class _Clock:
    """Processor seconds of this process and its workers; and the marks and turns by it.

    Args:
        marks: minutes at which something is to be measured, ascending.
        turn: minutes after which the other side comes on.
        before: seconds of an earlier process whose work is taken up.
    """

    def __init__(self, marks: Sequence[float], turn: float, before: float) -> None:
        self._marks, self._turn_s = list(marks), turn * 60
        self._offset = before - self._spent()
        self.seconds = before
        self._turn_ends = before + self._turn_s

    @staticmethod
    def _spent() -> float:
        import psutil

        me = psutil.Process()
        times = [me.cpu_times(), *(child.cpu_times() for child in me.children(recursive=True))]
        living = sum(each.user + each.system for each in times)
        return float(living + times[0].children_user + times[0].children_system)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        before = self._spent()
        yield
        self._offset -= self._spent() - before

    def tick(self) -> list[float]:
        """Read it, and say which marks were passed since it was last read."""
        self.seconds = self._spent() + self._offset
        passed = [mark for mark in self._marks if mark * 60 <= self.seconds]
        del self._marks[: len(passed)]
        return passed

    @property
    def done(self) -> bool:
        return not self._marks

    @property
    def turn_is_over(self) -> bool:
        return self.seconds >= self._turn_ends

    def rest(self) -> bool:
        """Wait for the next turn; False where there is none, as the benchmark was stopped."""
        with self.stopped():
            print(json.dumps({"rests_at": round(self.seconds / 60, 3)}), flush=True)
            go_on = bool(sys.stdin.readline())
        self._turn_ends = self.seconds + self._turn_s
        return go_on


def _report(minutes: float, clock: _Clock, images: int, measured: dict[str, Any]) -> None:
    point = {
        "minutes": minutes,
        "images": images,
        "images_per_cpu_s": rounded(images / clock.seconds),
        **measured,
    }
    print(json.dumps({"point": point}), flush=True)


def _measure(net: Any, statistics: Any, places: Sequence[Any], batch_size: int) -> dict[str, Any]:
    """IoU of the buildings on each place's tiles, in fp32: the same for both sides."""
    import numpy as np
    import torch

    from rooftrace.metrics.pixel import ThresholdCurve
    from rooftrace.train.datamodule import collate

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
    curves = {}
    for place in places:
        curves[place.name] = curve = ThresholdCurve(bins=20)
        for first in range(0, len(place), batch_size):
            chosen = range(first, min(first + batch_size, len(place)))
            batch = collate([place[number] for number in chosen])
            with torch.inference_mode():
                probability = net((batch.images - mean) / std)[:, 0].sigmoid()
            truth = batch.targets == 1
            curve.add(truth.numpy(), probability.numpy(), batch.valid.numpy())
    by_place = {name: curve.iou() for name, curve in curves.items()}
    mean_iou = np.mean(list(by_place.values()), axis=0)
    thresholds = ThresholdCurve(bins=20).thresholds
    half, best = int(np.searchsorted(thresholds, 0.5)), int(mean_iou.argmax())
    return {
        "iou": {name: rounded(float(each[half])) for name, each in by_place.items()},
        "mean_iou": rounded(float(mean_iou[half])),
        "best_threshold": float(thresholds[best]),
        "mean_iou_at_best_threshold": rounded(float(mean_iou[best])),
    }


def ours(
    *,
    recipe: str,
    work: str,
    turn: float,
    marks: list[float],
    name: str = "ours",
    precision: str = "auto",
) -> dict[str, Any]:
    """Train as `rooftrace train` does, and continue after the last finished epoch."""
    from rooftrace.models.zoo import build_model  # before Lightning: see models/_torch.py

    # isort: split
    from lightning.pytorch.callbacks import Callback

    from rooftrace.train.datamodule import open_data
    from rooftrace.train.loop import prepare_process, run_trainer
    from rooftrace.train.task import SegmentationTask

    class Done(Exception):
        pass

    base, run = Path(recipe).parent, Path(work, name)
    config = _config(Path(recipe), precision=precision)
    prepare_process(config)
    data = open_data(config, base)
    net = build_model(config.model, bands=3, channels=1, base=base)
    names = [each.name for each in data.tiles]
    mean, std = data.statistics
    task = SegmentationTask(net, config, mean=mean, std=std, val_names=names, total_steps=10**9)

    class Turns(Callback):
        before = 0.0

        def state_dict(self) -> dict[str, Any]:
            return {"seconds": self.clock.seconds}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.before = state_dict["seconds"]

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.clock = _Clock(marks, turn, self.before)

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            self.validation = self.clock.stopped()
            self.validation.__enter__()

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self.validation.__exit__(None, None, None)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *given: Any) -> None:
            for minutes in self.clock.tick():
                with self.clock.stopped():
                    found = _measure(
                        task.best_net.eval(), data.statistics, data.tiles, config.batch_size
                    )
                _report(minutes, self.clock, trainer.global_step * config.batch_size, found)
            if self.clock.done or (self.clock.turn_is_over and not self.clock.rest()):
                raise Done

    sys.stdin.readline()
    resume = (run / "checkpoints" / "last.ckpt").exists()
    with suppress(Done):
        run_trainer(task, data, config, run, resume=resume, console=None, callbacks=[Turns()])
    return {}


def ours_fp32(**given: Any) -> dict[str, Any]:
    """Train as `ours`, but in fp32."""
    return ours(**given, name="ours_fp32", precision="fp32")


def plain(*, recipe: str, work: str, turn: float, marks: list[float]) -> dict[str, Any]:
    """The plain loop; it goes on after its last turn."""
    from plain_training import PlainLoop, infinite_batches

    # isort: split
    import torch

    from rooftrace.models.zoo import build_model
    from rooftrace.train.datamodule import open_data

    config, base, state_file = _config(Path(recipe)), Path(recipe).parent, Path(work, "plain.pt")
    torch.manual_seed(config.seed)
    data = open_data(config, base)
    loop = PlainLoop(build_model(config.model, bands=3, channels=1, base=base))
    state = {"steps": 0, "seconds": 0.0}
    partial = state_file.with_suffix(".partial")
    if state_file.exists():
        # The state that this program wrote itself.
        saved = torch.load(state_file, weights_only=False)  # nosec B614
        loop.load_state_dict(saved["loop"])
        state = saved["state"]
    sys.stdin.readline()
    clock = _Clock(marks, turn, state["seconds"])
    batches = infinite_batches(
        Path(work, "tiles"),
        crop_px=config.crop_px,
        batch_size=config.batch_size,
        seed=config.seed,
        start=int(state["steps"]),
    )
    steps = int(state["steps"])
    for batch in batches:
        loop.step(batch)
        steps += 1
        for minutes in clock.tick():
            with clock.stopped():
                loop.net.eval()
                found = _measure(loop.net, data.statistics, data.tiles, config.batch_size)
                loop.net.train()
            _report(minutes, clock, steps * config.batch_size, found)
        if clock.done or clock.turn_is_over:
            with clock.stopped():
                state = {"steps": steps, "seconds": clock.seconds}
                torch.save({"loop": loop.state_dict(), "state": state}, partial)
                partial.replace(state_file)
        if clock.done or (clock.turn_is_over and not clock.rest()):
            return {}
    raise AssertionError("the batches have no end")


if __name__ == "__main__":
    # Threads that wait for one another sleep: else a busy machine would be charged as work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    start(main, tiles, ours, ours_fp32, plain)
