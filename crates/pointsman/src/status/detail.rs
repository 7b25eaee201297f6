//! One node, or one object.

use anyhow::Result;
use server::view::{self, ResourceState};
use world::ObjectRef;

use super::lists;
use crate::ask::{Admin, encoded};
use crate::output::say;
use crate::table::table;

/// An object with all of its nodes.
pub(super) async fn ask_object(admin: &Admin, reference: &ObjectRef) -> Result<view::ObjectNodes> {
    let parts = reference.path().split('/').map(encoded).collect::<Vec<_>>().join("/");
    let mut all: Option<view::ObjectNodes> = None;
    let mut after = String::new();
    loop {
        let page: view::ObjectNodes = admin.ask(&format!("/api/v1/objects/{parts}?limit=5000&after={after}")).await?;
        after = encoded(&page.next);
        match &mut all {
            Some(all) => all.nodes.extend(page.nodes),
            None => all = Some(page),
        }
        if after.is_empty()
            && let Some(all) = all
        {
            return Ok(view::ObjectNodes { next: String::new(), ..all });
        }
    }
}

/// What it is, what is wrong with it, and one row for each node.
pub(super) fn object(view: &view::ObjectNodes) {
    let object = &view.object;
    let place = match (&*object.file, object.line) {
        ("", _) => String::new(),
        (file, 0) => format!(", from {file}"),
        (file, line) => format!(", from {file}:{line}"),
    };
    say!("{}, generation {}{place}: {}", lists::name(object), object.generation, object.state.as_str());
    for problem in &object.problems {
        let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
        say!("{}: {field}{}", problem.severity, problem.message);
        if !problem.consequence.is_empty() {
            say!("    {}", problem.consequence);
        }
    }
    object.waiting.iter().for_each(|waiting| say!("waiting: {waiting}"));
    if view.nodes.is_empty() {
        say!("It concerns no connected node.");
    } else {
        say!();
        let rows = view.nodes.iter().map(|node| {
            let generation = running(node.generation, object.generation);
            [node.node_id.clone(), state(node.state).to_owned(), generation, first(&node.why)]
        });
        table(["NODE", "STATE", "GENERATION", "WHY"], rows.collect());
        for node in &view.nodes {
            node.why.iter().skip(1).for_each(|why| say!("{}: {why}", node.node_id));
        }
    }
    for node in &view.silent_nodes {
        say!("{node} did not answer in time; nothing is said about it");
    }
}

/// Its connections, what it asked for, and one row for each object.
pub(super) fn node(view: &view::NodeObjects) {
    for node in &view.connections {
        let agent = format!("{} {}", node.user_agent_name, node.user_agent_version);
        say!("{} at {}, {}: {}", node.id, node.address, agent.trim(), lists::state(node.sync));
        lists::remarks(node);
        say!();
        let rows = node.subscriptions.iter().map(|subscription| {
            let count =
                if subscription.wildcard { "all".to_owned() } else { subscription.subscribed_count.to_string() };
            let text = |version: &str| if version.is_empty() { "-".to_owned() } else { version.to_owned() };
            let (sent, accepted) = (text(&subscription.sent_version), text(&subscription.accepted_version));
            [subscription.r#type.clone(), count, sent, accepted]
        });
        table(["TYPE", "SUBSCRIBED", "SENT", "ACCEPTED"], rows.collect());
    }
    if !view.objects.is_empty() {
        say!();
        let rows = view.objects.iter().map(|object| {
            let generation = running(object.generation, object.newest_generation);
            [object.object.clone(), state(object.state).to_owned(), generation, first(&object.why)]
        });
        table(["OBJECT", "STATE", "GENERATION", "WHY"], rows.collect());
    }
}

fn state(state: ResourceState) -> &'static str {
    match state {
        ResourceState::Accepted => "accepted",
        ResourceState::Pending => "pending",
        ResourceState::Rejected => "refused",
    }
}

/// `3`, or `2/3` when generation 2 runs and 3 is the newest.
fn running(generation: i64, newest: i64) -> String {
    if generation == newest { generation.to_string() } else { format!("{generation}/{newest}") }
}

fn first(why: &[String]) -> String {
    why.first().cloned().unwrap_or_default()
}
