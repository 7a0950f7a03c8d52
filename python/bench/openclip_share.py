"""What the penalty adds to a training step of a CLIP, in one process on a CPU.

::

    python bench/openclip_share.py --k 30
    python bench/openclip_share.py --node

OpenCLIP's model and loss at batch 512, 512 features, AdamW, float32; towers of a few layers. Steps without the penalty,
with it after both towers (as the OpenCLIP attachment asks for it), with it submitted while the text tower runs, and
with the algorithm of the paper's released code in PyTorch, in turns; medians.

``--node`` computes the share for a ViT-B/32 at 512 pairs a GPU on a node of H100s, of measured parts: what a step
through the sidecar and the paper's code took there (docs/gpu.md), and what `submit` takes here, of which alone a run
notices while the text tower takes longer than the penalty.
"""

from __future__ import annotations

import argparse
import statistics
import time

import open_clip
import torch
from open_clip.loss import ClipLoss
from rivals import paper

import specalign.torch

BATCH = 512

# A ViT-B/32 as CLIP has it: multiply-adds of each tower for one pair; a step takes three times those of the forward
# pass.
IMAGE_MACS, TEXT_MACS = 4.41e9, 2.97e9
H100_FLOPS = 989e12  # bfloat16, dense, by its data sheet
# Milliseconds, docs/gpu.md: rows of the penalty; a step through the sidecar on an H100; the paper's code on an H200.
MEASURED = [(512, 1.89, 2.10), (4096, 6.47, 2.62)]


def node(sidecar: specalign.Sidecar) -> None:
    """Compute the shares for a node and print them."""
    for rows, aligned, theirs in MEASURED:
        align = specalign.torch.SpecAlign(sidecar=sidecar, objective="spectral_radius")
        z = torch.nn.functional.normalize(torch.randn(rows, 512), dim=1).requires_grad_()
        reference = torch.randn(rows, 768)
        submits = []
        for _ in range(30):
            begin = time.perf_counter()
            handle = align.submit(z, reference)
            submits.append((time.perf_counter() - begin) * 1e3)
            align.wait(handle)
        submit = min(submits)
        print(f"{rows} rows, {BATCH} pairs a GPU; submit {submit:.2f} ms")
        for name, share in (("the peak", 1.0), ("40 % of it", 0.4)):
            step = BATCH * 6 * (IMAGE_MACS + TEXT_MACS) / (H100_FLOPS * share) * 1e3
            text = BATCH * 2 * TEXT_MACS / (H100_FLOPS * share) * 1e3
            noticed = submit + max(0.0, aligned - text)
            print(
                f"  at {name}: a step {step:.1f} ms; after both towers {aligned / step:.1%}, while the text tower runs "
                f"{noticed / step:.1%}, the paper's algorithm {theirs / step:.1%}"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="steps of each kind (10), two at least")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of the sidecar (1)")
    parser.add_argument("--k", type=int, default=1, help="eigenvalues of ky_fan (1)")
    parser.add_argument("--layers", type=int, default=2, help="of each tower (2)")
    parser.add_argument("--width", type=int, default=128, help="of each tower, a multiple of 64 (128)")
    parser.add_argument("--node", action="store_true", help="compute the share on a node of H100s instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    towers = {"layers": options.layers, "width": options.width}
    model = open_clip.CLIP(
        embed_dim=512,
        vision_cfg={"image_size": 64, "patch_size": 16, "head_width": 64, **towers},
        text_cfg={"context_length": 16, "vocab_size": 8192, "heads": options.width // 64, **towers},
        output_dict=True,
    )
    loss_fn, optimizer = ClipLoss(), torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, texts = torch.randn(BATCH, 3, 64, 64), torch.randint(0, 8192, (BATCH, 16))
    # In forty groups, as those of a data set are; without them the 30th eigenvalue lies in noise.
    reference = torch.randn(40, 768)[torch.arange(BATCH) % 40] + torch.randn(BATCH, 768)
    with specalign.Sidecar(device="cpu", threads=options.threads) as sidecar:
        if options.node:
            node(sidecar)
            return
        align = specalign.torch.SpecAlign(sidecar=sidecar, objective="ky_fan", k=options.k)

        def step(kind: str) -> float:
            begin = time.perf_counter()
            z = model.encode_image(images, normalize=True)
            handle = align.submit(z, reference) if kind == "while the text tower runs" else None
            t = model.encode_text(texts, normalize=True)
            loss = loss_fn(z, t, model.logit_scale.exp())
            if handle is not None:
                loss = loss + align.wait(handle)
            elif kind == "after both towers":
                loss = loss + align(z, reference)
            elif kind == "the paper's algorithm":
                value, gradient = paper(z, reference, 1)
                loss = loss + specalign.torch.with_gradient(z, value, gradient)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return (time.perf_counter() - begin) * 1e3

        kinds = ["no penalty", "after both towers", "while the text tower runs", "the paper's algorithm"]
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for kind in kinds:
            step(kind)
        for _ in range(options.rounds):
            for kind in kinds:
                times[kind].append(step(kind))
        assert align.last is not None
        print(f"batch {BATCH}, ky_fan {options.k}, {options.threads} thread(s);", end=" ")
        print(f"sidecar {align.last.route} on {align.last.isa}")
        base, least = statistics.median(times["no penalty"]), min(times["no penalty"])
        for kind in kinds:
            # Neighbours in turn share what else goes on: the median of the differences, and half the range of its
            # middle half over the root of their number, which is about the median's standard error.
            differences = [a - b for a, b in zip(times[kind], times["no penalty"], strict=True)]
            added = statistics.median(differences)
            low, _, high = statistics.quantiles(differences, n=4)
            error = (high - low) / 2 / len(differences) ** 0.5 * 1.86
            print(
                f"{kind:<28} median {statistics.median(times[kind]):7.1f} ms a step, {added:+7.2f} ms "
                f"{added / base:+7.2%} (± {error / base:.2%}); minimum {min(times[kind]):7.1f} ms "
                f"{(min(times[kind]) - least) / least:+7.2%}"
            )


if __name__ == "__main__":
    main()
