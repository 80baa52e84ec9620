"""The sub-pixel U-Net gives each pixel an output, and its branch leaves the mask alone."""

from __future__ import annotations

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


def test_the_loss_of_the_branch_does_not_reach_the_mask() -> None:
    net = network(2, branch_channels=4)
    image = torch.randn(2, 3, 64, 64)
    net(image)[:, 1].square().mean().backward()
    assert net.branch.head[0].weight.grad.any()
    others = [name for name, one in net.named_parameters() if not name.startswith("branch.")]
    reached = {
        name for name, one in net.named_parameters() if one.grad is not None and one.grad.any()
    }
    assert not reached & {*others}


def test_the_branch_makes_the_last_channel_alone() -> None:
    plain, branched = network(1).eval(), network(2, branch_channels=4).eval()
    branched.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(image)[:, 0], branched(image)[:, 0])


@pytest.mark.parametrize(("channels", "branch", "separated"), [(2, 4, True), (1, 0, False)])
def test_probabilities_are_shuffled_as_logits_are(
    channels: int, branch: int, separated: bool
) -> None:
    net = network(channels, branch_channels=branch)
    model = ExportableModel(net, [100.0] * 3, [50.0] * 3, separated=separated).eval()
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
