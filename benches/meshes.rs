//! Meshes of any size, as the text that a user would write and as what is read from it.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;

use compile::{Audience, Interception, Options, Proxy};
use plane::Plane;
use world::{Change, Object, Settings};

/// The sizes at which what should not grow with the mesh is shown.
pub const SIZES: [u32; 3] = [100, 1_000, 10_000];

/// Endpoints of every service.
pub const ENDPOINTS: u32 = 10;

/// Services are spread over this many namespaces, all of which the client sees.
const NAMESPACES: u32 = 50;

/// A mesh of `services` services, all on port 80, the worst case for route configurations: one holds all of them.
#[derive(Clone, Copy, Debug)]
pub struct Mesh {
    pub services: u32,
}

impl Mesh {
    /// Service, EndpointSlice and VirtualService of every service, as `kubectl get -o yaml` would show them.
    pub fn yaml(self) -> String {
        self.yaml_of(0..self.services)
    }

    /// The same of some of the services.
    pub fn yaml_of(self, services: Range<u32>) -> String {
        let mut text = String::new();
        for at in services {
            self.service(at, &mut text);
            slice(at, ENDPOINTS, &mut text);
            self.routes(at, 80, &mut text);
        }
        text
    }

    /// The same, read.
    pub fn changes(self) -> Vec<Change> {
        read(&self.yaml()).into_iter().map(Change::Apply).collect()
    }

    /// A plane with all of it, for nobody yet.
    pub fn plane(self) -> Plane {
        let mut plane = Plane::new(Settings::default(), Options::default());
        plane.apply(self.changes(), Vec::new());
        plane
    }

    /// The VirtualService of one service, with so many percent for the service itself.
    pub fn weight(self, at: u32, percent: u32) -> Arc<Object> {
        let mut text = String::new();
        self.routes(at, percent, &mut text);
        one(&text)
    }

    fn service(self, at: u32, text: &mut String) {
        let address = Ipv4Addr::from(0x0A60_0000 + at + 1);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: service-{at}\n  namespace: {}\nspec:\n  \
             clusterIP: {address}\n  selector:\n    app: service-{at}\n  ports:\n    - name: http\n      port: 80\n      \
             targetPort: 8080\n",
            namespace(at)
        );
    }

    /// A split between the service and its neighbour, so that no subset and no further cluster is needed.
    fn routes(self, at: u32, percent: u32, text: &mut String) {
        let next = (at + 1) % self.services;
        let _ = write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: service-{at}\n  \
             namespace: {}\nspec:\n  hosts:\n    - service-{at}\n  http:\n    - route:\n        - destination:\n            \
             host: service-{at}\n          weight: {percent}\n        - destination:\n            \
             host: service-{next}.{}.svc.cluster.local\n          weight: {}\n",
            namespace(at),
            namespace(next),
            100 - percent
        );
    }
}

/// The EndpointSlice of one service with so many of its endpoints.
pub fn endpoints(at: u32, count: u32) -> Arc<Object> {
    let mut text = String::new();
    slice(at, count, &mut text);
    one(&text)
}

fn slice(at: u32, count: u32, text: &mut String) {
    let _ = write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: service-{at}-abcde\n  \
         namespace: {}\n  labels:\n    kubernetes.io/service-name: service-{at}\naddressType: IPv4\nports:\n  \
         - name: http\n    port: 8080\n    protocol: TCP\nendpoints:\n",
        namespace(at)
    );
    for endpoint in 0..count {
        let address = Ipv4Addr::from(0x0B00_0000 + at * 16 + endpoint + 1);
        let _ = write!(
            text,
            "  - addresses: [{address}]\n    zone: zone-{}\n    conditions: {{ready: true}}\n",
            endpoint % 3
        );
    }
}

fn namespace(at: u32) -> String {
    format!("ns-{}", at % NAMESPACES)
}

fn read(text: &str) -> Vec<Arc<Object>> {
    let parsed = source::text::parse("mesh.yaml", text.as_bytes(), &source::text::Options::default());
    assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
    parsed.objects
}

fn one(text: &str) -> Arc<Object> {
    let mut objects = read(text);
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

/// The audience that everything is compiled for: a sidecar with interception.
pub fn audience() -> Audience {
    Audience {
        proxy: Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None },
        namespace: "ns-0".into(),
        labels: Arc::default(),
        addresses: vec![Ipv4Addr::new(11, 0, 0, 1).into()],
        hosts: compile::HostDelivery::Inline,
        lacks: compile::Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
    }
}

/// A node that belongs to that audience.
pub fn node() -> plane::Node {
    plane::Node { id: "sidecar~11.0.0.1~client-0.ns-0~ns-0.svc.cluster.local".to_owned(), ..plane::Node::default() }
}
