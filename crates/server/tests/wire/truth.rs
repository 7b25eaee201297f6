//! Who runs what: objects seen from nodes, nodes seen from objects, changes, events, and waiting for them.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::ResourceType;
use server::view::{
    Change, Changes, EventKind, Failure, NodeObjects, Nodes, ObjectChange, ObjectNodes, ObjectState, Objects,
    ResourceState, Sync, Wait,
};
use testkit::wire::{Delta, node};

use crate::fixture::{CLUSTER, NODE, RATINGS, RETRIES, REVIEWS, Running, SOON, config, eventually, serving};

const SERVICE: &str = "/api/v1/objects/service/default/reviews";

async fn client(server: &Running, id: &str) -> Delta {
    let mut stream = server.wire().await.delta(node(id, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = stream.next(SOON).await.unwrap();
    stream.ack(&response).await;
    stream
}

fn named(pod: &str) -> String {
    format!("sidecar~10.9.0.1~{pod}.default~default.svc.cluster.local")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_which_generation_of_an_object_it_runs() {
    let server = serving(config(), REVIEWS).await;
    let (mut quick, mut slow) = (client(&server, &named("quick")).await, client(&server, &named("slow")).await);
    for stream in [&mut quick, &mut slow] {
        stream.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
        let response = stream.next(SOON).await.unwrap();
        stream.ack(&response).await;
    }
    let path = "/api/v1/objects/EndpointSlice/default/reviews-1";
    let both = |view: &ObjectNodes| view.nodes.iter().all(|node| node.state == ResourceState::Accepted);
    let view: ObjectNodes = eventually(|| server.json(path), both).await;
    assert_eq!(view.nodes.iter().map(|node| node.generation).collect::<Vec<_>>(), [1, 1]);
    assert_eq!((view.object.generation, view.object.state, view.object.accepted), (1, ObjectState::Accepted, 2));

    server.apply(&REVIEWS.replace("10.2.0.1", "10.2.0.9")).await;
    let response = quick.next(SOON).await.unwrap();
    quick.ack(&response).await;
    slow.next(SOON).await.unwrap();
    let half = |view: &ObjectNodes| view.object.accepted == 1 && view.object.generation == 2;
    let view: ObjectNodes = eventually(|| server.json(path), half).await;
    assert_eq!((&*view.nodes[0].node_id, view.nodes[0].generation), (&*named("quick"), 2));
    assert_eq!((view.nodes[1].state, view.nodes[1].generation), (ResourceState::Pending, 1));
    assert_eq!(view.nodes[1].why, [format!("EDS \"{CLUSTER}\" was sent and not acknowledged yet")]);
    let pending: ObjectNodes = server.json(&format!("{path}?state=pending")).await;
    assert_eq!(pending.nodes.len(), 1);

    let node: NodeObjects = server.json(&format!("/api/v1/nodes/{}", named("slow"))).await;
    let slice = node.objects.iter().find(|object| object.object == "endpointslice/default/reviews-1").unwrap();
    assert_eq!((slice.newest_generation, slice.generation, slice.state), (2, 1, ResourceState::Pending));
    let service = node.objects.iter().find(|object| object.object == "service/default/reviews").unwrap();
    assert_eq!((service.newest_generation, service.generation), (1, 1));
    assert_eq!(node.connections.len(), 1);
    assert!(node.connections[0].accepted_generation < node.connections[0].generation, "{:?}", node.connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_is_remembered_with_what_it_had_accepted() {
    let server = serving(config(), REVIEWS).await;
    let stream = client(&server, NODE).await;
    let path = format!("/api/v1/nodes/{NODE}");
    let accepted = |node: &NodeObjects| node.connections[0].accepted_generation == 1;
    let node: NodeObjects = eventually(|| server.json(&path), accepted).await;
    assert_eq!((node.connections[0].generation, node.connections[0].sync), (1, Sync::Synced));
    drop(stream);
    let gone = |node: &NodeObjects| node.connections[0].sync == Sync::Disconnected;
    let node: NodeObjects = eventually(|| server.json(&path), gone).await;
    let left = node.connections[0].disconnected.as_ref().unwrap();
    assert_eq!((&*left.reason, node.connections[0].accepted_generation), ("the client left", 1));
    assert!(node.objects.is_empty());
    let nodes: Nodes = server.json("/api/v1/nodes?state=disconnected").await;
    assert_eq!(nodes.nodes.iter().map(|node| &*node.id).collect::<Vec<_>>(), [NODE]);
    let wait: Wait = server.json(&format!("/api/v1/wait?for=synced&node={NODE}&timeout=0")).await;
    assert!(!wait.met && wait.missing[0].contains("left at") && wait.missing[0].contains("generation 1"), "{wait:?}");

    let _again = client(&server, NODE).await;
    let back = |nodes: &Nodes| nodes.nodes.is_empty();
    eventually(|| server.json::<Nodes>("/api/v1/nodes?state=disconnected"), back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_handed_out_in_pages_and_filtered() {
    let server = serving(config(), &format!("{REVIEWS}---{RATINGS}---{RETRIES}")).await;
    let mut streams = Vec::new();
    for n in 0..25 {
        streams.push(client(&server, &named(&format!("n{n:02}"))).await);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/nodes?limit=10".to_owned();
    loop {
        let nodes: Nodes = server.json(&path).await;
        assert!(nodes.nodes.len() <= 10);
        seen.extend(nodes.nodes.iter().map(|node| node.id.clone()));
        if nodes.next.is_empty() {
            break;
        }
        path = format!("/api/v1/nodes?limit=10&after={}", nodes.next);
    }
    assert_eq!(seen, (0..25).map(|n| named(&format!("n{n:02}"))).collect::<Vec<_>>());

    let whole: Objects = server.json("/api/v1/objects").await;
    let mut found = Vec::new();
    let mut path = "/api/v1/objects?limit=1".to_owned();
    loop {
        let objects: Objects = server.json(&path).await;
        found.extend(objects.objects);
        if objects.next.is_empty() {
            break;
        }
        path = format!("/api/v1/objects?limit=1&after={}", objects.next);
    }
    let names = |objects: &[server::view::Object]| {
        objects.iter().map(|object| format!("{}/{}", object.kind, object.name)).collect::<Vec<_>>()
    };
    assert_eq!(names(&found), names(&whole.objects));
    assert_eq!(
        names(&found),
        ["EndpointSlice/reviews-1", "Service/ratings", "Service/reviews", "VirtualService/reviews"]
    );
    let accepted = |view: &Objects| view.objects.len() == 2;
    let view: Objects = eventually(|| server.json("/api/v1/objects?state=accepted"), accepted).await;
    assert_eq!(names(&view.objects), ["Service/ratings", "Service/reviews"]);
    assert_eq!((view.objects[0].accepted, view.objects[0].accepted_nodes.len()), (25, 20));
    // Nobody has asked for routes or endpoints.
    let view: Objects = server.json("/api/v1/objects?state=unused&namespace=default").await;
    assert_eq!(names(&view.objects), ["EndpointSlice/reviews-1", "VirtualService/reviews"]);
    let all: ObjectNodes = server.json(&format!("{SERVICE}?limit=20")).await;
    assert_eq!((all.nodes.len(), &*all.next), (20, &*named("n19")));
    let rest: ObjectNodes = server.json(&format!("{SERVICE}?limit=20&after={}", all.next)).await;
    assert_eq!((rest.nodes.len(), &*rest.next), (5, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_followed_from_the_file_to_the_last_acknowledgement() {
    let server = serving(config(), REVIEWS).await;
    let (mut one, mut other) = (client(&server, &named("one")).await, client(&server, &named("other")).await);
    server.apply(RATINGS).await;
    let first = one.next(SOON).await.unwrap();
    one.ack(&first).await;
    let half = |change: &Change| change.accepted == 1;
    let change: Change = eventually(|| server.json("/api/v1/changes/2"), half).await;
    assert_eq!((change.streams, change.outstanding, &*change.last_node), (2, 1, &*named("one")));
    assert_eq!((&*change.objects[0].object, change.objects[0].generation), ("service/default/ratings", 1));
    assert_eq!(change.objects[0].change, ObjectChange::Applied);
    let resources: BTreeSet<_> = change.resources.iter().map(|r| format!("{} {}", r.r#type, r.name)).collect();
    assert!(resources.contains("cds outbound|80||ratings.default.svc.cluster.local"), "{resources:?}");
    assert_eq!(server.metric("pointsman_change_acknowledged_seconds_count").await, Some(0.0));

    let second = other.next(SOON).await.unwrap();
    other.ack(&second).await;
    let done = |change: &Change| change.outstanding == 0;
    let change: Change = eventually(|| server.json("/api/v1/changes/2"), done).await;
    assert_eq!((change.accepted, &*change.last_node), (2, &*named("other")));
    let times = [
        change.begun_seconds,
        change.applied_seconds,
        change.compiled_seconds,
        change.first_sent_seconds.unwrap(),
        change.last_acknowledged_seconds.unwrap(),
    ];
    assert!(times.is_sorted(), "{times:?}");
    let all: Changes = server.json("/api/v1/changes").await;
    assert_eq!(all.changes.iter().map(|change| change.generation).collect::<Vec<_>>(), [2, 1]);
    for (name, count) in [("applied", 2.0), ("compiled", 2.0), ("first_sent", 1.0), ("acknowledged", 1.0)] {
        let metric = format!("pointsman_change_{name}_seconds_count");
        assert_eq!(server.metric(&metric).await, Some(count), "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happens_as_it_happens_and_again_to_those_who_come_back() {
    let server = serving(config(), REVIEWS).await;
    let mut events = server.events("/api/v1/events", None).await;
    let mut stream = client(&server, NODE).await;
    let connected = events.until(EventKind::Connected).await;
    assert_eq!(connected.node_id, NODE);
    let sent = events.until(EventKind::Sent).await;
    assert_eq!((&*sent.r#type, sent.generation), ("cds", 1));
    let accepted = events.until(EventKind::Accepted).await;
    assert_eq!((accepted.version, accepted.seconds.is_some()), (sent.version, true));

    let mut about = server.events("/api/v1/events?object=svc/default/ratings&event=published,rejected", None).await;
    server.apply(RATINGS).await;
    let published = events.until(EventKind::Published).await;
    assert_eq!((published.generation, published.count, published.audiences), (2, 1, 1));
    assert_eq!(published.objects, ["service/default/ratings"]);
    let response = stream.next(SOON).await.unwrap();
    stream.nack(&response, "Error adding/updating cluster(s) outbound|80||ratings.default.svc.cluster.local: no").await;
    let rejected = events.until(EventKind::Rejected).await;
    assert!(rejected.message.ends_with("ratings.default.svc.cluster.local: no"), "{rejected:?}");
    assert_eq!(rejected.objects, ["service/default/ratings"]);
    drop(stream);
    assert_eq!(events.until(EventKind::Disconnected).await.node_id, NODE);
    assert_eq!(about.next().await, published);
    assert_eq!(about.next().await, rejected);

    let mut again = server.events("/api/v1/events", Some(published.id)).await;
    assert_eq!(again.next().await.id, published.id + 1);
    let mut of_another_life = server.events("/api/v1/events?after=999999", None).await;
    assert_eq!(of_another_life.next().await.kind, EventKind::Lost);
    assert_eq!(of_another_life.next().await.id, 1);
    // Listeners do not keep the server from ending.
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_everyone_has_accepted_and_says_who_has_not() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = client(&server, NODE).await;
    let path = "/api/v1/wait?for=accepted&object=service/default/ratings";
    let unknown: Wait = server.json(&format!("{path}&timeout=0")).await;
    assert!(!unknown.met, "{unknown:?}");
    assert!(unknown.summary.starts_with("there is no object \"service/default/ratings\""), "{}", unknown.summary);
    assert!(unknown.summary.contains("service/default/reviews"), "{}", unknown.summary);

    // It is waited for before it is written.
    let long = format!("{path}&timeout=20");
    let waiting = server.json::<Wait>(&long);
    let written = async {
        server.apply(RATINGS).await;
        let response = stream.next(SOON).await.unwrap();
        let early: Wait = server.json(&format!("{path}&timeout=0")).await;
        assert!(!early.met, "{early:?}");
        assert_eq!(early.missing.len(), 1);
        assert!(early.missing[0].starts_with(&format!("{NODE}: runs nothing of it; CDS ")), "{:?}", early.missing);
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.ack(&response).await;
    };
    let (wait, ()) = tokio::join!(waiting, written);
    assert!(wait.met, "{wait:?}");
    assert_eq!(wait.summary, "\"service/default/ratings\" generation 1 is accepted by all 1 nodes that it concerns");
    let later: Wait = server.json(&format!("{path}&generation=2&timeout=0")).await;
    assert!(!later.met && later.summary.contains("is at generation 1, not at 2 yet"), "{later:?}");
    let synced: Wait = server.json("/api/v1/wait?for=synced&timeout=20").await;
    assert_eq!(synced.summary, "all 1 nodes run what they are to have");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_errors_is_not_accepted_however_long_somebody_waits() {
    let wrong = RETRIES.replace("host: reviews }", "host: reviews, subset: v9 }");
    let server = serving(config(), &format!("{REVIEWS}---{wrong}")).await;
    let _stream = client(&server, NODE).await;
    let path = "/api/v1/wait?for=accepted&object=vs/default/reviews&timeout=0";
    let wait: Wait = server.json(path).await;
    assert!(!wait.met, "{wait:?}");
    assert!(wait.problems[0].contains("v9"), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_of_objects_changes_and_waits_gets_a_way_out() {
    let server = serving(config(), REVIEWS).await;
    let cases = [
        ("/api/v1/objects/service/default/nobody", 404, "there is no object \"service/default/nobody\""),
        ("/api/v1/objects/service/reviews", 400, "\"service/reviews\" is not KIND/NAMESPACE/NAME"),
        ("/api/v1/objects/toaster/default/x", 400, "is of no kind that is known: \"toaster\""),
        ("/api/v1/objects/service/../../../etc/passwd", 400, "is not KIND/NAMESPACE/NAME"),
        ("/api/v1/objects/service/%2e%2e/%2e%2e", 404, "there is no object \"service/../..\""),
        ("/api/v1/nodes/..%2F..%2Fetc%2Fpasswd", 404, "no stream of a node \"../../etc/passwd\" is open"),
        ("/api/v1/nodes/nobody", 404, "no stream of a node \"nobody\" is open"),
        ("/api/v1/nodes?state=happy", 400, "there is no state \"happy\""),
        ("/api/v1/nodes?limit=0", 400, "a list of 0 entries says nothing"),
        ("/api/v1/nodes?limit=many", 400, "limit=\"many\" is not a number"),
        ("/api/v1/objects?state=synced", 400, "there is no state \"synced\""),
        ("/api/v1/changes/0", 404, "change 0 is not among the last"),
        ("/api/v1/changes/-1", 400, "\"-1\" is not the number of a change"),
        ("/api/v1/events?event=weather", 400, "there is no event \"weather\""),
        ("/api/v1/events?object=reviews", 400, "\"reviews\" is not KIND/NAMESPACE/NAME"),
        ("/api/v1/events?after=x", 400, "after=\"x\" is not a number"),
        ("/api/v1/wait", 400, "nobody can wait for \"\""),
        ("/api/v1/wait?for=rain", 400, "nobody can wait for \"rain\""),
        ("/api/v1/wait?for=accepted", 400, "nothing to wait for"),
        ("/api/v1/wait?for=synced&timeout=1e9", 400, "a timeout of \"1e9\" is not possible"),
        ("/api/v1/wait?for=synced&timeout=-1", 400, "a timeout of \"-1\" is not possible"),
        ("/api/v1/wait?for=synced&timeout=NaN", 400, "a timeout of \"NaN\" is not possible"),
        ("/api/v1/wait?for=synced&timeout=soon", 400, "timeout=\"soon\" is not a number"),
    ];
    for (path, status, error) in cases {
        let (got, text) = server.get(path).await;
        assert_eq!(got, status, "{path}: {text}");
        let failure: Failure = serde_json::from_str(&text).unwrap();
        assert!(failure.error.contains(error), "{path}: {text}");
        assert!(!failure.hint.is_empty(), "{path}: {text}");
    }
}
