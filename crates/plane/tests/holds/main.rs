//! Ports that workloads lose stay for as long as a node may use them, and no longer.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod endpoints;
mod fleet;
mod model;
mod modes;

use std::time::Duration;

use plane::Kept;

use fleet::{CLIENT, Fleet, HTTP, LONGEST, Port, QUIET, TCP, WEB};

const HTTP_8080: Port = (8080, HTTP);
const HTTP_9090: Port = (9090, HTTP);
const SECOND: Duration = Duration::from_secs(1);

/// A workload that serves one port, and a client; both run what there is.
fn serving() -> Fleet {
    let mut fleet = Fleet::start(&[WEB, CLIENT]);
    fleet.publish("s0", Some(&[HTTP_8080]));
    fleet.settle_all();
    fleet
}

#[test]
fn a_port_stays_until_the_last_client_has_settled_and_a_while_longer() {
    let mut fleet = serving();
    fleet.publish("s0", Some(&[HTTP_9090]));
    assert_eq!(fleet.inbound(WEB), [8080, 9090]);
    fleet.settle(WEB);
    fleet.pass(5 * SECOND);
    assert_eq!(fleet.inbound(WEB), [8080, 9090], "the client has not settled");
    fleet.settle(CLIENT);
    fleet.pass(QUIET - SECOND);
    assert_eq!(fleet.inbound(WEB), [8080, 9090], "requests may be under way");
    fleet.pass(SECOND);
    assert_eq!(fleet.inbound(WEB), [9090]);
    assert!(fleet.plane.held().is_empty() && fleet.plane.due().is_none());
}

#[test]
fn what_is_held_says_for_whom_and_by_whom() {
    let mut fleet = serving();
    let begun = fleet.publish("s0", None);
    assert_eq!(begun.held, fleet.plane.held());
    let [held] = &begun.held[..] else { panic!("one port is held: {begun:?}") };
    assert_eq!(held.kept_by, [WEB]);
    assert_eq!(held.missing, [WEB, CLIENT]);
    assert_eq!((held.port, &held.kept, held.generation), (80, &Kept::Inbound { target: 8080 }, fleet.generation));
    assert_eq!(
        held.to_string(),
        format!(
            "inbound port 8080 of default/s0 may still be used by 2 nodes ({WEB}, {CLIENT}): they have not acknowledged \
             generation {}",
            fleet.generation
        )
    );
    fleet.settle_all();
    assert!(fleet.plane.held()[0].to_string().contains("is no longer used"), "{:?}", fleet.plane.held());
}

#[test]
fn a_client_that_never_settles_is_waited_for_no_longer_than_allowed() {
    let mut fleet = serving();
    fleet.publish("s0", None);
    fleet.settle(WEB);
    fleet.pass(LONGEST - SECOND);
    assert_eq!(fleet.inbound(WEB), [8080]);
    fleet.pass(SECOND);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
    let lifted = fleet.lifted.pop().unwrap();
    assert_eq!(lifted.missing, [CLIENT], "who was missing is said");
}

#[test]
fn a_client_that_comes_back_in_time_is_waited_for_again() {
    let mut fleet = serving();
    fleet.publish("s0", None);
    fleet.settle(WEB);
    fleet.depart(CLIENT);
    fleet.pass(SECOND);
    fleet.connect(CLIENT);
    fleet.pass(5 * SECOND);
    assert_eq!(fleet.inbound(WEB), [8080], "it runs what it ran before");
    fleet.settle(CLIENT);
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
}

#[test]
fn a_client_that_left_just_before_is_waited_for_when_it_is_back() {
    let mut fleet = serving();
    fleet.depart(CLIENT);
    fleet.publish("s0", None);
    fleet.settle(WEB);
    fleet.pass(SECOND);
    fleet.connect(CLIENT);
    fleet.pass(5 * SECOND);
    assert_eq!(fleet.inbound(WEB), [8080]);
}

#[test]
fn a_client_that_stays_away_is_not_waited_for() {
    let mut fleet = serving();
    fleet.publish("s0", None);
    fleet.settle(WEB);
    fleet.depart(CLIENT);
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
    assert!(fleet.lifted.pop().unwrap().missing.is_empty());
}

#[test]
fn a_client_that_lags_behind_an_earlier_change_is_waited_for_too() {
    let mut fleet = Fleet::start(&[WEB, CLIENT]);
    fleet.publish("s0", Some(&[HTTP_8080, HTTP_9090]));
    fleet.settle_all();
    // Nobody is sent to 8080 any more; the service in question goes only later, and says nothing to clients then.
    fleet.hide("s0");
    fleet.settle(WEB);
    fleet.publish("s0", None);
    fleet.settle(WEB);
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [8080, 9090], "the client has not even settled the first change");
    fleet.settle(CLIENT);
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
}

#[test]
fn a_port_that_returns_is_not_held_any_more() {
    let mut fleet = Fleet::start(&[WEB, CLIENT]);
    fleet.publish("s0", Some(&[HTTP_8080]));
    fleet.publish("s0", None);
    assert_eq!(fleet.plane.held().len(), 1);
    fleet.publish("s1", Some(&[HTTP_8080]));
    assert_eq!((fleet.plane.held(), fleet.plane.due()), (Vec::new(), None));
    fleet.pass(LONGEST);
    assert_eq!(fleet.inbound(WEB), [8080]);
}

#[test]
fn a_second_loss_waits_by_itself() {
    let mut fleet = Fleet::start(&[WEB, CLIENT]);
    fleet.publish("s0", Some(&[HTTP_8080]));
    fleet.publish("s1", Some(&[HTTP_9090]));
    fleet.settle_all();
    fleet.publish("s0", None);
    fleet.pass(LONGEST - SECOND);
    fleet.publish("s1", None);
    assert_eq!(fleet.inbound(WEB), [8080, 9090]);
    fleet.pass(SECOND);
    assert_eq!(fleet.inbound(WEB), [9090], "the first has waited as long as it may");
    fleet.settle_all();
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
}

#[test]
fn a_port_that_takes_less_than_before_goes_on_taking_all_until_clients_know() {
    let mut fleet = Fleet::start(&[WEB, CLIENT]);
    fleet.publish("s0", Some(&[(8080, TCP)]));
    fleet.settle_all();
    let before = fleet.listener(WEB);
    fleet.publish("s0", Some(&[(8080, HTTP)]));
    assert_eq!(fleet.listener(WEB), before);
    fleet.settle_all();
    fleet.pass(QUIET);
    let after = fleet.listener(WEB);
    assert_ne!(after, before);
    // The other way nothing can be lost.
    fleet.publish("s0", Some(&[(8080, TCP)]));
    assert_eq!(fleet.listener(WEB), before);
    assert!(fleet.plane.held().is_empty());
}

#[test]
fn a_workload_that_is_selected_no_more_keeps_its_ports_for_a_while() {
    let mut fleet = serving();
    let publication = fleet.relabel("other");
    assert_eq!(publication.moved.len(), 1);
    assert_eq!(fleet.inbound(WEB), [8080]);
    assert_eq!(fleet.plane.held()[0].kept_by, [WEB]);
    fleet.settle_all();
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
}

#[test]
fn a_workload_whose_proxy_connects_again_has_what_is_held() {
    let mut fleet = serving();
    fleet.publish("s0", None);
    fleet.depart(WEB);
    fleet.connect(WEB);
    assert_eq!(fleet.inbound(WEB), [8080]);
    fleet.settle_all();
    fleet.pass(QUIET);
    assert_eq!(fleet.inbound(WEB), [0; 0]);
}
