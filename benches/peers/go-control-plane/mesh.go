package main

import (
	"fmt"
	"log"
	"slices"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// mesh is what there is to serve. Resources are never changed, only replaced.
type mesh struct {
	clusters    []types.Resource
	assignments []types.Resource
	routes      []types.Resource
	listener    *listener.Listener
}

func newMesh(services, endpoints int) *mesh {
	m := &mesh{}
	var chains []*listener.FilterChain
	for service := range services {
		m.clusters = append(m.clusters, newCluster(service))
		m.assignments = append(m.assignments, newAssignment(service, endpoints))
		m.routes = append(m.routes, newRoute(service, services, 80))
		chains = append(chains, newChain(service))
	}
	m.listener = &listener.Listener{Name: "outbound", Address: socket("0.0.0.0", 15001), FilterChains: chains}
	return m
}

// setWeight replaces one route configuration; snapshots that were made before keep theirs.
func (m *mesh) setWeight(service int, percent uint32) {
	routes := slices.Clone(m.routes)
	routes[service] = newRoute(service, len(routes), percent)
	m.routes = routes
}

func host(service int) string { return fmt.Sprintf("service-%d.ns-0.svc.cluster.local", service) }

func clusterName(service int) string { return "outbound|80||" + host(service) }

func ads() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}

func newCluster(service int) *cluster.Cluster {
	return &cluster.Cluster{
		Name:                 clusterName(service),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: clusterName(service)},
	}
}

func newAssignment(service, endpoints int) *endpoint.ClusterLoadAssignment {
	zones := make([]*endpoint.LocalityLbEndpoints, 3)
	for zone := range zones {
		zones[zone] = &endpoint.LocalityLbEndpoints{Locality: &core.Locality{Zone: fmt.Sprintf("zone-%d", zone)}}
	}
	for at := range endpoints {
		address := service*endpoints + at + 1
		text := fmt.Sprintf("11.%d.%d.%d", address>>16&255, address>>8&255, address&255)
		zone := zones[at%len(zones)]
		zone.LbEndpoints = append(zone.LbEndpoints, &endpoint.LbEndpoint{
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: socket(text, 8080)}},
		})
	}
	return &endpoint.ClusterLoadAssignment{ClusterName: clusterName(service), Endpoints: zones}
}

func newRoute(service, services int, percent uint32) *route.RouteConfiguration {
	share := func(service int, weight uint32) *route.WeightedCluster_ClusterWeight {
		return &route.WeightedCluster_ClusterWeight{Name: clusterName(service), Weight: wrapperspb.UInt32(weight)}
	}
	weighted := &route.WeightedCluster{Clusters: []*route.WeightedCluster_ClusterWeight{
		share(service, percent), share((service+1)%services, 100-percent),
	}}
	short := fmt.Sprintf("service-%d", service)
	return &route.RouteConfiguration{
		Name: host(service) + ":80",
		VirtualHosts: []*route.VirtualHost{{
			Name:    host(service) + ":80",
			Domains: []string{host(service), short, short + ".ns-0", short + ".ns-0.svc"},
			Routes: []*route.Route{{
				Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
				Action: &route.Route_Route{Route: &route.RouteAction{
					ClusterSpecifier: &route.RouteAction_WeightedClusters{WeightedClusters: weighted},
				}},
			}},
		}},
	}
}

func newChain(service int) *listener.FilterChain {
	manager := packed(&hcm.HttpConnectionManager{
		StatPrefix: "outbound",
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{
			Rds: &hcm.Rds{ConfigSource: ads(), RouteConfigName: host(service) + ":80"},
		},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: packed(&router.Router{})},
		}},
	})
	address := service + 1
	return &listener.FilterChain{
		FilterChainMatch: &listener.FilterChainMatch{PrefixRanges: []*core.CidrRange{{
			AddressPrefix: fmt.Sprintf("10.%d.%d.%d", 96+address>>16, address>>8&255, address&255),
			PrefixLen:     wrapperspb.UInt32(32),
		}}},
		Filters: []*listener.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listener.Filter_TypedConfig{TypedConfig: manager},
		}},
	}
}

func socket(address string, port uint32) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       address,
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: port},
	}}}
}

func packed(message proto.Message) *anypb.Any {
	any, err := anypb.New(message)
	if err != nil {
		log.Fatal(err)
	}
	return any
}
