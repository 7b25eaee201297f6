//! Everything that takes part in the demo.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan};
use testkit::pointsman::Pointsman;
use testkit::{ports, wait};

use super::delivery::{self, INTENT};
use crate::bootstrap::{self, Interception, Kind};
use crate::output::say;

/// The host that clients ask for.
pub(super) const HOST: &str = "reviews";
/// Requests per second: enough for the smallest share to be judged within a few seconds.
const RATE: f64 = 400.0;
const START: Duration = Duration::from_secs(30);

/// How much of the traffic goes to v1 and to v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) v1: u64,
    pub(super) v2: u64,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}/{}", self.v1, self.v2))
    }
}

/// Two versions of a service, their Envoys, a client's Envoy, the control plane, and load.
pub(super) struct Mesh {
    // In the order in which they must end: traffic first, configuration last.
    load: Load,
    client: Envoy,
    servers: Vec<Envoy>,
    backends: Vec<Backend>,
    server: Pointsman,
    files: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    xds: SocketAddr,
    /// The versions that are deployed, and where each is.
    pods: Vec<(&'static str, SocketAddr)>,
    /// The same of a version that was taken away; its service and its Envoy run on.
    withdrawn: Vec<(&'static str, SocketAddr)>,
}

impl Mesh {
    /// Starts everything, with all traffic to v1, and waits until requests are answered.
    pub(super) async fn start() -> Result<Mesh> {
        let files = TempDir::with_prefix("pointsman-demo-").context("cannot make a directory for the configuration")?;
        let address = ports::local().context("no free port")?;
        let mut pods = Vec::new();
        let mut backends = Vec::new();
        for version in ["v1", "v2"] {
            let (backend, pod) = service(version)?;
            backends.push(backend);
            pods.push((version, pod));
        }
        fs::write(files.path().join("services.yaml"), services(address.port(), &pods))?;
        fs::write(files.path().join("subsets.yaml"), SUBSETS)?;
        write(&files, "routes.yaml", &routes(Split { v1: 100, v2: 0 }))?;

        let binary = std::env::current_exe().context("cannot find this program")?;
        let config = files.path().to_string_lossy().into_owned();
        let local = "127.0.0.1:0";
        let arguments = ["serve", "--config", &config, "--xds-listen", local, "--admin-listen", local];
        let mut server = Pointsman::start(binary, arguments)?;
        let xds = server.address("xds", START).await?;
        let admin = server.address("admin", START).await?;

        let mut servers = Vec::new();
        for (version, pod) in &pods {
            let bootstrap = envoy(&format!("reviews-{version}"), pod.ip().to_string().parse()?, xds)?;
            servers.push(Setup::new(bootstrap).start().await?);
        }
        let client = Setup::new(envoy("client", Ipv4Addr::LOCALHOST, xds)?).start().await?;
        let plan = || Plan::get(address, HOST, "/").timeout(Duration::from_secs(5));
        answering(plan()).await?;
        let load = Load::start(plan().per_second(RATE).connections(8)).context("cannot start the load")?;
        Ok(Mesh { load, client, servers, backends, server, files, address, admin, xds, pods, withdrawn: Vec::new() })
    }

    /// Tells where everything is.
    pub(super) fn describe(&self) {
        say!("  requests go to   http://{}/ (host: {HOST}), {RATE} per second", self.address);
        say!("  configuration    {}", self.files.path().display());
        say!("  admin            http://{}/", self.admin);
        say!();
    }

    /// Writes a new split, and returns the moment just before.
    pub(super) fn set(&self, split: Split) -> Result<Instant> {
        let before = Instant::now();
        write(&self.files, "routes.yaml", &routes(split))?;
        Ok(before)
    }

    /// Leaves the split to an intent: v2 is taken away, and the route leads to the service instead of its subsets.
    pub(super) async fn hand_over(&mut self) -> Result<()> {
        let (stay, go) = self.pods.drain(..).partition(|(version, _)| *version == "v1");
        (self.pods, self.withdrawn) = (stay, go);
        write(&self.files, "services.yaml", &services(self.address.port(), &self.pods))?;
        let written = Instant::now();
        write(&self.files, "routes.yaml", &route_to_service())?;
        let seen = self.load.first(written, START, |sample| sample.mark() == Some(INTENDED));
        seen.await.context("the route to the service never reached the traffic")?;
        // Routes that name subsets would leave it nothing to divide.
        write(&self.files, "intent.yaml", INTENT)?;
        wait::until("the intent to be taken in", START, async || match self.rollout().await {
            Ok(rollout) if rollout["stable"] == "v1" => Ok(()),
            Ok(rollout) => Err(rollout.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
        .await?;
        Ok(())
    }

    /// Starts a revision, of whose answers one in so many is an error, and returns the moment just before its pod is
    /// known. A revision that ran before runs on with its service.
    pub(super) async fn deploy(&mut self, version: &'static str, fail_every: u64) -> Result<Instant> {
        let pod = match self.withdrawn.iter().find(|(known, _)| *known == version) {
            Some((_, pod)) => *pod,
            None => {
                let (backend, pod) = service(version)?;
                backend.fail_every(fail_every);
                self.backends.push(backend);
                let bootstrap = envoy(&format!("reviews-{version}"), pod.ip().to_string().parse()?, self.xds)?;
                self.servers.push(Setup::new(bootstrap).start().await?);
                pod
            }
        };
        self.pods.push((version, pod));
        let before = Instant::now();
        write(&self.files, "services.yaml", &services(self.address.port(), &self.pods))?;
        Ok(before)
    }

    /// Where the rollout is, as the server says.
    pub(super) async fn rollout(&self) -> Result<serde_json::Value> {
        delivery::ask(self.admin).await
    }

    /// The running load.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// Stops everything in order.
    pub(super) async fn stop(self) -> Result<()> {
        drop(self.load);
        self.client.stop().await?;
        for envoy in self.servers {
            envoy.stop().await?;
        }
        let mut server = self.server;
        server.terminate(Duration::from_secs(10)).await?;
        Ok(())
    }
}

/// Waits until the route is there: before that, Envoy does not listen or has nowhere to send to.
async fn answering(plan: Plan) -> Result<()> {
    wait::until("answers through both Envoys", START, async || {
        let Ok(load) = Load::start(plan.clone().per_second(50.0).connections(1)) else {
            return Err("no load".to_owned());
        };
        match load.next(1, Duration::from_secs(5)).await {
            Ok(window) if window.failures().next().is_none() => Ok(()),
            Ok(window) => Err(window.to_string()),
            Err(late) => Err(late.to_string()),
        }
    })
    .await
    .map_err(Into::into)
}

/// A sidecar's bootstrap.
fn envoy(pod: &str, ip: Ipv4Addr, xds: SocketAddr) -> Result<serde_json::Value> {
    bootstrap::bootstrap(&bootstrap::Arguments {
        kind: Kind::Sidecar,
        pod: pod.to_owned(),
        namespace: "default".to_owned(),
        ip: ip.into(),
        labels: Vec::new(),
        interception: Interception::None,
        http_proxy_port: None,
        xds: xds.to_string(),
        xds_ca: None,
        xds_name: None,
        client_cert: None,
        client_sds: None,
        client_key: None,
        certificates: None,
        certificates_every: 60,
        token_file: None,
        service_account: None,
        state_of_the_world: false,
        load_reports: false,
        metrics_interval: Some(Duration::from_secs(1)),
        admin: ports::local().context("no free port")?,
        domain: "cluster.local".to_owned(),
    })
}

const SUBSETS: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
spec:
  host: reviews
  subsets:
    - name: v1
      labels: {version: v1}
    - name: v2
      labels: {version: v2}
";

/// The Service, and a Pod for each version. The container port has a name, so each version may have its own number.
fn services(port: u16, pods: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata:
  name: reviews
spec:
  selector: {{app: reviews}}
  ports:
    - {{name: http, port: {port}, targetPort: web}}
"
    );
    for (version, address) in pods {
        text += &format!(
            "---
apiVersion: v1
kind: Pod
metadata:
  name: reviews-{version}
  labels: {{app: reviews, version: {version}}}
spec:
  containers:
    - name: reviews
      ports:
        - {{name: web, containerPort: {}}}
status:
  podIP: {}
  phase: Running
",
            address.port(),
            address.ip(),
        );
    }
    text
}

/// The mark of answers of the route that leads to the service.
const INTENDED: &str = "intent";

fn routes(split: Split) -> String {
    let Split { v1, v2 } = split;
    let mark = format!("{v1}/{v2}");
    let to = |subset, weight| {
        format!("        - destination: {{host: reviews, subset: {subset}}}\n          weight: {weight}\n")
    };
    virtual_service(&mark, &[to("v1", v1), to("v2", v2)].concat())
}

/// The same without subsets: an intent divides what goes to the service.
fn route_to_service() -> String {
    virtual_service(INTENDED, "        - destination: {host: reviews}\n")
}

/// Marks the answers, and sends requests to these destinations.
fn virtual_service(mark: &str, destinations: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
    - headers:
        response:
          set: {{x-mark: {mark}}}
      route:
{destinations}"
    )
}

/// A version of the service and the address of its pod: the app listens on 127.0.0.1, its Envoy on the pod's address, both
/// at the same port, as in a pod.
fn service(version: &str) -> Result<(Backend, SocketAddr)> {
    let app = ports::local().context("no free port")?;
    let pod = ports::pod(app.port()).context("no free loopback address")?;
    let backend = Backend::start(version, app).with_context(|| format!("cannot start the service {version}"))?;
    Ok((backend, pod))
}

/// Writes a file as editors and `kubectl`-like tools do: a new one, renamed over the old one.
fn write(files: &TempDir, name: &str, text: &str) -> Result<()> {
    let path: PathBuf = files.path().join(name);
    let next = files.path().join(format!(".{name}.new"));
    fs::write(&next, text).with_context(|| format!("cannot write {}", next.display()))?;
    fs::rename(&next, &path).with_context(|| format!("cannot rename to {}", path.display()))
}
