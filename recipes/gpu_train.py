r"""Train the bundled network on a GPU in a few minutes, from the files of `gpu_pack.py`.

    python recipes/gpu_train.py work/packs runs/gpu --seconds 500
    python recipes/gpu_train.py work/packs runs/more --seconds 900 --start runs/gpu/mean.safetensors
    python recipes/gpu_train.py work/packs runs/student --start work/packs/default.safetensors \
        --teacher work/packs/default.safetensors --teacher-scales 0.5 1 1.5

needs torch, timm, segmentation-models-pytorch, safetensors and OpenCV, and of this project only
`rooftrace.models.subpixel` and this folder; on a CPU (`--device cpu`) the extra `train`. All images
lie in the GPU's memory; crops, colours and targets of a batch are made there, so that the network
never waits. The schedule goes by the clock: the learning rate falls to `--end-rate` of its peak at
the end of `--seconds`, whatever the machine. It writes

- `mean.safetensors`: exponential mean of the weights, in half precision (10 MB), so far;
- `last.safetensors`: weights of the last step;
- `log.jsonl`: losses, samples per second, and at the end the IoU of each validation place, with the
  mean of the weights;
- `checkpoint.pt` thirty times in a training: the same command goes on from it after a kill;
- `figures.json` at the end, when the checkpoint is removed.

A teacher is the mean of the probabilities of several networks on a crop, on its mirror image and at
several scales; packs of `gpu_teach.py` have them already, at no cost in the training. Its loss is
mixed with that of the labels, and is all that counts where there is no label. The licence of the
teacher's data holds for the student too, so none is taken by default: `with-jonkoping.safetensors`
would pass on that of Jönköping.

`gpu_bundle.py` makes a bundle of the weights, and weights of a bundle.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
# A bare machine has a working torchvision, and does not need this.
with contextlib.suppress(ImportError):
    import rooftrace.models._torch  # noqa: F401
import torch
import torch.nn.functional as F
from gpu_atlas import FIRST, NODATA, UNLABELLED, Array, Atlas
from gpu_colours import change_colours
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rooftrace.models.subpixel import SubpixelUnet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

GAP_PX, GAP_WEIGHT = 9, 2.0
"""Ground between buildings that are nearer than this counts so much more, besides once."""

STRIDE = 32
"""Sides of crops are multiples of the encoder's stride."""

SAVES = 30
"""Checkpoints of a training."""

GPU_BATCH, CPU_BATCH = 64, 8
VALIDATED_PX = 1536
FINEST_M, COARSEST_M = 0.25, 0.4
"""Working scale of the default model, for validation."""


def closed(target: Tensor, side: int) -> Tensor:
    """Return (n, y, x) with what lies between buildings nearer than `side` pixels filled."""
    if target.device.type == "cpu":
        kernel = np.ones((side, side), np.uint8)
        planes = target.numpy()
        found = [cv2.morphologyEx(one, cv2.MORPH_CLOSE, kernel) for one in planes]
        return torch.from_numpy(np.stack(found))
    return smallest(largest(target, side), side)


def largest(plane: Tensor, side: int) -> Tensor:
    """Return the largest value in the square around each pixel of (n, y, x)."""
    return F.max_pool2d(plane[:, None], side, stride=1, padding=side // 2)[:, 0]


def smallest(plane: Tensor, side: int) -> Tensor:
    """Return the smallest value in the square around each pixel of (n, y, x)."""
    return -largest(-plane, side)


def loss_of(logits: Tensor, numbers: Tensor) -> Tensor:
    """Return the loss of logits (n, 1, y, x) against the labels."""
    plane = logits[:, 0].float()
    target = (numbers >= FIRST).float()
    valid = ((numbers != NODATA) & (numbers != UNLABELLED)).float()
    gaps = (closed(target, GAP_PX) - target).clamp(min=0)
    weight = valid * (1 + GAP_WEIGHT * gaps)
    return 0.6 * entropy(plane, target, weight) + 0.4 * dice(plane, target, valid)


def loss_of_student(logits: Tensor, taught: Tensor, numbers: Tensor) -> Tensor:
    """Return the loss of logits (n, 1, y, x) against a teacher's probabilities (n, y, x).

    It counts where the image has pixels, labelled or not.
    """
    plane, seen = logits[:, 0].float(), (numbers != NODATA).float()
    return 0.6 * entropy(plane, taught, seen) + 0.4 * dice(plane, taught, seen, power=2)


def entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean binary cross-entropy."""
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1)


def dice(logits: Tensor, target: Tensor, weight: Tensor, power: int = 1) -> Tensor:
    """Return 1 - Dice over the batch (Milletari et al. 2016; squares for targets between)."""
    probability = logits.sigmoid()
    both = (probability * target * weight).sum()
    sums = ((probability**power + target**power) * weight).sum()
    return 1 - (2 * both + 1) / (sums + 1)


class Teacher:
    """Networks whose mean probability a student learns.

    Args:
        files: Weights of networks, see `network_of`.
        scales: Scales of the crops that each network predicts, itself and mirrored.
    """

    def __init__(
        self, files: Sequence[Path], scales: Sequence[float], device: torch.device
    ) -> None:
        self._nets = [on_device(network_of(load_file(file)), device).eval() for file in files]
        self._scales = scales

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Return the probabilities (n, y, x) of building of images (n, 3, y, x) in 0..1."""
        side = image.shape[-1]
        total = torch.zeros_like(image[:, :1])
        for scale in self._scales:
            size = max(round(side * scale / STRIDE), 1) * STRIDE
            scaled = normalised(resized(image, size))
            for net in self._nets:
                with torch.autocast(image.device.type, torch.bfloat16):
                    plain, mirrored = net(scaled), net(scaled.flip(3)).flip(3)
                both = plain.float().sigmoid() + mirrored.float().sigmoid()
                total += resized(both, side)
        return total[:, 0] / (2 * len(self._scales) * len(self._nets))


def resized(image: Tensor, side: int) -> Tensor:
    """Return square images (n, band, y, x) at another side in pixels."""
    if image.shape[-1] == side:
        return image
    return F.interpolate(image, size=side, mode="bilinear", antialias=True)


def normalised(image: Tensor) -> Tensor:
    """Return the input of the network for colours in 0..1."""
    mean, std = (torch.tensor(one, device=image.device).view(1, 3, 1, 1) for one in (MEAN, STD))
    return ((image - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def validate(net: nn.Module, atlas: Atlas) -> dict[str, dict[str, float]]:
    """Return the IoU of each place at the thresholds 0.4 and 0.5, or the share called building."""
    net.eval()
    device = atlas.pixels.device
    counts: dict[str, Array] = {}
    for index, entry in enumerate(atlas.entries):
        pixels, numbers = atlas.image(index)
        image = np.where((numbers == NODATA)[..., None], 0, pixels[..., :3])
        probability = predicted(net, image, scale_of(entry["gsd_m"]), device)
        valid, target = numbers != NODATA, numbers >= FIRST
        found = counts.setdefault(entry["place"], np.zeros((2, 4)))
        for row, threshold in enumerate((0.4, 0.5)):
            built = probability >= threshold
            found[row] += [
                (built & target & valid).sum(), (built & ~target & valid).sum(),
                (~built & target & valid).sum(), valid.sum(),
            ]  # fmt: skip
    figures = {}
    for place, rows in counts.items():
        figures[place] = {
            f"{name}@{threshold}": round(float(value), 4)
            for threshold, (tp, fp, fn, all_px) in zip((0.4, 0.5), rows)
            for name, value in (
                (("iou", tp / (tp + fp + fn)), ("precision", tp / max(tp + fp, 1)))
                if tp + fn
                else (("false_share", fp / all_px),)
            )
        }
    return figures


def scale_of(gsd_m: float) -> float:
    """Return the factor from the pixels of an image to those of the default model."""
    if gsd_m > COARSEST_M:
        return gsd_m / FINEST_M
    return gsd_m / max(gsd_m, FINEST_M)


def predicted(net: nn.Module, image: Array, scale: float, device: torch.device) -> Array:
    """Return the probability of building (y, x) of an image, enlarged by a factor before.

    The network sees tiles that do not overlap.
    """
    size = tuple(round(side * scale) for side in image.shape[1::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, size, interpolation=way)
    whole = np.zeros(scaled.shape[:2], dtype=np.float32)
    for top in range(0, len(scaled), VALIDATED_PX):
        for left in range(0, scaled.shape[1], VALIDATED_PX):
            part = np.s_[top : top + VALIDATED_PX, left : left + VALIDATED_PX]
            height, width = scaled[part].shape[:2]
            padding = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
            tile = np.pad(scaled[part], padding, mode="symmetric")
            tensor = torch.from_numpy(tile).to(device).permute(2, 0, 1)[None].float() / 255
            with torch.autocast(device.type, torch.bfloat16):
                logits = net(normalised(tensor))[0, 0, :height, :width]
            whole[part] = logits.float().sigmoid().cpu().numpy()
    return cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)


def network() -> SubpixelUnet:
    """Return the network with random weights."""
    return SubpixelUnet("tu-efficientnet_lite2", None, 3, 1)


def network_of(weights: Mapping[str, Tensor]) -> SubpixelUnet:
    """Return the network with given weights.

    The branch for separation that older files have is left out: the watershed separates buildings
    better.
    """
    kept = {name: one for name, one in weights.items() if not name.startswith("branch.")}
    if len(kept) < len(weights):
        print(f"left out: {len(weights) - len(kept)} tensors of a branch for separation")
    net = network()
    net.load_state_dict(kept)
    return net


def on_device(net: SubpixelUnet, device: torch.device) -> SubpixelUnet:
    """Move a network to a device, in the layout in which it computes fastest."""
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def main() -> None:
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    torch.manual_seed(given.seed)
    device = torch.device(given.device)
    packs = sorted(given.packs.glob("*.zip"))
    atlas = Atlas(packs[: given.parts], "train", device, given.without)
    if given.start is None:
        net = network()
        net.encoder.load_state_dict(load_file(given.packs / "encoder.safetensors"))
    else:
        net = network_of(load_file(given.start))
    teacher = Teacher(given.teacher, given.teacher_scales, device) if given.teacher else None
    if device.type == "cpu":
        # Their gradients are fast there.
        from rooftrace.train.depthwise import DepthwiseConv2d

        DepthwiseConv2d.take_over(net)
    on_device(net, device).train()
    checkpoint = given.out / "checkpoint.pt"
    with (given.out / "log.jsonl").open("a" if checkpoint.exists() else "w", buffering=1) as log:

        def note(**values: Any) -> None:
            line = json.dumps(values)
            print(line, flush=True)
            log.write(line + "\n")

        # cuDNN's search for kernels is off: it took 39 s on an H200 before the first step.
        note(images=len(atlas.entries), seconds=round(time.monotonic() - begun, 1))
        training = Training(net, given, checkpoint)
        training.run(atlas, teacher, note)
        for name, one in (("mean", training.mean), ("last", net)):
            save(one, given.out / f"{name}.safetensors")
        # The pixels of the training are no longer needed.
        del atlas
        begun = time.monotonic()
        figures = validate(training.mean, Atlas(packs, "val", device))
        note(figures=figures, seconds=round(time.monotonic() - begun, 1))
    (given.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    checkpoint.unlink()


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", type=Path, help="Folder of gpu_pack.py")
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=int, help="Number of files to train on; default: all")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--without", nargs="*", default=[], help="Places that are left out")
    parser.add_argument("--start", type=Path, help="Weights to train on from")
    parser.add_argument("--device", default="cuda")
    size = f"Crops of a step; default: {GPU_BATCH}, on a CPU {CPU_BATCH}"
    parser.add_argument("--batch", type=int, help=size)
    parser.add_argument("--side", type=int, default=320, help="Pixels along a side of a crop")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--end-rate", type=float, default=0.0, help="Share of --lr at the end")
    parser.add_argument("--decay", type=float, default=0.999, help="Of the mean of the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", type=Path, nargs="+", default=[], metavar="FILE",
                        help="Weights of networks to learn from; their licences count")  # fmt: skip
    parser.add_argument("--teacher-weight", type=float, default=0.5,
                        help="Share of the teacher in the loss, 0 to 1")  # fmt: skip
    parser.add_argument("--fix-stages", type=int, default=0, metavar="N", help=
                        "Train neither the first N stages of the encoder nor the statistics of "
                        "normalisations: for small batches from good weights")  # fmt: skip
    parser.add_argument("--teacher-scales", type=float, nargs="+", default=[1.0], metavar="SCALE")
    given = parser.parse_args()
    if given.side < STRIDE or given.side % STRIDE:
        parser.error(f"--side {given.side}: expected a multiple of {STRIDE}")
    if not 0 <= given.teacher_weight <= 1:
        parser.error(f"--teacher-weight {given.teacher_weight}: expected 0 to 1")
    if given.batch is None:
        given.batch = CPU_BATCH if given.device == "cpu" else GPU_BATCH
    return given


class Training:
    """A network with its optimiser and the exponential mean of its weights.

    Args:
        net: The network.
        given: See `arguments`.
        checkpoint: File that the training goes on from, if it exists.
    """

    def __init__(self, net: SubpixelUnet, given: argparse.Namespace, checkpoint: Path) -> None:
        self._net, self._given, self._checkpoint = net, given, checkpoint
        self._device = next(net.parameters()).device
        encoder = list(net.encoder.parameters())
        inside = {id(one) for one in encoder}
        if given.fix_stages:
            fix(net, given.fix_stages)
            encoder = [one for one in encoder if one.requires_grad]
        others = [one for one in net.parameters() if id(one) not in inside]
        self._optimizer = torch.optim.AdamW(
            [{"params": encoder, "lr": given.lr / 3}, {"params": others, "lr": given.lr}],
            weight_decay=2e-2, fused=True,
        )  # fmt: skip
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self.mean = deepcopy(net)
        self.step, self.seconds = 0, 0.0
        if checkpoint.exists():
            state = torch.load(checkpoint, map_location=self._device, weights_only=True)
            net.load_state_dict(state["net"])
            self.mean.load_state_dict(state["mean"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]

    def run(self, atlas: Atlas, teacher: Teacher | None, note: Any) -> None:
        """Train until `given.seconds` are over, those before the checkpoint included."""
        given, device, net = self._given, self._device, self._net
        # After a checkpoint other crops are drawn than from the start.
        generator = torch.Generator(device).manual_seed(given.seed + self.step)
        rng = np.random.default_rng((given.seed, self.step))
        state, mean_state = net.state_dict(), self.mean.state_dict()
        first, before = self.step, self.seconds
        begun = time.monotonic() - before
        noted, noted_step, sums = before, first, torch.zeros(2, device=device)
        while self.seconds < given.seconds:
            self._set_rate(self.seconds / given.seconds)
            batch = atlas.draw(given.batch, given.side, generator)
            shown, built = batch.numbers != NODATA, batch.numbers >= FIRST
            image = normalised(change_colours(batch.image, built, generator, rng) * shown[:, None])
            with torch.autocast(device.type, torch.bfloat16):
                logits = net(image)
            loss = labelled = loss_of(logits, batch.numbers)
            learned = torch.zeros_like(labelled)
            taught = batch.taught if teacher is None else teacher(batch.image)
            if taught is not None:
                learned = loss_of_student(logits, taught, batch.numbers)
                loss = torch.lerp(labelled, learned, given.teacher_weight)
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            self._optimizer.step()
            sums += torch.stack([labelled.detach(), learned.detach()])
            self.step += 1
            average(mean_state, state, min(given.decay, self.step / (self.step + 10)))
            self.seconds = time.monotonic() - begun
            if self.seconds - noted > given.seconds / SAVES or self.seconds >= given.seconds:
                labels, taught = (sums / (self.step - noted_step)).tolist()
                rate = (self.step - first) * given.batch / (self.seconds - before)
                note(step=self.step, seconds=round(self.seconds, 1), labels=round(labels, 4),
                     teacher=round(taught, 4), samples_per_s=round(rate, 1))  # fmt: skip
                sums.zero_()
                self._save()
                noted, noted_step = self.seconds, self.step

    def _set_rate(self, progress: float) -> None:
        """Set the learning rates at a share of the time."""
        given = self._given
        warm = min(1.0, (self.step + 1) / 100)
        falling = 0.5 + 0.5 * math.cos(math.pi * progress)
        for group, peak in zip(self._optimizer.param_groups, self._peaks):
            group["lr"] = peak * warm * (given.end_rate + (1 - given.end_rate) * falling)

    def _save(self) -> None:
        """Write the checkpoint, and the mean of the weights so far."""
        save(self.mean, self._given.out / "mean.safetensors")
        unfinished = self._checkpoint.with_suffix(".part")
        torch.save(
            {"net": self._net.state_dict(), "mean": self.mean.state_dict(),
             "optimizer": self._optimizer.state_dict(), "step": self.step,
             "seconds": self.seconds},
            unfinished,
        )  # fmt: skip
        unfinished.replace(self._checkpoint)


def fix(net: SubpixelUnet, stages: int) -> None:
    """Fix the stem, the first stages of the encoder and all statistics of normalisations."""
    fixed = ("conv_stem", "bn1", *(f"blocks.{stage}" for stage in range(stages)))
    for name, one in net.encoder.model.named_parameters():
        one.requires_grad_(not name.startswith(fixed))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def average(mean: dict[str, Tensor], state: dict[str, Tensor], decay: float) -> None:
    """Move the exponential mean towards the weights, statistics of normalisations included."""
    floats = [name for name, one in mean.items() if one.is_floating_point()]
    torch._foreach_lerp_(
        [mean[name] for name in floats], [state[name] for name in floats], 1 - decay
    )


def save(net: nn.Module, path: Path) -> None:
    """Write the weights in half precision."""
    state = {
        name: (one.half() if one.is_floating_point() else one).contiguous().cpu()
        for name, one in net.state_dict().items()
    }
    save_file(state, str(path))


if __name__ == "__main__":
    main()
