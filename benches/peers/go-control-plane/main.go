// Command go-control-plane serves a made-up mesh from go-control-plane's snapshot cache, beside which the benchmarks set
// `pointsman mesh`. It takes the same requests for changes over HTTP, and prints what it was built with and runs with.
//
// The mesh is the one of `pointsman mesh` in the form that suits this library: a route configuration for each service,
// so that a changed weight costs one small resource, and one listener that names them all.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// peer holds the mesh, and the snapshots that are made of it.
type peer struct {
	mu      sync.Mutex
	cache   cache.SnapshotCache
	mesh    *mesh
	perNode bool
	version int
	nodes   map[string]struct{}
}

// oneKey gives every node the same snapshot.
type oneKey struct{}

const shared = "all"

func (oneKey) ID(*core.Node) string { return shared }

func main() {
	services := flag.Int("services", 1000, "how many services")
	endpoints := flag.Int("endpoints", 10, "how many endpoints each service has")
	snapshots := flag.String("snapshots", "shared", "one snapshot for all nodes (shared), or one for each (per-node)")
	xds := flag.String("xds-listen", "127.0.0.1:0", "where xDS is served")
	control := flag.String("control", "127.0.0.1:0", "where changes are asked for: POST /weight?service=3&value=40")
	flag.Parse()
	if *snapshots != "shared" && *snapshots != "per-node" {
		log.Fatalf("-snapshots %q is neither shared nor per-node", *snapshots)
	}

	p := &peer{mesh: newMesh(*services, *endpoints), perNode: *snapshots == "per-node", nodes: map[string]struct{}{}}
	if p.perNode {
		p.cache = cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	} else {
		p.cache = cache.NewSnapshotCache(true, oneKey{}, nil)
		p.admit(shared)
	}

	ctx := context.Background()
	callbacks := server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, request *discovery.DiscoveryRequest) error {
			p.admitNode(request.GetNode())
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, request *discovery.DeltaDiscoveryRequest) error {
			p.admitNode(request.GetNode())
			return nil
		},
	}
	grpcServer := grpc.NewServer(grpc.MaxConcurrentStreams(1000000))
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(ctx, p.cache, callbacks))

	xdsListener, err := net.Listen("tcp", *xds)
	if err != nil {
		log.Fatal(err)
	}
	controlListener, err := net.Listen("tcp", *control)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(built())
	fmt.Println("xds listening on", xdsListener.Addr())
	fmt.Println("control listening on", controlListener.Addr())
	http.HandleFunc("POST /weight", p.weight)
	go func() { log.Fatal(http.Serve(controlListener, nil)) }()
	log.Fatal(grpcServer.Serve(xdsListener))
}

// built says what this is made of and how it runs.
func built() string {
	gogc := os.Getenv("GOGC")
	if gogc == "" {
		gogc = "100"
	}
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			versions[module.Path] = module.Version
		}
	}
	return fmt.Sprintf("go-control-plane %s, grpc-go %s, %s, GOMAXPROCS=%d, GOGC=%s",
		versions["github.com/envoyproxy/go-control-plane"], versions["google.golang.org/grpc"],
		runtime.Version(), runtime.GOMAXPROCS(0), gogc)
}

// admitNode gives a node that has just come its snapshot. Only a stream's first request names the node.
func (p *peer) admitNode(node *core.Node) {
	if p.perNode && node.GetId() != "" {
		p.admit(node.GetId())
	}
}

func (p *peer) admit(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.nodes[key]; known {
		return
	}
	p.nodes[key] = struct{}{}
	p.publish(key)
}

// publish sets the snapshot of one key. A version is a text for the state of the world; in delta the library hashes
// every resource, once for each snapshot.
func (p *peer) publish(key string) {
	routesVersion := strconv.Itoa(p.version)
	snapshot := &cache.Snapshot{}
	snapshot.Resources[types.Cluster] = cache.NewResources("0", p.mesh.clusters)
	snapshot.Resources[types.Endpoint] = cache.NewResources("0", p.mesh.assignments)
	snapshot.Resources[types.Listener] = cache.NewResources("0", []types.Resource{p.mesh.listener})
	snapshot.Resources[types.Route] = cache.NewResources(routesVersion, p.mesh.routes)
	if err := p.cache.SetSnapshot(context.Background(), key, snapshot); err != nil {
		log.Printf("cannot set the snapshot of %q: %v", key, err)
	}
}

func (p *peer) weight(w http.ResponseWriter, request *http.Request) {
	service, err := strconv.Atoi(request.URL.Query().Get("service"))
	if err != nil || service < 0 || service >= len(p.mesh.routes) {
		http.Error(w, "there is no such service", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	value := p.version%79 + 1
	if text := request.URL.Query().Get("value"); text != "" {
		if value, err = strconv.Atoi(text); err != nil || value < 0 || value > 100 {
			http.Error(w, "the value is a percentage, from 0 to 100", http.StatusBadRequest)
			return
		}
	}
	committed := time.Now().UnixNano()
	p.mesh.setWeight(service, uint32(value))
	for key := range p.nodes {
		p.publish(key)
	}
	answer := map[string]any{"service": service, "value": value, "committed_ns": committed}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		log.Printf("cannot answer: %v", err)
	}
}
