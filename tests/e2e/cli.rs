//! The commands: help, exit codes, output, and that nothing is left when they end.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::envoy::Envoy;
use testkit::load::Load;
use testkit::pointsman::Pointsman;
use testkit::process::Process;
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, split};

const BINARY: &str = env!("CARGO_BIN_EXE_pointsman");

fn pointsman(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env_remove("POINTSMAN_LOG").output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_command_has_help_with_examples() {
    let whole = stdout(&pointsman(&["--help"]));
    assert!(whole.contains("Exit codes:") && whole.contains("Examples:"), "{whole}");
    for command in ["serve", "check", "status", "wait", "bootstrap", "certificate", "demo", "import", "crds"] {
        assert!(whole.contains(&format!("\n  {command} ")), "{command} is not listed: {whole}");
        for flag in ["--help", "-h"] {
            let output = pointsman(&[command, flag]);
            let text = stdout(&output);
            assert_eq!(output.status.code(), Some(0), "{command} {flag}");
            assert!(text.contains("Examples:") && text.contains("Usage: pointsman"), "{command} {flag}: {text}");
        }
    }
    let version = pointsman(&["--version"]);
    assert_eq!((version.status.code(), stdout(&version).starts_with("pointsman ")), (Some(0), true));
}

#[test]
fn what_cannot_be_run_ends_with_2_and_says_why() {
    let directory = TempDir::with_prefix("pointsman-cli-").unwrap();
    let config = directory.path().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nobody = ports::local().unwrap().to_string();
    let plain = directory.path().join("plain");
    fs::write(&plain, "no socket").unwrap();
    let plain = format!("unix:{}", plain.display());
    let missing = "unix:/nowhere/at/all/xds.sock";
    // A root without its key, and somebody who does not speak TLS.
    let state = directory.path().join("state");
    fs::create_dir_all(state.join("ca")).unwrap();
    fs::write(state.join("ca/root-cert.pem"), "").unwrap();
    let state = state.to_str().unwrap();
    let authorities = directory.path().join("authorities");
    fs::write(&authorities, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let authorities = authorities.to_str().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let speechless = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let serve = ["serve", "--config", config, "--xds-listen", "127.0.0.1:0", "--admin-listen", "none"];
    let serve = |state, more: &[&'static str]| {
        [&serve[..], &["--xds-tls-listen", "127.0.0.1:0", "--state-dir", state], more].concat()
    };
    let ask = ["certificate", "--xds", &*speechless, "--xds-ca", authorities, "--token-file", authorities, "--once"];
    let ask = [&ask[..], &["--out", config]].concat();
    for (arguments, said) in [
        (&["serve", "--config", config, "--xds-listen", "none"][..], "--xds-listen none needs --xds-tls-listen"),
        (
            &["serve", "--config", config, "--xds-listen", "none", "--xds-listen", &nobody],
            "cannot stand beside another",
        ),
        (&serve(state, &[]), "put the key back"),
        (&serve(config, &["--jwks", "https://localhost/keys", "--jwt-issuer", "me"]), "--jwks-ca FILE"),
        (&ask, "does not speak TLS there"),
        (&["certificate", "--xds", &nobody, "--out", config, "--ttl", "9999999999"], "is not in 1..=7776000"),
        (&["nonsense"], "unrecognized subcommand"),
        (&["serve"], "--config"),
        (&["check"], "--config"),
        (&["import"], "FILE"),
        (&["import", "/nowhere/at/all.yaml"], "cannot read \"/nowhere/at/all.yaml\""),
        (&["serve", "--config", config, "--xds-listen", "somewhere"], "neither an address such as"),
        (&["serve", "--config", config, "--xds-listen", &taken], &*format!("cannot listen at {taken}")),
        (&["serve", "--config", config, "--xds-listen", &plain], "is not a socket"),
        (&["serve", "--config", config, "--xds-listen", missing], "cannot listen at unix:/nowhere/at/all/xds.sock"),
        (&["serve", "--config", config, "--admin-listen", "somewhere"], "neither IP:PORT nor none"),
        (&["serve", "--config", config, "--log", "server=loud"], "--log \"server=loud\""),
        (&["status", "--admin", &nobody], "is `pointsman serve` running there?"),
        (&["wait", "--for=synced", "--admin", &nobody], "is `pointsman serve` running there?"),
        (&["bootstrap", "--xds", "somewhere"], "neither HOST:PORT nor unix:PATH"),
        (&["bootstrap", "--label", "app"], "is not KEY=VALUE"),
        (&["bootstrap", "--certificates", config], "--certificates is for --kind grpc only"),
        (&["certificate", "--xds", "127.0.0.1:1", "--out", config], "--xds-ca FILE"),
        (&["certificate", "--xds", missing, "--out", config, "--once"], "gives no certificate by the user"),
        (&["bootstrap", "--kind", "toaster"], "invalid value 'toaster'"),
        (&["check", "--config", config, "--missing-destination", "shrug"], "invalid value 'shrug'"),
    ] {
        let output = pointsman(arguments);
        let (out, err) = (stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {out}{err}");
        assert!(err.contains(said) && !err.contains("panicked"), "{arguments:?} does not say \"{said}\": {err}");
    }
}

#[test]
fn what_has_caused_an_error_is_said_once() {
    let state = TempDir::with_prefix("pointsman-cli-").unwrap();
    let path = state.path().to_str().unwrap();
    let pair = ["--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"];
    let tls = ["--xds-tls-listen", "127.0.0.1:0", "--state-dir", path];
    let output = pointsman(&[&["serve", "--config", path, "--xds-listen", "none"][..], &tls, &pair].concat());
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.matches("No such file").count()), (Some(2), 1), "{said}");
    assert_eq!(said.matches("/nowhere/cert.pem").count(), 1, "{said}");
}

#[tokio::test]
async fn without_a_plaintext_listener_only_those_are_served_who_prove_who_they_are() {
    let state = TempDir::with_prefix("pointsman-cli-").unwrap();
    let path = state.path().to_str().unwrap();
    let tls = ["--xds-tls-listen", "127.0.0.1:0", "--state-dir", path, "--admin-listen", "127.0.0.1:0"];
    let arguments = [&["serve", "--config", path, "--xds-listen", "none"][..], &tls].concat();
    let mut server = Pointsman::start(env!("CARGO_BIN_EXE_pointsman"), arguments).unwrap();
    server.address("admin", PATIENCE).await.unwrap();
    let said = server.output();
    assert!(said.contains("xds-tls listening on") && !said.contains("xds listening on"), "{said}");
    let mode = |file: &str| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(state.path().join(file)).unwrap().permissions())
    };
    assert_eq!(mode("rollouts.redb") & 0o777, 0o600);
    server.terminate(PATIENCE).await.unwrap();
}

#[test]
fn what_is_imported_passes_the_check_and_losses_are_told() {
    let directory = TempDir::with_prefix("pointsman-cli-").unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let canary = "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: reviews}\nspec:\n  \
                  targetRef: {kind: Deployment, name: reviews}\n  service: {port: 9080}\n  \
                  analysis: {interval: 30s, stepWeight: 25, maxWeight: 50}\n";
    fs::write(path("canary.yaml"), canary).unwrap();
    fs::write(path("lossy.yaml"), canary.replace("port: 9080", "port: 9080, timeout: 5s")).unwrap();
    let output = pointsman(&["import", "--strict", &path("canary.yaml")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).lines().all(|line| line.starts_with("note: ")), "{}", stderr(&output));

    let mesh = TempDir::with_prefix("pointsman-cli-").unwrap();
    fs::write(mesh.path().join("intent.yaml"), stdout(&output)).unwrap();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec:\n  selector: {app: reviews}\n  \
                   ports: [{name: http, port: 9080}]\n";
    let pods = ["v1", "v2"].map(|version| {
        crate::mesh::pod(version, &format!("app: reviews, version: {version}"), "10.0.0.1:9080".parse().unwrap())
    });
    fs::write(mesh.path().join("service.yaml"), format!("{service}{}", pods.concat())).unwrap();
    let check = pointsman(&["check", "--config", mesh.path().to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(0), "{}", stdout(&check));

    for (arguments, code) in [(&["import", "--strict"][..], 1), (&["import"], 0)] {
        let lossy = pointsman(&[arguments, &[&*path("lossy.yaml")]].concat());
        assert_eq!(lossy.status.code(), Some(code));
        let said = stderr(&lossy);
        assert!(said.contains("lossy.yaml:6 spec.service.timeout: write it in the VirtualService"), "{said}");
    }
    let json: Value =
        serde_json::from_slice(&pointsman(&["import", "-o", "json", &path("lossy.yaml")]).stdout).unwrap();
    assert_eq!(json["objects"][0]["kind"], "DeploymentIntent");
    let crds: Value = serde_json::from_slice(&pointsman(&["crds", "-o", "json"]).stdout).unwrap();
    assert_eq!(crds["items"].as_array().unwrap().len(), 6);
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    let directory = TempDir::with_prefix("pointsman-cli-").unwrap();
    // More than a pipe takes, so that the last of it meets a closed one.
    let many: String =
        (0..2_000).map(|n| split(1, 1).replace("name: reviews", &format!("name: r{n}")) + "---\n").collect();
    fs::write(directory.path().join("many.yaml"), many).unwrap();
    let mut child = Command::new(BINARY)
        .args(["check", "--config", directory.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), String::new()));
}

#[tokio::test]
async fn status_shows_nodes_and_objects_as_text_and_as_json() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let wrong = split(1, 1).replace("name: reviews", "name: wrong").replace("[reviews]", "[wrong]").replace("v2", "v3");
    let files = [
        ("reviews.yaml", &*objects),
        ("rule.yaml", SUBSETS),
        ("routes.yaml", &*split(80, 20)),
        ("wrong.yaml", &*wrong),
    ];
    let mesh = Mesh::start(&files).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    mesh.synced(1).await;
    let admin = mesh.admin.to_string();
    let ask = |more: &[&str]| {
        let output = pointsman(&[&["status", "--admin", &admin], more].concat());
        assert_eq!(output.status.code(), Some(0), "{more:?}: {}", stderr(&output));
        stdout(&output)
    };
    let text = ask(&[]);
    let node = "sidecar~127.0.0.1~client.default~default.svc.cluster.local";
    let line = |start: &str| {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in:\n{text}"))
    };
    assert!(line("NODE").contains("STATE") && line(node).contains("synced") && line(node).contains("1.40"), "{text}");
    assert!(line("OBJECT").contains("ACCEPTED"), "{text}");
    assert!(line("VirtualService default/reviews ").split_whitespace().nth(2) == Some("1"), "{text}");
    assert!(
        text.contains("VirtualService default/wrong: spec.http[0].route[1].destination.subset: no DestinationRule"),
        "{text}"
    );
    let (nodes, objects) = (ask(&["nodes"]), ask(&["objects"]));
    assert!(nodes.contains(node) && !nodes.contains("VirtualService"), "{nodes}");
    assert!(!objects.contains("NODE") && objects.contains("DestinationRule default/reviews"), "{objects}");
    let all: Value = serde_json::from_str(&ask(&["-o", "json"])).unwrap();
    assert_eq!((&all["nodes"][0]["id"], &all["nodes"][0]["sync"]), (&node.into(), &"synced".into()), "{all}");
    let known: BTreeSet<_> = all["objects"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert!(known.contains("reviews") && known.contains("wrong") && known.contains("reviews-v1"), "{all}");
    let nodes: Value = serde_json::from_str(&ask(&["nodes", "-o", "json"])).unwrap();
    assert!(nodes["nodes"].is_array() && nodes["objects"].is_null(), "{nodes}");
}

#[tokio::test]
async fn every_bootstrap_is_valid_for_envoy() {
    let none = ["--interception", "none", "--http-proxy-port", "3128", "--label", "app=a", "--label", "version=v1"];
    for more in [
        &["--pod", "a", "--namespace", "shop", "--ip", "10.0.0.1"][..],
        &["--interception", "tproxy"],
        &none,
        &["--kind", "gateway", "--pod", "ingress", "--label", "istio=ingressgateway"],
        &["--xds", "unix:/run/pointsman.sock"],
        &["--xds", "pointsman.istio-system.svc:15010"],
        &["--xds", "[::1]:15010", "--ip", "fd00::1", "--admin", "[::1]:15000"],
        &["--domain", "example.org"],
    ] {
        for variant in [&[][..], &["--state-of-the-world"]] {
            let output = pointsman(&[&["bootstrap"], more, variant].concat());
            assert_eq!(output.status.code(), Some(0), "{more:?}: {}", stderr(&output));
            let bootstrap: Value = serde_json::from_slice(&output.stdout).unwrap();
            Envoy::validate(&bootstrap).await.unwrap_or_else(|error| panic!("{more:?} {variant:?}: {error:#}"));
        }
    }
    let output = pointsman(&["bootstrap", "--kind", "grpc", "--xds", "127.0.0.1:15010"]);
    let bootstrap: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(bootstrap["xds_servers"][0]["server_uri"], "127.0.0.1:15010", "{bootstrap}");
}

/// The children of a process, and theirs.
fn descendants(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return all };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().map(|child| child.parse().unwrap()) {
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
}

/// Those of the processes that are running; zombies are not.
fn running(pids: &[u32]) -> Vec<u32> {
    let runs = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).is_some_and(|state| state != 'Z')
    };
    pids.iter().copied().filter(runs).collect()
}

/// What is in a directory.
fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[tokio::test]
async fn an_interrupted_serve_leaves_nothing_behind() {
    for signal in ["interrupt", "terminate"] {
        let reviews = Reviews::start();
        let objects = reviews.objects();
        let directory = TempDir::with_prefix("pointsman-cli-").unwrap();
        let socket = directory.path().join("xds.sock");
        let listen = format!("unix:{}", socket.display());
        let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &*split(80, 20))];
        let mut mesh = Mesh::start_with(&files, &["--xds-listen", &listen]).await;
        let by_socket = ["--pod", "client", "--interception", "none", "--xds", &listen];
        let _client = mesh.envoy(Variant::Delta, &by_socket).await;
        answering(reviews.plan()).await;
        let load = Load::start(reviews.plan()).unwrap();
        assert!(socket.exists());
        let process = mesh.server.process();
        assert_eq!(descendants(process.pid()), Vec::<u32>::new());
        match signal {
            "interrupt" => process.interrupt().unwrap(),
            _ => process.terminate().unwrap(),
        }
        let status = process.exited(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.code(), Some(0), "{signal}: {}", mesh.server.output());
        assert!(!socket.exists(), "{signal}: the socket is still there");
        assert!(!mesh.server.output().contains("panicked"), "{}", mesh.server.output());
        // Envoy goes on with what it has.
        load.next(100, PATIENCE).await.unwrap().assert_no_failures();
    }
}

/// A running demo with a directory for its temporary files.
struct Demo {
    process: Process,
    scratch: TempDir,
    // For its output; dropped last.
    _log: TempDir,
}

impl Demo {
    fn start(seconds: &str) -> Demo {
        let (scratch, log) =
            (TempDir::with_prefix("pointsman-demo-").unwrap(), TempDir::with_prefix("pointsman-demo-").unwrap());
        let mut command = Command::new(BINARY);
        command.args(["demo", "--seconds", seconds]).env("TMPDIR", scratch.path());
        // A group of its own, as a shell gives to each job.
        command.env("ENVOY_BIN", Envoy::binary().unwrap()).process_group(0);
        let process = Process::spawn("the demo", command, log.path().join("log")).unwrap();
        Demo { process, scratch, _log: log }
    }

    /// What the terminal does at Ctrl-C: SIGINT to every process of the group.
    fn control_c(&mut self) {
        self.process.expect_running().unwrap();
        let group = format!("-{}", self.process.pid());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    }

    async fn end(&mut self, within: Duration) -> ExitStatus {
        self.process.exited(within).await.unwrap_or_else(|error| panic!("{error:#}: {}", self.process.output()))
    }
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind() {
    // While it starts, by a signal to itself alone; and in the middle, by Ctrl-C.
    for (moment, enough) in [("before it walks", 1), ("in the middle", 4)] {
        let mut demo = Demo::start("60");
        let children = wait::until(moment, PATIENCE, async || {
            let children = descendants(demo.process.pid());
            let output = demo.process.output();
            let is_there = children.len() >= enough && (enough == 1 || output.contains("configured"));
            if is_there { Ok(children) } else { Err(format!("{children:?}: {output}")) }
        })
        .await
        .unwrap();
        if enough == 1 {
            demo.process.interrupt().unwrap()
        } else {
            demo.control_c()
        }
        let status = demo.end(Duration::from_secs(10)).await;
        let output = demo.process.output();
        assert_eq!(status.code(), Some(130), "{moment}: {output}");
        assert!(output.contains("Interrupted; everything that was started is stopped."), "{moment}: {output}");
        assert!(!output.contains("panicked"), "{moment}: {output}");
        assert_eq!(running(&children), Vec::<u32>::new(), "{moment}: {output}");
        assert_eq!(entries(demo.scratch.path()), Vec::<String>::new(), "{moment}: {output}");
    }
}

#[tokio::test]
async fn a_demo_walks_ten_seconds_delivers_and_leaves_nothing_behind() {
    let mut demo = Demo::start("10");
    let children = wait::until("the demo to walk", PATIENCE, async || {
        let children = descendants(demo.process.pid());
        if children.len() >= 4 { Ok(children) } else { Err(format!("{children:?}: {}", demo.process.output())) }
    })
    .await
    .unwrap();
    let status = demo.end(Duration::from_secs(180)).await;
    let output = demo.process.output();
    assert_eq!(status.code(), Some(0), "{output}");
    for said in [
        "100/0",
        "80/20",
        "50/50",
        "0/100",
        " requests, 0 failed.",
        "v2: Completed",
        "v3: RolledBack",
        "errors as the proxies",
    ] {
        assert!(output.contains(said), "\"{said}\" is not in {output}");
    }
    assert_eq!(running(&children), Vec::<u32>::new(), "{output}");
    assert_eq!(entries(demo.scratch.path()), Vec::<String>::new(), "{output}");
}
