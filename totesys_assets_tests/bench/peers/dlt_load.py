"""The eleven tables with dlt, run by the Python of the peers' environment; competitors.py sets what it reads."""

import os

import dlt
from dlt.sources.sql_database import sql_database

url = os.environ["SOURCE_URL"]
source = sql_database(
    url,
    table_names=os.environ["TABLES"].split(","),
    backend="connectorx",
    backend_kwargs={"conn": url, "return_type": "arrow"},
).parallelize()
pipeline = dlt.pipeline(
    "bench",
    destination=dlt.destinations.postgres(os.environ["TARGET_URL"]),
    dataset_name=os.environ["DATASET"],
)
pipeline.run(source, loader_file_format="parquet", write_disposition="replace").raise_on_failed_jobs()
