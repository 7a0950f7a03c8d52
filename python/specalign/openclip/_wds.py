"""WebDataset shards, as OpenCLIP reads them: the samples' keys, through its own pipeline."""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from .._errors import InputError
from ._ids import sample_id
from ._loader import KEY, NAME

_TAR = re.compile(r"[^/\s]+\.tar[^/\s]*")
_WORKS = "0.2.86"


def is_webdataset(args: Any) -> bool:
    """Return whether OpenCLIP will take its training data for shards; `args` are its arguments."""
    if args.dataset_type != "auto":
        return bool(args.dataset_type == "webdataset")
    return str(args.train_data or "").split(".")[-1] == "tar"


def shards(urls: str) -> list[str]:
    """Return the shards that ``--train-data`` names, one a string."""
    from open_clip_train.data import expand_urls

    found: list[str] = []
    for part in urls.split("::"):
        found += expand_urls(part)[0]
    return found


def shard_name(url: str) -> str:
    """Return a shard's base name: of a path, of an address, or of the archive that a ``pipe:`` command reads."""
    names = _TAR.findall(url.split("?")[0])
    return str(names[-1]) if names else os.path.basename(url)


def sample_name(sample: dict[str, Any]) -> str:
    """Return what a sample is known by: its shard's base name, a slash, and its key (alone it is not unique)."""
    return f"{shard_name(sample['__url__'])}/{sample['__key__']}"


def check_readable() -> None:
    """Let OpenCLIP's own loader read a tiny shard.

    Raises:
        InputError: it cannot, as with versions of webdataset that it does not fit.
    """
    from open_clip_train.data import tarfile_to_samples_nothrow

    try:
        with tempfile.TemporaryDirectory(prefix="specalign-") as folder:
            path = os.path.join(folder, "probe.tar")
            with tarfile.open(path, "w") as tar:
                for name in ("a.jpg", "a.txt"):
                    member = tarfile.TarInfo(name)
                    member.size = 1
                    tar.addfile(member, io.BytesIO(b"x"))
            (sample,) = tarfile_to_samples_nothrow([{"url": path}])
            good = sample["__key__"] == "a" and {"jpg", "txt", "__url__"} <= sample.keys()
            why = "" if good else f"it gives {', '.join(sorted(sample))}"
    except OSError as e:
        raise InputError(f"specalign: a shard cannot be written to {tempfile.gettempdir()}: {e.strerror}") from None
    except Exception as e:
        why = f"{type(e).__name__}: {e}"
    if why:
        raise InputError(
            f"specalign: OpenCLIP's loader cannot read shards with webdataset {_version()} ({why}); "
            f"pip install webdataset=={_WORKS}, which it can"
        )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("webdataset")
    except PackageNotFoundError:
        return "of an unknown version"


class Keyed:
    """A stage of a pipeline: gives each sample the field `KEY`, and `NAME`: name and caption, a line each."""

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the samples."""
        for sample in samples:
            name = sample_name(sample)
            yield {**sample, KEY: sample_id(name), NAME: f"{name}\n{caption(sample)}"}


def caption(sample: dict[str, Any]) -> str:
    """Return a sample's caption, decoded or not; empty where there is none in ``txt``."""
    text = sample.get("txt", "")
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return " ".join(str(text).split())


def add_keys(loader: Any) -> None:
    """Make OpenCLIP's training loader yield keys and names. It stays so: workers may live on.

    Raises:
        InputError: the pipeline is not one that is known here.
    """
    stages = _stages(loader)
    if any(isinstance(stage, Keyed) for stage in stages):
        return
    fields = (KEY, NAME)
    kinds = [getattr(getattr(stage, "f", None), "__name__", "") for stage in stages]
    rename = kinds.index("_rename") if "_rename" in kinds else -1
    if rename >= 0 and stages[rename].kw.get("keep", True) is False:
        stages[rename].kw.update({field: field for field in fields})
    elif rename >= 0 and "_to_tuple" in kinds and stages[kinds.index("_to_tuple")].args == ("image", "text"):
        stages[kinds.index("_to_tuple")].args = ("image", "text", *fields)
    else:
        raise InputError(
            "specalign: OpenCLIP's WebDataset pipeline is not one that is known here: "
            f"{', '.join(k or type(s).__name__ for k, s in zip(kinds, stages, strict=True))}"
        )
    stages.insert(rename, Keyed())


def _stages(loader: Any) -> list[Any]:
    source = getattr(loader, "pipeline", [None])[0]  # a DataLoader
    stages = getattr(getattr(source, "dataset", None), "pipeline", None)
    if not isinstance(stages, list):
        raise InputError(
            f"specalign: the training data's loader is a {type(loader).__name__} without a pipeline; a store goes with "
            "--dataset-type csv or webdataset"
        )
    return stages
