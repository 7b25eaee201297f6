"""A gRPC client that does as it is told, with its own xDS resolver.

Usage: grpc_client.py TARGET [xds], for instance xds:///reviews.default.svc.cluster.local:9080 or 127.0.0.1:9080. With
xds it uses TLS as its control plane says, else none.

Reads one JSON object per line from standard input and answers each with one on standard output:
  {"method": "/any.Service/Method", "count": 100, "timeout_seconds": 5, "metadata": [["x-user", "ann"]]}
  {"backends": {"v1": 81, "v2": 19}, "peers": {}, "certificates": {}, "errors": {"UNAVAILABLE: no route": 1}}
The calls are unary, one after the other, on one channel that lives as long as the process. Backends are counted by the
response header x-backend, what they say of this client by x-peer and x-peer-certificate. Ends at the end of its input.
"""

import collections
import json
import sys

import grpc
from grpc.experimental import insecure_channel_credentials


def call(channel, order):
    method = channel.unary_unary(order["method"])
    backends, errors = collections.Counter(), collections.Counter()
    peers, certificates = collections.Counter(), collections.Counter()
    metadata = [tuple(pair) for pair in order["metadata"]]
    for _ in range(order["count"]):
        try:
            response, rpc = method.with_call(b"hello", timeout=order["timeout_seconds"], metadata=metadata)
            if response != b"hello":
                errors["the answer is not the message that was sent"] += 1
                continue
            headers = dict(rpc.initial_metadata())
            backends[headers.get("x-backend", "")] += 1
            for counter, name in ((peers, "x-peer"), (certificates, "x-peer-certificate")):
                if name in headers:
                    counter[headers[name]] += 1
        except grpc.RpcError as error:
            errors[f"{error.code().name}: {error.details()}"] += 1
    return {"backends": backends, "peers": peers, "certificates": certificates, "errors": errors}


def open_channel(target, secured):
    if not secured:
        return grpc.insecure_channel(target)
    return grpc.secure_channel(target, grpc.xds_channel_credentials(insecure_channel_credentials()))


def main():
    with open_channel(sys.argv[1], sys.argv[2:] == ["xds"]) as channel:
        for line in sys.stdin:
            print(json.dumps(call(channel, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
