"""OpenCLIP's own flags under the penalty, many to a run, and runs that are resumed."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import processes
import pytest
import torch
from conftest import MODEL
from test_run import SETTINGS, config, elsewhere, finish, launch, records, sidecar_of, wait_for  # noqa: F401

from specalign import Error
from specalign.openclip import _resume

COCA = {
    "model_cfg": {
        **MODEL["model_cfg"],
        "custom_text": True,
        "vision_cfg": {
            **MODEL["model_cfg"]["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**MODEL["model_cfg"]["text_cfg"], "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_many_at_once(arguments, config, store, data, tmp_path):  # noqa: F811
    """Both sides, two references, a ratio, an anchor and the log of groups; bf16, checkpointing and accumulation."""
    path = config("")
    path.write_text(
        f"""\
reference:
  - {{store: {store}, objective: ky_fan, k: 4}}
  - {{store: {store}, features: both, weight: 0.5, objective: relational_kl}}
weight: {{ratio: 0.4}}
schedule: {{kind: warmup, warmup: 4}}
anchor: {{weight: 0.3, features: both}}
missing: skip
samples: {{every: 2, groups: 2, top: 3}}
"""
    )
    csv = tmp_path / "train.csv"  # three of its images are not in the store
    rows = (data / "train.csv").read_text().splitlines()
    for i in range(3):
        shutil.copy(data / f"{i:03}.png", tmp_path / f"new{i}.png")
        rows.append(f"{tmp_path}/new{i}.png,red")
    csv.write_text("\n".join(rows))
    at = arguments.index("--train-data")
    arguments[at + 1] = str(csv)
    flags = ["--accum-freq", "3", "--workers", "2", "--precision", "amp_bf16", "--grad-checkpointing", "--epochs", "6"]
    status, output = finish(launch([*arguments, *flags], path))
    assert status == 0, output
    steps = records(tmp_path)
    assert len(steps) == 6
    for step, factor in zip(steps, [0.25, 0.5, 0.75, 1, 1, 1], strict=True):
        assert step["failure"] is None
        assert step["weight"] * step["penalty_gradient_norm"] == pytest.approx(
            0.4 * factor * step["task_gradient_norm"], rel=1e-6
        )
        first, image, text = step["references"]
        assert (first["features"], image["features"], text["features"]) == ("image", "image", "text")
        assert step["penalty"] == pytest.approx(
            first["penalty"] + 0.5 * image["penalty"] + 0.5 * text["penalty"], rel=1e-6
        )
    assert sum(s.get("skipped", 0) for s in steps) > 0
    assert "3 rows of the data are not in it and will be skipped" in output
    first = re.search(r"Specalign_anchor_loss: (\S+)", output)
    assert first is not None
    assert float(first[1]) < 1e-5  # nothing has moved yet, but bfloat16 rounds to 2^-9
    assert "gradient at 0.4 of the task's" in output
    entries = lines(tmp_path / "run/specalign_groups.jsonl")
    assert [(e["step"], e["features"]) for e in entries[:3]] == [(0, "image"), (0, "image"), (0, "text")]
    groups = entries[0]["groups"]
    assert groups[0]["eigenvalue"] <= groups[1]["eigenvalue"] < 0
    for sample in groups[0]["samples"]:
        assert (data / sample["image"]).exists()
        row = next(r for r in rows if r.startswith(sample["image"]))
        assert row.endswith("," + sample["caption"])


@pytest.mark.parametrize("what", ["distill", "siglip", "coca"])
def test_losses(arguments, config, data, tmp_path, what):  # noqa: F811
    if what == "distill":
        import open_clip

        teacher = open_clip.create_model(f"local-dir:{data / 'model'}")
        torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
        path = config(SETTINGS + "features: both\n", "distill")
        flags = ["--distill-model", f"local-dir:{data / 'model'}", "--distill-pretrained", str(tmp_path / "teacher.pt")]
    elif what == "siglip":
        path = config(SETTINGS)
        flags = ["--siglip", "--precision", "bf16", "--lock-image", "--lock-image-unlocked-groups", "1"]
    else:
        path = config(SETTINGS + "features: both\nweight: {ratio: 0.4, smoothing: 0.5}\n")
        (data / "coca").mkdir(exist_ok=True)
        (data / "coca/open_clip_config.json").write_text(json.dumps(COCA))
        arguments[1] = f"local-dir:{data / 'coca'}"
        flags = ["--precision", "amp", "--lr", "1e-4"]
    status, output = finish(launch([*arguments, *flags], path))
    assert status == 0, output
    steps = records(tmp_path)
    assert len(steps) == 6
    assert all(s["failure"] is None and s["penalty"] > 0 for s in steps)
    assert {"distill": "Distill_loss", "siglip": "Contrastive_loss", "coca": "Caption_loss"}[what] in output
    if what == "coca":
        assert all(s["penalty_gradient_norm"] > 0 and s["weight"] > 0 for s in steps)


def test_resume(arguments, config, tmp_path):  # noqa: F811
    """Bandwidths, warm starts, the weight and the anchor go on: the same bits as if nothing had stopped."""
    path = config(
        "kernel: gaussian\nobjective: ky_fan\nk: 4\nweight: {ratio: 0.4, smoothing: 0.9}\nanchor: 0.1\n"
        "schedule: {kind: cosine, warmup: 2}\n"
    )
    # Where every epoch's order and crops depend on its number alone: ranks, and nothing to crop.
    flags = ["--batch-size", "8", "--dist-backend", "gloo", "--epochs", "4", "--aug-cfg", "scale=(1.0,1.0)"]

    def run(folder, *extra):
        command = ["--config", str(path), "--", *elsewhere(arguments, folder), *flags, *extra]
        for process in processes.ranks(2, processes.on_cpu, (command,), folder):
            status, output = process.finish()
            assert status == 0, output
        return (folder / "rank0.txt").read_text()

    run(tmp_path / "whole")
    kept = tmp_path / "whole/run/checkpoints"
    assert {p.name for p in kept.iterdir()} == {
        "initial.specalign", *(f"epoch_{i}.{end}" for i in (1, 2, 3, 4) for end in ("pt", "specalign"))
    }  # fmt: skip
    output = run(tmp_path / "resumed", "--resume", str(kept / "epoch_2.pt"))
    assert "specalign: resumed the penalty's state of epoch 2" in output
    whole, resumed = records(tmp_path / "whole"), records(tmp_path / "resumed")
    figures = ("step", "weight", "penalty", "eigenvalues", "sigma", "task_gradient_norm")
    for a, b in zip(whole[6:], resumed, strict=True):
        assert {k: a[k] for k in figures} == {k: b[k] for k in figures}
    a, b = (
        torch.load(tmp_path / f"{name}/run/checkpoints/epoch_4.pt", weights_only=True)["state_dict"]
        for name in ("whole", "resumed")
    )
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_torchcompile(arguments, config, tmp_path):  # noqa: F811
    """A compiled model has the penalties of one that is not, but for rounding."""
    path = config(SETTINGS + "features: both\nweight: {ratio: 0.4}\n")
    plain = launch(elsewhere(arguments, tmp_path / "plain"), path)
    command = ["--config", str(path), "--", *elsewhere(arguments, tmp_path / "compiled"), "--torchcompile"]
    compiled = processes.Child(processes.compiled, (command,), tmp_path / "compiled/output.txt")
    for process in (plain, compiled):
        status, output = finish(process)
        assert status == 0, output
    assert "Compiling model..." in output
    for a, b in zip(records(tmp_path / "plain"), records(tmp_path / "compiled"), strict=True):
        assert b["failure"] is None
        assert b["penalty"] == pytest.approx(a["penalty"], rel=1e-3)


def test_evaluation_is_untouched(arguments, config, data, tmp_path):  # noqa: F811
    """Validation and zero-shot at weight 0 have the figures of a run without us, and ask for no penalty."""
    for i in range(16):
        (tmp_path / f"classes/{i % 8}").mkdir(parents=True, exist_ok=True)
        shutil.copy(data / f"{i:03}.png", tmp_path / f"classes/{i % 8}")
    flags = ["--val-data", str(data / "train.csv"), "--val-frequency", "1"]
    flags += ["--imagenet-val", str(tmp_path / "classes"), "--zeroshot-frequency", "1"]
    runs = {
        "plain": (processes.openclip, []),
        "watched": (processes.aligned, ["--config", str(config(SETTINGS + "weight: 0\n")), "--"]),
    }
    started = []
    for name, (target, ours) in runs.items():
        command = [*ours, *elsewhere(arguments, tmp_path / name), *flags]
        started.append(processes.Child(processes.few_classes, (target, command), tmp_path / name / "output.txt"))
    for process in started:
        status, output = finish(process)
        assert status == 0, output
    a, b = (lines(tmp_path / name / "run/checkpoints/results.jsonl") for name in runs)
    assert a == b
    assert [figures["epoch"] for figures in a] == [1, 2]
    assert a[0]["num_samples"] == 48
    assert a[0]["clip_val_loss"] > a[1]["clip_val_loss"] > 0
    assert all(0 < figures["imagenet-zeroshot-val-top5"] < 1 for figures in a)
    assert len(records(tmp_path / "watched")) == 6


def holders():
    """Return the processes that have the shared memory of a session."""
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor).startswith("/memfd:specalign"):
                found.add(int(descriptor.parts[2]))
    return found


@pytest.mark.parametrize(("scope", "killed"), [("global", 0), ("global", 1), ("local", 1)])
def test_a_rank_that_dies_leaves_nothing(arguments, config, tmp_path, scope, killed):  # noqa: F811
    """Its sidecar ends, the others' too, and the other rank does not wait for ever."""
    path = config(f"{SETTINGS}scope: {scope}\n")
    command = ["--config", str(path), "--", *arguments, "--batch-size", "8", "--dist-backend", "gloo"]
    with tempfile.TemporaryDirectory(prefix="sa") as sockets:  # a short path
        environment = {"XDG_RUNTIME_DIR": sockets, "TMPDIR": sockets}
        both = processes.ranks(2, processes.on_cpu, ([*command, "--epochs", "500"],), tmp_path, environment)
        wait_for((tmp_path / "run/specalign.jsonl").exists)
        sidecars = [sidecar for sidecar in (sidecar_of(rank.pid) for rank in both) if sidecar is not None]
        assert len(sidecars) == {"global": 1, "local": 2}[scope]
        assert len(list(Path(sockets).glob("specalign*"))) == len(sidecars)
        pids = {rank.pid for rank in both} | set(sidecars)
        assert holders() & pids
        both.pop(killed).kill()
        status, output = both[0].finish()
        assert status != 0, output  # gloo notices that its peer is gone
        for sidecar in sidecars:
            wait_for(lambda sidecar=sidecar: processes.gone(sidecar), 20)
        assert not holders() & pids
        assert not list(Path(sockets).glob("specalign*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "damaged"), (lambda b: b"", "damaged"), (lambda b: b"x" + b, "damaged"),
        (lambda b: b.replace(b'"schema_version": 1', b'"schema_version": 7'), "of schema 7, this version reads 1"),
        (lambda b: b.replace(b'"sizes": [', b'"sizes": [-3, '), "damaged"),
        (lambda b: b.replace(b'"failures": 0', b'"failures": {}'), "damaged"),
        (lambda b: b.split(b"\n")[0] + b"\n" + b"[" * 100_000, "damaged"),
    ],
)  # fmt: skip
def test_damaged_state(tmp_path, sidecar, damage, message, batch):
    with sidecar.session(objective="ky_fan", k=3) as session:
        session.step(*batch)
        state = session.state()
    head = {"schema_version": 1, "epoch": 3, "targets": [], "sizes": [len(state)], "balance": {}, "failures": 0}
    blob = _resume._MAGIC + json.dumps(head).encode() + b"\n" + state
    path = tmp_path / "epoch_3.specalign"
    path.write_bytes(blob)
    assert _resume._read(str(path)) == (head, [state])
    path.write_bytes(damage(blob))
    with pytest.raises(Error, match=message):
        _resume._read(str(path))
