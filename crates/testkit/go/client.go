package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscredentials "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
)

// order is one line of the input: so many unary calls, one after the other.
type order struct {
	Method         string      `json:"method"`
	Count          int         `json:"count"`
	TimeoutSeconds float64     `json:"timeout_seconds"`
	Metadata       [][2]string `json:"metadata"`
}

// answers is one line of the output: what came of the calls of one order.
type answers struct {
	Backends     map[string]int `json:"backends"`
	Peers        map[string]int `json:"peers"`
	Certificates map[string]int `json:"certificates"`
	Errors       map[string]int `json:"errors"`
}

// client carries out orders on one channel until its input ends. With TLS as its control plane says if it is secured, else
// with none.
func client(target string, secured bool) error {
	transport := insecure.NewCredentials()
	if secured {
		var err error
		if transport, err = xdscredentials.NewClientCredentials(xdscredentials.ClientOptions{FallbackCreds: transport}); err != nil {
			return err
		}
	}
	channel, err := open(target, transport)
	if err != nil {
		return err
	}
	defer channel.Close()
	orders, output := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for orders.More() {
		var next order
		if err := orders.Decode(&next); err != nil {
			return err
		}
		if err := output.Encode(carryOut(channel, next)); err != nil {
			return err
		}
	}
	return nil
}

func open(target string, transport credentials.TransportCredentials) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
}

func carryOut(channel *grpc.ClientConn, wanted order) answers {
	counted := answers{map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}}
	for range wanted.Count {
		headers, err := call(channel, wanted)
		if err != nil {
			counted.Errors[spelled(status.Code(err))+": "+status.Convert(err).Message()]++
			continue
		}
		counted.Backends[strings.Join(headers.Get("x-backend"), ",")]++
		for _, peer := range headers.Get("x-peer") {
			counted.Peers[peer]++
		}
		for _, certificate := range headers.Get("x-peer-certificate") {
			counted.Certificates[certificate]++
		}
	}
	return counted
}

func call(channel *grpc.ClientConn, wanted order) (metadata.MD, error) {
	timeout := time.Duration(wanted.TimeoutSeconds * float64(time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for _, pair := range wanted.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, pair[0], pair[1])
	}
	request, response, headers := []byte("hello"), []byte(nil), metadata.MD{}
	if err := channel.Invoke(ctx, wanted.Method, &request, &response, grpc.Header(&headers)); err != nil {
		return nil, err
	}
	if string(response) != "hello" {
		return nil, status.Error(codes.DataLoss, "the answer is not the message that was sent")
	}
	return headers, nil
}

// spelled is the code as gRPC's specification writes it: PERMISSION_DENIED, where Go says PermissionDenied.
func spelled(code codes.Code) string {
	var text strings.Builder
	for index, letter := range code.String() {
		if index > 0 && unicode.IsUpper(letter) {
			text.WriteByte('_')
		}
		text.WriteRune(unicode.ToUpper(letter))
	}
	return text.String()
}
