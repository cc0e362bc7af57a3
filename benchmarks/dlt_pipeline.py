"""Loads the lists into DuckDB with dlt's REST API source. Runs in dlt's environment, without pdsync.

Each list is a resource, read beside the others. Rows are appended to the stream's table: an empty one needs neither a
merge nor a replacement, so this is the least work for dlt. With a merge strategy, rows with an id that the table has
replace it. Environment variables set how it writes.

    PDSYNC_BASE_URL=… PDSYNC_API_TOKEN=… python dlt_pipeline.py LISTS.json FILE parquet|default append|STRATEGY
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import dlt
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from dlt.sources.rest_api import rest_api_source

DATASET = "pipedrive"


def resource(listing: dict[str, Any], strategy: str) -> dict[str, Any]:
    """A list as dlt declares it."""
    merge = {"write_disposition": {"disposition": "merge", "strategy": strategy}, "primary_key": "id"}
    return {
        "name": listing["name"],
        "table_name": listing["stream"],
        **({"write_disposition": "append"} if strategy == "append" else merge),
        "parallelized": True,
        "endpoint": {"path": listing["path"].lstrip("/"), "params": listing["query"], "data_selector": "data"},
    }


def main(listings: list[dict[str, Any]], file: str, loader: str, strategy: str) -> None:
    """Fetch, normalise and load everything.

    Raises:
        PipelineStepFailed: a step failed.
        DestinationHasFailedJobs: a file could not be loaded.
    """
    client = {
        "base_url": os.environ["PDSYNC_BASE_URL"],
        "auth": {
            "type": "api_key",
            "name": "x-api-token",
            "api_key": os.environ["PDSYNC_API_TOKEN"],
            "location": "header",
        },
        "paginator": JSONResponseCursorPaginator(cursor_path="additional_data.next_cursor", cursor_param="cursor"),
    }
    resources = [resource(listing, strategy) for listing in listings]
    source = rest_api_source({"client": client, "resources": resources})
    pipeline = dlt.pipeline("benchmark", destination=dlt.destinations.duckdb(file), dataset_name=DATASET)
    info = pipeline.run(source, loader_file_format="parquet" if loader == "parquet" else None)
    info.raise_on_failed_jobs()


if __name__ == "__main__":  # dlt's workers import this file again
    main(json.loads(Path(sys.argv[1]).read_text()), *sys.argv[2:5])
