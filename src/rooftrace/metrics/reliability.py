"""Whether scores are probabilities: of the buildings scored 0.8, are four in five right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Reliability", "draw_reliability"]

BINS = 10

_SURE = 1e-6
"""A log loss takes no probability to be nearer to 0 or 1."""

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Reliability:
    """Scores against what came true, in bins of equal width over 0..1.

    Args:
        count: (bins,) int64, the objects whose score falls into each bin.
        mean_score: (bins,) of them; NaN where there is none.
        share_right: (bins,) of them, those that are right; NaN where there is none.
        brier: the mean squared difference of score and outcome (Brier 1950, "Verification of
            Forecasts Expressed in Terms of Probability").
        log_loss: the mean of -ln of the probability that was given to what came true.
    """

    count: NDArray[np.int64]
    mean_score: Floats
    share_right: Floats
    brier: float
    log_loss: float

    @classmethod
    def of(cls, score: NDArray[np.floating], right: NDArray[np.bool_]) -> Reliability:
        """Count objects.

        Args:
            score: (n,) in 0..1.
            right: (n,) whether it is what it was taken for.

        Raises:
            ValueError: there is no object, or a score outside 0..1.
        """
        score = np.asarray(score, np.float64)
        if not len(score) or not (score.min() >= 0 and score.max() <= 1):
            raise ValueError(f"{len(score)} scores; expected at least one, all in 0..1")
        which = np.minimum((score * BINS).astype(np.int64), BINS - 1)
        count = np.bincount(which, minlength=BINS)
        each = np.where(count > 0, count, np.nan)
        inside = np.clip(score, _SURE, 1 - _SURE)
        return cls(
            count=count,
            mean_score=np.bincount(which, score, minlength=BINS) / each,
            share_right=np.bincount(which, right, minlength=BINS) / each,
            brier=float(np.mean((score - right) ** 2)),
            log_loss=float(-np.log(np.where(right, inside, 1 - inside)).mean()),
        )

    @property
    def objects(self) -> int:
        return int(self.count.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over all objects of how far the share of the right
        ones in their bin is from the mean score there (Naeini et al. 2015, "Obtaining Well
        Calibrated Probabilities Using Bayesian Binning"; Guo et al. 2017). In 0..1; of a few
        hundred objects chance alone makes it some hundredths.
        """
        gap = np.abs(self.share_right - self.mean_score)
        return float(np.nansum(gap * self.count) / self.count.sum())


_INK: Colour = (30, 30, 30)
_FAINT: Colour = (200, 200, 200)
_COLOURS: tuple[Colour, ...] = ((150, 150, 150), (27, 100, 170))
_SIDE_PX, _LEFT_PX, _TOP_PX, _BOTTOM_PX, _BARS_PX = 400, 64, 64, 52, 84


def draw_reliability(curves: Sequence[tuple[str, Reliability]], title: str) -> Image.Image:
    """The share of right ones against the score, a curve for each of at most two, with the
    diagonal on which scores are probabilities; below, how many objects have which score.

    Args:
        curves: name and figures, such as those before and after.
        title: above all.
    """
    height = _TOP_PX + _SIDE_PX + _BARS_PX + _BOTTOM_PX
    page = Image.new("RGB", (_LEFT_PX + _SIDE_PX + 32, height), "white")
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=12)
    floor = _TOP_PX + _SIDE_PX

    def place(score: float, share: float) -> tuple[float, float]:
        return _LEFT_PX + score * _SIDE_PX, floor - share * _SIDE_PX

    draw.text((12, 10), title, fill=_INK, font=font)
    for tenth in range(0, 11, 2):
        at = tenth / 10
        draw.line([place(0, at), place(1, at)], fill=_FAINT)
        draw.text((_LEFT_PX - 8, place(0, at)[1]), f"{at:.1f}", _INK, small, anchor="rm")
        draw.text((place(at, 0)[0], height - 36), f"{at:.1f}", _INK, small, anchor="ma")
    draw.text((_LEFT_PX, _TOP_PX - 20), "share that is right", _INK, small)
    draw.text((_LEFT_PX + _SIDE_PX, height - 18), "score", _INK, small, anchor="ra")
    draw.line([place(0, 0), place(1, 1)], fill=_INK)
    draw.rectangle([*place(0, 1), *place(1, 0)], outline=_INK)
    most = max(int(one.count.max()) for _, one in curves)
    width = _SIDE_PX / BINS / (len(curves) + 1)
    for number, ((name, one), colour) in enumerate(zip(curves, _COLOURS)):
        known = np.flatnonzero(one.count)
        line = [place(one.mean_score[i], one.share_right[i]) for i in known]
        draw.line(line, fill=colour, width=3)
        for x, y in line:
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
        label = f"{name}: expected calibration error {one.ece:.3f}"
        at_y = _TOP_PX + 10 + 20 * number
        draw.rectangle([_LEFT_PX + 12, at_y + 3, _LEFT_PX + 24, at_y + 12], fill=colour)
        draw.text((_LEFT_PX + 30, at_y), label, _INK, small)
        for i in known:
            left = _LEFT_PX + i / BINS * _SIDE_PX + (number + 0.5) * width
            tall = one.count[i] / most * (_BARS_PX - 30)
            draw.rectangle([left, floor + _BARS_PX - tall, left + width - 2, floor + _BARS_PX],
                           fill=colour)  # fmt: skip
    draw.text((_LEFT_PX - 8, floor + _BARS_PX), "0", _INK, small, anchor="rs")
    draw.text((_LEFT_PX - 8, floor + 30), f"{most:,}", _INK, small, anchor="rm")
    return page
