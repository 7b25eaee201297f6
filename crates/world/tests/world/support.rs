//! Objects in a line, for tests.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use world::{Change, Key, Kind, Labels, Meta, Object, ObjectRef, Spec, World};

/// `Kind namespace/name key=value,key=value` and the specification as JSON.
pub fn object(head: &str, spec: &str) -> Object {
    let mut words = head.split(' ');
    let kind = words.next().unwrap();
    let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
    let pairs = words.next().unwrap_or_default().split(',').filter_map(|pair| pair.split_once('='));
    let labels: Labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let (kind, spec) = match kind {
        "Namespace" => (Kind::Namespace, Spec::Namespace(serde_json::from_str(spec).unwrap())),
        "Service" => (Kind::Service, Spec::Service(serde_json::from_str(spec).unwrap())),
        "EndpointSlice" => (Kind::EndpointSlice, Spec::EndpointSlice(serde_json::from_str(spec).unwrap())),
        "Pod" => (Kind::Pod, Spec::Pod(serde_json::from_str(spec).unwrap())),
        "ServiceEntry" => (Kind::ServiceEntry, Spec::ServiceEntry(serde_json::from_str(spec).unwrap())),
        "WorkloadEntry" => (Kind::WorkloadEntry, Spec::WorkloadEntry(serde_json::from_str(spec).unwrap())),
        "DestinationRule" => (Kind::DestinationRule, Spec::DestinationRule(serde_json::from_str(spec).unwrap())),
        "VirtualService" => (Kind::VirtualService, Spec::VirtualService(serde_json::from_str(spec).unwrap())),
        "Gateway" => (Kind::Gateway, Spec::Gateway(serde_json::from_str(spec).unwrap())),
        "PeerAuthentication" => {
            (Kind::PeerAuthentication, Spec::PeerAuthentication(serde_json::from_str(spec).unwrap()))
        }
        "RequestAuthentication" => {
            (Kind::RequestAuthentication, Spec::RequestAuthentication(serde_json::from_str(spec).unwrap()))
        }
        "AuthorizationPolicy" => {
            (Kind::AuthorizationPolicy, Spec::AuthorizationPolicy(serde_json::from_str(spec).unwrap()))
        }
        "XdsResource" => (Kind::XdsResource, Spec::XdsResource(serde_json::from_str(spec).unwrap())),
        "DeploymentIntent" => (Kind::DeploymentIntent, Spec::DeploymentIntent(serde_json::from_str(spec).unwrap())),
        "RolloutRun" => (Kind::RolloutRun, Spec::RolloutRun(serde_json::from_str(spec).unwrap())),
        "AnalysisProfile" => (Kind::AnalysisProfile, Spec::AnalysisProfile(serde_json::from_str(spec).unwrap())),
        "Freeze" => (Kind::Freeze, Spec::Freeze(serde_json::from_str(spec).unwrap())),
        other => panic!("no kind {other}"),
    };
    Object {
        reference: ObjectRef::new(kind, namespace, name),
        meta: Meta { labels: Arc::new(labels), ..Meta::default() },
        spec,
    }
}

pub fn apply(world: &mut World, object: Object) -> BTreeSet<Key> {
    world.apply(Change::Apply(Arc::new(object)))
}

pub fn remove(world: &mut World, kind: Kind, namespace: &str, name: &str) -> BTreeSet<Key> {
    world.apply(Change::Remove(ObjectRef::new(kind, namespace, name)))
}
