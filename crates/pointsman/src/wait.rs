//! `pointsman wait`: until something is so at all nodes.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use server::view;
use world::ObjectRef;

use crate::ask::{Admin, encoded};
use crate::config::Format;
use crate::output::say;

/// The server is asked for so long at a time; it answers earlier when the condition is met.
const AT_A_TIME: Duration = Duration::from_secs(5);
/// Between two questions to a server that is not there, because it is being restarted.
const PAUSE: Duration = Duration::from_millis(200);

/// Wait until objects are accepted by all nodes that they concern, or until nodes run what they are to have.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman wait --for=accepted virtualservice/default/reviews --timeout 30s
  pointsman wait --for=accepted vs/default/reviews dr/default/reviews
  pointsman wait --for=accepted vs/default/reviews --generation 7
  pointsman wait --for=synced node/sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local
  pointsman wait --for=synced

An object is accepted when every connected node that it concerns has accepted all that came of its newest generation,
and nothing is wrong with it. A file that was written a moment ago may not have been read yet: --generation says which
generation to wait for.

Exit codes: 0 it is so, 1 it was not within the time (the output says who is missing and why), 2 the command could not
run.")]
pub(crate) struct Arguments {
    /// Objects as KIND/NAMESPACE/NAME; with --for=synced nodes as node/ID, none for all.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// What to wait for.
    #[arg(long = "for", value_enum, value_name = "CONDITION")]
    condition: Condition,
    /// How long, such as 500ms, 30s, 2m; 0 looks once.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    timeout: Timeout,
    /// The object must be of this generation or a later one.
    #[arg(long, value_name = "NUMBER")]
    generation: Option<i64>,
    #[command(flatten)]
    admin: Admin,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Condition {
    /// All nodes that an object concerns have accepted it.
    Accepted,
    /// Nodes run what they are to have.
    Synced,
}

/// A duration with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timeout(Duration);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" if number == "0" => 1.0,
            _ => 0.0,
        };
        let duration = number.parse().ok().filter(|_| seconds > 0.0).map(|number: f64| number * seconds);
        duration
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Timeout)
            .ok_or_else(|| format!("\"{text}\" is not a time such as 500ms, 30s, 2m or 1h"))
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let questions = questions(arguments)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let end = Instant::now() + arguments.timeout.0;
    let (mut all_met, mut results) = (true, Vec::new());
    for question in &questions {
        let wait = runtime.block_on(until(&arguments.admin, question, end))?;
        all_met &= wait.met;
        match arguments.output {
            Format::Json => results.push(json!({ "target": question.target, "result": wait })),
            Format::Text => tell(&wait, arguments.timeout),
        }
    }
    if arguments.output == Format::Json {
        say!("{}", serde_json::to_string_pretty(&json!({ "met": all_met, "waits": results }))?);
    }
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Something to ask, but for how long.
#[derive(Debug)]
struct Question {
    /// As the user said it; `all` for all nodes.
    target: String,
    query: String,
}

fn questions(arguments: &Arguments) -> Result<Vec<Question>> {
    let Arguments { targets, condition, generation, .. } = arguments;
    match condition {
        Condition::Accepted if targets.is_empty() => {
            bail!("which object? Say it as KIND/NAMESPACE/NAME, such as virtualservice/default/reviews")
        }
        Condition::Accepted => targets.iter().map(|target| accepted(target, *generation)).collect(),
        Condition::Synced if generation.is_some() => bail!("--generation is of objects: it goes with --for=accepted"),
        Condition::Synced if targets.is_empty() => {
            Ok(vec![Question { target: "all".to_owned(), query: "for=synced".to_owned() }])
        }
        Condition::Synced => targets.iter().map(|target| synced(target)).collect(),
    }
}

fn accepted(target: &str, generation: Option<i64>) -> Result<Question> {
    let object: ObjectRef = target.parse()?;
    let generation = generation.map(|generation| format!("&generation={generation}")).unwrap_or_default();
    let query = format!("for=accepted&object={}{generation}", encoded(&object.path()));
    Ok(Question { target: target.to_owned(), query })
}

fn synced(target: &str) -> Result<Question> {
    match target.strip_prefix("node/").filter(|id| !id.is_empty()) {
        Some(id) => Ok(Question { target: target.to_owned(), query: format!("for=synced&node={}", encoded(id)) }),
        None => bail!("\"{target}\" is not node/ID; without a target all nodes are waited for"),
    }
}

/// Asks until the condition is met or the time is over. A server that has answered once may be away for a while.
async fn until(admin: &Admin, question: &Question, end: Instant) -> Result<view::Wait> {
    let mut last: Option<view::Wait> = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (asked, timeout) = (Instant::now(), left.min(AT_A_TIME));
        let seconds = timeout.as_secs_f64();
        let answer = admin.ask::<view::Wait>(&format!("/api/v1/wait?{}&timeout={seconds}", question.query)).await;
        match (answer, &last) {
            (Ok(wait), _) if wait.met => return Ok(wait),
            (Ok(wait), _) => last = Some(wait),
            (Err(error), None) => return Err(error),
            (Err(_), Some(_)) => {}
        }
        if Instant::now() >= end
            && let Some(wait) = last
        {
            return Ok(wait);
        }
        // A server that ends answers at once.
        if asked.elapsed() < timeout / 2 {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn tell(wait: &view::Wait, timeout: Timeout) {
    if wait.met {
        say!("{}", wait.summary);
    } else {
        say!("not within {:?}: {}", timeout.0, wait.summary);
    }
    for line in &wait.missing {
        say!("    {line}");
    }
    for problem in &wait.problems {
        say!("{problem}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_have_units() {
        let time = |text: &str| text.parse::<Timeout>().map(|timeout| timeout.0);
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
        for wrong in ["", "s", "30", "-1s", "1d", "1e9s", "99999999999999999999h", "1.2.3s", "forever"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_objects_or_nodes() {
        let query = |target: &str| accepted(target, Some(3)).unwrap().query;
        assert_eq!(query("vs/default/reviews"), "for=accepted&object=virtualservice%2Fdefault%2Freviews&generation=3");
        assert!(accepted("reviews", None).unwrap_err().to_string().contains("KIND/NAMESPACE/NAME"));
        assert_eq!(synced("node/a~b").unwrap().query, "for=synced&node=a~b");
        assert!(synced("a~b").unwrap_err().to_string().contains("node/ID"));
    }
}
