"""`specalign compare` over shards on Spark: the two passes, with the bits of one process.

::

    specalign shards plan --student '/data/a-*.npy' --reference '/data/b-*.npy' --out plan
    spark-submit spark_compare.py plan out
    specalign shards result plan out/moments out/directions out/scores --report page.html
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

import specalign.shards as steps

GROUP = 8  # shards of a partition; the moments of 8, 64 ... neighbours are one matrix


def opened(plan, groups):
    """Map the rows of groups of shards: their number in the plan, and both matrices."""
    names = steps.names(plan)
    return [(i, *(np.load(name, mmap_mode="r") for name in names[i][:2])) for group in groups for i in group]


def reduced(spark, plan, step):
    """Give every partition its group of shards, and merge what the step makes of them."""
    count = len(steps.names(plan))
    groups = [range(i, min(i + GROUP, count)) for i in range(0, count, GROUP)]
    held = spark.sparkContext.broadcast(plan)
    made = spark.sparkContext.parallelize(groups, len(groups)).mapPartitions(
        lambda part: [step(held.value, opened(held.value, part))]
    )
    return made.treeReduce(lambda a, b: steps.merge([a, b]))


def main(plan_file, folder):
    """Make both passes over the shards of a plan."""
    plan = Path(plan_file).read_bytes()
    spark = SparkSession.builder.appName("specalign").getOrCreate()
    moments = reduced(spark, plan, lambda plan, shards: steps.partial(plan, shards, threads=1))
    directions = steps.spectrum(plan, moments)
    held = spark.sparkContext.broadcast(directions)
    scores = reduced(spark, plan, lambda plan, shards: steps.top(plan, held.value, shards, threads=1))
    Path(folder).mkdir(exist_ok=True)
    for name, data in (("moments", moments), ("directions", directions), ("scores", scores)):
        Path(folder, name).write_bytes(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
