"""A gRPC server that is configured by xDS, and says who calls it.

Usage: grpc_server.py IP:PORT NAME. Takes TLS or not as its control plane says. Any unary method answers with the request,
and with the headers x-backend (NAME), x-peer (the caller's SPIFFE id) and x-peer-certificate (a hash of its certificate).
Closes every connection politely after three seconds, so that handshakes go on. Ends at the end of its standard input.
"""

import concurrent.futures
import hashlib
import sys

import grpc


class Echo(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name

    def service(self, call_details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        known = context.auth_context()
        headers = [("x-backend", self.name)]
        for peer in known.get("peer_spiffe_id", []):
            headers.append(("x-peer", peer.decode()))
        for certificate in known.get("x509_pem_cert", []):
            headers.append(("x-peer-certificate", hashlib.sha256(certificate).hexdigest()[:16]))
        context.send_initial_metadata(headers)
        return request


def main():
    address, name = sys.argv[1:]
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=8),
        options=[("grpc.max_connection_age_ms", 3000), ("grpc.so_reuseport", 0)],
        xds=True,
    )
    server.add_generic_rpc_handlers((Echo(name),))
    server.add_secure_port(address, grpc.xds_server_credentials(grpc.insecure_server_credentials()))
    server.start()
    sys.stdin.read()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
