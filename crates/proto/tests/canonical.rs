//! Equal messages have equal bytes once they are canonical, and bytes never change more than that.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use prost::{Message as _, Name};
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
use proto::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use proto::pb::google::protobuf::{Any, Struct, Value, value};
use proto::wire::{self, Message};

/// A new map each time, whose order is random.
fn structure(keys: usize) -> Struct {
    let text = |t: String| Value { kind: Some(value::Kind::StringValue(t)) };
    Struct { fields: (0..keys).map(|k| (format!("key-{k}"), text(k.to_string()))).collect() }
}

fn metadata() -> Metadata {
    let filter_metadata = (0..5).map(|f| (format!("filter.{f}"), structure(4))).collect();
    let any = Any { type_url: Struct::type_url(), value: structure(6).encode_to_vec() };
    let unknown = Any { type_url: "type.googleapis.com/nobody.Knows".to_owned(), value: vec![0xff, 0x01] };
    let typed_filter_metadata = [("known".to_owned(), any), ("unknown".to_owned(), unknown)].into();
    Metadata { filter_metadata, typed_filter_metadata }
}

fn routes() -> RouteConfiguration {
    let host = |h: usize| VirtualHost {
        name: format!("host-{h}"),
        domains: vec![format!("host-{h}.example.com")],
        routes: vec![Route {
            metadata: Some(metadata()),
            typed_per_filter_config: (0..4)
                .map(|f| {
                    let config = Any { type_url: Metadata::type_url(), value: metadata().encode_to_vec() };
                    (format!("envoy.filters.http.{f}"), config)
                })
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    RouteConfiguration { name: "9080".to_owned(), virtual_hosts: (0..3).map(host).collect(), ..Default::default() }
}

#[test]
fn a_hundred_equal_route_configurations_become_one_byte_string() {
    let message = Message::of_resource(ResourceType::Route);
    let encoded: Vec<_> = (0..100).map(|_| routes().encode_to_vec()).collect();
    let raw: HashSet<_> = encoded.iter().collect();
    assert!(raw.len() > 50, "prost has begun to write maps in order: {} encodings", raw.len());

    let canonical: HashSet<_> = encoded.iter().map(|bytes| message.canonicalize(bytes)).collect();
    assert_eq!(canonical.len(), 1);
    let canonical = canonical.into_iter().next().unwrap();
    assert_eq!(canonical.len(), encoded[0].len());
    assert!(matches!(message.canonicalize(&canonical), Cow::Borrowed(_)), "canonical bytes should stay as they are");
}

#[test]
fn canonical_bytes_decode_to_the_equal_message() {
    // `Any`s hold bytes, so they are equal only when encoded from the same map.
    let mut original = routes();
    let bytes = original.encode_to_vec();
    let canonical = wire::canonicalize(&RouteConfiguration::type_url(), &bytes);
    let mut decoded = RouteConfiguration::decode(&*canonical).unwrap();
    for configuration in [&mut original, &mut decoded] {
        for route in configuration.virtual_hosts.iter_mut().flat_map(|h| &mut h.routes) {
            let unpacked: HashMap<_, _> =
                route.typed_per_filter_config.drain().map(|(k, v)| (k, Metadata::decode(&*v.value).unwrap())).collect();
            let metadata = route.metadata.as_mut().unwrap();
            for (name, mut inner) in unpacked.into_iter().chain([("own".to_owned(), metadata.clone())]) {
                let packed = inner.typed_filter_metadata.remove("known").unwrap();
                assert_eq!(inner.typed_filter_metadata.len(), 1, "{name}");
                let unpacked = Struct::decode(&*packed.value).unwrap();
                metadata.filter_metadata.insert(format!("packed in {name}"), unpacked);
                metadata.filter_metadata.extend(inner.filter_metadata.into_iter().map(|(k, v)| (k + &name, v)));
            }
            metadata.typed_filter_metadata.remove("known");
        }
    }
    assert_eq!(original, decoded);
}

#[test]
fn a_message_without_maps_is_borrowed() {
    let host = VirtualHost { name: "a".into(), domains: vec!["b".into(), "a".into()], ..Default::default() };
    let bytes = host.encode_to_vec();
    assert!(matches!(Message::of_resource(ResourceType::VirtualHost).canonicalize(&bytes), Cow::Borrowed(_)));
}

/// The entry of `Struct.fields` with this key and no value.
fn entry(key: u8) -> [u8; 5] {
    [0x0a, 3, 0x0a, 1, key]
}

#[test]
fn unknown_fields_and_equal_keys_stay_as_they_are() {
    let message = Message::of("google.protobuf.Struct").unwrap();
    // Field 15 is unknown: before, between and behind the entries.
    let unknown = [0x78, 1];
    let bytes = [&unknown[..], &entry(b'b'), &unknown, &entry(b'a'), &entry(b'a'), &unknown].concat();
    let sorted = [&unknown[..], &entry(b'a'), &entry(b'a'), &entry(b'b'), &unknown, &unknown].concat();
    assert_eq!(*message.canonicalize(&bytes), sorted);

    // Two entries for one key: the second one counts, before and after. They differ in an unknown field.
    let first = [0x0a, 5, 0x0a, 1, b'b', 0x78, 1];
    let second = [0x0a, 5, 0x0a, 1, b'b', 0x78, 2];
    let bytes = [&first[..], &second, &entry(b'a')].concat();
    assert_eq!(*message.canonicalize(&bytes), [&entry(b'a')[..], &first, &second].concat());
}

#[test]
fn entries_of_two_maps_that_are_mixed_up_are_parted() {
    let message = Message::of("envoy.config.core.v3.Metadata").unwrap();
    let entry = |field: u8, key: u8| [field << 3 | 2, 3, 0x0a, 1, key];
    let bytes = [entry(1, b'a'), entry(2, b'a'), entry(1, b'b'), entry(2, b'b')].concat();
    let sorted = [entry(1, b'a'), entry(1, b'b'), entry(2, b'a'), entry(2, b'b')].concat();
    assert_eq!(*message.canonicalize(&bytes), sorted);
}

#[test]
fn malformed_bytes_are_returned_unchanged() {
    let message = Message::of("google.protobuf.Struct").unwrap();
    let bytes = [&entry(b'b')[..], &entry(b'a'), &[0x0a, 9, 1]].concat();
    assert_eq!(*message.canonicalize(&bytes), bytes);
    assert_eq!(message.canonicalized(bytes.clone()), bytes);
}

#[test]
fn an_any_with_a_malformed_value_is_left_alone_and_the_rest_is_sorted() {
    let value = [&entry(b'b')[..], &entry(b'a'), &[0x0a, 9, 1]].concat();
    let any = Any { type_url: Struct::type_url(), value };
    let extension = TypedExtensionConfig { name: "x".into(), typed_config: Some(any.clone()) };
    let bytes = extension.encode_to_vec();
    assert_eq!(*wire::canonicalize(&TypedExtensionConfig::type_url(), &bytes), bytes);

    let known = Any { type_url: Struct::type_url(), value: [entry(b'b'), entry(b'a')].concat() };
    let mixed = Metadata {
        typed_filter_metadata: [("bad".to_owned(), any.clone()), ("good".to_owned(), known)].into(),
        ..Default::default()
    };
    let bytes = mixed.encode_to_vec();
    let canonical = wire::canonicalize(&Metadata::type_url(), &bytes);
    let decoded = Metadata::decode(&*canonical).unwrap();
    assert_eq!(decoded.typed_filter_metadata["bad"], any);
    assert_eq!(decoded.typed_filter_metadata["good"].value, [entry(b'a'), entry(b'b')].concat());
}

#[test]
fn messages_that_are_nested_too_deeply_are_left_alone() {
    // An `Any` in an `Any`, a thousand times.
    let innermost = [entry(b'b'), entry(b'a')].concat();
    let mut any = Any { type_url: Struct::type_url(), value: innermost };
    for _ in 0..1000 {
        any = Any { type_url: Any::type_url(), value: any.encode_to_vec() };
    }
    let bytes = any.encode_to_vec();
    assert_eq!(*wire::canonicalize(&Any::type_url(), &bytes), bytes);
    assert_eq!(wire::check(&Any::type_url(), &bytes).unwrap_err()[0].rule, "malformed");
}

#[test]
fn unknown_types_are_left_alone() {
    assert_eq!(Message::of("nobody.Knows"), None);
    assert_eq!(*wire::canonicalize("type.googleapis.com/nobody.Knows", &[0xff]), [0xff]);
    assert_eq!(wire::check("type.googleapis.com/nobody.Knows", &[0xff]), Ok(()));
}

#[test]
fn every_resource_type_is_known() {
    for resource_type in ResourceType::ALL {
        assert_eq!(Message::of_resource(resource_type).name(), resource_type.message_name());
        assert_eq!(Message::of_type_url(resource_type.type_url()), Some(Message::of_resource(resource_type)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..ResourceType::ALL.len()) {
        let message = Message::of_resource(ResourceType::ALL[which]);
        prop_assert_eq!(message.canonicalize(&bytes).len(), bytes.len());
        let _ = message.check(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic_and_keep_their_bytes(at in 0..4000usize, byte in any::<u8>(), cut in 0..4000usize) {
        let mut bytes = routes().encode_to_vec();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.max(1));
        let message = Message::of_resource(ResourceType::Route);
        if RouteConfiguration::decode(&*bytes).is_err() {
            prop_assert!(message.check(&bytes).is_err(), "prost cannot decode what the check lets pass");
        }
        let canonical = message.canonicalize(&bytes).into_owned();
        prop_assert_eq!(&*message.canonicalize(&canonical), &canonical, "twice is once");
        let sorted = |mut b: Vec<u8>| { b.sort_unstable(); b };
        prop_assert_eq!(sorted(canonical), sorted(bytes), "bytes only move");
    }

    #[test]
    fn the_order_of_entries_does_not_matter(
        keys in prop::collection::hash_set("[a-c]{0,3}", 0..8),
        seed in any::<prop::sample::Index>(),
    ) {
        let message = Message::of("google.protobuf.Struct").unwrap();
        let keys: Vec<_> = keys.into_iter().collect();
        let encode = |keys: &[String]| -> Vec<u8> {
            keys.iter().flat_map(|k| [&[0x0a, k.len() as u8 + 2, 0x0a, k.len() as u8], k.as_bytes()].concat()).collect()
        };
        let mut turned = keys.clone();
        if !turned.is_empty() {
            turned.rotate_left(seed.index(keys.len()));
        }
        let (one, other) = (encode(&keys), encode(&turned));
        prop_assert_eq!(message.canonicalize(&one), message.canonicalize(&other));
    }
}
