"""What the refinement of a trained segmenter is told: `[refine]` of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rooftrace.core.config import Config
from rooftrace.models.pix2pix import PatchDiscriminator

__all__ = ["RefineConfig"]

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class RefineConfig(Config):
    """Pix2Pix after the segmenter: see `models.pix2pix`. Data, crops, augmentation, precision and
    seed are those of the run.

    Args:
        epochs: of the refiner, at most.
        batch_size: default that of the run. The paper's is 1.
        patience: epochs without a better `val_iou`; 0 never stops early.
        filters, depth, dropout, residual: of the generator. `crop_px` must be a multiple of
            2 to the power of `depth`.
        discriminator_filters, discriminator_layers: of the discriminator; 3 layers judge patches of
            70 px.
        l1_weight: λ, of the mean difference of probabilities beside the adversarial loss; the
            larger, the less the discriminator is heard.
        loss_weight: of the run's own `loss` beside both.
        lr, beta1: of Adam, for both networks.
    """

    epochs: Count = 20
    batch_size: Count | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    filters: Count = 64
    depth: Annotated[int, Field(ge=1, le=10)] = 5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    residual: bool = True
    discriminator_filters: Count = 64
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = 3
    l1_weight: NotNegative = 100.0
    loss_weight: NotNegative = 0.0
    lr: Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def check_crop(self, side_px: int, key: str) -> None:
        """Raises ValueError where a crop of this side does not go through both networks."""
        if side_px % 2**self.depth:
            raise ValueError(
                f"{key} = {side_px} is not a multiple of {2**self.depth}, which refine.depth = "
                f"{self.depth} needs"
            )
        least = PatchDiscriminator.smallest_px(self.discriminator_layers)
        if side_px < least:
            raise ValueError(
                f"{key} = {side_px} is too small for refine.discriminator_layers = "
                f"{self.discriminator_layers}, which needs {least}"
            )
