//! A real kube-apiserver with its etcd: where `KUBEBUILDER_ASSETS` names a directory with `kube-apiserver`, `etcd` and
//! `kubectl`, as the tests of Kubernetes controllers have it.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::process::Process;
use crate::{ports, wait};

/// It was ready within 7 seconds on a quiet machine.
const START: Duration = Duration::from_secs(120);
/// What the administrator shows.
const ADMINISTRATOR: &str = "administrator-of-the-test";

/// A running API server. Dropping it kills it and its etcd, and removes their files.
#[derive(Debug)]
pub struct Kubernetes {
    // Dropped before the directory with their files.
    server: Process,
    _etcd: Process,
    assets: PathBuf,
    address: SocketAddr,
    directory: TempDir,
}

impl Kubernetes {
    /// Starts one, and waits until it is ready. `None` where there is none, which is printed with `what` is skipped.
    ///
    /// # Errors
    /// If it ends or is not ready within two minutes. The message holds the end of its log.
    pub async fn start(what: &str) -> Result<Option<Kubernetes>> {
        let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
            writeln!(std::io::stderr(), "skipped: {what}: KUBEBUILDER_ASSETS names no kube-apiserver")?;
            return Ok(None);
        };
        let directory = TempDir::with_prefix("pointsman-kubernetes-").context("could not make a directory")?;
        let in_directory = |name: &str| directory.path().join(name);
        credentials(directory.path())?;
        let (etcd, peers, address) = (ports::local()?, ports::local()?, ports::local()?);
        let mut command = Command::new(assets.join("etcd"));
        command.arg("--data-dir").arg(in_directory("etcd"));
        command.args(["--listen-client-urls", &url(etcd), "--advertise-client-urls", &url(etcd)]);
        command.args(["--listen-peer-urls", &url(peers), "--initial-advertise-peer-urls", &url(peers)]);
        command.args(["--initial-cluster", &format!("default={}", url(peers))]);
        let etcd_process = Process::spawn("etcd", command, in_directory("etcd.log"))?;

        let mut command = Command::new(assets.join("kube-apiserver"));
        let of = |name: &str| in_directory(name).display().to_string();
        command.args([
            format!("--etcd-servers={}", url(etcd)),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", address.port()),
            format!("--tls-cert-file={}", of("server.pem")),
            format!("--tls-private-key-file={}", of("server.key")),
            format!("--token-auth-file={}", of("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", of("accounts.pub")),
            format!("--service-account-signing-key-file={}", of("accounts.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // Nobody makes the accounts and tokens that it would wait for.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        let server = Process::spawn("kube-apiserver", command, in_directory("server.log"))?;
        let mut kubernetes = Kubernetes { server, _etcd: etcd_process, assets, address, directory };
        std::fs::write(kubernetes.directory.path().join("administrator"), kubernetes.kubeconfig(ADMINISTRATOR))?;
        let ready = wait::until("kube-apiserver to be ready", START, async || {
            kubernetes.server.expect_running().map_err(|error| format!("{error:#}"))?;
            kubernetes.kubectl(["get", "--raw", "/readyz"], "").map_err(|error| format!("{error:#}"))
        });
        ready.await.with_context(|| kubernetes.server.last_words())?;
        Ok(Some(kubernetes))
    }

    /// What kubectl prints to the administrator's command, with this standard input.
    ///
    /// # Errors
    /// With what it says, when it fails.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, input: &str) -> Result<String> {
        let mut command = Command::new(self.assets.join("kubectl"));
        command.arg("--kubeconfig").arg(self.directory.path().join("administrator")).args(arguments);
        // What it remembers of servers belongs to this one.
        command.env("HOME", self.directory.path()).arg("--cache-dir").arg(self.directory.path().join("cache"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("could not start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A token of an account (`namespace`, `name`) for an audience, bound to a pod if one is given.
    ///
    /// # Errors
    /// As [`Kubernetes::kubectl`].
    pub fn token(&self, namespace: &str, account: &str, audience: &str, pod: Option<&str>) -> Result<String> {
        let bound = pod.map(|name| -> Result<_> {
            let uid = self.kubectl(["get", "pod", "-n", namespace, name, "-o", "jsonpath={.metadata.uid}"], "")?;
            Ok(json!({ "kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid }))
        });
        let audiences: Vec<_> = Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": audiences, "expirationSeconds": 600, "boundObjectRef": bound.transpose()? },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.kubectl(["create", "--raw", &path, "-f", "-"], &request.to_string())?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        Ok(answer["status"]["token"].as_str().context("the answer has no token")?.to_owned())
    }

    /// The configuration of a client that shows this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": self.directory.path().join("root.pem"),
            } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": { "token": token } }],
        })
        .to_string()
    }

    /// Kills the API server: nothing is listening any more.
    ///
    /// # Errors
    /// If the signal cannot be sent, or it does not end.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server.exited(START).await.map(drop)
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The keys and certificates of the server and the administrator's token.
fn credentials(directory: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let root = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let server =
        CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &Issuer::new(authority, authority_key))?;
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).with_context(|| format!("could not write \"{name}\""))
    };
    write("root.pem", &root)?;
    write("server.pem", &server.pem())?;
    write("server.key", &key.serialize_pem())?;
    let accounts = KeyPair::generate()?;
    write("accounts.key", &accounts.serialize_pem())?;
    write("accounts.pub", &accounts.public_key_pem())?;
    write("tokens.csv", &format!("{ADMINISTRATOR},administrator,1,system:masters\n"))
}
