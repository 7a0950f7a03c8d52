"""The penalty over ranks, under DDP with gloo, against one process on the same batch."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_loss import Rows, exact, task

import specalign
from specalign.openclip._attach import scale
from specalign.openclip._config import parse
from specalign.openclip._loader import Window
from specalign.openclip._loss import KEY, Loss, Penalty, RunStoppedError
from specalign.openclip._ranks import Apart, Group

N, D, FEATURES = 24, 6, 5


def data():
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.standard_normal((N, 4)).astype("f4")), rng.standard_normal((N, FEATURES)).astype("f4")


def tower():
    torch.manual_seed(2)
    return torch.nn.Linear(4, D)


def worker(rank, size, accumulate, folder, what):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    images, table = data()
    if what in ("bad", "apart") and rank == size - 1:
        images[-1] = float("nan")
    source = Rows(table)
    if what == "broken" and rank == size - 1:
        source.keys = None  # calling it is a TypeError
    apart = what == "apart"
    model = torch.nn.parallel.DistributedDataParallel(tower())
    computes = rank == 0 or apart
    with specalign.Sidecar(device="cpu", threads=1) if computes else open(os.devnull) as sidecar:
        session = sidecar.session(objective="frobenius") if computes else None
        group = (Apart if apart else Group)(torch.device("cpu"))
        window = Window(accumulate, keep_images=False)
        penalty = Penalty(session, source, 2, group)
        steps = []
        loss = Loss(task, penalty, window, lambda _: 1.5, lambda _, step: steps.append(step), float(size))
        mine = torch.arange(N).chunk(size)[rank]  # in the order that the ranks' batches have when gathered
        batches = mine.chunk(accumulate)
        if what == "uneven" and rank == 0:
            batches = [b[:-1] for b in batches]
        stopped = ""
        for _ in range(1 if what == "good" else 2):
            features = []
            for ids in batches:
                window.add(ids, torch.empty(0))
                with torch.no_grad():
                    features.append(model.module(images[ids]))
            model.zero_grad()
            try:
                for j, ids in enumerate(batches):
                    f = torch.cat([*features[:j], model(images[ids]), *features[j + 1 :]])
                    zero = torch.zeros_like(f)
                    losses = loss(image_features=f, text_features=zero, logit_scale=torch.ones(()), output_dict=True)
                    if what == "good":
                        sum(losses.values()).backward()
                    else:
                        assert (losses[KEY].item() == 0) == (not apart or rank == size - 1)
            except RunStoppedError as e:
                stopped = str(e)
        # DDP adds up under accumulation, and takes the mean over ranks.
        torch.save(
            {
                "grad": model.module.weight.grad,
                "value": steps[0].value,
                "failure": steps[0].failure,
                "stopped": stopped,
            },
            f"{folder}/{rank}.pt",
        )
    dist.barrier()
    dist.destroy_process_group()


def run(size, accumulate, folder, what):
    mp.spawn(worker, (size, accumulate, str(folder), what), nprocs=size)
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (2, 2), (4, 1)])
def test_gradient_is_that_of_the_global_batch(tmp_path, size, accumulate):
    got = run(size, accumulate, tmp_path, "good")
    images, table = data()
    model = tower()
    value = exact(model(images), table)
    (1.5 * value).backward()
    want = model.weight.grad
    for rank in got:
        assert rank["failure"] is None
        assert rank["value"] == pytest.approx(value.item(), rel=1e-6)
        assert torch.linalg.norm(rank["grad"] - want) < 1e-6 * torch.linalg.norm(want)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("bad", f"row {N - 1} of the student features is not finite"),
        ("uneven", "different batches, of 11 to 12 rows"),
        ("broken", "rank 1: TypeError: "),
    ],
)
def test_a_failure_is_everybodys(tmp_path, what, message):
    for rank in run(2, 1, tmp_path, what):
        assert message in rank["failure"]
        assert "failed 2 times in a row" in rank["stopped"]


def test_ranks_apart_stop_together(tmp_path):
    good, bad = run(2, 1, tmp_path, "apart")
    assert good["failure"] is None
    assert "row 11 of the student features is not finite" in bad["failure"]
    for rank in (good, bad):
        assert "failed 2 times in a row" in rank["stopped"]
        assert "rank 1: align: row 11" in rank["stopped"]


@pytest.mark.parametrize(
    ("settings", "local", "want"),
    [("", False, 4), ("grad_scale: match", False, 1), ("grad_scale: match", True, 4), ("scope: local", False, 1),
     ("{scope: local, grad_scale: match}", False, 0.25)],
)  # fmt: skip
def test_scale(settings, local, want):
    class Arguments:
        world_size, local_loss, gather_with_grad, siglip = 4, local, local, False

    text = settings[1:-1].replace(", ", "\n") if settings.startswith("{") else settings
    assert scale(parse(f"reference: s\n{text}\n", "a.yaml"), Arguments) == want
