//! All nodes and all objects.

use anyhow::Result;
use server::view;

use crate::ask::{Admin, encoded};
use crate::output::say;
use crate::table::table;

/// Every node that is connected, then those that left lately.
pub(super) async fn all_nodes(admin: &Admin) -> Result<view::Nodes> {
    let mut all = view::Nodes::default();
    for state in ["", "&state=disconnected"] {
        let mut after = String::new();
        loop {
            let page: view::Nodes = admin.ask(&format!("/api/v1/nodes?limit=1000&after={after}{state}")).await?;
            all.nodes.extend(page.nodes);
            if page.next.is_empty() {
                break;
            }
            after = encoded(&page.next);
        }
    }
    Ok(all)
}

/// Every object.
pub(super) async fn all_objects(admin: &Admin) -> Result<view::Objects> {
    let mut all = view::Objects::default();
    let mut after = String::new();
    loop {
        let page: view::Objects = admin.ask(&format!("/api/v1/objects?limit=5000&after={after}")).await?;
        all.objects.extend(page.objects);
        all.silent_nodes = page.silent_nodes;
        if page.next.is_empty() {
            return Ok(all);
        }
        after = encoded(&page.next);
    }
}

/// One row a node, one below for each refusal.
pub(super) fn nodes(view: &view::Nodes) {
    let rows = view.nodes.iter().map(|node| {
        let types: Vec<_> = node.subscriptions.iter().map(progress).collect();
        [
            node.id.clone(),
            state(node.sync).to_owned(),
            generation(node),
            node.user_agent_version.clone(),
            types.join(", "),
        ]
    });
    table(["NODE", "STATE", "GENERATION", "VERSION", "TYPES"], rows.collect());
    view.nodes.iter().for_each(remarks);
}

/// What a node refuses, what it waits for, and that it left, one line each.
pub(super) fn remarks(node: &view::Node) {
    if let Some(gone) = &node.disconnected {
        let ago = std::time::SystemTime::now().duration_since(gone.since.time()).unwrap_or_default().as_secs();
        let (reason, accepted) = (&gone.reason, node.accepted_generation);
        say!("{} disconnected {ago} s ago ({reason}); last accepted generation {accepted}", node.id);
        return;
    }
    node.waiting.iter().for_each(|waiting| say!("{} waiting: {waiting}", node.id));
    for subscription in &node.subscriptions {
        // What was mended meanwhile is history, which the admin API still tells.
        let in_force = |rejection: &&view::Rejection| {
            subscription.refused_count > 0 || rejection.version == subscription.sent_version
        };
        if let Some(rejection) = subscription.last_rejection.as_ref().filter(in_force) {
            say!("{} refused {}: {}", node.id, subscription.r#type, rejection.message);
        }
        for waiting in &subscription.waiting {
            say!("{} {}: {waiting}", node.id, subscription.r#type);
        }
    }
}

/// How a node stands, in a word.
pub(super) fn state(sync: view::Sync) -> &'static str {
    match sync {
        view::Sync::Synced => "synced",
        view::Sync::Pending => "pending",
        view::Sync::Rejected => "refused",
        view::Sync::Unknown => "silent",
        view::Sync::Disconnected => "gone",
    }
}

/// `7`, or `6/7` when it has still to accept something of generation 7.
pub(super) fn generation(node: &view::Node) -> String {
    if node.accepted_generation == node.generation || node.disconnected.is_some() {
        node.accepted_generation.to_string()
    } else {
        format!("{}/{}", node.accepted_generation, node.generation)
    }
}

/// `rds 3`: three subscribed; `cds all*`: a star while the newest version is not accepted yet.
fn progress(subscription: &view::Subscription) -> String {
    let count = if subscription.wildcard { "all".to_owned() } else { subscription.subscribed_count.to_string() };
    let star = if subscription.sent_version == subscription.accepted_version { "" } else { "*" };
    format!("{} {count}{star}", subscription.r#type)
}

/// One row an object, one below it for each problem and refusal.
pub(super) fn objects(view: &view::Objects) {
    let rows = view.objects.iter().map(|object| {
        let of = |count: usize| if count == 0 { "-".to_owned() } else { count.to_string() };
        [
            name(object),
            of(object.accepted),
            of(object.pending),
            of(object.rejected),
            of(object.problems.len()),
            object.generation.to_string(),
        ]
    });
    table(["OBJECT", "ACCEPTED", "PENDING", "REFUSED", "PROBLEMS", "GENERATION"], rows.collect());
    for object in &view.objects {
        for problem in &object.problems {
            say!("{}: {}: {}", name(object), problem.field, problem.message);
        }
        object.waiting.iter().for_each(|waiting| say!("{} waiting: {waiting}", name(object)));
        for rejection in &object.rejected_nodes {
            say!("{} refused {}: {}", rejection.node_id, rejection.resource, rejection.message);
        }
        if object.rejected > object.rejected_nodes.len() {
            say!("and {} more nodes refused {}", object.rejected - object.rejected_nodes.len(), name(object));
        }
    }
    for node in &view.silent_nodes {
        say!("{node} did not answer in time; what it has is not in the numbers above");
    }
}

/// `VirtualService default/reviews`.
pub(super) fn name(object: &view::Object) -> String {
    if object.namespace.is_empty() {
        format!("{} {}", object.kind, object.name)
    } else {
        format!("{} {}/{}", object.kind, object.namespace, object.name)
    }
}
