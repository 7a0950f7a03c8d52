"""The recipe for Spark, on a local one: the bits of one process. `make test-spark` installs PySpark."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sharded import comparison, run, same, sides, write

pytest.importorskip("pyspark", reason="PySpark is not installed, which takes 0.5 GB and Java; make test-spark does it")

ENVIRONMENT = {**os.environ, "PYSPARK_PYTHON": sys.executable}
RECIPE = Path(__file__).resolve().parents[1] / "examples/spark_compare.py"


def spark(*arguments):
    submit = Path(sys.executable).with_name("spark-submit")
    command = [submit, "--master", "local[2]", RECIPE, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=110, env=ENVIRONMENT)


def test_spark_gives_the_bits_of_one_process(tmp_path):
    folder = write(tmp_path / "rows", 27, 50, (12, 9))
    plan, out = tmp_path / "plan", tmp_path / "out"
    run("shards", "plan", *sides(folder), "--top", 3, "--out", plan)
    done = spark(plan, out)
    assert done.returncode == 0, done.stderr
    got = run("shards", "result", plan, *(out / name for name in ("moments", "directions", "scores")), "--json")
    assert same(got) == comparison(folder, "--top", 3)
    (folder / "b-011.npy").write_bytes((folder / "a-011.npy").read_bytes())
    assert "has rows of 12 numbers, but the plan has 9" in spark(plan, out).stderr
