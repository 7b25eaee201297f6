#![allow(clippy::unwrap_used)]

use super::*;

fn event(kind: EventKind, node: &str) -> Event {
    Event { node_id: node.to_owned(), ..Event::new(kind) }
}

fn ids(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

#[test]
fn what_comes_with_every_response_is_wanted_only_while_somebody_listens() {
    let journal = Journal::new();
    assert!(!journal.wants(EventKind::Sent) && !journal.wants(EventKind::Accepted));
    assert!(journal.wants(EventKind::Rejected) && journal.wants(EventKind::Connected));
    let (one, other) = (journal.listen(None), journal.listen(None));
    assert!(journal.wants(EventKind::Sent));
    drop(one);
    assert!(journal.wants(EventKind::Sent));
    drop(other);
    assert!(journal.wants(EventKind::Sent), "for a minute, in case it comes back");
    journal.frequent_until.store(1, Ordering::Relaxed);
    while journal.now() < 1 {
        std::thread::yield_now();
    }
    assert!(!journal.wants(EventKind::Sent));
    assert_eq!(journal.frequent_until.load(Ordering::Relaxed), NEVER, "and then it costs one load");
}

#[test]
fn a_listener_reads_what_came_since_and_resumes_where_it_was() {
    let journal = Journal::new();
    journal.record(event(EventKind::Connected, "a"));
    let mut late = journal.listen(None);
    assert_eq!(late.read(), []);
    journal.record(event(EventKind::Connected, "b"));
    journal.record(event(EventKind::Disconnected, "b"));
    assert_eq!(ids(&late.read()), [2, 3]);
    assert_eq!(late.read(), []);
    let mut again = journal.listen(Some(1));
    let events = again.read();
    assert_eq!(ids(&events), [2, 3]);
    assert_eq!((events[0].kind, &*events[0].node_id), (EventKind::Connected, "b"));
}

#[tokio::test]
async fn a_waiting_listener_is_woken() {
    let journal = Journal::new();
    let mut listener = journal.listen(None);
    assert_eq!(listener.read(), []);
    journal.record(event(EventKind::Connected, "a"));
    tokio::time::timeout(Duration::from_secs(10), listener.changed()).await.unwrap();
    assert_eq!(ids(&listener.read()), [1]);
}

#[test]
fn a_slow_listener_is_told_how_much_it_lost() {
    let journal = Journal::new();
    let mut slow = journal.listen(None);
    for n in 0..5000 {
        journal.record(event(EventKind::Sent, &n.to_string()));
    }
    let mut read = Vec::new();
    loop {
        let batch = slow.read();
        if batch.is_empty() {
            break;
        }
        read.extend(batch);
    }
    assert_eq!((read[0].kind, read[0].lost), (EventKind::Lost, 904));
    assert_eq!(ids(&read[1..]), (905..=5000).collect::<Vec<_>>());
}

#[test]
fn a_number_of_another_life_of_the_server_begins_again() {
    let journal = Journal::new();
    journal.record(event(EventKind::Connected, "a"));
    let mut listener = journal.listen(Some(77));
    let events = listener.read();
    assert_eq!(events[0].kind, EventKind::Lost);
    assert_eq!(ids(&events), [0, 1]);
    assert_eq!(listener.read(), []);
}

#[test]
fn who_comes_back_after_a_long_time_is_told_that_responses_were_not_recorded() {
    let journal = Journal::new();
    journal.record(event(EventKind::Connected, "a"));
    journal.record(event(EventKind::Connected, "b"));
    let mut listener = journal.listen(Some(1));
    let events = listener.read();
    assert_eq!((events[0].kind, events.len()), (EventKind::Lost, 2));
    assert!(events[0].message.contains("nobody listened"), "{}", events[0].message);
}

#[test]
fn an_object_is_followed_through_the_generations_in_which_it_changed() {
    let published = |generation: u64, object: &str| Event {
        generation,
        objects: vec![object.to_owned()],
        count: 1,
        ..Event::new(EventKind::Published)
    };
    let of = |kind: EventKind, generation: u64| Event { generation, ..event(kind, "n") };
    let reviews = "virtualservice/default/reviews";
    let mut filter = EventFilter::new(reviews.to_owned(), String::new(), Vec::new());
    assert!(!filter.takes(&published(1, "service/default/ratings")));
    assert!(!filter.takes(&of(EventKind::Sent, 1)));
    assert!(filter.takes(&published(2, reviews)));
    assert!(filter.takes(&of(EventKind::Sent, 2)) && filter.takes(&of(EventKind::Accepted, 2)));
    assert!(!filter.takes(&of(EventKind::Connected, 2)));
    assert!(filter.takes(&Event { objects: vec![reviews.to_owned()], ..of(EventKind::Rejected, 9) }));
    let elsewhere = Event { objects: vec!["service/default/ratings".to_owned()], ..of(EventKind::Rejected, 2) };
    assert!(!filter.takes(&elsewhere));

    let mut filter = EventFilter::new(String::new(), "n".to_owned(), vec![EventKind::Rejected]);
    assert!(filter.takes(&of(EventKind::Rejected, 1)) && !filter.takes(&of(EventKind::Sent, 1)));
    assert!(!filter.takes(&event(EventKind::Rejected, "other")));
}

#[test]
fn a_change_is_done_when_everyone_whom_it_concerns_has_answered_or_left() {
    let trace = Trace::sample(3);
    let now = Instant::now();
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    trace.concerns(4);
    trace.published();
    trace.sent(now);
    trace.settle(&Settled::Answered { node: &a, rejected: false }, Some(now), now);
    trace.settle(&Settled::Unaffected, None, now);
    assert_eq!(trace.view().outstanding, 2);
    trace.settle(&Settled::Answered { node: &b, rejected: true }, Some(now), now);
    trace.settle(&Settled::Gone, None, now);
    let view = trace.view();
    assert_eq!((view.accepted, view.rejected, view.unaffected, view.gone, view.outstanding), (1, 1, 1, 1, 0));
    assert_eq!((view.streams, &*view.last_node), (4, "b"));
    assert!(view.first_sent_seconds <= view.last_acknowledged_seconds);
}

#[test]
fn the_last_changes_are_kept_newest_first() {
    let journal = Journal::new();
    for generation in 1..=300 {
        journal.published(&Trace::sample(generation));
    }
    let kept: Vec<_> = journal.changes().iter().map(|trace| trace.generation()).collect();
    assert_eq!(kept, (45..=300).rev().collect::<Vec<_>>());
    assert!(journal.change(44).is_none());
    assert_eq!(journal.change(45).unwrap().view().resources[0].name, "80");
}
