"""all-MiniLM-L6-v2 in plain PyTorch: WordPiece, six layers of BERT, the mean of the tokens, unit norm."""

from __future__ import annotations

import re

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from . import packages

HEADS, LAYERS = 12, 6


class MiniLM:
    """The text tower. Texts are ASCII; what BERT does to other scripts is left out."""

    def __init__(self) -> None:
        self.weights = safetensors.torch.load(packages.minilm("model.safetensors"))
        self.vocabulary = {
            piece: i
            for i, piece in enumerate(
                packages.minilm("vocab.txt").decode().splitlines()
            )
        }

    def tokens(self, text: str) -> list[int]:
        """Split at spaces and punctuation, then greedily into the longest pieces of the vocabulary."""
        out = [self.vocabulary["[CLS]"]]
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            start, pieces = 0, []
            while start < len(word):
                for end in range(len(word), start, -1):
                    piece = word[start:end] if start == 0 else "##" + word[start:end]
                    if piece in self.vocabulary:
                        pieces.append(self.vocabulary[piece])
                        start = end
                        break
                else:
                    pieces = [self.vocabulary["[UNK]"]]
                    break
            out += pieces
        return [*out, self.vocabulary["[SEP]"]]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(
            x,
            x.shape[-1:],
            self.weights[f"{name}.weight"],
            self.weights[f"{name}.bias"],
            1e-12,
        )

    @torch.inference_mode()
    def encode(self, texts: list[str], batch: int = 128) -> packages.Floats:
        """Return the embeddings, (n, 384), in the order of the texts."""
        ids = [self.tokens(t) for t in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.empty((len(ids), 384), np.float32)
        for at in range(0, len(order), batch):
            part = order[at : at + batch]
            width = max(len(ids[i]) for i in part)
            padded = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in part])
            there = (
                torch.arange(width)[None]
                < torch.tensor([len(ids[i]) for i in part])[:, None]
            )
            out[part] = self._batch(padded, there).numpy()
        return out

    def _batch(self, ids: Tensor, there: Tensor) -> Tensor:
        w = self.weights
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        )
        x = self._norm(
            x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"
        )
        b, t, d = x.shape
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(x, f"{name}.attention.self.{part}")
                .view(b, t, HEADS, d // HEADS)
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )
            y = (
                F.scaled_dot_product_attention(
                    q, k, v, attn_mask=there[:, None, None, :]
                )
                .transpose(1, 2)
                .reshape(b, t, d)
            )
            x = self._norm(
                x + self._linear(y, f"{name}.attention.output.dense"),
                f"{name}.attention.output.LayerNorm",
            )
            y = self._linear(
                F.gelu(self._linear(x, f"{name}.intermediate.dense")),
                f"{name}.output.dense",
            )
            x = self._norm(x + y, f"{name}.output.LayerNorm")
        mean = (x * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return F.normalize(mean)
