"""boto3 as a peer: the response is a file object that upload_fileobj reads, in parts and with threads of its own.

Called as `boto3-stream.py ORIGIN SINK LIST CONCURRENT`; AWS_CA_BUNDLE names the authority, for both sides.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import urllib3
from botocore.config import Config


def main(origin, sink, paths, concurrent):
    http = urllib3.PoolManager(maxsize=concurrent, ca_certs=os.environ.get("AWS_CA_BUNDLE"))
    store = boto3.client(
        "s3",
        endpoint_url=sink,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(max_pool_connections=10 * concurrent),
    )

    def move(path):
        with http.request("GET", origin + path, preload_content=False) as response:
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status}")
            extra = {"ContentType": "video/mp4"}
            store.upload_fileobj(response, "bench", path.lstrip("/"), ExtraArgs=extra)

    with ThreadPoolExecutor(concurrent) as pool:
        for done in [pool.submit(move, path) for path in paths]:
            done.result()


if __name__ == "__main__":
    with open(sys.argv[3], encoding="utf-8") as listed:
        main(sys.argv[1], sys.argv[2], listed.read().split(), int(sys.argv[4]))
