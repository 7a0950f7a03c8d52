"""`python -m specalign.ray compare STUDENT REFERENCE [flags]`, and `features`."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import NoReturn

from .. import _binary, shards
from .._errors import Error, InputError
from . import _files
from ._cluster import connected

# Flags that go on to `specalign shards plan` and `specalign shards result`, which check them.
PLAN = [
    *("top", "samples", "permutations", "koda", "validate", "kernel", "student-kernel", "reference-kernel", "sigma"),
    *("student-sigma", "reference-sigma", "approximation", "num-features", "seed", "center", "eta", "config"),
]
RESULT = ["ids", "labels", "csv", "report", "images", "texts", "json"]
SWITCHES = ["validate", "center", "json"]
PATHS = ["ids", "labels", "csv", "report", "images", "texts", "config"]

HELP = """Compares two embeddings of a data set in shards on a Ray cluster, with the JSON, table and page of `specalign
compare` and the same bits. STUDENT and REFERENCE are quoted patterns of local files that every node finds, or of object
storage (s3://..., gs://...: what fsspec takes). The flags of `specalign shards plan` and `specalign shards result` are
taken, too."""


def main() -> None:
    """Run the command line."""
    features = sys.argv[1:2] == ["features"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with what cleans up on the way
    try:
        if features:
            try:
                from . import _stores
            except ModuleNotFoundError as e:
                raise Error(f"there is no {e.name} in {sys.prefix}; pip install 'open_clip_torch[training]'") from None
            sys.exit(_stores.run(sys.argv[2:]))
        sys.exit(_run(sys.argv[1:]))
    except Error as e:
        print(f"specalign: {re.sub('^(align|compare|shards|csrc|specalign): ', '', str(e))}", file=sys.stderr)
        sys.exit(2 if isinstance(e, InputError) else 1)
    except KeyboardInterrupt:
        done = "the same command goes on with what is done" if features else "nothing was written"
        print(f"specalign: interrupted; {done}", file=sys.stderr)
        sys.exit(1)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} -h has the usage")


def _parser() -> _Parser:
    parser = _Parser(prog="python -m specalign.ray", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("features", help="make the store of a frozen model's features, as specalign.openclip features")
    compare = verbs.add_parser("compare", help="compare two embeddings in shards", description=HELP, allow_abbrev=False)
    compare.add_argument("names", nargs="*", metavar="STUDENT REFERENCE")
    compare.add_argument("--student", action="append", default=[], metavar="PATTERN", help="repeatable")
    compare.add_argument("--reference", action="append", default=[], metavar="PATTERN", help="repeatable")
    compare.add_argument("--address", help="of a running cluster (default: $RAY_ADDRESS, else one on this machine)")
    compare.add_argument("--shards-per-task", type=int, metavar="N", help="default: 1, 8, 64 ..., four tasks a CPU")
    compare.add_argument("--threads", type=int, default=1, metavar="N", help="threads, and CPUs, of a task (default 1)")
    for name in PLAN + RESULT:
        compare.add_argument(f"--{name}", metavar="VALUE", help=argparse.SUPPRESS)
    return parser


def _run(arguments: list[str]) -> int:
    bare = {f"--{name}" for name in SWITCHES}
    options = _parser().parse_args([a + "=true" if a in bare else a for a in arguments])
    sides = options.student, options.reference
    if options.names and (any(sides) or len(options.names) != 2):
        raise InputError("compare takes STUDENT and REFERENCE, or any number of --student and --reference")
    student, reference = ([n] for n in options.names) if options.names else sides
    if not student or not reference:
        raise InputError("no files are given; python -m specalign.ray compare -h has the usage")
    if options.threads < 1 or (options.shards_per_task or 1) < 1:
        raise InputError("--threads and --shards-per-task are whole numbers, 1 or more")
    with tempfile.TemporaryDirectory(prefix="specalign-ray-") as work:
        return _compare(options, [_files.matching(student), _files.matching(reference)], work)


def _compare(options: argparse.Namespace, sides: list[list[str]], work: str) -> int:
    steps = {name: os.path.join(work, name) for name in ("plan", "moments", "directions", "scores")}
    # Names of object storage are paths below `stage`, where copies lie; others are absolute.
    stage = os.path.join(work, "stage")
    os.mkdir(stage)
    away = [name for names in sides for name in names if _files.remote(name)]
    rows = _needs_rows(options)
    for name in away:
        _files.fetch(name, stage, whole=rows)
    patterns = [
        flag
        for side, names in zip(("student", "reference"), sides, strict=True)
        for n in names
        for flag in (f"--{side}", n)
    ]
    code = _command(stage, "plan", *patterns, *_flags(options, PLAN), "--out", steps["plan"], quiet=True)
    if code:
        return code
    with open(steps["plan"], "rb") as f:
        plan = f.read()
    made = _passes(options, plan)
    for name, data in zip(("moments", "directions", "scores"), made, strict=True):
        with open(steps[name], "wb") as f:
            f.write(data)
    return _command(stage, "result", *steps.values(), *_flags(options, RESULT))


def _passes(options: argparse.Namespace, plan: bytes) -> tuple[bytes, bytes, bytes]:
    with connected(options.address, logs=False) as ray:
        from . import _passes  # which needs Ray

        cpus = ray.cluster_resources().get("CPU", 0)
        if cpus < options.threads:
            raise InputError(f"--threads is {options.threads}, but the cluster has {cpus:.0f} CPUs")
        size = options.shards_per_task or _passes.group_size(len(shards.names(plan)), cpus / options.threads)
        return _passes.run(plan, size, options.threads)


def _needs_rows(options: argparse.Namespace) -> bool:
    """Tell whether plan or result read rows on this machine, beside the passes."""
    off = options.validate == "false" and options.permutations == "0" and not options.report
    kernels = (options.kernel, options.student_kernel, options.reference_kernel)
    return not off or bool(options.config or options.center) or any(k in ("gaussian", "laplacian") for k in kernels)


def _flags(options: argparse.Namespace, names: list[str]) -> list[str]:
    values = {name: getattr(options, name.replace("-", "_")) for name in names}
    return [f"--{n}={os.path.abspath(v) if n in PATHS else v}" for n, v in values.items() if v is not None]


def _command(folder: str, step: str, *arguments: str, quiet: bool = False) -> int:
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run([_binary.find(), "shards", step, *arguments], cwd=folder, stdout=out).returncode


if __name__ == "__main__":
    main()
