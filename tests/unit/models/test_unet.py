"""Our own U-Net is what its settings say, at any of them."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.models.unet import PlainUnetConfig
from rooftrace.models.zoo import ModelConfig, build_model, multiple_px

SETTINGS = st.builds(
    PlainUnetConfig,
    filters=st.integers(1, 6),
    depth=st.integers(1, 3),
    convolutions=st.integers(1, 3),
    normalisation=st.sampled_from(["batch", "instance", "group", "none"]),
    dropout=st.sampled_from([0.0, 0.3]),
    upsampling=st.sampled_from(["transposed", "bilinear", "nearest"]),
)


def parameters(output: PlainUnetConfig, bands: int, channels: int) -> int:
    """Count the weights by hand."""
    norm = 0 if output.normalisation == "none" else 2
    bias = 1 if output.normalisation == "none" else 0

    def block(before: int, width: int) -> int:
        first = 9 * before * width
        rest = (output.convolutions - 1) * 9 * width * width
        return first + rest + output.convolutions * width * (bias + norm)

    widths = [output.filters * 2**level for level in range(output.depth + 1)]
    down = block(bands, widths[0]) + sum(block(a, 2 * a) for a in widths[:-1])
    kernel = 4 if output.upsampling == "transposed" else 9
    larger = sum(kernel * 2 * a * a + a for a in widths[:-1])
    up = sum(block(2 * a, a) for a in widths[:-1])
    return down + larger + up + output.filters * channels + channels


@pytest.mark.campaign
@settings(max_examples=40)
@given(
    output=SETTINGS,
    bands=st.integers(1, 5),
    channels=st.integers(1, 4),
    rows=st.integers(2, 4),
    columns=st.integers(2, 4),
)
def test_any_settings(
    output: PlainUnetConfig, bands: int, channels: int, rows: int, columns: int
) -> None:
    config = ModelConfig(architecture="PlainUnet", options=output.model_dump())
    net = build_model(config, bands=bands, channels=channels)
    assert sum(p.numel() for p in net.parameters()) == parameters(output, bands, channels)
    side = multiple_px(net)
    assert side == 2**output.depth
    image = torch.randn(2, bands, rows * side, columns * side)
    logits = net(image)
    assert logits.shape == (2, channels, rows * side, columns * side)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(image), net(image))
        laid = net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            laid(image.to(memory_format=torch.channels_last)), net(image), rtol=1e-4, atol=1e-5
        )
