"""Any architecture with any encoder, by name; weights fit or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from rooftrace.core.errors import ConfigError  # noqa: E402
from rooftrace.models.zoo import (  # noqa: E402
    ModelConfig,
    _architectures,
    build_model,
    load_encoder,
    needs_fixed_size,
)

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


def test_the_architectures_of_smp_are_known() -> None:
    known = _architectures()
    assert {"Unet", "UnetPlusPlus", "FPN", "DeepLabV3Plus", "Linknet", "PSPNet"} <= set(known)


@pytest.mark.parametrize(
    "name", ["Unet", "unet", "FPN", "DeepLabV3Plus", "Linknet", "UnetPlusPlus"]
)
@pytest.mark.parametrize(("bands", "channels"), [(3, 1), (5, 4)])
def test_pixels_to_logits(name: str, bands: int, channels: int) -> None:
    model = build(name, bands, channels).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, bands, 64, 96)).shape == (2, channels, 64, 96)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"architecture": "Unett"}, "no architecture 'Unett'. Did you mean 'unet'"),
        ({"encoder": "mobilenet_v3"}, "no encoder 'mobilenet_v3'. Did you mean 'mobilenet_v2'"),
        ({"encoder": "tu-there_is_no_such_net"}, "cannot be built"),
        ({"options": {"decoder_chanels": [1]}}, "cannot be built"),
        ({"encoder_weights": "absent.safetensors"}, "There are no encoder weights at"),
        ({"encoder_weights": "$ROOFTRACE_UNSET/x"}, "model.encoder_weights = "),
    ],
)
def test_a_model_that_does_not_exist(tmp_path: Path, settings: dict, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(base=tmp_path, **settings)
    assert told in caught.value.message
    assert caught.value.remedy


@pytest.fixture
def weights(tmp_path: Path) -> dict:
    torch.manual_seed(0)
    state = build().encoder.state_dict()
    return {k: v.contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_weights_of_an_encoder_from_a_file(tmp_path: Path, weights: dict) -> None:
    save_file(weights, tmp_path / "e.safetensors")
    model = build(base=tmp_path, encoder_weights="e.safetensors")
    found = model.encoder.state_dict()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


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
    assert f"missing ['{name}'] (1)" in caught.value.message
    save_file(weights | {"surprise": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"surplus \['surprise'\] \(1\)"):
        load_encoder(model, path)
    save_file(weights | {name: torch.zeros(7)}, path)
    with pytest.raises(ConfigError, match="does not hold weights of this encoder") as caught:
        load_encoder(model, path)
    assert name in caught.value.message
    path.write_bytes(b"not safetensors")
    with pytest.raises(ConfigError, match="does not hold weights of this encoder"):
        load_encoder(model, path)


def test_which_networks_take_one_size_alone() -> None:
    assert not needs_fixed_size(build(), 3, 32)
    assert not needs_fixed_size(build("FPN"), 3, 32)
    assert needs_fixed_size(torch.nn.Linear(4, 4), 3, 32)
    # They run at any size, but their pooling to a grid is exported for one.
    assert needs_fixed_size(build("UPerNet"), 3, 32)
    assert needs_fixed_size(build("PSPNet"), 3, 32)
