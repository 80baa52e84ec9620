#!/usr/bin/env bash
# Keras on torch rotates a mask otherwise than its image: no label lies on its building.
#
# Guess before the run: RandomRotation of {"images", "segmentation_masks"} moves both by one matrix,
# on each backend.
# Seen: of 24 tiles of 96 x 96 pixels with a house in the middle, rotated by 7 to 29 degrees, each
# mask has an IoU below 0.1 with its image, and most are empty. With jax as the backend both agree
# to the pixel. torch's affine_transform swaps numbers inside the matrix that it is given: the
# image, which comes first, is right, and the mask is moved by a matrix whose x and y are exchanged.
# RandomTranslation, which makes its matrix anew for each of the two, is right. There is no message.
# Versions: keras 3.15.1, torch 2.14.1, jax 0.10.2. Source: affine_transform in
# keras/src/backend/torch/image.py (transform[:, 0] = b1), to which random_rotation.py of
# layers/preprocessing/image_preprocessing gives one matrix twice.
# Hurt: who trains a segmentation by Keras on torch with rotation: labels of each augmented tile are
# beside the buildings, and nothing but a loss that stays high tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  keras==3.15.1 torch==2.14.1 jax==0.10.2 numpy==2.2.6
cat > rotate.py <<'PYTHON'
import keras
import numpy as np

layers, ops = keras.layers, keras.ops
image = np.zeros((1, 96, 96, 3), np.float32)
image[:, 41:55, 33:63] = 1


def overlap(layer):
    """IoU of the house in the image and in the mask after one random transform of both."""
    tile = {"images": image, "segmentation_masks": image[..., :1].copy()}
    both = layer(tile, training=True)
    seen = ops.convert_to_numpy(both["images"])[0, ..., 0] > 0.5
    mask = ops.convert_to_numpy(both["segmentation_masks"])[0, ..., 0] > 0.5
    return round(float((seen & mask).sum() / (seen | mask).sum()), 2)


rotated = [
    overlap(layers.RandomRotation((0.02, 0.08), fill_mode="constant", seed=seed))
    for seed in range(24)
]
moved = [
    overlap(layers.RandomTranslation(0.2, 0.2, fill_mode="constant", seed=seed))
    for seed in range(24)
]
matrix = ops.convert_to_tensor(np.array([[1, 0, 5, 0, 1, 10, 0, 0]], np.float32))
ops.image.affine_transform(image, matrix)
after = ops.convert_to_numpy(matrix)[0].tolist()
print(keras.backend.backend(), "rotated:", rotated)
print("  moved:", moved)
print("  matrix [1, 0, 5, 0, 1, 10, 0, 0] after a call:", after)
assert min(moved) > 0.85
if keras.backend.backend() == "torch":
    assert max(rotated) < 0.1
    assert after == [1, 0, 10, 0, 1, 5, 0, 0]
else:
    assert min(rotated) > 0.95
    assert after == [1, 0, 5, 0, 1, 10, 0, 0]
PYTHON
for backend in torch jax; do
  KERAS_BACKEND=$backend venv/bin/python -W error::UserWarning rotate.py
done
