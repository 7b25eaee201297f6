package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscredentials "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"
)

// server answers any unary call with the request, and says by headers who it is and who calls. It closes every connection
// politely after three seconds, so that handshakes go on, and ends when its input does.
func server(address, name string) error {
	transport, err := xdscredentials.NewServerCredentials(xdscredentials.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	modes := func(at net.Addr, change xds.ServingModeChangeArgs) {
		fmt.Fprintf(os.Stderr, "%v at %v: %v\n", change.Mode, at, change.Err)
	}
	serving, err := xds.NewGRPCServer(
		grpc.Creds(transport),
		grpc.ForceServerCodecV2(raw{}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 3 * time.Second}),
		grpc.UnknownServiceHandler(func(_ any, call grpc.ServerStream) error { return answer(call, name) }),
		xds.ServingModeCallback(modes),
	)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		serving.Stop()
	}()
	return serving.Serve(listener)
}

func answer(call grpc.ServerStream, name string) error {
	var message []byte
	if err := call.RecvMsg(&message); err != nil {
		return err
	}
	if err := call.SetHeader(metadata.Join(metadata.Pairs("x-backend", name), caller(call.Context()))); err != nil {
		return err
	}
	return call.SendMsg(&message)
}

// caller is what the other side of the connection has proved: its SPIFFE id, and a hash of its certificate.
func caller(ctx context.Context) metadata.MD {
	known, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	tls, ok := known.AuthInfo.(credentials.TLSInfo)
	if !ok || len(tls.State.PeerCertificates) == 0 {
		return nil
	}
	hash := sha256.Sum256(tls.State.PeerCertificates[0].Raw)
	headers := metadata.Pairs("x-peer-certificate", hex.EncodeToString(hash[:8]))
	if tls.SPIFFEID != nil {
		headers.Append("x-peer", tls.SPIFFEID.String())
	}
	return headers
}
