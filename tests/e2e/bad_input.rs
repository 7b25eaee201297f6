//! Files that are wrong: what `check` says of them, and that `serve` goes on with what is right.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use testkit::load::Load;
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::wait;

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, split};

/// What is right, and what the wrong objects beside it refer to.
const GOOD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
";

/// A VirtualService that begins at line 1 and whose `http` begins at line 6.
fn routes(name: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n{http}"
    )
}

/// One wrong file beside the good one, and what has to be said about it.
struct Case {
    what: &'static str,
    text: String,
    /// `<line>:<column>: <object>: <field>`, as far as there are any.
    place: &'static str,
    /// What is wrong.
    message: &'static str,
    /// What is done instead.
    consequence: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |what, text: String, place, message, consequence| Case { what, text, place, message, consequence };
    let refused = "the object is not applied; the last good version, if there is one, stays in force";
    let skipped = "the document is skipped, and objects that the file defined before stay in force";
    vec![
        case(
            "broken YAML",
            "apiVersion: v1\nkind: [Service\nmetadata: {}\n".into(),
            "3:9: ",
            "invalid YAML: ",
            skipped,
        ),
        case(
            "an object twice",
            GOOD[..GOOD.find("---").unwrap()].to_owned(),
            "1:1: Service default/reviews: ",
            "the object is already defined at ",
            "this definition is not applied",
        ),
        case(
            "a kind that does not exist",
            routes("r", "").replace("VirtualService", "VirtualServise"),
            "2:1: VirtualServise default/r: kind: ",
            "unknown kind \"VirtualServise\" in \"networking.istio.io/v1\"",
            "the object is passed over\n    Did you mean VirtualService?",
        ),
        case(
            "a field that does not exist",
            routes("r", "  http:\n    - rout: []\n      route: [{destination: {host: reviews}}]\n"),
            "7:7: VirtualService default/r: spec.http[0].rout: ",
            "unknown field \"rout\"",
            "the field has no effect\n    Did you mean \"route\"?",
        ),
        case(
            "a value of the wrong type",
            routes("r", "  http:\n    - route: [{destination: {host: [reviews]}}]\n"),
            "7:36: VirtualService default/r: spec.http[0].route[0].destination.host: ",
            "",
            refused,
        ),
        case(
            "a negative weight",
            routes("r", "  http:\n    - route:\n        - {weight: -80, destination: {host: reviews, subset: v1}}\n"),
            "8:12: VirtualService default/r: spec.http[0].route[0].weight: ",
            "weight -80 is negative",
            refused,
        ),
        case(
            "weights that are all zero",
            routes(
                "r",
                "  http:\n    - route: [{weight: 0, destination: {host: reviews, subset: v1}}, \
                   {weight: 0, destination: {host: reviews, subset: v2}}]\n",
            ),
            "7:7: VirtualService default/r: spec.http[0].route: ",
            "all weights are 0",
            refused,
        ),
        case(
            "a regex that does not compile",
            routes(
                "r",
                "  http:\n    - match: [{uri: {regex: \"a[\"}}]\n      route: [{destination: {host: reviews}}]\n",
            ),
            "7:22: VirtualService default/r: spec.http[0].match[0].uri.regex: ",
            "the regex \"a[\" does not compile",
            refused,
        ),
        case(
            "a host that does not exist",
            routes("r", "  http:\n    - route: [{destination: {host: revews}}]\n"),
            "1:1: VirtualService default/r: spec.http[0].route[0].destination.host: ",
            "no service \"revews.default.svc.cluster.local\"",
            "the rule's requests are answered 503",
        ),
        case(
            "a subset that does not exist",
            routes("r", "  http:\n    - route: [{destination: {host: reviews, subset: v3}}]\n"),
            "1:1: VirtualService default/r: spec.http[0].route[0].destination.subset: ",
            "no DestinationRule defines subset \"v3\" of \"reviews.default.svc.cluster.local\"",
            "the rule's requests are answered 503\n    Add to spec.subsets of DestinationRule default/reviews:\n      - name: v3\n",
        ),
        case(
            "delegates in a circle",
            routes("r", "  http: [{delegate: {name: one}}]\n")
                + "---\n"
                + &routes("one", "  http: [{delegate: {name: two}}]\n").replace("  hosts: [reviews]\n", "")
                + "---\n"
                + &routes("two", "  http: [{delegate: {name: one}}]\n").replace("  hosts: [reviews]\n", ""),
            "8:1: VirtualService default/one: spec.http[0].delegate: ",
            "VirtualService default/r delegates to VirtualService default/one, which delegates to VirtualService default/two",
            "its requests are answered 503",
        ),
        case(
            "a delegate to itself",
            routes("r", "  http: [{delegate: {name: r}}]\n"),
            "1:1: VirtualService default/r: spec.http[0].delegate",
            "",
            "its requests are answered 503",
        ),
        case(
            "services that clash on a port",
            ["one", "two"]
                .map(|name| {
                    format!(
                        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
                         spec: {{clusterIP: 10.0.0.7, ports: [{{name: tcp, port: 7000}}]}}\n"
                    )
                })
                .concat(),
            "7:1: Service default/two: spec.ports[0]: ",
            "port 7000 of \"two.default.svc.cluster.local\" clashes with \"one.default.svc.cluster.local\"",
            "go to \"one.default.svc.cluster.local\"",
        ),
        case(
            "servers that clash on a port",
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: default}\nspec:\n  \
             selector: {istio: ingressgateway}\n  servers:\n    \
             - {port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}\n    \
             - {port: {number: 80, name: tcp, protocol: TCP}, hosts: [\"*\"]}\n"
                .into(),
            "1:1: Gateway default/g: spec.servers[1].port: ",
            "port 80 is already taken by Gateway default/g (spec.servers[0], HTTP)",
            "the server is not opened",
        ),
        case(
            "a port twice in one service",
            "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: default}\n\
             spec: {ports: [{name: http, port: 80}, {name: tcp, port: 80}]}\n"
                .into(),
            "4:52: Service default/s: spec.ports[1].port: ",
            "port 80 is given twice",
            refused,
        ),
        case(
            "50 MB of documents that are no objects",
            "a\n---\n".repeat(50_000_000 / 6),
            "1:1: ",
            "expected an object, found a single value",
            skipped,
        ),
    ]
}

fn check(arguments: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("check").args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn check_says_where_what_is_wrong_and_what_is_done_instead() {
    let directory = TempDir::with_prefix("pointsman-check-").unwrap();
    let (good, bad) = (directory.path().join("a-good.yaml"), directory.path().join("bad.yaml"));
    fs::write(&good, GOOD).unwrap();
    for Case { what, text: contents, place, message, consequence } in cases() {
        fs::write(&bad, contents).unwrap();
        let output = check(&["--config", text(directory.path())]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        let whole = format!("error: {}:{place}", bad.display());
        let problem = said.split("\n\n").find(|problem| problem.starts_with(&whole) && problem.contains(message));
        let problem = problem.unwrap_or_else(|| panic!("{what}: \"{whole}…{message}\" is not said:\n{said}"));
        assert!(problem.contains(consequence), "{what}: \"{consequence}\" is not said:\n{problem}");
        // The last line counts, and what is right counts as it did.
        let last = said.lines().last().unwrap();
        assert!(last.ends_with(" warnings") && last.contains(" objects, "), "{what}: {last}");
        assert!(!said.contains(&format!("error: {}", good.display())), "{what}: {said}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{what}");
    }
}

#[test]
fn check_refuses_what_is_no_text_and_what_is_not_there() {
    let directory = TempDir::with_prefix("pointsman-check-").unwrap();
    let (good, bad, missing) =
        (directory.path().join("good.yaml"), directory.path().join("bad.yaml"), directory.path().join("nowhere"));
    fs::write(&good, GOOD).unwrap();
    let junk: Vec<u8> = (0..50_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (what, bytes, message) in [
        ("50 MB of junk", &junk[..], "the file is not UTF-8 text"),
        ("a little junk", &junk[..100], "the file is not UTF-8 text"),
        ("zeros", &[0; 5000], "invalid YAML"),
        ("50 MB of one word", "a".repeat(50_000_000).as_bytes(), "expected an object, found a single value"),
        ("more than the limit", &b"# x\n".repeat(17 << 20), "more than the limit"),
    ] {
        fs::write(&bad, bytes).unwrap();
        let output = check(&["--config", text(&good), text(&bad)]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains(&format!("error: {}", bad.display())) && said.contains(message), "{what}: {said}");
        assert!(said.ends_with("2 objects, 1 errors, 0 warnings\n"), "{what}: {said}");
    }
    let output = check(&["--config", text(&missing), text(&good)]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("error: {}: the path cannot be read: No such file", missing.display())), "{said}");
    assert!(said.ends_with("2 objects, 1 errors, 0 warnings\n"), "{said}");
}

#[test]
fn check_is_content_with_what_is_right_and_speaks_json() {
    let directory = TempDir::with_prefix("pointsman-check-").unwrap();
    fs::write(directory.path().join("good.yaml"), GOOD).unwrap();
    let config = text(directory.path());
    let output = check(&["--config", config]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"2 objects, 0 errors, 0 warnings\n"[..]));
    let json = |output: &Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let good = json(&check(&["--config", config, "-o", "json"]));
    assert_eq!((&good["objects"], &good["errors"], &good["problems"]), (&2.into(), &0.into(), &Value::Array(vec![])));
    let wrong = routes("r", "  http:\n    - route: [{destination: {host: reviews, subset: v3}}]\n");
    fs::write(directory.path().join("wrong.yaml"), wrong).unwrap();
    let output = check(&["--config", config, "-o", "json"]);
    let bad = json(&output);
    assert_eq!((output.status.code(), &bad["errors"]), (Some(1), &1.into()), "{bad}");
    let problem = &bad["problems"][0];
    assert_eq!(problem["severity"], "error", "{bad}");
    assert_eq!(problem["object"], "virtualservice/default/r", "{bad}");
    assert_eq!(problem["field"], "spec.http[0].route[0].destination.subset", "{bad}");
    assert_eq!(problem["location"]["file"], text(&directory.path().join("wrong.yaml")), "{bad}");
    assert_eq!(problem["location"]["line"], 1, "{bad}");
    for field in ["message", "consequence", "hint"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {bad}");
    }
    // The way out is one.
    let added = problem["hint"].as_str().unwrap().split_once('\n').unwrap().1.replace("\n  ", "\n    ");
    fs::write(directory.path().join("good.yaml"), format!("{GOOD}  {added}")).unwrap();
    let output = check(&["--config", config]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The commonest mistake: a tutorial's VirtualService alone.
#[test]
fn a_virtual_service_without_its_rule_is_mended_by_pasting_what_check_prints() {
    let directory = TempDir::with_prefix("pointsman-check-").unwrap();
    let service = GOOD[..GOOD.find("---").unwrap()].to_owned();
    let pods = [("v1", "10.0.0.1"), ("v2", "10.0.0.2")].map(|(version, ip)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {version}, labels: {{app: reviews, version: {version}}}}}\n\
             spec: {{containers: [{{name: app}}]}}\nstatus: {{podIP: {ip}, phase: Running}}\n"
        )
    });
    fs::write(directory.path().join("mesh.yaml"), service + &pods.concat() + "---\n" + &split(80, 20)).unwrap();
    let config = text(directory.path());
    let output = check(&["--config", config, "-o", "json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(check(&["--config", config, "--infer-subsets", "version"]).status.code(), Some(0));
    fs::write(directory.path().join("rule.yaml"), said["problems"][0]["hint"].as_str().unwrap()).unwrap();
    let output = check(&["--config", config]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn serve_starts_with_what_is_valid_and_says_what_is_not() {
    let reviews = Reviews::start();
    // Gateways are compiled once there is one; the other two take a name that is used.
    let left_out = ["an object twice", "servers that clash on a port", "50 MB of documents that are no objects"];
    let wrong: Vec<_> = cases().into_iter().filter(|case| !left_out.contains(&case.what)).enumerate().collect();
    let file = |number: usize| format!("z-{number}.yaml");
    let objects = reviews.objects();
    let routes = split(80, 20);
    let mut files = vec![("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &*routes)];
    let others: Vec<_> = wrong
        .iter()
        .map(|(number, case)| {
            // Objects of their own, which do not compete for the routes of `reviews`: the oldest would have them.
            let text = case.text.replace("hosts: [reviews]", &format!("hosts: [other-{number}.example.com]"));
            (
                file(*number),
                text.replace("name: r,", &format!("name: r-{number},"))
                    .replace("{name: r}", &format!("{{name: r-{number}}}")),
            )
        })
        .collect();
    files.extend(others.iter().map(|(name, text)| (&**name, &**text)));
    let mesh = Mesh::start(&files).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(800.0)).unwrap();
    let window = load.next(1000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    let problems = mesh.get("/api/v1/problems").await.to_string();
    for (number, case) in &wrong {
        let name = file(*number);
        assert!(problems.contains(&name), "{}: {name} is not among the problems: {problems}", case.what);
        // And in the log, with the words of `check`.
        let said = format!("{name}:{}", case.place.split(' ').next().unwrap());
        wait::until(&format!("\"{said}\" in the log"), PATIENCE, async || match mesh.server.output() {
            log if log.contains(&said) => Ok(()),
            log => Err(log),
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_file_that_breaks_keeps_its_last_good_state_under_load() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh =
        Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(500.0)).unwrap();
    let begun = Instant::now();
    let negative = split(80, 20).replace("weight: 20", "weight: -20");
    let zeros = "\0".repeat(50_000_000);
    let cut_off = &objects[..objects.rfind("podIP").unwrap()];
    for (file, contents, message) in [
        ("routes.yaml", "kind: [", "invalid YAML"),
        ("routes.yaml", &*negative, "weight -20 is negative"),
        ("rule.yaml", "just words", "expected an object"),
        ("reviews.yaml", &*zeros, "unexpected character"),
        ("reviews.yaml", cut_off, "it no longer shows Pod default/reviews-v2"),
    ] {
        mesh.write(file, contents);
        let said = |value: &Value| {
            let problems = value["problems"].as_array().unwrap();
            problems.iter().any(|problem| problem["message"].as_str().unwrap().contains(message))
        };
        mesh.get_where("/api/v1/problems", &format!("the problem \"{message}\""), said).await;
        load.next(100, PATIENCE).await.unwrap();
    }
    let window = load.since(begun).await;
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    // Mended, in any order, and with news.
    mesh.write("routes.yaml", &split(0, 100));
    mesh.write("reviews.yaml", &objects);
    mesh.write("rule.yaml", SUBSETS);
    let since = marked(&load, Instant::now(), "0/100").await;
    load.next(200, PATIENCE).await.unwrap();
    assert_split(&load.since(since).await.by_backend(), &[("v1", 0), ("v2", 100)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
    mesh.get_where("/api/v1/problems", "no problem", |value| value["problems"] == Value::Array(vec![])).await;
}

#[tokio::test]
async fn a_directory_that_disappears_takes_nothing_with_it_and_is_taken_up_when_it_is_back() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh =
        Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(500.0)).unwrap();
    let begun = Instant::now();
    let gone = |value: &Value| value["problems"].to_string().contains("the path cannot be read");
    fs::remove_dir_all(mesh.files.path()).unwrap();
    mesh.get_where("/api/v1/problems", "the path to be missed", gone).await;
    load.next(400, PATIENCE).await.unwrap();
    let window = load.since(begun).await;
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    // Back, at first empty, then file by file.
    fs::create_dir(mesh.files.path()).unwrap();
    load.next(100, PATIENCE).await.unwrap();
    mesh.write("routes.yaml", &split(0, 100));
    mesh.write("rule.yaml", SUBSETS);
    mesh.write("reviews.yaml", &objects);
    let since = marked(&load, Instant::now(), "0/100").await;
    load.next(200, PATIENCE).await.unwrap();
    assert_split(&load.since(since).await.by_backend(), &[("v1", 0), ("v2", 100)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
    mesh.get_where("/api/v1/problems", "no problem", |value| value["problems"] == Value::Array(vec![])).await;
}
