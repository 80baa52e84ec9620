"""The sub-pixel U-Net gives each pixel an output."""

import pytest

torch = pytest.importorskip("torch")

import onnx

from rooftrace.core.errors import ConfigError
from rooftrace.models.export import ExportableModel, export_onnx
from rooftrace.models.zoo import ModelConfig, build_model


def network(channels: int, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="SubpixelUnet", encoder="tu-test_resnet", encoder_weights="none",
        options={"decoder_channels": [16, 16, 8, 8], **options},
    )  # fmt: skip
    return build_model(config, bands=3, channels=channels)


def test_the_decoder_ends_at_half_the_resolution() -> None:
    net, seen = network(2), []
    net.decoder.blocks[-1].register_forward_hook(lambda *call: seen.append(call[-1].shape))
    assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)
    assert seen == [(1, 8, 32, 48)]


def test_probabilities_are_shuffled_as_logits_are() -> None:
    net = network(1)
    model = ExportableModel(net, [100.0] * 3, [50.0] * 3).eval()
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.equal(model(image)[0], torch.sigmoid(net((image - 100) / 50)))
    graph = onnx.load_from_string(export_onnx(model, bands=3, multiple_px=32)).graph
    assert [node.op_type for node in graph.node[-2:]] == ["Sigmoid", "DepthToSpace"]


@pytest.mark.parametrize(
    ("encoder", "options", "said"),
    [
        ("mobilenet_v2", {"decoder_chanels": [8, 8, 8, 8]}, "Did you mean 'decoder_channels'"),
        ("tu-test_resnet", {"decoder_chanels": [8, 8, 8, 8]}, "no option 'decoder_chanels'"),
        ("mobilenet_v2", {"options": 1}, "no option 'options'"),
        ("mobilenet_v2", {"decoder_channels": [8, 8, 8, 8, 8]}, "`decoder_channels` for 5 blocks"),
        ("tu-test_resnet", {"output_stride": 16}, "down to a stride of 16, expected 5 down to 32"),
        ("tu-test_vit", {}, "cannot be built"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_configuration(
    encoder: str, options: dict[str, object], said: str
) -> None:
    def build() -> None:
        config = ModelConfig(
            architecture="SubpixelUnet", encoder=encoder, encoder_weights="none", options=options
        )
        build_model(config, bands=3, channels=1)

    with pytest.raises(ConfigError, match=said) as raised:
        build()
    assert "[model.options]" in raised.value.remedy
