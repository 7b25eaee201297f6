//! The last endpoints of a revision that a rollout sends requests to stay until every client has other routes.

use std::time::Duration;

use plane::{Held, Kept};
use world::api::delivery::{Assignment, Revision, RolloutRun, ServiceSelector, Split, Stickiness, Weight};
use world::{Change, Kind, Meta, Object, ObjectRef, Spec};

use crate::fleet::{CLIENT, Fleet, WEB, parsed};

const OTHER: &str = "sidecar~10.0.0.3~client-2.default~default.svc.cluster.local";
/// What the plane has by itself.
const LONGEST: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(200);

/// A service with two revisions, and clients.
struct Shop {
    fleet: Fleet,
    version: i64,
}

impl Shop {
    /// With this share at v2; everybody has settled.
    fn start(percent: u32, protocol: &str) -> Self {
        let mut fleet = Fleet::start(&[CLIENT, OTHER]);
        fleet.change(parsed(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: shop, namespace: default}}\nspec:\n  \
             selector: {{app: shop}}\n  ports: [{{name: {protocol}, port: 80, targetPort: 8080}}]\n"
        )));
        let mut shop = Self { fleet, version: 0 };
        shop.pod("v1", "10.1.0.1");
        shop.pod("v2", "10.1.0.2");
        shop.assign(percent);
        shop.fleet.settle_all();
        shop
    }

    fn pod(&mut self, revision: &str, address: &str) {
        self.fleet.change(parsed(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {revision}, namespace: default, \
             labels: {{app: shop, version: {revision}}}}}\nstatus: {{podIP: {address}, phase: Running}}\n"
        )));
    }

    fn remove(&mut self, revision: &str) -> Vec<Held> {
        let pod = ObjectRef::new(Kind::Pod, "default", revision);
        self.fleet.change(vec![Change::Remove(pod)]).held
    }

    fn assign(&mut self, percent: u32) {
        self.version += 1;
        let weight = Weight::from_ppm(percent * 10_000);
        let assignment = Assignment {
            version: self.version as u64,
            split: Split::Weights(vec![(Revision::new("v2"), weight), (Revision::new("v1"), weight.rest())]),
            routes: Vec::new(),
            mirror: None,
            stickiness: Stickiness::default(),
            fallback: None,
        };
        let run = RolloutRun {
            service: ServiceSelector { name: "shop".to_owned(), ..ServiceSelector::default() },
            label: "version".to_owned(),
            stable: "v1".to_owned(),
            candidate: "v2".to_owned(),
            assignment: Some(assignment),
            ..RolloutRun::default()
        };
        let reference = ObjectRef::new(Kind::RolloutRun, "default", "run");
        let meta = Meta { generation: self.version, ..Meta::default() };
        let object = Object { reference, meta, spec: Spec::RolloutRun(Box::new(run)) };
        self.fleet.change(vec![Change::Apply(object.into())]);
    }

    /// Addresses in v2's cluster, and whether routes lead there.
    fn v2(&self) -> (Vec<String>, bool) {
        let cluster = "outbound|80|v2|shop.default.svc.cluster.local";
        let routes = self.fleet.text(CLIENT, proto::ResourceType::Route);
        (self.fleet.addresses(CLIENT, cluster), routes.contains(cluster))
    }
}

#[test]
fn routes_lead_elsewhere_first_and_the_endpoints_go_when_all_clients_have_them() {
    let mut shop = Shop::start(50, "http");
    assert_eq!(shop.v2(), (vec!["10.1.0.2".to_owned()], true));
    let held = shop.remove("v2");
    assert_eq!(shop.v2(), (vec!["10.1.0.2".to_owned()], false));
    let [held] = &held[..] else { panic!("one place is kept: {held:?}") };
    assert_eq!(held.kept, Kept::Endpoints { revision: Revision::new("v2"), count: 1 });
    assert_eq!(
        held.to_string(),
        format!(
            "revision \"v2\" of default/shop, whose last 1 endpoint behind port 80 is gone, may still be used by 2 nodes \
             ({CLIENT}, {OTHER}): they have not acknowledged generation {}",
            shop.fleet.generation
        )
    );
    shop.fleet.settle(CLIENT);
    shop.fleet.pass(QUIET * 2);
    assert_eq!(shop.v2().0.len(), 1, "one client has not settled");
    // What the run decides meanwhile is another publication, and does not wait longer for it.
    shop.assign(0);
    shop.fleet.settle(OTHER);
    shop.fleet.pass(QUIET);
    assert_eq!(shop.v2(), (Vec::new(), false));
    assert!(shop.fleet.plane.held().is_empty() && shop.fleet.plane.due().is_none());
}

#[test]
fn nobody_is_waited_for_longer_than_two_seconds() {
    let mut shop = Shop::start(50, "http");
    shop.remove("v2");
    shop.fleet.settle(OTHER);
    shop.fleet.pass(LONGEST - Duration::from_millis(1));
    assert_eq!(shop.v2().0.len(), 1);
    shop.fleet.pass(Duration::from_millis(1));
    assert_eq!(shop.v2().0.len(), 0);
    assert_eq!(shop.fleet.lifted.pop().unwrap().missing, [CLIENT], "who was missing is said");
}

#[test]
fn endpoints_that_come_back_replace_those_that_were_kept() {
    let mut shop = Shop::start(50, "http");
    shop.remove("v2");
    shop.pod("v2", "10.1.0.9");
    assert_eq!(shop.v2(), (vec!["10.1.0.9".to_owned()], true));
    assert!(shop.fleet.plane.held().is_empty() && shop.fleet.plane.due().is_none());
}

#[test]
fn nothing_is_kept_of_what_gets_no_requests() {
    for (percent, protocol) in [(0, "http"), (50, "tcp")] {
        let mut shop = Shop::start(percent, protocol);
        assert_eq!(shop.remove("v2"), [], "{percent} % of {protocol}");
        assert_eq!(shop.v2().0.len(), 0);
    }
    // Nor when nobody else is there to take them, or without a rollout.
    let mut shop = Shop::start(50, "http");
    assert_eq!(shop.remove("v1").len(), 1);
    assert_eq!(shop.remove("v2"), []);
    let mut shop = Shop::start(50, "http");
    shop.fleet.change(vec![Change::Remove(ObjectRef::new(Kind::RolloutRun, "default", "run"))]);
    assert_eq!(shop.remove("v2"), []);
}

#[test]
fn a_client_that_has_not_heard_of_the_way_back_keeps_the_endpoints_as_well() {
    let mut shop = Shop::start(50, "http");
    shop.assign(0);
    shop.fleet.settle(CLIENT);
    assert_eq!(shop.remove("v2").len(), 1, "the other client still sends half of its requests there");
    shop.fleet.settle_all();
    shop.fleet.pass(QUIET);
    assert_eq!(shop.v2(), (Vec::new(), false));
}

#[test]
fn whoever_connects_meanwhile_is_told_the_same() {
    let mut shop = Shop::start(50, "http");
    shop.remove("v2");
    shop.fleet.connect(WEB);
    let cluster = "outbound|80|v2|shop.default.svc.cluster.local";
    assert_eq!(shop.fleet.addresses(WEB, cluster), ["10.1.0.2"]);
    shop.fleet.settle_all();
    shop.fleet.pass(QUIET);
    assert_eq!(shop.fleet.addresses(WEB, cluster), [""; 0]);
}
