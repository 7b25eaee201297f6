//! From plaintext to mutual TLS and back nobody sends what the other side does not take yet, or does not take any more.

use std::time::Duration;

use compile::Secrets;
use plane::Kept;
use proto::ResourceType;
use world::{Change, Kind, ObjectRef};

use crate::fleet::{CLIENT, Fleet, HTTP, LONGEST, QUIET, WEB, parsed};

const SECOND: Duration = Duration::from_secs(1);

/// What a workload takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Plaintext,
    Both,
    Tls,
}

/// What clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Plaintext,
    Tls,
}

/// A workload and a client with certificates, and the mode of the mesh.
fn meshed(mode: Option<&str>) -> Fleet {
    let mut fleet = Fleet::start_with(&[], Secrets::Stream);
    fleet.change(parsed(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: default, labels: {app: web, \
         security.istio.io/tlsMode: istio}}\nstatus: {podIP: 10.0.0.1, phase: Running}\n",
    ));
    fleet.publish("s0", Some(&[(8080, HTTP)]));
    if let Some(mode) = mode {
        say(&mut fleet, mode);
    }
    [WEB, CLIENT].iter().for_each(|node| fleet.connect(node));
    fleet.settle_all();
    fleet
}

fn say(fleet: &mut Fleet, mode: &str) -> usize {
    let policy = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: mesh, namespace: istio-system}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    );
    fleet.change(parsed(&policy)).held.len()
}

fn now(fleet: &Fleet) -> (Taken, Sent) {
    let listener = fleet.listener_text(WEB);
    let (tls, plaintext) = (listener.contains("DownstreamTlsContext"), listener.contains("\"raw_buffer\""));
    let taken = match (tls, plaintext) {
        (false, true) => Taken::Plaintext,
        (true, true) => Taken::Both,
        (true, false) => Taken::Tls,
        (false, false) => panic!("nothing is taken: {listener}"),
    };
    let is_marked = fleet.text(CLIENT, ResourceType::Endpoints).contains("tlsMode");
    (taken, if is_marked { Sent::Tls } else { Sent::Plaintext })
}

#[test]
fn on_the_way_between_plaintext_and_tls_workloads_take_both_until_clients_have_turned() {
    for (from, to, before, after) in [
        ("PERMISSIVE", "DISABLE", (Taken::Both, Sent::Tls), (Taken::Plaintext, Sent::Plaintext)),
        ("DISABLE", "STRICT", (Taken::Plaintext, Sent::Plaintext), (Taken::Tls, Sent::Tls)),
        ("STRICT", "DISABLE", (Taken::Tls, Sent::Tls), (Taken::Plaintext, Sent::Plaintext)),
        ("DISABLE", "PERMISSIVE", (Taken::Plaintext, Sent::Plaintext), (Taken::Both, Sent::Tls)),
    ] {
        let mut fleet = meshed(Some(from));
        assert_eq!(now(&fleet), before, "{from}");
        assert_eq!(say(&mut fleet, to), 1);
        let meanwhile = now(&fleet);
        assert_eq!(meanwhile, (Taken::Both, before.1), "{from} to {to}: the workload comes first");
        fleet.settle(CLIENT);
        fleet.pass(LONGEST / 4);
        if from != "PERMISSIVE" {
            assert_eq!(now(&fleet), meanwhile, "{from} to {to}: the workload has not settled");
        }
        fleet.settle(WEB);
        fleet.pass(QUIET);
        assert_eq!(now(&fleet), (Taken::Both, after.1), "{from} to {to}: then its clients");
        fleet.settle(WEB);
        fleet.pass(LONGEST / 4);
        assert_eq!(now(&fleet).0, Taken::Both, "{from} to {to}: the client has not settled");
        fleet.settle(CLIENT);
        fleet.pass(QUIET);
        assert_eq!(now(&fleet), after, "{from} to {to}");
        assert!(fleet.plane.held().is_empty() && fleet.plane.due().is_none());
        let [ended] = &fleet.lifted[..] else { panic!("{:?}", fleet.lifted) };
        assert_eq!((&ended.kept, ended.missing.len()), (&Kept::Modes, 0));
    }
}

#[test]
fn whoever_does_not_answer_is_waited_for_in_each_step_and_named() {
    let mut fleet = meshed(Some("DISABLE"));
    say(&mut fleet, "STRICT");
    fleet.settle(CLIENT);
    let [held] = &fleet.plane.held()[..] else { panic!("{:?}", fleet.plane.held()) };
    assert_eq!(
        held.to_string(),
        format!(
            "what PeerAuthentication istio-system/mesh said before may still be used by 1 node ({WEB}): it has not \
             acknowledged generation {}",
            fleet.generation
        )
    );
    fleet.pass(LONGEST - SECOND);
    assert_eq!(now(&fleet), (Taken::Both, Sent::Plaintext));
    fleet.pass(SECOND);
    assert_eq!(now(&fleet), (Taken::Both, Sent::Tls));
    assert_eq!(fleet.lifted[0].missing, [WEB]);
    fleet.pass(LONGEST);
    assert_eq!(now(&fleet), (Taken::Tls, Sent::Tls));
    assert_eq!(fleet.lifted[1].missing, [WEB, CLIENT]);
}

#[test]
fn a_change_of_mind_on_the_way_leads_back_without_a_gap() {
    let mut fleet = meshed(Some("PERMISSIVE"));
    say(&mut fleet, "DISABLE");
    fleet.settle_all();
    fleet.pass(QUIET);
    assert_eq!(now(&fleet), (Taken::Both, Sent::Plaintext));
    say(&mut fleet, "STRICT");
    assert_eq!(now(&fleet), (Taken::Both, Sent::Plaintext), "what clients were told last stays until workloads know");
    for _ in 0..2 {
        fleet.settle_all();
        fleet.pass(QUIET);
    }
    assert_eq!(now(&fleet), (Taken::Tls, Sent::Tls));
    assert!(fleet.plane.due().is_none());
}

#[test]
fn what_both_sides_get_along_with_counts_at_once() {
    let mut fleet = meshed(None);
    assert_eq!(now(&fleet), (Taken::Both, Sent::Tls));
    assert_eq!(say(&mut fleet, "STRICT"), 0);
    assert_eq!((now(&fleet), fleet.plane.due()), ((Taken::Tls, Sent::Tls), None));
    // Nobody is there yet who could go by something older.
    let mut fleet = Fleet::start_with(&[], Secrets::Stream);
    assert_eq!(say(&mut fleet, "DISABLE"), 0);
    assert!(fleet.plane.due().is_none());
    // Taking the policy away is a change like any other.
    let mut fleet = meshed(Some("DISABLE"));
    let policy = ObjectRef::new(Kind::PeerAuthentication, "istio-system", "mesh");
    assert_eq!(fleet.change(vec![Change::Remove(policy)]).held.len(), 1);
    assert_eq!(now(&fleet), (Taken::Both, Sent::Plaintext));
}
