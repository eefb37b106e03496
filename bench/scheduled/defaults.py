"""`raretrail` with what follows, in a session that Spark and Delta set up by themselves."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession

from raretrail import runtime
from raretrail.cli import main

if __name__ == "__main__":
    spark = (
        SparkSession.Builder()
        .master("local[*]")
        .config("spark.driver.memory", "4g")
        .config("spark.jars", ",".join(map(str, runtime.delta_jars())))
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .getOrCreate()
    )
    code = main(sys.argv[1:])
    spark.stop()
    sys.exit(code)
