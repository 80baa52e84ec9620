"""`rooftrace import` of state dicts, and what it wrote as a model of other commands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import call, command

torch = pytest.importorskip("torch")

from rooftrace.engines.select import load_engine
from rooftrace.models.bundle import read_bundle
from rooftrace.models.zoo import IMAGENET_MEAN, IMAGENET_STD
from tiny_training import write_tiny_training

# After rooftrace, which makes torchvision importable beside a CPU build of PyTorch.
smp = pytest.importorskip("segmentation_models_pytorch")

CONTRACT = ("--gsd", 0.3, "--normalise", "imagenet")
DECODER = [32, 16, 16, 8, 8]
UNET = ("--architecture", "unet", "--encoder", "tu-test_resnet",
        "--set", f"options.decoder_channels={DECODER}")  # fmt: skip


def unet(channels: int) -> Any:
    torch.manual_seed(channels)
    net = smp.Unet("tu-test_resnet", encoder_weights=None, classes=channels,
                   decoder_channels=DECODER)  # fmt: skip
    with torch.no_grad():  # statistics of BatchNorm, or all outputs are near one half
        for _ in range(10):
            net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


def probabilities(net: Any, image: Any) -> Any:
    """Return what the program of the network would call its probabilities, in 0..1 pixels."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        logits = net((torch.from_numpy(image) / 255 - mean) / std)
    return torch.softmax(logits, dim=1).numpy()[:, 1:]


def check_answers(bundle: Path, net: Any, engine: str) -> None:
    """Compare a bundle with the library's network, on an image of another size than the check."""
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96)).astype(np.uint8)
    loaded = load_engine(read_bundle(bundle), engine=engine, precision="fp32")
    np.testing.assert_allclose(loaded.run(image), probabilities(net, image), atol=1e-3)


@pytest.mark.campaign
def test_import_predict_evaluate_and_train_on(tmp_path: Path) -> None:
    """The chain of a team with a checkpoint of Lightning, whose network has two channels."""
    write_tiny_training(tmp_path)
    net = unet(2)
    weights = {f"model.{name}": weight for name, weight in net.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 7}, tmp_path / "town.ckpt")
    out = tmp_path / "town.rooftrace"
    code, answer = call("import", tmp_path / "town.ckpt", "-o", out, *UNET, *CONTRACT)
    assert code == 0, answer
    assert answer["parity"]["original"] == "torch"
    assert 0 <= answer["parity"]["max_difference"] < 1e-3
    assert answer["weights"]["share"] == 1.0
    check_answers(out, net, "openvino")
    check_answers(out, net, "torch")
    image = next((tmp_path / "data/images").iterdir())
    code, answer = call("predict", image, "-m", out, "-o", tmp_path / "predicted")
    assert code == 0, answer
    code, answer = call("evaluate", out, tmp_path / "data")
    assert code == 0, answer
    code, answer = call("train", tmp_path / "tiny.toml", "-o", tmp_path / "run", "--set",
                        f"model.start={out}", "--set", "epochs=1")  # fmt: skip
    assert code == 0, answer
    trained = read_bundle(tmp_path / "run/best_iou.rooftrace")
    assert trained.spec.training["model"]["start"] == str(out)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(unet(3).state_dict(), folder / "w.pth")
    return folder / "w.pth"


BAD = [
    ((*UNET,), 2, "an output of 3 channels, but --classes names 2"),
    ((*UNET, "--classes", "background,building,road", "--activation", "none"), 2,
     "expected sigmoid or softmax"),
    ((*UNET, "--classes", "a,b,c"), 2, "Name the class of the buildings"),
    (("--architecture", "unet", "--encoder", "tu-test_convnext"), 4,
     "does not hold the weights of Unet with tu-test_convnext"),
    (("--architecture", "Unet", "--encoder", "tu-test_resnet"), 4, "of another shape"),
    (("--architecture", "Unett"), 2, "Unet"),
    ((), 2, "Give --architecture"),
    ((*UNET, "--output", "x"), 2, "is not an ONNX file"),
    ((*UNET, "--multiple", 8), 2, "--multiple was given"),
    ((*UNET, "--set", "encoder_weights=imagenet"), 2, "the weights come from the file"),
    ((*UNET, "--set", "options.nonsense=1"), 2, "nonsense"),
    ((*UNET, "--bands", "r,g,b,n", "--normalise", "none"), 4, "tu-test_resnet for 4 bands"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "code", "message"), BAD, ids=[case[2] for case in BAD])
def test_a_wrong_description_is_an_error(
    options: Any, code: int, message: str, file: Path, tmp_path: Path
) -> None:
    done = command("import", file, "-o", tmp_path / "m.rooftrace", *CONTRACT, *options)
    assert done.code == code, done.err
    assert message in done.err.replace("\n", " ")
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_hugging_face_names_its_network(tmp_path: Path) -> None:
    unet(1).save_pretrained(tmp_path / "hub")
    given = ("import", tmp_path / "hub", "-o", tmp_path / "m.rooftrace", *CONTRACT)
    code, answer = call(*given)
    assert (code, answer["architecture"], answer["weights"]["share"]) == (0, "Unet", 1), answer
    config = '{"architectures": ["SegformerFor"], "id2label": {"0": "Ground", "1": "Roof"}}'
    (tmp_path / "hub/config.json").write_text(config)
    code, answer = call(*given)
    assert "--classes ground,roof --activation softmax --normalise" in answer["error"]["remedy"]
