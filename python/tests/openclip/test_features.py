import json

import numpy as np
import openclip_reference
import pytest
import torch
from PIL import Image

from specalign import InputError
from specalign.openclip import Store, _embed, _features, sample_ids
from specalign.openclip._models import load_model


def run(data, output, *extra, model="python:openclip_reference:blocks", csv=None):
    return _features.main(
        ["--model", model, "--csv", str(csv or data / "train.csv"), "--csv-separator", ",", "--output", str(output),
         *extra]
    )  # fmt: skip


@pytest.mark.parametrize("extra", [[], ["--batch-size", "7"], ["--workers", "2"]], ids=["plain", "batches", "workers"])
def test_features_are_the_models(data, tmp_path, extra, capfd):
    assert run(data, tmp_path / "s", *extra) == 0
    assert "48 of 48 images" in capfd.readouterr().err
    store = Store.open(tmp_path / "s")
    model, preprocess = openclip_reference.blocks()
    for i in (0, 17, 47):
        path = str(data / f"{i:03}.png")
        want = model(preprocess(Image.open(path))[None])
        np.testing.assert_allclose(store.rows(sample_ids([path])), want.numpy(), rtol=0, atol=1e-6)
    meta = json.loads((tmp_path / "s/meta.json").read_text())
    assert meta["model_fingerprint"] == "blocks-1"
    assert "Normalize" in meta["preprocessing"]
    assert meta["data"]["rows"] == 48


def test_an_image_with_many_captions_is_computed_once(data, tmp_path):
    csv = tmp_path / "five.csv"
    lines = (data / "train.csv").read_text().splitlines()
    csv.write_text("\n".join([lines[0], *[line for line in lines[1:4] for _ in range(5)]]))
    assert run(data, tmp_path / "s", csv=csv) == 0
    assert len(Store.open(tmp_path / "s").ids) == 3
    assert len(Store.open(tmp_path / "s").rows_of_csv(csv)) == 15


def test_refuses_to_replace(data, tmp_path, capsys):
    assert run(data, tmp_path / "s") == 0
    assert run(data, tmp_path / "s") == 2
    assert "say --force to replace it" in capsys.readouterr().err
    assert run(data, tmp_path / "s", "--force") == 0


@pytest.mark.parametrize("place", ["mine", "file/s", "/proc/s"])
def test_the_place_is_looked_at_before_anything_is_computed(data, tmp_path, capsys, place):
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("x")
    assert run(data, tmp_path / place, "--force", model="python:this:is_never_loaded") == 2
    error = capsys.readouterr().err
    assert "is no store; choose another place" in error or "cannot be written" in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine"]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_images_that_are_not_rgb(tmp_path, mode):
    import timm

    torch.save(timm.create_model("test_vit.r160_in1k", pretrained=False).state_dict(), tmp_path / "w.pt")
    preprocess = load_model(f"timm:test_vit.r160_in1k@{tmp_path}/w.pt", "cpu").preprocess
    path = str(tmp_path / "image.tif")
    Image.new("RGB", (180, 160), (255, 255, 255)).convert(mode).save(path)
    white = preprocess(Image.new("RGB", (180, 160), (255, 255, 255)))
    pixels = _embed.Images([path], preprocess)[0]
    assert isinstance(pixels, torch.Tensor), pixels
    torch.testing.assert_close(pixels, white, rtol=0, atol=0)


def test_transparency_shows_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 0
    for image in (clear, palette):
        assert list(_embed.rgb(image).tobytes()) == [255, 255, 255, 0, 0, 0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet50", "names no model; give one of"),
        ("python:nothing", "give python:MODULE:FUNCTION"),
        ("python:nothing:here", "cannot be imported: No module named 'nothing'"),
        ("python:openclip_reference:nothing", "there is no such function"),
        ("python:openclip_reference:Blocks", "not (nn.Module, preprocess)"),
        ("timm:no_such_model", "timm:no_such_model cannot be loaded"),
        ("open_clip:ViT-B-32", "lacks weights"),
        ("sentence:x", "sentence_transformers"),
    ],
)
def test_models_that_are_none(data, tmp_path, capsys, model, message):
    if model.startswith("sentence"):
        try:
            import sentence_transformers  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("sentence-transformers is installed, and this is about its absence")
    assert run(data, tmp_path / "s", model=model) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_weights_of_a_file(tmp_path):
    import timm

    model = timm.create_model("test_vit.r160_in1k", pretrained=False)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    reference = load_model(f"timm:test_vit.r160_in1k@{tmp_path}/w.pt", "cpu")
    pixels = reference.preprocess(Image.new("RGB", (200, 170), (9, 99, 199)))[None]
    model.reset_classifier(0)
    assert torch.equal(reference.model(pixels), model.eval()(pixels))
    again = load_model(f"timm:test_vit.r160_in1k@{tmp_path}/w.pt", "cpu")
    assert again.fingerprint == reference.fingerprint
    torch.save(timm.create_model("test_vit.r160_in1k", pretrained=False).state_dict(), tmp_path / "w.pt")
    assert load_model(f"timm:test_vit.r160_in1k@{tmp_path}/w.pt", "cpu").fingerprint != reference.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("005.png", "none.png"), "none.png: No such file"),
        (lambda t: t.replace("005.png", "train.csv"), "train.csv: UnidentifiedImageError"),
        (lambda t: "", "No columns"),
        (lambda t: "filepath,title\n", "has no rows"),
        (lambda t: "a,b\n1,2\n", "no column filepath; it has a, b"),
        (lambda t: t + ",red\n", "row 48 (from 0) has no filepath"),
    ],
)
def test_data_that_cannot_be_read(data, tmp_path, capsys, change, message):
    csv = tmp_path / "c.csv"
    csv.write_text(change((data / "train.csv").read_text()))
    assert run(data, tmp_path / "s", csv=csv) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("specalign: ")
    assert message in last
    assert [p.name for p in tmp_path.iterdir()] == ["c.csv"]


def test_features_that_are_not_finite(data, tmp_path, capsys, monkeypatch):
    forward = openclip_reference.Blocks.forward
    monkeypatch.setattr(
        openclip_reference.Blocks, "forward",
        lambda self, x: torch.where(torch.arange(len(x))[:, None] == 4, torch.nan, forward(self, x)),
    )  # fmt: skip
    assert run(data, tmp_path / "s") == 2
    assert "004.png that are not finite" in capsys.readouterr().err


def test_captions(tmp_path):
    class Letters:
        name = "letters"

        def model(self, texts):
            return torch.tensor([[float(ord(t)), 1.0] for t in texts])

    got = _embed.of_captions(Letters(), [["a", "c"], ["b"]], 2)
    np.testing.assert_array_equal(got, [[98, 1], [98, 1]])


def test_shape_of_features():
    with pytest.raises(InputError, match=r"gives \(2, 3, 4\) for 2 samples"):
        _embed.rows_of(type("M", (), {"name": "m"}), torch.zeros(2, 3, 4), 2)
