"""boto3 against three nodes: python boto3_client.py ENDPOINT ENDPOINT ENDPOINT MEBIBYTES.

Every step asserts; the script ends with 0 only if all of them held.
"""

import hashlib
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

BUCKET = "boto3"


def client(endpoint):
    return boto3.client(
        "s3",
        endpoint_url=f"http://{endpoint}",
        aws_access_key_id="onefold",
        aws_secret_access_key="onefold-secret",
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}
        ),
    )


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found} instead of {code}"
        return
    raise AssertionError(f"was not refused with {code}: {arguments}")


def objects(a, b):
    a.put_object(Bucket=BUCKET, Key="k", Body=b"0123456789", Metadata={"colour": "blue"})
    got = b.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"0123456789"
    assert got["Metadata"] == {"colour": "blue"}
    assert got["ETag"].strip('"') == hashlib.md5(b"0123456789").hexdigest()
    part = b.get_object(Bucket=BUCKET, Key="k", Range="bytes=-3")
    assert part["Body"].read() == b"789" and part["ContentRange"] == "bytes 7-9/10"
    refused("InvalidRange", b.get_object, Bucket=BUCKET, Key="k", Range="bytes=10-")
    refused("NoSuchKey", a.get_object, Bucket=BUCKET, Key="absent")
    refused("PreconditionFailed", a.put_object, Bucket=BUCKET, Key="k", Body=b"", IfNoneMatch="*")
    a.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "k"})
    assert b.head_object(Bucket=BUCKET, Key="copy")["ContentLength"] == 10
    url = a.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "k"}, ExpiresIn=60)
    import urllib.request

    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"0123456789"


def odd_keys(a, b):
    keys = ["sp ace", "plus+", "ü/ñ", "a//b", "a/./b", "per%25cent", "qu?ery&x=1", "tilde~'(!)*"]
    for key in keys:
        a.put_object(Bucket=BUCKET, Key=f"odd/{key}", Body=key.encode())
    for key in keys:
        assert b.get_object(Bucket=BUCKET, Key=f"odd/{key}")["Body"].read() == key.encode(), key
    pages = b.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="odd/", PaginationConfig={"PageSize": 3}
    )
    listed = [entry["Key"] for page in pages for entry in page["Contents"]]
    assert listed == sorted((f"odd/{key}" for key in keys), key=str.encode), listed
    gone = b.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in listed], "Quiet": False}
    )
    assert len(gone["Deleted"]) == len(keys) and "Errors" not in gone


def transfers(a, b, mebibytes):
    """The transfer manager: parts in several threads, up and down, with its own checksums."""
    config = TransferConfig(
        multipart_threshold=8 << 20, multipart_chunksize=8 << 20, max_concurrency=4
    )
    block = os.urandom(1 << 20)
    data = b"".join(
        hashlib.sha256(bytes([i & 255, i >> 8])).digest() + block[32:] for i in range(mebibytes)
    )
    data += b"and not a multiple of anything"
    a.upload_fileobj(io.BytesIO(data), BUCKET, "large", Config=config)
    head = b.head_object(Bucket=BUCKET, Key="large", ChecksumMode="ENABLED")
    assert head["ContentLength"] == len(data)
    assert any(name.startswith("Checksum") for name in head), head
    back = io.BytesIO()
    b.download_fileobj(BUCKET, "large", back, Config=config)
    assert back.getvalue() == data
    # A copy of a large object is made of UploadPartCopy.
    a.copy({"Bucket": BUCKET, "Key": "large"}, BUCKET, "large-copy", Config=config)
    back = io.BytesIO()
    b.download_fileobj(BUCKET, "large-copy", back, Config=config)
    assert back.getvalue() == data


def versions(a, b, c):
    """Versions, tags, locks and rules, each set at one node and seen at another."""
    bucket = "boto3-versions"
    a.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    assert b.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    one = a.put_object(Bucket=bucket, Key="k", Body=b"one", Tagging="n=1")["VersionId"]
    two = b.put_object(Bucket=bucket, Key="k", Body=os.urandom(100_000))["VersionId"]
    assert c.get_object(Bucket=bucket, Key="k")["VersionId"] == two
    assert c.get_object(Bucket=bucket, Key="k", VersionId=one)["Body"].read() == b"one"
    tags = b.get_object_tagging(Bucket=bucket, Key="k", VersionId=one)["TagSet"]
    assert tags == [{"Key": "n", "Value": "1"}]
    marker = c.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    refused("NoSuchKey", a.get_object, Bucket=bucket, Key="k")
    listed = a.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in listed["Versions"]] == [two, one]
    assert [m["VersionId"] for m in listed["DeleteMarkers"]] == [marker["VersionId"]]
    b.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert c.head_object(Bucket=bucket, Key="k")["VersionId"] == two
    hold = {"Status": "ON"}
    a.put_object_legal_hold(Bucket=bucket, Key="k", VersionId=two, LegalHold=hold)
    refused("AccessDenied", b.delete_object, Bucket=bucket, Key="k", VersionId=two)
    hold = {"Status": "OFF"}
    c.put_object_legal_hold(Bucket=bucket, Key="k", VersionId=two, LegalHold=hold)
    rule = {
        "ID": "old",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 3},
    }
    a.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    assert b.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [rule]
    refused("BucketNotEmpty", a.delete_bucket, Bucket=bucket)
    boto3_resource(b).Bucket(bucket).object_versions.all().delete()
    c.delete_bucket(Bucket=bucket)


def boto3_resource(client):
    return boto3.resource(
        "s3",
        endpoint_url=client.meta.endpoint_url,
        aws_access_key_id="onefold",
        aws_secret_access_key="onefold-secret",
        region_name="us-east-1",
    )


def many_threads(clients):
    def work(index):
        key, body = f"threads/{index}", os.urandom(1000 + index)
        clients[index % 3].put_object(Bucket=BUCKET, Key=key, Body=body)
        got = clients[(index + 1) % 3].get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return got == body

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(120)))


def main():
    clients = [client(endpoint) for endpoint in sys.argv[1:4]]
    a, b, c = clients
    a.create_bucket(Bucket=BUCKET)
    objects(a, b)
    odd_keys(b, c)
    transfers(c, a, int(sys.argv[4]))
    many_threads(clients)
    versions(a, b, c)
    bucket = boto3_resource(a).Bucket(BUCKET)
    bucket.objects.all().delete()
    bucket.delete()
    refused("404", b.head_bucket, Bucket=BUCKET)


main()
