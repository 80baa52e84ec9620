"""Baseline of `bench/serve.py`: a plain FastAPI handler around PyTorch.

    python bench/plain_server.py NETWORK [--threads]

UploadFile, PIL, the network in eager fp32, a mask as PNG. It prints its address as JSON.
"""

import argparse
import io
import json
import socket
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Response, UploadFile
from PIL import Image
from safetensors.torch import load_file

from rooftrace.models.spec import BundleSpec
from rooftrace.models.zoo import ModelConfig, build_model


def make_app(network: Path, *, threads: bool) -> FastAPI:
    """Return the app.

    Args:
        network: Folder of the model description and weights.
        threads: True for a `def` handler, which FastAPI runs in threads, instead of an
            `async def`.
    """
    spec = BundleSpec.model_validate_json((network / "spec.json").read_text(encoding="utf-8"))
    config = ModelConfig.model_validate({**spec.training["model"], "encoder_weights": "none"})
    model = build_model(config, bands=len(spec.bands), channels=spec.channels)
    model.load_state_dict(load_file(network / "weights.safetensors"))
    model.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    app = FastAPI()

    def mask_of(data: bytes) -> Response:
        image = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            probability = torch.sigmoid(model((batch - mean) / std))[0, 0]
        mask = (probability >= spec.threshold).byte().numpy() * 255
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    if threads:

        @app.post("/predict")
        def predict_in_thread(file: UploadFile) -> Response:
            return mask_of(file.file.read())
    else:

        @app.post("/predict")
        async def predict(file: UploadFile) -> Response:
            return mask_of(await file.read())

    @app.get("/readyz")
    def ready() -> str:
        return "ready"

    return app


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("--threads", action="store_true")
    options = parser.parse_args()
    app = make_app(options.network, threads=options.threads)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
