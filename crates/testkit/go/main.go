// A gRPC client and a gRPC server that are configured by xDS, by gRPC's implementation in Go.
//
//	grpc-go client TARGET [xds]
//	grpc-go server IP:PORT NAME
//
// They are what grpc_client.py and grpc_server.py in ../python are for gRPC's C++ core: same arguments, same orders, same
// answers.
package main

import (
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc/mem"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "client":
		return client(arguments[1], false)
	case len(arguments) == 3 && arguments[0] == "client" && arguments[2] == "xds":
		return client(arguments[1], true)
	case len(arguments) == 3 && arguments[0] == "server":
		return server(arguments[1], arguments[2])
	}
	return errors.New("usage: grpc-go client TARGET [xds] | grpc-go server IP:PORT NAME")
}

// raw leaves messages as the bytes that they are, so that any method of any service can be called and answered.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}
