//! What streams rely on: bytes that decode, versions that mean content, differences that are exact.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use snapshot::{Body, Cell, Layer, Name, Part, Parts, Snapshot};

const CDS: ResourceType = ResourceType::Cluster;

fn cluster(name: &str, stat: &str) -> Cell {
    let message = Cluster { name: name.into(), alt_stat_name: stat.into(), ..Cluster::default() };
    Cell::new(CDS, name.into(), &message.encode_to_vec())
}

fn layer(cells: impl IntoIterator<Item = Cell>) -> Arc<Layer> {
    let mut edit = Layer::new().edit();
    cells.into_iter().for_each(|cell| edit.set(cell));
    edit.finish()
}

fn glued(body: &Body) -> Vec<u8> {
    body.pieces().concat()
}

#[test]
fn a_body_decodes_as_the_resources_of_both_kinds_of_response() {
    let snapshot = Snapshot::new([layer([cluster("a", "1"), cluster("b", "2")]), layer([cluster("c", "3")])]);
    let sotw = DiscoveryResponse::decode(&*glued(&snapshot.all_sotw(CDS))).unwrap();
    let names: Vec<_> = sotw.resources.iter().map(|any| Cluster::decode(&*any.value).unwrap().name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(sotw.resources.iter().all(|any| any.type_url == CDS.type_url()));
    let delta = DeltaDiscoveryResponse::decode(&*glued(&snapshot.all_delta(CDS))).unwrap();
    for resource in &delta.resources {
        let cell = snapshot.get(CDS, &resource.name).unwrap();
        assert_eq!(resource.version, cell.version().to_string());
        assert_eq!(resource.resource.as_ref().unwrap().value, cell.value().to_vec());
    }
}

#[test]
fn versions_follow_content_whatever_way_led_to_it() {
    let one = layer([cluster("a", "1"), cluster("b", "2")]);
    let mut edit = layer([cluster("b", "other"), cluster("x", "")]).edit();
    edit.set(cluster("a", "1"));
    edit.set(cluster("b", "2"));
    edit.remove(CDS, "x");
    let other = edit.finish();
    assert_eq!(one.version(CDS), other.version(CDS));
    assert_ne!(one.version(CDS), layer([cluster("a", "1")]).version(CDS));
}

#[test]
fn setting_what_is_already_there_gives_the_same_layer() {
    let base = layer([cluster("a", "1")]);
    let mut edit = base.edit();
    edit.set(cluster("a", "1"));
    edit.remove(CDS, "never there");
    assert!(Arc::ptr_eq(&base, &edit.finish()));
}

#[test]
fn changes_are_exactly_what_differs() {
    let base = layer((0..1000).map(|i| cluster(&format!("c{i}"), "1")));
    let mut edit = base.edit();
    edit.set(cluster("c7", "2"));
    edit.set(cluster("new", "1"));
    edit.remove(CDS, "c9");
    let (old, new) = (Snapshot::new([base]), Snapshot::new([edit.finish()]));
    let changes = new.changes(&old, CDS);
    let names: Vec<_> = changes.changed.iter().map(|c| c.name().to_string()).collect();
    assert_eq!(names, ["c7", "new"]);
    assert_eq!(changes.removed.iter().map(|n| n.to_string()).collect::<Vec<_>>(), ["c9"]);
    let decoded = DeltaDiscoveryResponse::decode(&*glued(&changes.delta_body())).unwrap();
    assert_eq!(decoded.resources.len(), 2);
    // Those that somebody asks for are found by name.
    let asked = ["c1", "c7", "c9", "never there", "new"].map(Name::from);
    let changes = new.changes_of(&old, CDS, asked.iter());
    let names: Vec<_> = changes.changed.iter().map(|c| c.name().to_string()).collect();
    assert_eq!((&*names, &*changes.removed), (&["c7".to_owned(), "new".to_owned()][..], &["c9".into()][..]));
    assert_eq!(changes.delta_body().len(), new.changes(&old, CDS).delta_body().len());
    // Stacks of different depth are compared name by name, with the same result.
    let deeper = Snapshot::new([new.layers()[0].clone(), Layer::new()]);
    let names: Vec<_> = deeper.changes(&old, CDS).changed.iter().map(|c| c.name().to_string()).collect();
    assert_eq!(names, ["c7", "new"]);
}

#[test]
fn a_composite_is_its_head_and_its_parts_and_its_version_follows_each_part() {
    let host = |name: &str, domain: &str| {
        let host = VirtualHost { name: name.into(), domains: vec![domain.into()], ..VirtualHost::default() };
        let only = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        (Arc::from(name), Part::new(Bytes::from(only.encode_to_vec())))
    };
    let head = Bytes::from(RouteConfiguration { name: "80".into(), ..RouteConfiguration::default() }.encode_to_vec());
    let build = |hosts: &[(&str, &str)]| {
        let mut parts = Parts::default();
        hosts.iter().map(|(n, d)| host(n, d)).for_each(|(name, part)| parts.set(name, part));
        Cell::composite(ResourceType::Route, "80".into(), head.clone(), parts)
    };
    let cell = build(&[("b", "b.test"), ("a", "a.test")]);
    let decoded = RouteConfiguration::decode(&*cell.value()).unwrap();
    assert_eq!(decoded.name, "80");
    assert_eq!(decoded.virtual_hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(cell.version(), build(&[("a", "old"), ("b", "b.test"), ("a", "a.test")]).version());
    assert_ne!(cell.version(), build(&[("a", "b.test"), ("b", "a.test")]).version());
}

#[test]
fn a_reference_to_nothing_is_found() {
    let broken = cluster("a", "1").referring_to([(ResourceType::Endpoints, "gone".into())]);
    let snapshot = Snapshot::new([layer([broken])]);
    assert_eq!(snapshot.dangling().len(), 1);
}

#[test]
fn large_entries_are_shared_and_small_ones_are_joined() {
    let large = Bytes::from(vec![0; 20_000]);
    let small = Bytes::from_static(b"ab");
    let body = Body::join([&small, &small, &large, &small]);
    assert_eq!(body.pieces().len(), 3);
    assert_eq!(body.pieces()[1].as_ptr(), large.as_ptr());
    assert_eq!(body.len(), 20_006);
}

#[test]
fn what_was_joined_for_one_type_outlives_a_change_of_another() {
    let base = layer([cluster("a", "1")]);
    let before = Snapshot::new([base.clone()]).all_delta(CDS);
    let mut edit = base.edit();
    edit.set(Cell::new(ResourceType::Listener, "l".into(), b""));
    let next = edit.finish();
    assert_eq!(next.len(ResourceType::Listener), 1);
    let after = Snapshot::new([next]).all_delta(CDS);
    assert!(before.pieces().iter().zip(after.pieces()).all(|(old, new)| old.as_ptr() == new.as_ptr()));
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_ttl_is_no_part_of_the_content_but_changes_what_is_owed() {
    let old = layer([cluster("a", "1"), cluster("b", "1").with_ttl(Duration::from_secs(5))]);
    let mut edit = old.edit();
    edit.set(cluster("b", "1").with_ttl(Duration::from_secs(6)));
    let new = edit.finish();
    let cell = |layer: &Arc<Layer>| layer.get(CDS, "b").unwrap().clone();
    assert_eq!(cell(&old).version(), cell(&new).version());
    assert_ne!(old.version(CDS), new.version(CDS));
    let (old, new) = (Snapshot::new([old]), Snapshot::new([new]));
    let changed: Vec<_> = new.changes(&old, CDS).changed.iter().map(|cell| cell.name().to_string()).collect();
    assert_eq!(changed, ["b"]);
    assert!(new.has_ttl(CDS));
    let mut edit = new.layers()[0].edit();
    edit.set(cluster("b", "1"));
    let without = Snapshot::new([edit.finish()]);
    assert!(!without.has_ttl(CDS));
    assert_eq!(without.changes(&new, CDS).changed.len(), 1);
    assert_eq!(without.version(CDS), layer([cluster("a", "1"), cluster("b", "1")]).version(CDS));
}

#[test]
fn entries_with_a_ttl_decode_with_it_in_both_forms_and_heartbeats_without_a_body() {
    let cell = cluster("a", "1").with_ttl(Duration::from_millis(1500));
    let ttl = proto::pb::google::protobuf::Duration { seconds: 1, nanos: 500_000_000 };
    let only = |bytes: &[u8]| DeltaDiscoveryResponse::decode(bytes).unwrap().resources.remove(0);
    let full = only(&cell.delta_entry_with_ttl());
    assert_eq!((full.name.as_str(), full.ttl), ("a", Some(ttl)));
    assert_eq!(full.resource.as_ref().unwrap().value, cell.value().to_vec());
    let any = DiscoveryResponse::decode(&*cell.sotw_entry_with_ttl()).unwrap().resources.remove(0);
    assert_eq!(any.type_url, "type.googleapis.com/envoy.service.discovery.v3.Resource");
    assert_eq!(Resource::decode(&*any.value).unwrap(), full);
    let heartbeat = only(&cell.heartbeat_entry().unwrap());
    assert_eq!((heartbeat.ttl, heartbeat.resource, heartbeat.version), (Some(ttl), None, full.version));
    let lasting = cluster("a", "1");
    assert_eq!(lasting.heartbeat_entry(), None);
    assert_eq!(lasting.delta_entry_with_ttl(), *lasting.delta_entry());
    assert_eq!(lasting.sotw_entry_with_ttl(), lasting.sotw_entry());
    assert_eq!(only(cell.delta_entry()).ttl, None, "for a client that knows of no TTL");
}

#[test]
fn a_secret_shows_neither_in_debug_output_nor_in_its_version() {
    let make = |secret: &str, public: &str| {
        Cell::confidential(ResourceType::Secret, "default".into(), secret.as_bytes(), public.as_bytes())
    };
    let cell = make("key material of a workload", "certificate 1");
    assert_eq!(cell.version(), make("another key", "certificate 1").version());
    assert_ne!(cell.version(), make("key material of a workload", "certificate 2").version());
    assert_eq!(&*cell.value(), b"key material of a workload");
    let bytes = format!("{:?}", b"key material".as_slice());
    let bytes = bytes.trim_matches(['[', ']']).to_owned();
    let mut edit = Layer::new().edit();
    edit.set(cell);
    let snapshot = Snapshot::new([edit.finish()]);
    for shown in [format!("{snapshot:?}"), format!("{:?}", snapshot.all_delta(ResourceType::Secret))] {
        assert!(!shown.contains("key material") && !shown.contains(&bytes), "{shown}");
    }
}
