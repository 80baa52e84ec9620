"""The paper's networks: shapes, what a patch sees, and a refiner that begins as the identity."""

import pytest

torch = pytest.importorskip("torch")


from rooftrace.models.losses import probabilities
from rooftrace.models.pix2pix import Generator


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bands", "channels", "depth"), [(3, 1, 1), (4, 20, 2), (1, 3, 4)])
@pytest.mark.parametrize("residual", [True, False])
def test_a_generator_answers_a_map_of_the_images_size(
    bands: int, channels: int, depth: int, residual: bool
) -> None:
    net = Generator(bands, channels, filters=2, depth=depth, residual=residual)
    side = net.multiple_px
    assert side == 2**depth
    image, coarse = drawn(2, bands, 2 * side, 3 * side), drawn(2, channels, 2 * side, 3 * side)
    assert net(image, coarse).shape == coarse.shape


@pytest.mark.parametrize("channels", [1, 5])
def test_a_residual_refiner_begins_as_the_identity(channels: int) -> None:
    net = Generator(3, channels, filters=2, depth=2).eval()
    coarse = 4 * drawn(2, channels, 8, 8, seed=1)
    refined = net(drawn(2, 3, 8, 8), coarse)
    # What is very sure is made a little less so, and the most likely class stays.
    torch.testing.assert_close(probabilities(refined), probabilities(coarse), atol=5e-3, rtol=0)
    if channels > 1:
        assert torch.equal(refined.argmax(dim=1), coarse.argmax(dim=1))
    other = Generator(3, channels, filters=2, depth=2, residual=False).eval()
    assert (
        probabilities(other(drawn(2, 3, 8, 8), coarse)) - probabilities(coarse)
    ).abs().max() > 0.2
