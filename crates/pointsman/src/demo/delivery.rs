//! After the walk by hand: the same by intent. A good revision goes through its steps to the end; a bad one is caught
//! and taken back, by nobody.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testkit::load::Window;

use super::mesh::Mesh;
use crate::output::{redraw, say};

/// One in so many answers of v3 is an error: 5 %.
const BAD_EVERY: u64 = 20;
/// The longest that one of the two runs may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at: short against what is told about it.
const LOOK: Duration = Duration::from_millis(25);

/// What was seen.
pub(super) struct Report {
    good: Run,
    bad: Run,
}

/// One run from the appearance of its revision to its end.
struct Run {
    candidate: &'static str,
    begun: Instant,
    /// When it was seen first that every node sends nothing to the candidate any more.
    withdrawn: Option<Instant>,
    window: Window,
    /// What the API said last.
    end: Value,
}

/// Rolls v2 out, then v3.
pub(super) async fn run(mesh: &mut Mesh) -> Result<Report> {
    say!(
        "\nThe same by intent: DeploymentIntent reviews, 25, 50 and 100 % of the requests, each judged from the proxies'"
    );
    say!("own reports. Its steps, what all proxies have accepted, and what is seen:\n");
    mesh.hand_over().await?;
    say!("v2 appears:");
    let good = follow(mesh, "v2", 0).await?;
    if good.phase() != "Completed" {
        bail!("v2 did not get through: {} {} {}", good.phase(), good.end["reason"], good.end["hold"]["text"]);
    }
    say!("v3 appears, and 5 % of its answers are errors:");
    let bad = follow(mesh, "v3", BAD_EVERY).await?;
    Ok(Report { good, bad })
}

/// Deploys a revision and shows its run until it is over.
async fn follow(mesh: &mut Mesh, candidate: &'static str, fail_every: u64) -> Result<Run> {
    let begun = mesh.deploy(candidate, fail_every).await?;
    let is_live = std::io::stdout().is_terminal();
    let (mut row, mut shown) = (String::new(), (String::new(), f64::NAN));
    let (mut since, mut has_traffic, mut withdrawn) = (begun, false, None);
    loop {
        tokio::time::sleep(LOOK).await;
        let rollout = mesh.rollout().await?;
        if rollout["candidate"] != candidate {
            if begun.elapsed() > PATIENCE {
                bail!("no run of {candidate} has begun: {rollout}");
            }
            continue;
        }
        let phase = rollout["phase"].as_str().unwrap_or_default().to_owned();
        let weight = |name: &str| rollout["weight"][name].as_f64().unwrap_or(0.0);
        let (configured, acknowledged) = (weight("configured"), weight("acknowledged"));
        has_traffic |= configured > 0.0;
        if has_traffic && configured == 0.0 && acknowledged == 0.0 && withdrawn.is_none() {
            withdrawn = Some(Instant::now());
        }
        if (&*phase, configured) != (&*shown.0, shown.1) {
            if !row.is_empty() {
                settle(&row, is_live);
            }
            if configured != shown.1 {
                since = Instant::now();
            }
            shown = (phase.clone(), configured);
        }
        let window = mesh.load().window(since, Instant::now()).await;
        row = line(candidate, &phase, configured, acknowledged, &window, &rollout);
        if is_live {
            redraw(&row);
        }
        let is_over = matches!(&*phase, "Completed" | "RolledBack" | "Superseded");
        if is_over || begun.elapsed() > PATIENCE {
            settle(&row, is_live);
            let window = mesh.load().window(begun, Instant::now()).await;
            return Ok(Run { candidate, begun, withdrawn, window, end: rollout });
        }
    }
}

fn settle(row: &str, is_live: bool) {
    match is_live {
        true => say!(),
        false => say!("{row}"),
    }
}

fn line(candidate: &str, phase: &str, configured: f64, acknowledged: f64, window: &Window, rollout: &Value) -> String {
    let counts = window.by_backend();
    let all: u64 = counts.values().sum();
    let own = counts.get(candidate).copied().unwrap_or(0);
    let observed = 100.0 * own as f64 / all.max(1) as f64;
    let evidence = match counted(rollout) {
        Some(counted) => format!("evidence {} of {:.0}", evidence_text(counted, "eValue"), bound(counted)),
        None => String::new(),
    };
    format!(
        "  {phase:<12} configured {configured:>3} %, accepted {acknowledged:>3} %, seen {observed:>5.1} % of {all:>5}, \
         failed {:>3}  {evidence:<24}",
        window.failures().count()
    )
}

/// The metric that counts requests.
fn counted(rollout: &Value) -> Option<&Value> {
    let metrics = rollout["analysis"]["metrics"].as_array()?;
    metrics.iter().map(|metric| &metric["counted"]).find(|counted| counted.is_object())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Evidence grows by orders of magnitude.
fn evidence_text(counted: &Value, name: &str) -> String {
    match number(&counted["relative"][name]) {
        small if small < 1e4 => format!("{small:.1}"),
        large => format!("{large:.0e}"),
    }
}

fn bound(counted: &Value) -> f64 {
    number(&counted["relative"]["bound"])
}

impl Run {
    fn phase(&self) -> &str {
        self.end["phase"].as_str().unwrap_or_default()
    }

    fn failures(&self) -> usize {
        self.window.failures().count()
    }

    /// From the first bad answer until every node had said that it sends nothing to the candidate.
    fn caught_within(&self) -> Option<Duration> {
        let first = self.window.failures().map(|sample| sample.finished()).min()?;
        self.withdrawn?.checked_duration_since(first)
    }
}

impl Report {
    /// Whether the good one got through without a failed request, and the bad one did not.
    pub(super) fn is_good(&self) -> bool {
        self.good.phase() == "Completed" && self.good.failures() == 0 && self.bad.phase() == "RolledBack"
    }

    /// Prints the summary.
    pub(super) fn print(&self) {
        let Report { good, bad } = self;
        say!(
            "\nv2: {} after {:.0} s, {} requests, {} failed.",
            good.phase(),
            seconds(good),
            good.window.len(),
            good.failures()
        );
        let caught = match bad.caught_within() {
            Some(took) => {
                format!("{:.1} s after its first bad answer no proxy sent anything to it", took.as_secs_f64())
            }
            None => "it was not withdrawn".to_owned(),
        };
        say!("v3: {}: {caught}; {} of {} requests failed.", bad.phase(), bad.failures(), bad.window.len());
        if let Some(reason) = bad.end["reason"].as_str().filter(|reason| !reason.is_empty()) {
            say!("    {reason}");
        }
        if let Some(counted) = counted(&bad.end) {
            let pair = |name: &str| {
                let [all, bad] = [0, 1].map(|at| counted[name][at].as_u64().unwrap_or(0));
                format!("{bad} of {all}")
            };
            say!(
                "    errors as the proxies counted them: {} of {}, {} of stable; evidence {}, {} without its best {} s; \
                 {:.0} is needed",
                pair("candidate"),
                bad.candidate,
                pair("stable"),
                evidence_text(counted, "eValue"),
                evidence_text(counted, "robustEValue"),
                number(&counted["trimSeconds"]),
                bound(counted),
            );
        }
        say!("    (pointsman rollout explain reviews says every number of it)");
    }
}

fn seconds(run: &Run) -> f64 {
    let end = run.window.samples().iter().map(|sample| sample.finished()).max().unwrap_or(run.begun);
    end.saturating_duration_since(run.begun).as_secs_f64()
}

/// The intent: quick for a demo, but not quicker than 5 % of errors need to show.
pub(super) const INTENT: &str = "\
apiVersion: delivery.pointsman.dev/v1alpha1
kind: DeploymentIntent
metadata:
  name: reviews
spec:
  service: {name: reviews}
  revisions: {stable: v1}
  strategy:
    type: Canary
    canary:
      steps:
        - setWeight: 25
        - analysis: {minDuration: 12s}
        - setWeight: 50
        - analysis: {minDuration: 3s}
        - setWeight: 100
        - analysis: {minDuration: 3s}
  analysis: {warmup: 1s}
  drain: {timeout: 1s}
";

/// Asks once, and says what is asked for where nobody answers.
pub(super) async fn ask(admin: std::net::SocketAddr) -> Result<Value> {
    testkit::http::get_json(admin, "/api/v1/rollouts/default/reviews")
        .await
        .context("the server does not say where the rollout is")
}
