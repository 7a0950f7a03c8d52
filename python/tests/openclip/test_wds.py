"""WebDataset shards: the store's keys, and runs of OpenCLIP's own training program on them."""

import argparse
import json

import numpy as np
import openclip_reference
import processes
import pytest
import torch
from conftest import ROWS
from PIL import Image
from test_run import elsewhere, finish, launch, records

from specalign import InputError
from specalign.openclip import Store, _features, _run, _wds, sample_id, sample_ids

NAMES = [f"train-{i // (ROWS // 2)}.tar/{i % (ROWS // 2):03}" for i in range(ROWS)]


def command(shards, output, *extra):
    return ["--model", "python:openclip_reference:blocks", "--shards", shards, "--output", str(output), *extra]


def make(*arguments):
    return _features.main(command(*arguments))


@pytest.fixture(scope="module")
def store(shards, tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "store"
    assert make(shards, path, "--center", "--workers", "2", "--batch-size", "7") == 0
    return path


def test_features(store, data):
    made = Store.open(store)
    assert len(made.ids) == ROWS
    model, preprocess = openclip_reference.blocks()
    for i in (0, ROWS // 2, ROWS - 1):
        want = model(preprocess(Image.open(data / f"{i:03}.png"))[None]).numpy()
        np.testing.assert_allclose(made.rows(sample_ids([NAMES[i]])) + made.mean, want, rtol=0, atol=1e-6)
    assert made.meta["data"]["shards"] == {"train-0.tar": ROWS // 2, "train-1.tar": ROWS // 2}


def test_goes_on_where_it_stopped(shards, store, tmp_path, monkeypatch, capsys):
    done = []
    read = _features.of_shards.__globals__["rows_of"]

    def interrupted(reference, features, n):
        done.append(n)
        if len(done) == 2:
            raise KeyboardInterrupt
        return read(reference, features, n)

    monkeypatch.setitem(_features.of_shards.__globals__, "rows_of", interrupted)
    assert make(shards, tmp_path / "s", "--center") == 130
    assert "goes on with what is done" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    # Another model's pieces are not taken for these.
    assert _features.main(["--model", "python:openclip_reference:other", "--shards", shards, "--output",
                           str(tmp_path / "s")]) == 2  # fmt: skip
    assert "holds pieces of another store" in capsys.readouterr().err
    assert make(shards, tmp_path / "s", "--center") == 0
    assert done == [ROWS // 2] * 3  # the first shard was not computed again
    assert Store.open(tmp_path / "s").fingerprint == Store.open(store).fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_two_processes_share_the_work(shards, store, tmp_path):
    both = processes.ranks(2, processes.features, (command(shards, tmp_path / "s", "--center"),), tmp_path)
    for process in both:
        status, output = process.finish()
        assert status == 0, output
    assert Store.open(tmp_path / "s").fingerprint == Store.open(store).fingerprint


def test_keys_are_the_samples(shards, data):
    """What OpenCLIP's own loader yields has the key of the very image."""
    from open_clip_train.data import get_wds_dataset

    _, preprocess = openclip_reference.blocks()
    args = argparse.Namespace(
        train_data=shards, train_num_samples=None, train_data_upsampling_factors=None, dataset_resampled=False,
        seed=1, workers=2, world_size=1, batch_size=8,
    )  # fmt: skip
    info = get_wds_dataset(args, preprocess, True, tokenizer=lambda text: torch.zeros(1, 8))
    _wds.add_keys(info.dataloader)
    _wds.add_keys(info.dataloader)  # once is enough
    seen = 0
    for images, _, keys, names in info.dataloader:
        for image, key, name in zip(images, torch.as_tensor(keys).tolist(), names, strict=True):
            name, caption = name.splitlines()
            assert key == sample_id(name)
            at = NAMES.index(name)
            assert caption == f"{['red', 'green'][at % 2]} {at % (ROWS // 2)}"
            assert torch.equal(image, preprocess(Image.open(data / f"{at:03}.png")))
            seen += 1
    assert seen >= ROWS


@pytest.mark.parametrize(
    ("url", "name"),
    [("/a/b/00.tar", "00.tar"), ("https://h/x/00.tar?key=1", "00.tar"), ("pipe:aws s3 cp s3://b/01.tar -", "01.tar"),
     ("pipe:curl -s https://h/02.tar.gz | gzip -d", "02.tar.gz"), ("/a/shard", "shard")],
)  # fmt: skip
def test_shard_names(url, name):
    assert _wds.shard_name(url) == name


def on_shards(arguments, shards, *extra):
    at = arguments.index("--train-data")
    return [*arguments[: at + 1], shards, "--dataset-type", "webdataset", *arguments[at + 4 :], *extra]


def test_runs(arguments, shards, store, tmp_path, data, capsys):
    config = tmp_path / "align.yaml"
    config.write_text(f"reference: {store}\nobjective: ky_fan\nk: 4\nsamples: {{every: 2, groups: 2, top: 3}}\n")
    whole = launch(on_shards(elsewhere(arguments, tmp_path / "whole"), shards, "--workers", "2"), config)

    # A store of the first shard only: refused before the run, or its rows are skipped.
    first = tmp_path / "first"
    assert make(str(data / "train-0.tar"), first) == 0
    part = tmp_path / "part.yaml"
    part.write_text(config.read_text().replace(str(store), str(first)))
    refused = on_shards(elsewhere(arguments, tmp_path / "refused"), shards)
    assert _run.main(["--config", str(part), "--", *refused]) == 2
    assert "not made of 1 of the 2 shards, the first is train-1.tar" in capsys.readouterr().err
    part.write_text(part.read_text() + "missing: skip\n")
    skipped = launch(on_shards(elsewhere(arguments, tmp_path / "skipped"), shards), part)

    # A shard that has grown since: the run stops, and names the sample.
    grown = tmp_path / "grown"
    store_of = Store.open(store)
    gone = sample_id(NAMES[5])
    keep = store_of.ids != gone
    Store.make({k: store_of.meta[k] for k in ("model", "model_fingerprint", "data")}, store_of.ids[keep],
               store_of.features[keep], store_of.sizes[keep], center=False).save(grown)  # fmt: skip
    lacks = tmp_path / "lacks.yaml"
    lacks.write_text(config.read_text().replace(str(store), str(grown)))
    stopped = launch(on_shards(elsewhere(arguments, tmp_path / "stopped"), shards), lacks)

    status, output = finish(whole)
    assert status == 0, output
    steps = records(tmp_path / "whole")
    assert len(steps) >= 6
    assert all(s["failure"] is None and s["penalty"] > 0 and "skipped" not in s for s in steps)
    entries = [json.loads(line) for line in (tmp_path / "whole/run/specalign_groups.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries] == list(range(0, len(steps), 2))
    sample = entries[0]["groups"][0]["samples"][0]
    assert sample["image"] in NAMES
    assert sample["id"] == sample_id(sample["image"])
    assert sample["caption"].split()[0] in ("red", "green")

    status, output = finish(skipped)
    assert status == 0, output
    steps = records(tmp_path / "skipped")
    assert all(s["failure"] is None and s["penalty"] > 0 for s in steps)
    assert sum(s.get("skipped", 0) for s in steps) >= ROWS // 2
    assert "rows were skipped: the store does not have them" in output

    status, output = finish(stopped)
    assert status == 1, output
    assert f"lacks 1 of this batch's samples, the first is {NAMES[5]}" in output.splitlines()[-1]


def test_a_webdataset_that_openclip_cannot_read(monkeypatch, arguments, shards, store, tmp_path, capsys):
    import open_clip_train.data

    def as_with_1_0_2(source):
        raise KeyError("fname")

    monkeypatch.setattr(open_clip_train.data, "tarfile_to_samples_nothrow", as_with_1_0_2)
    with pytest.raises(InputError, match=r"cannot read shards with webdataset 0.2.86 \(KeyError: 'fname'\)"):
        _wds.check_readable()
    config = tmp_path / "align.yaml"
    config.write_text(f"reference: {store}\n")
    assert _run.main(["--config", str(config), "--", *on_shards(arguments, shards)]) == 2
    assert "pip install webdataset==0.2.86" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
