"""Frozen reference models by name."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError

FORMS = """\
timm:NAME                    a pretrained image model of timm; timm:NAME@FILE takes the weights from FILE
open_clip:MODEL/PRETRAINED   the image tower of an OpenCLIP model; open_clip:MODEL@FILE takes the weights from FILE
sentence:NAME                a sentence-transformers encoder, on the captions
python:MODULE:FUNCTION       a function of yours that returns (model, preprocess): an nn.Module in evaluation mode
                             from (b, 3, h, w) pixels to (b, d) features, and what makes a PIL image a tensor
"""


@dataclass(frozen=True)
class Reference:
    """A frozen model.

    Attributes:
        name: as it was asked for.
        model: in evaluation mode; from (b, 3, h, w) pixels to (b, d) features. For captions: from a list of b strings.
        preprocess: from a PIL image to a (3, h, w) tensor; None for a model of captions.
        fingerprint: changes when the weights do.
    """

    name: str
    model: Callable[[Any], Tensor]
    preprocess: Any
    fingerprint: str


class _ImageTower(nn.Module):
    """The image tower of a CLIP model."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (b, d) features, not normalised."""
        features: Tensor = self.clip.encode_image(pixels)
        return features


class _Sentences:
    """A sentence encoder."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def __call__(self, captions: list[str]) -> Tensor:
        """Return (b, d) features of b captions."""
        features: Tensor = self.encoder.encode(captions, convert_to_tensor=True, show_progress_bar=False)
        return features


def load_model(spec: str, device: str) -> Reference:
    """Load the model that `spec` names to `device`.

    Raises:
        InputError: no model has this name, or what it needs is not installed.
    """
    kind, _, name = spec.partition(":")
    loaders = {"timm": _timm, "open_clip": _open_clip, "sentence": _sentence, "python": _python}
    if kind not in loaders or not name:
        raise InputError(f"specalign: {spec!r} names no model; give one of\n{FORMS.rstrip()}")
    try:
        model, preprocess = loaders[kind](name, device)
    except InputError:
        raise
    except ImportError as e:
        raise InputError(f"specalign: {spec} needs a package that cannot be imported: {e}") from None
    except Exception as e:
        raise InputError(f"specalign: {spec} cannot be loaded: {type(e).__name__}: {_line(e)}") from e
    weights = model.encoder if isinstance(model, _Sentences) else model
    return Reference(spec, model, preprocess, str(getattr(model, "fingerprint", None) or _digest(weights)))


def _timm(name: str, device: str) -> tuple[Any, Any]:
    import timm
    from timm.data import create_transform, resolve_model_data_config  # type: ignore[attr-defined]

    name, _, weights = name.partition("@")
    model: Any
    if weights:  # with a classifier, which the file has weights of
        model = timm.create_model(name, checkpoint_path=weights)
        model.reset_classifier(0)
    else:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    return _frozen(model, device), create_transform(**resolve_model_data_config(model), is_training=False)  # type: ignore[no-untyped-call]


def _open_clip(name: str, device: str) -> tuple[Any, Any]:
    import open_clip

    if "@" in name:
        name, _, pretrained = name.partition("@")
    else:
        name, _, pretrained = name.partition("/")
    if not pretrained:
        raise InputError(
            f"specalign: open_clip:{name} lacks weights: open_clip:{name}/PRETRAINED or open_clip:{name}@FILE"
        )
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained)
    return _frozen(_ImageTower(model), device), preprocess


def _sentence(name: str, device: str) -> tuple[Any, Any]:
    from sentence_transformers import SentenceTransformer

    return _Sentences(_frozen(SentenceTransformer(name, device=device), device)), None


def _python(name: str, device: str) -> tuple[Any, Any]:
    module, _, function = name.rpartition(":")
    make = getattr(importlib.import_module(module), function, None) if module else None
    if not callable(make):
        raise InputError(f"specalign: python:{name}: there is no such function; give python:MODULE:FUNCTION")
    made = make()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and callable(made[1])):
        raise InputError(f"specalign: python:{name} returned {type(made).__name__}, not (nn.Module, preprocess)")
    return _frozen(made[0], device), made[1]


def _frozen(model: Any, device: str) -> Any:
    return model.eval().requires_grad_(False).to(device)


def _digest(model: nn.Module) -> str:
    """Return the SHA-256 hash of the weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
