//! `pointsman status`: what a running server knows of its nodes and objects.

mod detail;
mod lists;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use server::view;
use world::ObjectRef;

use crate::ask::{Admin, encoded};
use crate::config::Format;
use crate::output::say;

/// Show the nodes and objects of a running server.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman status
  pointsman status nodes -o json
  pointsman status objects --admin 127.0.0.1:15014
  pointsman status virtualservice/default/reviews
  pointsman status node sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local")]
pub(crate) struct Arguments {
    /// What to show: `nodes`, `objects`, `all`, one `node ID`, or one object as KIND/NAMESPACE/NAME.
    #[arg(default_value = "all", value_name = "WHAT")]
    what: String,
    /// The id of the node, after `node`.
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    admin: Admin,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    All,
    Nodes,
    Objects,
    Node(String),
    Object(ObjectRef),
}

fn what(what: &str, id: Option<&str>) -> Result<What> {
    let found = match (what, id) {
        ("all", None) => What::All,
        ("nodes", None) => What::Nodes,
        ("objects", None) => What::Objects,
        ("node", Some(id)) if !id.is_empty() => What::Node(id.to_owned()),
        ("node", _) => bail!("which node? `pointsman status nodes` lists them"),
        (_, Some(id)) => bail!("\"{id}\" cannot be said after \"{what}\"; one node is shown by `status node ID`"),
        (text, None) => match text.strip_prefix("node/") {
            Some(id) if !id.is_empty() => What::Node(id.to_owned()),
            Some(_) | None => What::Object(text.parse().context(
                "nothing of this name can be shown; say nodes, objects, node ID, or an object as KIND/NAMESPACE/NAME",
            )?),
        },
    };
    Ok(found)
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let what = what(&arguments.what, arguments.id.as_deref())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(show(&arguments.admin, &what, arguments.output))?;
    Ok(ExitCode::SUCCESS)
}

async fn show(admin: &Admin, what: &What, output: Format) -> Result<()> {
    let mut json = serde_json::Map::new();
    let mut is_first = true;
    if matches!(what, What::All | What::Nodes) {
        let nodes = lists::all_nodes(admin).await?;
        match output {
            Format::Json => json.extend(fields(&nodes)?),
            Format::Text => lists::nodes(&nodes),
        }
        is_first = false;
    }
    if matches!(what, What::All | What::Objects) {
        let objects = lists::all_objects(admin).await?;
        match output {
            Format::Json => json.extend(fields(&objects)?),
            Format::Text => {
                if !is_first {
                    say!();
                }
                lists::objects(&objects);
            }
        }
    }
    match what {
        What::All | What::Nodes | What::Objects => {}
        What::Node(id) => {
            let node: view::NodeObjects = admin.ask(&format!("/api/v1/nodes/{}", encoded(id))).await?;
            match output {
                Format::Json => json.extend(fields(&node)?),
                Format::Text => detail::node(&node),
            }
        }
        What::Object(reference) => {
            let object = detail::ask_object(admin, reference).await?;
            match output {
                Format::Json => json.extend(fields(&object)?),
                Format::Text => detail::object(&object),
            }
        }
    }
    if output == Format::Json {
        say!("{}", serde_json::to_string_pretty(&json)?);
    }
    Ok(())
}

/// The fields of an answer.
fn fields(value: &impl serde::Serialize) -> Result<serde_json::Map<String, serde_json::Value>> {
    Ok(serde_json::to_value(value)?.as_object().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use world::Kind;

    use super::*;

    #[test]
    fn what_to_show_is_said_in_few_words() {
        assert_eq!(what("all", None).unwrap(), What::All);
        assert_eq!(what("node", Some("a~b")).unwrap(), What::Node("a~b".to_owned()));
        assert_eq!(what("node/a~b", None).unwrap(), What::Node("a~b".to_owned()));
        let reviews = ObjectRef::new(Kind::VirtualService, "default", "reviews");
        assert_eq!(what("vs/default/reviews", None).unwrap(), What::Object(reviews));
    }

    #[test]
    fn what_cannot_be_shown_is_said_with_a_way_out() {
        let wrong = |word: &str, id| format!("{:#}", what(word, id).unwrap_err());
        assert!(wrong("reviews", None).contains("KIND/NAMESPACE/NAME"), "{}", wrong("reviews", None));
        assert!(wrong("node", None).contains("pointsman status nodes"));
        assert!(wrong("node/", None).contains("KIND/NAMESPACE/NAME"));
        assert!(wrong("nodes", Some("x")).contains("status node ID"));
        assert!(wrong("toaster/a/b", None).contains("no kind that is known"));
    }
}
