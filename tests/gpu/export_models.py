"""Exports torchvision's classifiers to ONNX, with inputs and ONNX Runtime's outputs beside them.

    python export_models.py FOLDER

Needs torch, torchvision and onnxruntime; trtfarm itself needs none of them. Weights are random but fixed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torchvision

MODELS = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "vit_b_16": torchvision.models.vit_b_16,
}
BATCH = 8


def settle(model: torch.nn.Module) -> None:
    """Random weights with outputs that are neither zero nor huge: batch norms see data, heads are set."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all it has seen
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(BATCH, 3, 224, 224))
    model.eval()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        torch.manual_seed(0)
        model = make(weights=None)
        settle(model)
        path = folder / f"{name}.onnx"
        image = torch.randn(BATCH, 3, 224, 224)
        torch.onnx.export(
            model,
            (image,),
            str(path),
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {"input": image.numpy()})
        np.savez(folder / f"{name}.npz", input=image.numpy(), output=output)
        print(name, path.stat().st_size, flush=True)


if __name__ == "__main__":
    main()
