"""Any architecture with any encoder, by name; weights fit or are refused by name."""

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.models.zoo import ModelConfig, build_model, load_encoder, recorded_network

# After rooftrace, which makes torchvision importable beside a CPU build of PyTorch.
timm = pytest.importorskip("timm")

TINY = "tu-test_resnet"


def build(
    architecture: str = "Unet",
    bands: int = 3,
    channels: int = 1,
    base: Path = Path(),
    **settings: Any,
) -> Any:
    config = ModelConfig(
        **{"architecture": architecture, "encoder": TINY, "encoder_weights": "none"} | settings
    )
    return build_model(config, bands=bands, channels=channels, base=base)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"architecture": "Unett"}, "no architecture named 'Unett'. Did you mean 'Unet'"),
        ({"encoder": "mobilenet_v3"}, "no encoder 'mobilenet_v3'. Did you mean 'mobilenet_v2'"),
        ({"encoder": "resnet50d"}, "no encoder 'resnet50d'. Did you mean 'tu-resnet50d' of timm?"),
        ({"encoder": "tu-resnet5"}, "no encoder 'tu-resnet5'. Did you mean 'tu-resnet"),
        (
            {"encoder": "resnet18", "options": {"decoder_chanels": [1]}},
            "Unet with resnet18 has no option 'decoder_chanels'. Did you mean 'decoder_channels'",
        ),
        ({"options": {"activation": "sigmoid"}}, "has no option 'activation'"),
        ({"architecture": "PlainUnet"}, "model.encoder = 'tu-test_resnet', but PlainUnet has no"),
    ],
)
def test_settings_that_do_not_exist(settings: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**{"encoder": TINY, "encoder_weights": "none"} | settings)
    assert expected in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"options": {"decoder_chanels": [1]}}, "cannot be built"),
        ({"options": {"encoder_depth": 9}}, "cannot be built"),
        ({"architecture": "DPT", "encoder": "resnet18"}, "cannot be built"),
        ({"encoder_weights": "absent.safetensors"}, "There are no encoder weights at"),
        ({"encoder_weights": "$ROOFTRACE_UNSET/x"}, "model.encoder_weights = "),
        ({"encoder_weights": "noise.safetensors"}, "cannot be read as weights"),
        ({"encoder_weights": "other.pth"}, "does not fit this encoder: missing keys ["),
    ],
)
def test_a_model_that_cannot_be_built(tmp_path: Path, settings: dict, expected: str) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"not safetensors")
    torch.save({"backbone.stem.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises((ConfigError, BundleError)) as caught:
        build(base=tmp_path, **settings)
    assert expected in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_without_a_network_a_file_is_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        asked.append(args)
        raise OSError("no route")

    asked: list[object] = []
    # Every connection of the hub's client, its retries among them.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refused)
    with pytest.raises(ConfigError, match=f"'imagenet' of {encoder} could not be") as caught:
        build(encoder=encoder, encoder_weights="imagenet")
    assert 'encoder_weights = "encoder.pth"' in caught.value.remedy
    assert len(asked) <= 1


def test_the_network_of_a_bundle_takes_no_weights_from_elsewhere() -> None:
    with_encoder = {"encoder": "resnet18", "encoder_weights": "/etc/passwd", "start": "default"}
    found = recorded_network(with_encoder, "a bundle")
    assert (found.encoder, found.encoder_weights, found.start) == ("resnet18", "none", None)
    plain = {"architecture": "PlainUnet", "encoder": None, "encoder_weights": None}
    assert recorded_network(plain, "a bundle").encoder_weights is None


@pytest.fixture
def weights(tmp_path: Path) -> dict:
    torch.manual_seed(0)
    state = build().encoder.state_dict()
    return {k: v.contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("encoder", "entry"),
    [("test_resnet", ""), ("test_convnext", "state_dict"), ("test_efficientnet", "teacher")],
)
def test_the_encoder_of_a_checkpoint_is_loaded(tmp_path: Path, encoder: str, entry: str) -> None:
    torch.manual_seed(0)
    state = timm.create_model(encoder).state_dict()
    prefixed = {f"module.backbone.{name}": weight for name, weight in state.items()}
    content = {entry: prefixed, "epoch": 3} if entry else state
    torch.save(content, tmp_path / "e.pth")
    model = build(encoder=f"tu-{encoder}", base=tmp_path, encoder_weights="e.pth")
    for name, weight in model.encoder.state_dict().items():
        theirs = re.sub("^model.((stem|stages)(?=_))?_?", r"\2.", name).lstrip(".")
        assert torch.equal(weight, state[theirs]), name


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_a_first_layer_for_other_bands(tmp_path: Path, weights: dict, bands: int) -> None:
    save_file(weights, tmp_path / "e.safetensors")
    model = build(bands=bands, base=tmp_path, encoder_weights="e.safetensors")
    found = model.encoder.state_dict()
    (first,) = [k for k, v in weights.items() if found[k].shape != v.shape]
    assert found[first].shape[1] == bands
    assert all(torch.equal(found[k], v) for k, v in weights.items() if k != first)
    # A grey image, the same in every band, is answered as it was.
    summed = found[first].sum(dim=1)
    if bands == 1:
        torch.testing.assert_close(summed, weights[first].sum(dim=1))
    else:
        cycle = [weights[first][:, i % 3] for i in range(bands)]
        torch.testing.assert_close(summed, sum(cycle) * 3 / bands)
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, bands, 64, 64)).shape == (1, 1, 64, 64)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, weights: dict) -> None:
    model = build()
    name = sorted(weights)[0]
    path = tmp_path / "e.safetensors"
    save_file({k: v for k, v in weights.items() if k != name}, path)
    with pytest.raises(ConfigError) as caught:
        load_encoder(model, path)
    assert f"missing keys ['{name}'] (1)" in caught.value.message
    deeper = f"{name.rpartition('.')[0]}.9.weight"  # a layer that only a larger encoder has
    save_file(weights | {deeper: torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=rf"unexpected keys \['{deeper}'\] \(1\)"):
        load_encoder(model, path)
    save_file(weights | {name: torch.zeros(7)}, path)
    with pytest.raises(ConfigError, match="does not hold weights of this encoder") as caught:
        load_encoder(model, path)
    assert name in caught.value.message
