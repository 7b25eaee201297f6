//! A service whose revisions come and go, Envoys, load, and the run that moves it.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::load::Load;

use crate::mesh::{Mesh, Reviews, Variant, answering, pod};

/// The longest that a run of this benchmark can take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the API is asked where a run is: short against everything that is measured by looking.
const LOOK: Duration = Duration::from_millis(20);
const PATH: &str = "/api/v1/rollouts/default/reviews";

/// Where a run was when it was looked at.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Instant,
    pub phase: String,
    pub configured: f64,
    pub acknowledged: f64,
}

/// One run from the appearance of its revision to its end.
pub struct Story {
    pub begun: Instant,
    pub looks: Vec<Look>,
    /// What the API says in the end.
    pub end: Value,
}

impl Story {
    pub fn phase(&self) -> &str {
        self.end["phase"].as_str().unwrap_or_default()
    }

    /// When nothing was sent to the candidate any more, as all nodes had said.
    pub fn withdrawn(&self) -> Option<Instant> {
        let reached = self.looks.iter().position(|look| look.acknowledged > 0.0 || look.configured > 0.0)?;
        let gone = self.looks[reached..].iter().find(|look| look.configured == 0.0 && look.acknowledged == 0.0)?;
        Some(gone.at)
    }

    /// From the decision to go back until all nodes had said that they do, as the server wrote it down.
    pub fn settled(&self) -> Option<f64> {
        let passages = self.end["runs"][0]["passages"].as_array()?;
        let entered = |phase: &str| {
            let passage = passages.iter().find(|passage| passage["phase"] == phase)?;
            Some(passage["at"].as_str()?.parse::<server::view::Timestamp>().ok()?.time())
        };
        let (decided, done) = (entered("RollingBack")?, entered("RolledBack")?);
        done.duration_since(decided).ok().map(|took| took.as_secs_f64())
    }

    /// The spans in which a weight was in force everywhere: its percentage, from and until when.
    pub fn steps(&self) -> Vec<(f64, Instant, Instant)> {
        // What was under way when the weight changed was begun under the one before.
        const MARGIN: Duration = Duration::from_millis(150);
        let mut steps: Vec<(f64, Instant, Instant)> = Vec::new();
        for look in &self.looks {
            match steps.last_mut() {
                _ if look.configured != look.acknowledged => {}
                Some((weight, _, until)) if *weight == look.configured => *until = look.at,
                _ => steps.push((look.configured, look.at, look.at)),
            }
        }
        let inner = |(weight, from, until)| (weight, from + MARGIN, until - MARGIN);
        steps.into_iter().map(inner).filter(|(_, from, until)| from < until).collect()
    }
}

/// Everything that takes part.
pub struct Bed {
    pub mesh: Mesh,
    pub load: Load,
    pub clients: Vec<Envoy>,
    reviews: Reviews,
    /// The number of the revision that each backend serves.
    revisions: [usize; 2],
    /// Which of the two is stable.
    stable: usize,
    state: tempfile::TempDir,
}

impl Bed {
    /// So many Envoys, and so many requests a second through the first of them.
    pub async fn start(clients: usize, rate: f64, intent: &str) -> Bed {
        let reviews = Reviews::start();
        let state = tempfile::TempDir::with_prefix("pointsman-bench-state-").unwrap();
        let revisions = [1, 0];
        let objects = objects(&reviews, &[(revisions[0], &reviews.v1)]);
        let state_path = state.path().to_str().unwrap().to_owned();
        let files = [("reviews.yaml", &*objects), ("intent.yaml", intent)];
        let mesh = Mesh::start_with(&files, &["--log", "warn", "--state-dir", &state_path]).await;
        let mut envoys = Vec::new();
        for number in 0..clients {
            // The first is where the load is, and listens on 127.0.0.1.
            let address = format!("127.0.{}.1", number);
            let name = format!("client-{number}");
            let arguments = [
                "--pod",
                &name,
                "--interception",
                "none",
                "--ip",
                &address,
                "--metrics-interval",
                "1",
                "--load-reports",
            ];
            envoys.push(mesh.envoy(Variant::Delta, &arguments).await);
        }
        answering(reviews.plan()).await;
        let load = Load::start(reviews.plan().per_second(rate).connections(8)).unwrap();
        mesh.get_where(PATH, "the intent to be taken in", |rollout| rollout["stable"] == "r1").await;
        Bed { mesh, load, clients: envoys, reviews, revisions, stable: 0, state }
    }

    /// Writes another intent; no run must be under way.
    pub async fn intend(&self, intent: &str) {
        self.mesh.write("intent.yaml", intent);
        // Nothing shows that an intent without consequences has been taken in.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    pub fn stable(&self) -> &Backend {
        [&self.reviews.v1, &self.reviews.v2][self.stable]
    }

    pub fn candidate(&self) -> &Backend {
        [&self.reviews.v1, &self.reviews.v2][1 - self.stable]
    }

    /// What takes away all endpoints of the candidate when it is called, and says when that was.
    pub fn away(&self) -> impl Fn() -> Instant + use<> {
        let stable = (self.revisions[self.stable], self.stable());
        let (text, directory) = (objects(&self.reviews, &[stable]), self.mesh.files.path().to_owned());
        move || {
            let next = directory.join(".reviews.yaml.new");
            std::fs::write(&next, &text).unwrap();
            let before = Instant::now();
            std::fs::rename(next, directory.join("reviews.yaml")).unwrap();
            before
        }
    }

    /// Lets the backend that is not stable be the next revision; `meanwhile` sees each look and may do something.
    pub async fn roll_out(&mut self, mut meanwhile: impl AsyncFnMut(&mut Mesh, &Look)) -> Story {
        let next = self.revisions.iter().max().unwrap() + 1;
        self.revisions[1 - self.stable] = next;
        let both = [(self.revisions[self.stable], self.stable()), (next, self.candidate())];
        let begun = self.mesh.write("reviews.yaml", &objects(&self.reviews, &both));
        let candidate = format!("r{next}");
        let mut looks: Vec<Look> = Vec::new();
        let end = loop {
            assert!(begun.elapsed() < PATIENCE, "the run of {candidate} does not end: {:?}", looks.last());
            tokio::time::sleep(LOOK).await;
            // While the server is down there is nothing to look at.
            let Ok(rollout) = testkit::http::get_json(self.mesh.admin, PATH).await else { continue };
            if rollout["candidate"] != *candidate {
                continue;
            }
            let look = Look {
                at: Instant::now(),
                phase: rollout["phase"].as_str().unwrap_or_default().to_owned(),
                configured: rollout["weight"]["configured"].as_f64().unwrap_or(f64::NAN),
                acknowledged: rollout["weight"]["acknowledged"].as_f64().unwrap_or(f64::NAN),
            };
            meanwhile(&mut self.mesh, &look).await;
            let is_over = matches!(&*look.phase, "Completed" | "RolledBack" | "Superseded");
            looks.push(look);
            if is_over {
                break rollout;
            }
        };
        if looks.last().is_some_and(|look| look.phase == "Completed") {
            self.stable = 1 - self.stable;
        }
        Story { begun, looks, end }
    }

    /// Stops everything in order.
    pub async fn stop(self) {
        drop(self.load);
        for client in self.clients {
            let _ = client.stop().await;
        }
        drop((self.mesh, self.state));
    }
}

fn objects(reviews: &Reviews, pods: &[(usize, &Backend)]) -> String {
    let mut text = reviews.objects_of(&[]);
    for (revision, backend) in pods {
        let labels = format!("app: reviews, version: r{revision}");
        text += &pod(&format!("reviews-r{revision}"), &labels, backend.address());
    }
    text
}

/// An intent with these steps; everything that only waits is short.
pub fn intent(steps: &str) -> String {
    format!(
        "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\nmetadata: {{name: reviews}}\nspec:\n  \
         service: {{name: reviews}}\n  revisions: {{stable: r1}}\n  strategy: {{canary: {{steps: [{steps}]}}}}\n  \
         analysis: {{warmup: 1s, minRequests: 100, alpha: 0.01}}\n  drain: {{timeout: 1s}}\n"
    )
}
