"""Tiny networks of the SAM family, made by the configuration classes of transformers."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
import torch
import transformers

INPUT_PX = 64
"""Side of the input; masks have a quarter of it."""

_PROMPTS = {"hidden_size": 16, "image_size": INPUT_PX, "patch_size": 16, "mask_input_channels": 4}
_DECODER = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
            "iou_head_depth": 2}  # fmt: skip


_VISION = {
    "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": INPUT_PX, "patch_size": 16, "mlp_dim": 16, "window_size": 2,
    "global_attn_indexes": [1], "num_pos_feats": 8,
}  # fmt: skip


def tiny_sam() -> Any:
    """Return SAM with two layers of vision transformer."""
    return transformers.SamModel(
        transformers.SamConfig(
            vision_config=_VISION, prompt_encoder_config=_PROMPTS, mask_decoder_config=_DECODER
        )
    )


def tiny_sam_hq() -> Any:
    """Return SAM-HQ, whose decoder also sees the features of earlier layers."""
    decoder = {**_DECODER, "vit_dim": 16}
    return transformers.SamHQModel(
        transformers.SamHQConfig(
            vision_config=_VISION, prompt_encoder_config=_PROMPTS, mask_decoder_config=decoder
        )
    )


def tiny_sam2() -> Any:
    """Return SAM 2 with five blocks of Hiera."""
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [INPUT_PX, INPUT_PX],
        "num_attention_heads": 1, "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2], "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    }  # fmt: skip
    config = _with_pyramid(transformers.Sam2Config, "sam2", backbone, [64, 32, 16, 8])
    return transformers.Sam2Model(config)


def tiny_edgetam() -> Any:
    """Return EdgeTAM, whose encoder is a network of timm; the smallest has 5 million weights."""
    backbone = {
        "model_type": "timm_wrapper", "architecture": "repvit_m1", "num_classes": 2,
        "label_names": ["one", "other"],
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    }  # fmt: skip
    config = _with_pyramid(transformers.EdgeTamConfig, "edgetam", backbone, [384, 192, 96, 48])
    return transformers.EdgeTamModel(config)


def _with_pyramid(kind: Any, name: str, backbone: dict[str, Any], channels: list[int]) -> Any:
    """Return the configuration of a network with a feature pyramid over its backbone."""
    vision = {
        "model_type": f"{name}_vision_model", "backbone_config": backbone, "fpn_hidden_size": 16,
        "backbone_channel_list": channels, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    return kind(vision_config=vision, prompt_encoder_config=_PROMPTS, mask_decoder_config=_DECODER)


_NETWORKS = {
    "sam": tiny_sam, "sam2": tiny_sam2, "sam_hq": tiny_sam_hq, "edgetam": tiny_edgetam,
}  # fmt: skip


def save_tiny(folder: Path, kind: str = "sam") -> Path:
    """Save a network with its image processor, as a folder of the hub has them."""
    torch.manual_seed(0)
    transformers.logging.disable_progress_bar()
    _NETWORKS[kind]().save_pretrained(folder)
    quarter = INPUT_PX // 4
    if kind in ("sam", "sam_hq"):
        processor = transformers.SamImageProcessor(
            size={"longest_edge": INPUT_PX}, pad_size={"height": INPUT_PX, "width": INPUT_PX},
            mask_size={"longest_edge": quarter},
            mask_pad_size={"height": quarter, "width": quarter},
        )  # fmt: skip
    else:
        # Transformers 5.0 has it under another name.
        name = "Sam2ImageProcessor"
        made = getattr(transformers, name, None) or getattr(transformers, f"{name}Fast")
        processor = made(
            size={"height": INPUT_PX, "width": INPUT_PX},
            mask_size={"height": quarter, "width": quarter},
        )
    processor.save_pretrained(folder)
    return folder
