//! The endpoints of one assignment: what its receiver takes, in order.

use world::{Address, Endpoint};

use crate::Proxy;

/// Who receives endpoints, which decides what addresses they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// Envoy, by EDS: IP addresses and Unix sockets.
    Envoy,
    /// gRPC, by EDS: IP addresses (rule G-04).
    Grpc,
    /// A DNS cluster: names, and IP addresses as names of themselves.
    Dns,
}

impl Receiver {
    /// The receiver of EDS in a proxy.
    pub(crate) fn of(proxy: &Proxy) -> Self {
        match proxy {
            Proxy::Sidecar { .. } | Proxy::Gateway => Receiver::Envoy,
            Proxy::Grpc => Receiver::Grpc,
        }
    }

    /// Whether it can use the endpoint.
    pub(crate) fn takes(self, endpoint: &Endpoint) -> bool {
        match (&endpoint.address, self) {
            (Address::Ip(_), _) => true,
            (Address::Name(name), Receiver::Dns) => !name.is_empty(),
            (Address::Unix(path), Receiver::Envoy) => !path.is_empty(),
            (Address::Name(_), Receiver::Envoy | Receiver::Grpc) => false,
            (Address::Unix(_), Receiver::Grpc | Receiver::Dns) => false,
        }
    }
}

/// Endpoints in order of locality, address and port, without duplicates.
pub(crate) struct Selection<'a> {
    endpoints: Vec<&'a Endpoint>,
    /// What weights are divided by, so that all together stay below 2³²; 1 nearly always.
    divisor: u32,
}

impl<'a> Selection<'a> {
    /// What `receiver` can use of `endpoints`.
    pub(crate) fn new(endpoints: impl IntoIterator<Item = &'a Endpoint>, receiver: Receiver) -> Self {
        let mut selected: Vec<_> = endpoints.into_iter().filter(|endpoint| receiver.takes(endpoint)).collect();
        // The world gives endpoints in this order and without duplicates; looking costs less than trusting.
        if !selected.is_sorted_by(|a, b| place(a) < place(b)) {
            selected.sort_by(|a, b| place(a).cmp(&place(b)));
            selected.dedup_by(|a, b| place(a) == place(b));
        }
        if !selected.is_sorted_by(|a, b| a.locality <= b.locality) {
            selected.sort_by(|a, b| a.locality.cmp(&b.locality));
        }
        let total: u64 = selected.iter().map(|endpoint| u64::from(endpoint.weight.max(1))).sum();
        // Rounding up to 1 can add at most 1 for each endpoint.
        let room = u64::from(u32::MAX).saturating_sub(selected.len() as u64).max(1);
        let divisor =
            if total <= u64::from(u32::MAX) { 1 } else { u32::try_from(total / room + 1).unwrap_or(u32::MAX) };
        Self { endpoints: selected, divisor }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The first of them.
    pub(crate) fn first(&self) -> Option<&'a Endpoint> {
        self.endpoints.first().copied()
    }

    /// Only the first of them.
    pub(crate) fn first_only(mut self) -> Self {
        self.endpoints.truncate(1);
        self
    }

    /// The endpoints of each locality.
    pub(crate) fn localities(&self) -> impl Iterator<Item = &[&'a Endpoint]> {
        self.endpoints.chunk_by(|a, b| a.locality == b.locality)
    }

    /// The weight to give to an endpoint.
    pub(crate) fn weight(&self, endpoint: &Endpoint) -> u32 {
        if self.divisor == 1 { endpoint.weight.max(1) } else { (endpoint.weight / self.divisor).max(1) }
    }
}

fn place(endpoint: &Endpoint) -> (&Address, u16) {
    (&endpoint.address, endpoint.port)
}
