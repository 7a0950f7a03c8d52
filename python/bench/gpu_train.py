"""What the penalty adds to a training step of a CLIP ViT-B/32 on a GPU, by the sidecar and in process.

::

    SPECALIGN_BINARY=./specalign-gpu python gpu_train.py     # on a machine with a GPU, PyTorch, NumPy and grpcio
    python gpu_train.py --device cpu --layers 1 --batch 64 --rounds 2     # tries the program itself

OpenCLIP's model where that is installed, else towers of its shape in plain PyTorch; CLIP's loss, AdamW, bfloat16,
random images and texts that are on the device already. Steps without the penalty, with it after both towers, and
submitted while the text tower runs, in turns; what is added is the median of the differences to the step without.

Exits 1 where a step with the penalty failed or ran elsewhere.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from specalign.torch import SpecAlign

WIDTH, REFERENCE, WARM = 512, 768, 3
AFTER, DURING = "after both towers", "while the text tower runs"


class Tower(nn.Module):
    """A transformer and the projection of one of its tokens."""

    def __init__(self, width: int, layers: int, tokens: int, causal: bool) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.position = nn.Parameter(0.01 * torch.randn(tokens, width))
        self.project = nn.Linear(width, WIDTH, bias=False)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens) if causal else None
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor, token: int) -> Tensor:
        """Return a token's projection, (n, WIDTH)."""
        x = self.blocks(x + self.position, mask=self.mask, is_causal=self.mask is not None)
        return self.project(x[:, token])


class Plain(nn.Module):
    """The shape of CLIP's ViT-B/32: 224 pixels in patches of 32, 77 tokens of 49,408."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 32, 32, bias=False)
        self.whole = nn.Parameter(torch.zeros(768))
        self.image = Tower(768, layers, 50, causal=False)
        self.words = nn.Embedding(49408, 512)
        self.text = Tower(512, layers, 77, causal=True)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: Tensor) -> Tensor:
        """Return features of (n, 3, 224, 224) images."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        return self.image(torch.cat([self.whole.to(x.dtype).expand(len(x), 1, -1), x], 1), 0)

    def encode_text(self, texts: Tensor) -> Tensor:
        """Return features of (n, 77) numbers of words."""
        return self.text(self.words(texts), -1)


def model_of(layers: int | None, device: str) -> tuple[nn.Module, str]:
    """Return the model, and in words whose it is."""
    if layers is None:
        try:
            import open_clip
        except ImportError:
            layers = 12
        else:
            return open_clip.create_model("ViT-B-32", device=device), f"open_clip {open_clip.__version__}, ViT-B-32"
    return Plain(layers).to(device), f"plain PyTorch, the shape of ViT-B/32, {layers} layers"


def main() -> int:
    """Measure, and print a line for each kind of step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30, help="steps of each kind (30)")
    parser.add_argument("--k", type=int, default=1, help="eigenvalues of ky_fan (1)")
    parser.add_argument("--layers", type=int, help="of each tower, in plain PyTorch")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    o = parser.parse_args()
    torch.manual_seed(0)
    model, name = model_of(o.layers, o.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = torch.randn(o.batch, 3, 224, 224, device=o.device)
    texts = torch.randint(1, 49408, (o.batch, 77), device=o.device)
    # In forty groups, as those of a data set are.
    reference = torch.randn(40, REFERENCE, device=o.device)[torch.arange(o.batch, device=o.device) % 40]
    reference = reference + torch.randn(o.batch, REFERENCE, device=o.device)
    aligns = {
        where: SpecAlign(isolation=isolation, device=o.device, objective="ky_fan", k=o.k, max_failures=1)
        for where, isolation in (("sidecar", "process"), ("in process", "none"))
    }

    def step(align: SpecAlign | None, when: str) -> float:
        begin = time.perf_counter()
        with torch.autocast(o.device, torch.bfloat16):
            z = normalize(model.encode_image(images), dim=1)
            handle = align.submit(z, reference) if align is not None and when == DURING else None
            t = normalize(model.encode_text(texts), dim=1)
            logits = model.logit_scale.exp() * z @ t.T
        labels = torch.arange(o.batch, device=o.device)
        loss = (cross_entropy(logits.float(), labels) + cross_entropy(logits.float().T, labels)) / 2
        if align is not None:
            loss = loss + (align(z, reference) if handle is None else align.wait(handle))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if o.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) * 1e3

    kinds = [(None, ""), *((where, when) for where in aligns for when in (AFTER, DURING))]
    times: list[list[float]] = [[] for _ in kinds]
    for i in range(WARM + o.rounds):
        for (where, when), took in zip(kinds, times, strict=True):
            ms = step(None if where is None else aligns[where], when)
            if i >= WARM:
                took.append(ms)
    machine = torch.cuda.get_device_name() if o.device == "cuda" else "CPU"
    print(f"{machine}, PyTorch {torch.__version__}, {name}, batch {o.batch}, ky_fan {o.k}")
    base = statistics.median(times[0])
    print(f"no penalty: {base:.2f} ms a step")
    elsewhere = False
    for (where, when), took in zip(kinds[1:], times[1:], strict=True):
        last = aligns[where].last
        assert last is not None
        added = statistics.median(a - b for a, b in zip(took, times[0], strict=True))
        print(f"{where}, {when}: {added:+.3f} ms, {added / base:+.2%} of a step (aim: 1 %); ", end="")
        print(f"on {last.device}, rows in the memory of the {last.memory}")
        if not last.device.startswith(o.device):
            print(f"FAILED: this ran on {last.device}")
            elsewhere = True
    return int(elsewhere)


if __name__ == "__main__":
    sys.exit(main())
