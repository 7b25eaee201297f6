//! A server with files, and the clients of one test.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::backend::Backend;
use testkit::envoy::{Envoy, Setup};
use testkit::load::{Load, Plan};
use testkit::pointsman::Pointsman;
use testkit::{ports, wait};

/// Generous, because test machines are small and shared; nothing waits this long unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// In a process where this is set every server delivers virtual hosts inline.
pub const INLINE: &str = "POINTSMAN_TEST_VIRTUAL_HOSTS_INLINE";

/// Which protocol an Envoy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    StateOfTheWorld,
    Delta,
}

/// A running Pointsman with a directory of files.
pub struct Mesh {
    pub files: TempDir,
    pub server: Pointsman,
    pub xds: SocketAddr,
    pub admin: SocketAddr,
}

impl Mesh {
    /// Starts a server with these files.
    pub async fn start(files: &[(&str, &str)]) -> Mesh {
        Mesh::start_with(files, &[]).await
    }

    /// Starts a server with these files and more arguments.
    pub async fn start_with(files: &[(&str, &str)], arguments: &[&str]) -> Mesh {
        Mesh::start_by(&[], files, arguments).await
    }

    /// The same by another program, which is given the server's command line behind its own arguments.
    pub async fn start_by(program: &[&str], files: &[(&str, &str)], arguments: &[&str]) -> Mesh {
        let directory = TempDir::with_prefix("pointsman-test-").unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        // Fixed addresses, so that clients find the server again after a restart.
        let (xds, admin) = (ports::local().unwrap(), ports::local().unwrap());
        let config = directory.path().to_str().unwrap().to_owned();
        let (xds_listen, admin_listen) = (xds.to_string(), admin.to_string());
        let mut all = program.to_vec();
        all.extend([env!("CARGO_BIN_EXE_pointsman"), "serve", "--config", &config]);
        all.extend(["--xds-listen", &xds_listen, "--admin-listen", &admin_listen]);
        if std::env::var_os(INLINE).is_some() {
            all.extend(["--virtual-hosts", "inline"]);
        }
        all.extend(arguments);
        let mut server = Pointsman::start(all[0], &all[1..]).unwrap();
        server.address("xds", PATIENCE).await.unwrap();
        server.address("admin", PATIENCE).await.unwrap();
        let mesh = Mesh { files: directory, server, xds, admin };
        mesh.ready().await;
        mesh
    }

    /// Waits until the files are read: until then streams are refused, and clients come back only after a pause.
    pub async fn ready(&self) {
        let ask = async || testkit::http::get(self.admin, "/readyz").await.map_err(|error| format!("{error:#}"));
        wait::until("the server to be ready", PATIENCE, ask).await.unwrap();
    }

    /// Starts the server again after it has ended, with the same files and on the same addresses.
    pub async fn restart(&mut self) {
        self.server.restart().unwrap();
        self.server.address("xds", PATIENCE).await.unwrap();
        self.server.address("admin", PATIENCE).await.unwrap();
        self.ready().await;
    }

    /// The same with more arguments.
    pub async fn restart_with(&mut self, arguments: &[&str]) {
        self.server.restart_with(arguments).unwrap();
        self.server.address("xds", PATIENCE).await.unwrap();
        self.server.address("admin", PATIENCE).await.unwrap();
        self.ready().await;
    }

    /// Writes a file as tools do: a new one, renamed over the old one. Returns the moment just before.
    pub fn write(&self, name: &str, text: &str) -> Instant {
        let next = self.files.path().join(format!(".{name}.new"));
        fs::write(&next, text).unwrap();
        let before = Instant::now();
        fs::rename(next, self.files.path().join(name)).unwrap();
        before
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> Instant {
        let before = Instant::now();
        fs::remove_file(self.files.path().join(name)).unwrap();
        before
    }

    /// The bootstrap of a client, from the binary itself. It leads to the server's TCP address unless `--xds` says otherwise.
    pub fn bootstrap(&self, arguments: &[&str]) -> Value {
        let xds = self.xds.to_string();
        let admin = ports::local().unwrap().to_string();
        let usual = if arguments.contains(&"--xds") { vec![] } else { vec!["--xds", &*xds] };
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["bootstrap", "--admin", &admin])
            .args(usual)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A sidecar without interception on 127.0.0.1, called `name`, in namespace `default`.
    pub async fn client(&self, variant: Variant, name: &str) -> Envoy {
        self.envoy(variant, &["--pod", name, "--interception", "none"]).await
    }

    /// An Envoy with more arguments for its bootstrap.
    pub async fn envoy(&self, variant: Variant, arguments: &[&str]) -> Envoy {
        let mut all = arguments.to_vec();
        if variant == Variant::StateOfTheWorld {
            all.push("--state-of-the-world");
        }
        Setup::new(self.bootstrap(&all)).start().await.unwrap()
    }

    /// What the admin API answers.
    pub async fn get(&self, path: &str) -> Value {
        testkit::http::get_json(self.admin, path).await.unwrap()
    }

    /// Waits until a JSON answer of the admin API satisfies `wanted`.
    pub async fn get_where(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, PATIENCE, async || match testkit::http::get_json(self.admin, path).await {
            Ok(value) if wanted(&value) => Ok(value),
            Ok(value) => Err(value.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
        .unwrap()
    }
    /// A sample of `/metrics` by its name with labels, such as `pilot_xds_pushes{type="cds"}`; zero if there is
    /// none.
    pub async fn metric(&self, sample: &str) -> u64 {
        let text = testkit::http::get(self.admin, "/metrics").await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Asserts that nothing is wrong with any object, as far as it was compiled for a client.
    pub async fn assert_no_problems(&self) {
        let problems = self.get("/api/v1/problems").await;
        assert!(problems["problems"].as_array().unwrap().is_empty(), "{problems}");
    }

    /// Waits until so many clients are there and run all that they are to have.
    pub async fn synced(&self, nodes: usize) {
        self.get_where("/api/v1/nodes", "all nodes to be synced", |answer| {
            let states = answer["nodes"].as_array().unwrap().iter().map(|node| &node["sync"]);
            states.clone().count() == nodes && states.clone().all(|state| *state == "synced")
        })
        .await;
    }
}

/// Two versions of a service called `reviews`, with a Service and two Pods.
pub struct Reviews {
    pub v1: Backend,
    pub v2: Backend,
    /// Where clients on this machine reach it: the port of the Service on 127.0.0.1.
    pub address: SocketAddr,
}

impl Reviews {
    /// Starts both versions.
    pub fn start() -> Reviews {
        let v1 = Backend::start("v1", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
        let v2 = Backend::start("v2", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
        Reviews { v1, v2, address: ports::local().unwrap() }
    }

    /// The Service and the Pods.
    pub fn objects(&self) -> String {
        self.objects_of(&[("v1", &self.v1), ("v2", &self.v2)])
    }

    /// The Service and the Pods of these versions.
    pub fn objects_of(&self, versions: &[(&str, &Backend)]) -> String {
        let port = self.address.port();
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
             selector: {{app: reviews}}\n  ports: [{{name: http, port: {port}, targetPort: web}}]\n"
        );
        for (version, backend) in versions {
            text +=
                &pod(&format!("reviews-{version}"), &format!("app: reviews, version: {version}"), backend.address());
        }
        text
    }

    /// Requests for the service.
    pub fn plan(&self) -> Plan {
        Plan::get(self.address, "reviews", "/").timeout(Duration::from_secs(10))
    }
}

/// A Pod with a container port called `web`.
pub fn pod(name: &str, labels: &str, address: SocketAddr) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: app, ports: [{{name: web, containerPort: {}}}]}}]}}\n\
         status: {{podIP: {}, phase: Running}}\n",
        address.port(),
        address.ip(),
    )
}

/// The two subsets of `reviews`.
pub const SUBSETS: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
";

/// A VirtualService that splits `reviews`; responses carry the split as `x-mark`.
pub fn split(v1: u64, v2: u64) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n    - headers: {{response: {{set: {{x-mark: {v1}/{v2}}}}}}}\n      route:\n        \
         - {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}\n        \
         - {{destination: {{host: reviews, subset: v2}}, weight: {v2}}}\n"
    )
}

/// Waits until a request is answered as the plan expects.
pub async fn answering(plan: Plan) {
    wait::until("an answer", PATIENCE, async || {
        let load = Load::start(plan.clone().per_second(50.0).connections(1)).map_err(|error| error.to_string())?;
        match load.next(1, PATIENCE).await {
            Ok(window) if window.failures().next().is_none() => Ok(()),
            Ok(window) => Err(window.to_string()),
            Err(late) => Err(late.to_string()),
        }
    })
    .await
    .unwrap();
}

/// Waits for the first answer with this mark, counted from `since`, and returns when it had arrived.
pub async fn marked(load: &Load, since: Instant, mark: &str) -> Instant {
    load.first(since, PATIENCE, |sample| sample.mark() == Some(mark)).await.unwrap().finished()
}
