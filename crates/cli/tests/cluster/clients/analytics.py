"""What reads tables in object stores, against three nodes: python analytics.py ENDPOINT ENDPOINT ENDPOINT.

s3fs (botocore), pyarrow (the AWS SDK for C++), DuckDB over s3fs, and Polars (object_store) write and
read the same Parquet files. What is not installed is named on the last line.
"""

import importlib.util
import sys

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import s3fs
from pyarrow import fs as arrow_fs

BUCKET, ROWS = "tables", 200_000


def mount(endpoint):
    return s3fs.S3FileSystem(
        key="onefold",
        secret="onefold-secret",
        endpoint_url=f"http://{endpoint}",
        client_kwargs={"region_name": "us-east-1"},
        use_listings_cache=False,
    )


def files(a, b):
    """s3fs as people use it: files, folders, seeks, a tree in and out."""
    a.mkdir(BUCKET)
    with a.open(f"{BUCKET}/dir/text", "wb") as file:
        for number in range(2_000_000):
            file.write(b"%07d\n" % number)
    assert b.size(f"{BUCKET}/dir/text") == 16_000_000
    with b.open(f"{BUCKET}/dir/text", "rb", block_size=1 << 20) as file:
        file.seek(8 * 1_234_567)
        assert file.readline() == b"1234567\n"
    a.pipe({f"{BUCKET}/many/{number}": b"%d" % number for number in range(50)})
    assert b.cat(f"{BUCKET}/many/7") == b"7"
    assert len(b.glob(f"{BUCKET}/many/4*")) == 11
    a.copy(f"{BUCKET}/many/7", f"{BUCKET}/seven")
    a.mv(f"{BUCKET}/seven", f"{BUCKET}/moved/seven")
    assert b.ls(f"{BUCKET}/moved") == [f"{BUCKET}/moved/seven"]
    a.touch(f"{BUCKET}/moved/eight")
    assert sorted(b.find(f"{BUCKET}/moved")) == [f"{BUCKET}/moved/eight", f"{BUCKET}/moved/seven"]
    a.rm(f"{BUCKET}/many", recursive=True)
    assert not b.exists(f"{BUCKET}/many")


def table():
    numbers = range(ROWS)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "shelf": pa.array([number % 10 for number in numbers], pa.int32()),
            "title": pa.array([f"book {number}" for number in numbers]),
        }
    )


def parquet(a, endpoint):
    """Written through s3fs, read by pyarrow's own client with a filter on row groups."""
    with a.open(f"{BUCKET}/one.parquet", "wb") as file:
        pq.write_table(table(), file, row_group_size=20_000)
    own = arrow_fs.S3FileSystem(
        access_key="onefold",
        secret_key="onefold-secret",
        endpoint_override=endpoint,
        scheme="http",
        region="us-east-1",
    )
    rows = pq.read_table(f"{BUCKET}/one.parquet", filesystem=own, filters=[("id", "<", 100)])
    assert rows.num_rows == 100
    ds.write_dataset(
        table(),
        f"{BUCKET}/by-shelf",
        filesystem=own,
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("shelf", pa.int32())]), flavor="hive"),
    )
    found = ds.dataset(f"{BUCKET}/by-shelf", filesystem=own, format="parquet", partitioning="hive")
    assert found.count_rows() == ROWS
    assert found.count_rows(filter=ds.field("shelf") == 3) == ROWS // 10


def duckdb(b):
    import duckdb

    connection = duckdb.connect()
    connection.register_filesystem(b)
    total = connection.sql(
        f"select count(*), sum(id) from 's3://{BUCKET}/one.parquet' where shelf = 4"
    )
    assert total.fetchall() == [(ROWS // 10, sum(range(4, ROWS, 10)))]


def polars(endpoint):
    import polars

    options = {
        "aws_access_key_id": "onefold",
        "aws_secret_access_key": "onefold-secret",
        "aws_region": "us-east-1",
        "aws_endpoint_url": f"http://{endpoint}",
        "aws_allow_http": "true",
    }
    lazy = polars.scan_parquet(f"s3://{BUCKET}/one.parquet", storage_options=options)
    assert lazy.filter(polars.col("shelf") == 5).select(polars.len()).collect().item() == ROWS // 10
    frame = polars.DataFrame({"n": list(range(1000))})
    frame.write_parquet(f"s3://{BUCKET}/frame.parquet", storage_options=options)
    back = polars.read_parquet(f"s3://{BUCKET}/frame.parquet", storage_options=options)
    assert back.equals(frame)


def main():
    endpoints = sys.argv[1:4]
    mounts = [mount(endpoint) for endpoint in endpoints]
    files(mounts[0], mounts[1])
    parquet(mounts[1], endpoints[2])
    absent = [name for name in ("duckdb", "polars") if importlib.util.find_spec(name) is None]
    if "duckdb" not in absent:
        duckdb(mounts[2])
    if "polars" not in absent:
        polars(endpoints[0])
    mounts[2].rm(BUCKET, recursive=True)
    assert not mounts[0].exists(BUCKET)
    if absent:
        print("SKIPPED: not installed:", ", ".join(absent))


main()
