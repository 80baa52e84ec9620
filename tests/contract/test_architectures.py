"""Every architecture supports any bands, any classes, dropout in training, and gradients."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rooftrace.models.zoo import ARCHITECTURES, ModelConfig, build_model, multiple_px

# The smallest that each can be: with a small encoder, and few channels where they are many.
SMALL: dict[str, dict[str, Any]] = {
    "DPT": {
        "encoder": "tu-test_vit",
        "options": {
            "decoder_intermediate_channels": [8, 8, 8, 8],
            "decoder_fusion_channels": 8,
            "dynamic_img_size": True,
        },
    },
    "DeepLabV3": {"options": {"decoder_channels": 16}},
    "DeepLabV3Plus": {"options": {"decoder_channels": 16}},
    "FPN": {"options": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}},
    "MAnet": {"options": {"decoder_channels": [16, 16, 8, 8, 8], "decoder_pab_channels": 8}},
    "PSPNet": {"options": {"psp_out_channels": 16}},
    "PlainUnet": {"options": {"filters": 4, "depth": 3}},
    "Segformer": {"options": {"decoder_segmentation_channels": 16}},
    "UPerNet": {"options": {"decoder_channels": 16}},
    "Unet": {"options": {"decoder_channels": [16, 16, 8, 8, 8]}},
    "UnetPlusPlus": {"options": {"decoder_channels": [16, 16, 8, 8, 8]}},
}
BANDS, CHANNELS = 4, 3


def config_of(name: str, dropout: float = 0.0) -> ModelConfig:
    output = SMALL.get(name, {})
    if name == "PlainUnet":
        own = {**output, "options": {**output["options"], "dropout": dropout}}
        return ModelConfig(architecture=name, **own)
    chosen = {"encoder": "tu-test_resnet", "encoder_weights": "none", "dropout": dropout, **output}
    return ModelConfig(architecture=name, **chosen)


def side_px(net: Any) -> int:
    # PAN pools three times below its encoder.
    return max(128, multiple_px(net))


@pytest.mark.campaign
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bands_to_channels(name: str) -> None:
    torch.manual_seed(0)
    net = build_model(config_of(name), bands=BANDS, channels=CHANNELS)
    side = side_px(net)
    assert side % multiple_px(net) == 0
    image = torch.randn(2, BANDS, side, side)
    logits = net(image)
    assert logits.shape == (2, CHANNELS, side, side)
    logits.square().mean().backward()
    first = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d)).weight
    assert first.shape[1] == BANDS
    assert first.grad.any()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dropout_acts_in_training_alone(name: str) -> None:
    torch.manual_seed(0)
    net = build_model(config_of(name, dropout=0.5), bands=BANDS, channels=1).eval()
    # BatchNorm and what drops of itself stay as they are: only what was asked for acts.
    asked = [m for m in net.modules() if isinstance(m, torch.nn.Dropout2d) and m.p == 0.5]
    assert asked
    image = torch.randn(1, BANDS, side_px(net), side_px(net))
    with torch.no_grad():
        plain = net(image)
        assert torch.equal(net(image), plain)
        for layer in asked:
            layer.train()
        assert not torch.equal(net(image), plain)
