"""The penalty over ranks, under DDP with gloo, against one process on the same batch: both of OpenCLIP's loops."""

import argparse
import contextlib
import itertools
import types

import numpy as np
import processes
import pytest
import task_loop
import torch
import torch.distributed as dist
from open_clip.loss import ClipLoss

import specalign
from specalign.openclip._attach import Attachment, scale
from specalign.openclip._config import parse
from specalign.openclip._penalty import Aligned, RunStoppedError
from specalign.openclip._source import Source

N, D, FEATURES, STEPS = 24, 6, 5, 10
WEIGHT = "weight: 1.5\nobjective: frobenius\nfeatures: both\n"
RATIO = "weight: {ratio: 0.4}\nobjective: ky_fan\nk: 3\nsolver: dense\n"
CASES = [
    (loop, accumulate, settings)
    for loop in ("released", "tasks") for accumulate in (1, 2) for settings in (WEIGHT, RATIO)
]  # fmt: skip


def data(step):
    rng = np.random.default_rng(5 + step)
    draw = lambda d: torch.from_numpy(rng.standard_normal((N, d)).astype("f4"))  # noqa: E731
    return draw(4), draw(3), draw(FEATURES)


class Towers(torch.nn.Module):
    """Two linear towers with OpenCLIP's outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.visual = torch.nn.Linear(4, D)
        self.text = torch.nn.Linear(3, D)
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, image, text):
        normalize = torch.nn.functional.normalize
        return {
            "image_features": normalize(self.visual(image), dim=-1),
            "text_features": normalize(self.text(text), dim=-1),
            "logit_scale": self.logit_scale.exp(),
        }


class Products(torch.nn.Module):
    """A loss without collectives."""

    def forward(self, image_features, text_features, **_):
        return {"contrastive_loss": -(image_features * text_features).sum()}


class Table(Source):
    """The reference of the data's rows, by step and row."""

    keyed = False
    keeps_images = False
    error = specalign.InputError

    def __init__(self, mine, spoil=lambda _: False):
        self.step = 0
        self.mine = mine
        self.spoil = spoil

    def prepare(self, model, data, args):
        pass

    def keys(self, window, student):
        if self.spoil(window.number):
            raise self.error("a reference that cannot be read")
        return torch.stack([torch.full_like(self.mine, window.number), self.mine], 1)

    def rows(self, keys):
        return data(int(keys[0, 0]))[2][keys[:, 1]], None

    def describe(self):
        return "a table"


class Batches(list):
    num_samples = N * STEPS

    @property
    def num_batches(self):
        return len(self)


def train(sidecar, rank, size, loop, accumulate, settings, spoil=lambda _: False, uneven=False, inner=None):
    """Train for ten steps; return the parameters and how the steps went. Only the first rank has a sidecar."""
    config = parse("reference: table\n" + settings, "a.yaml")
    args = argparse.Namespace(
        accum_freq=accumulate, distributed=size > 1, world_size=size, rank=rank, device="cpu", precision="fp32",
        local_loss=True, gather_with_grad=True, siglip=False, resume=None, save_logs=False, log_path=None, wandb=False,
        epochs=1, save_frequency=0, save_most_recent=False, log_every_n_steps=1, skip_scheduler=True, distill=False,
        horovod=False, grad_clip_norm=None, batch_size=N // size // accumulate, delete_previous_checkpoint=False,
    )  # fmt: skip
    mine = torch.arange(N).chunk(size)[rank]  # in the order that the ranks' batches have when gathered
    if uneven and rank == 0:
        mine = mine[:-1]
    batches = Batches()
    for step in range(STEPS):
        images, texts, _ = data(step)
        for rows in mine.chunk(accumulate):
            batch = images[rows], texts[rows]
            batches.append(dict(zip(("image", "text"), batch, strict=True)) if loop == "tasks" else batch)
    info = types.SimpleNamespace(dataloader=batches, set_epoch=lambda _: None)
    model = Towers()
    parallel = torch.nn.parallel.DistributedDataParallel(model) if size > 1 else model
    loss = inner or ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=size)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    taken, stopped = [], ""
    source = Table(mine, spoil)
    aligned = [
        Aligned(target, source, None if sidecar is None else sidecar.session(**target.penalty))
        for target in config.targets
    ]
    attachment = Attachment(config, aligned)
    module = types.ModuleType("main")
    if loop == "tasks":
        module.train_one_epoch = task_loop.train_one_epoch
        state = task_loop.State(task_loop.Task(parallel, loss), optimizer)
        call = state, {"train": info}, args
    else:
        from open_clip_train.train import train_one_epoch

        module.train_one_epoch = train_one_epoch
        call = parallel, {"train": info}, loss, 0, optimizer, None, None, None, args
    with attachment.installed(module):
        recording(attachment, taken)
        try:
            module.train_one_epoch(*call)
        except RunStoppedError as e:
            stopped = str(e)
    if loop == "tasks":
        assert state.task.loss is loss
    return {
        "parameters": [p.detach().clone() for p in model.parameters()],
        "values": [s.weight * s.value for s in taken],
        "norms": [s.norms for s in taken],
        "failures": [s.failure for s in taken],
        "gradients": taken[0].gradients if taken else {},
        "weight": taken[0].weight if taken else 0,
        "stopped": stopped,
    }


def recording(attachment, taken):
    begin = attachment._begin

    def recorded(*given):
        begin(*given)
        take = attachment._penalty.take

        def kept(*given):
            taken.append(take(*given))
            return taken[-1]

        attachment._penalty.take = kept

    attachment._begin = recorded


@contextlib.contextmanager
def out_of_memory(when):
    """While it lasts, the backward pass that measures the task's gradient has no memory in some steps."""
    grad, calls = torch.autograd.grad, itertools.count()

    def fails(*given, **named):
        if when(next(calls)):
            raise torch.OutOfMemoryError("out of memory")
        return grad(*given, **named)

    torch.autograd.grad = fails
    try:
        yield
    finally:
        torch.autograd.grad = grad


def worker(rank, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    bad = lambda at: rank == size - 1 and at in (3, 4)  # noqa: E731
    with specalign.Sidecar(device="cpu", threads=1) as own:
        sidecar = own if rank == 0 else None
        results = {case: train(sidecar, rank, size, *case) for case in CASES}
        results["bad"] = train(sidecar, rank, size, "tasks", 2, WEIGHT, bad)
        results["stopped"] = train(sidecar, rank, size, "released", 1, WEIGHT + "max_failures: 2\n", bad)
        # OpenCLIP's own loss would wait for ever
        results["uneven"] = train(
            sidecar, rank, size, "tasks", 1, WEIGHT + "max_failures: 1\n", uneven=True, inner=Products()
        )
        with out_of_memory(bad):
            results["unmeasured"] = train(sidecar, rank, size, "released", 1, RATIO, inner=Products())
        Table.error = TypeError  # nothing that anybody raises on purpose
        results["apart"] = train(own, rank, size, "tasks", 1, WEIGHT + "max_failures: 2\nscope: local\n", bad)
        with pytest.raises(specalign.InputError, match=r"scope is global on rank 0 and local on rank 1;"):
            train(own, rank, size, "tasks", 1, WEIGHT + ("scope: local\n" if rank == 1 else ""))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def error(a, b):
    """The relative error of `a`, in the norm."""
    return float(torch.linalg.norm(a.double() - b.double()) / torch.linalg.norm(b.double()))


def compare(size, case, got, want):
    """Hold the ranks' results against one process's, and print how far they are from it; seen with -rP."""
    gradients = [
        error(
            got[0]["weight"] * torch.cat([rank["gradients"][side] for rank in got]),
            want["weight"] * gradient,
        )
        for side, gradient in want["gradients"].items()
    ]
    parameters = [error(p, q) for rank in got for p, q in zip(rank["parameters"], want["parameters"], strict=True)]
    loop, accumulate, settings = case
    print(
        f"{size} ranks, loop {loop}, accumulation {accumulate}, {settings.splitlines()[0]}: "
        f"gradients {max(gradients):.1e}, parameters after {STEPS} steps {max(parameters):.1e}"
    )
    assert max(gradients) <= 1e-6, case
    assert max(parameters) <= 1e-5, case
    for rank in got:
        assert rank["failures"] == [None] * STEPS, case
        np.testing.assert_allclose(rank["values"], want["values"], rtol=1e-5, err_msg=str(case))


def test_one_rank(sidecar):
    """Both loops, with and without accumulation, are one another."""
    want = {settings: train(sidecar, 0, 1, "released", 1, settings) for settings in (WEIGHT, RATIO)}
    for case in CASES:
        compare(1, case, [train(sidecar, 0, 1, *case)], want[case[2]])


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_are_one_process(tmp_path, size, sidecar):
    children = [processes.Child(worker, (r, size, str(tmp_path)), tmp_path / f"{r}.txt") for r in range(size)]
    alone = {settings: train(sidecar, 0, 1, "released", 1, settings) for settings in (WEIGHT, RATIO)}
    for child in children:
        status, output = child.finish()
        assert status == 0, output
    got = [torch.load(tmp_path / f"{r}.pt", weights_only=False) for r in range(size)]
    for case in CASES:
        compare(size, case, [rank[case] for rank in got], alone[case[2]])

    for case, why in (
        ("bad", "image features, store table: a reference that cannot be read"),
        ("unmeasured", "the gradients' norms cannot be measured: OutOfMemoryError: out of memory"),
    ):
        bad = [rank[case] for rank in got]
        for rank in bad:
            assert rank["failures"] == bad[0]["failures"]
            assert [f is None for f in rank["failures"]] == [at not in (3, 4) for at in range(STEPS)]
            assert rank["failures"][3] == f"rank {size - 1}: {why}"
            assert rank["values"][3] == 0
            assert rank["norms"][3] is None
            assert all(torch.equal(p, q) for p, q in zip(rank["parameters"], bad[0]["parameters"], strict=True))
    for rank in got:
        assert "failed 2 times in a row" in rank["stopped"]["stopped"]
        assert "different batches, of " in rank["uneven"]["stopped"]
    for at, rank in enumerate(got):  # a penalty each: zero where it failed, and an end for all
        assert [f is None for f in rank["apart"]["failures"]] == [True] * 3 + [at != size - 1]
        assert f"rank {size - 1}: image features, store table: TypeError: a reference" in rank["apart"]["stopped"]


@pytest.mark.parametrize(
    ("settings", "local", "want"),
    [("", False, 4), ("grad_scale: openclip", False, 1), ("grad_scale: match", False, 1),
     ("grad_scale: openclip", True, 4), ("scope: local", False, 1),
     ("scope: local\ngrad_scale: openclip", False, 0.25)],
)  # fmt: skip
def test_scale(settings, local, want):
    class Arguments:
        world_size, local_loss, gather_with_grad, siglip = 4, local, local, False

    assert scale(parse(f"reference: s\n{settings}\n", "a.yaml"), Arguments) == want
