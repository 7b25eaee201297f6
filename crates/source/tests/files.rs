//! What follows when files come, change, break and go.
#![allow(clippy::unwrap_used)]

use source::{Content, Files, Options, Update};
use testkit::leaks::Secrets;
use world::{Change, Severity};

fn files() -> Files {
    Files::new(Options::default())
}

fn namespace(name: &str, label: &str) -> String {
    let label = if label == "{}" { label.to_owned() } else { format!("'{label}'") };
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{l: {label}}}}}\n---\n")
}

fn text(text: impl AsRef<str>) -> Content {
    Content::Text(text.as_ref().as_bytes().to_vec())
}

/// `+a=x` for an object with label x, `-a` for a removal.
fn said(changes: &[Change]) -> Vec<String> {
    let change = |change: &Change| match change {
        Change::Apply(object) => format!("+{}={}", object.reference.name, object.meta.labels["l"]),
        Change::Remove(reference) => format!("-{}", reference.name),
    };
    changes.iter().map(change).collect()
}

fn messages(update: &Update) -> Vec<String> {
    update.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn only_what_differs_is_a_change() {
    let mut files = files();
    let update = files.apply("a.yaml", text(namespace("a", "1") + &namespace("b", "1")));
    assert_eq!(said(&update.changes), ["+a=1", "+b=1"]);
    let update = files.apply("a.yaml", text(namespace("a", "1") + &namespace("b", "2")));
    assert_eq!(said(&update.changes), ["+b=2"]);
    let update = files.apply("a.yaml", text(namespace("a", "1") + &namespace("b", "2")));
    assert_eq!(said(&update.changes), [""; 0]);
    let update = files.apply("a.yaml", text(namespace("b", "2")));
    assert_eq!(said(&update.changes), ["+b=2", "-a"], "b has another line now");
    let update = files.apply("a.yaml", Content::Gone);
    assert_eq!(said(&update.changes), ["-b"]);
}

#[test]
fn an_object_that_moves_between_files_is_never_gone() {
    let mut files = files();
    files.apply("a.yaml", text(namespace("x", "1")));
    assert_eq!(said(&files.take("a.yaml", text(""))), [""; 0]);
    assert!(files.is_unsettled());
    assert_eq!(said(&files.take("b.yaml", text(namespace("x", "1")))), ["+x=1"]);
    assert_eq!(said(&files.settle()), [""; 0]);
    assert_eq!(files.objects().count(), 1);
}

#[test]
fn a_broken_version_leaves_the_last_good_one_in_force() {
    let mut files = files();
    files.apply("a.yaml", text(namespace("x", "one") + &namespace("w", "one")));
    let update = files.apply("a.yaml", text(namespace("x", "{}") + &namespace("w", "two")));
    assert_eq!(said(&update.changes), ["+w=two"]);
    assert_eq!(
        messages(&update),
        ["error: a.yaml:3:33: Namespace x: metadata.labels.l: expected a string, found a mapping; the object is not \
          applied; the last good version, if there is one, stays in force"]
    );
    // It holds for as long as the broken version stands there, and ends with it.
    let update = files.apply("a.yaml", text(namespace("w", "three") + &namespace("x", "{}")));
    assert_eq!(said(&update.changes), ["+w=three"]);
    let update = files.apply("a.yaml", text(namespace("w", "three")));
    assert_eq!(said(&update.changes), ["-x"]);
    assert_eq!(messages(&update), [""; 0]);
}

#[test]
fn a_file_with_an_unreadable_part_loses_nothing() {
    let mut files = files();
    files.apply("a.yaml", text(namespace("x", "1") + &namespace("w", "1") + &namespace("z", "1")));
    let update = files.apply("a.yaml", text(namespace("x", "2") + "kind: [\n---\n" + &namespace("z", "2")));
    assert_eq!(said(&update.changes), ["+x=2", "+z=2"]);
    assert_eq!(
        messages(&update),
        [
            "warning: a.yaml: a part of the file cannot be read, and it no longer shows Namespace w; these stay in \
             force until all of the file can be read",
            "error: a.yaml:5:7: invalid YAML: unclosed bracket '['; the document is skipped, and objects that the file \
             defined before stay in force until all of it can be read",
        ]
    );
    let update = files.apply("a.yaml", text(namespace("x", "2") + &namespace("z", "2")));
    assert_eq!(said(&update.changes), ["+z=2", "-w"], "z has another line now");
}

#[test]
fn a_file_that_cannot_be_opened_keeps_what_it_said() {
    let mut files = files();
    files.apply("a.yaml", text(namespace("x", "1")));
    let update = files.apply("a.yaml", Content::Unreadable("permission denied".into()));
    assert_eq!(said(&update.changes), [""; 0]);
    assert_eq!(
        messages(&update),
        ["error: a.yaml: the file cannot be read: permission denied; what it said before stays in force until it can \
          be read again"]
    );
    let update = files.apply("a.yaml", text(namespace("x", "1")));
    assert_eq!((said(&update.changes), messages(&update)), (vec![], vec![]));
}

#[test]
fn of_two_definitions_the_first_by_file_and_position_counts() {
    let mut files = files();
    let update = files.apply("b.yaml", text(namespace("x", "b1") + &namespace("x", "b2")));
    assert_eq!(said(&update.changes), ["+x=b1"]);
    assert_eq!(
        messages(&update),
        ["error: b.yaml:5:1: Namespace x: the object is already defined at b.yaml:1:1; this definition is not \
          applied\n    Remove one of the two, or give it another name or namespace."]
    );
    let update = files.apply("a.yaml", text(namespace("x", "a")));
    assert_eq!(said(&update.changes), ["+x=a"]);
    let places: Vec<_> = update.problems.iter().map(|p| p.location.as_ref().unwrap().to_string()).collect();
    assert_eq!(places, ["b.yaml:1:1", "b.yaml:5:1"]);
    assert!(update.problems.iter().all(|p| p.severity == Severity::Error && p.message.contains("a.yaml:1:1")));
    let update = files.apply("c.yaml", text(namespace("x", "c")));
    assert_eq!(said(&update.changes), [""; 0]);
    let update = files.apply("a.yaml", Content::Gone);
    assert_eq!(said(&update.changes), ["+x=b1"]);
    files.apply("b.yaml", Content::Gone);
    let update = files.apply("c.yaml", text(namespace("x", "c")));
    assert_eq!(messages(&update), [""; 0]);
}

#[test]
fn an_object_that_moves_and_breaks_keeps_its_last_good_version() {
    let mut files = files();
    files.apply("a.yaml", text(namespace("x", "1")));
    files.take("b.yaml", text(namespace("x", "{}")));
    files.take("a.yaml", Content::Gone);
    assert_eq!(said(&files.settle()), [""; 0]);
    let update = files.apply("b.yaml", text(namespace("x", "2")));
    assert_eq!(said(&update.changes), ["+x=2"]);
}

#[test]
fn a_missing_path_is_a_problem_until_it_is_back() {
    let mut files = files();
    files.apply("dir/a.yaml", text(namespace("x", "1")));
    files.set_missing("dir", Some("no such directory".into()));
    assert_eq!(
        files.problems()[0].to_string(),
        "error: dir: the path cannot be read: no such directory; what it said before stays in force until it can be \
         read again"
    );
    files.set_missing("dir", None);
    assert_eq!(files.problems().len(), 0);
    assert_eq!(files.objects().count(), 1);
}

#[test]
fn a_file_that_went_with_its_whole_path_is_put_back() {
    let mut files = files();
    files.apply("dir/a.yaml", text(namespace("x", "1")));
    files.take("dir/a.yaml", Content::Gone);
    assert_eq!(said(&files.restore("dir/a.yaml")), [""; 0]);
    assert_eq!(said(&files.settle()), [""; 0]);
    files.take("dir/a.yaml", Content::Gone);
    assert_eq!(said(&files.settle()), ["-x"]);
    assert_eq!(said(&files.restore("dir/a.yaml")), [""; 0], "it is settled");
}

/// A `Secret` with a self-signed pair, as `kubectl create secret tls` makes it.
fn secret(name: &str, pair: &(String, String)) -> String {
    let (chain, key) = pair;
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: edge}}\ntype: kubernetes.io/tls\n\
         stringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        indented(chain),
        indented(key)
    )
}

fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["shop.test".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_second_definition_of_a_secret_is_told_and_the_first_one_counts() {
    let (first, second) = (pair(), pair());
    let mut files = files();
    files.apply("a.yaml", text(secret("shop", &first) + &secret("shop", &second)));
    let update = files.apply("b.yaml", text(secret("shop", &second)));
    assert_eq!(key_in_force(&update), first.1);
    let said: Vec<_> = update.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].contains("Secret edge/shop: the object is already defined at a.yaml:1:1"), "{said:#?}");
    assert!(said[1].starts_with("error: b.yaml:1:1: Secret edge/shop: the object is already defined at a.yaml"));
    let update = files.apply("a.yaml", Content::Gone);
    assert_eq!((key_in_force(&update), update.problems.len()), (&*second.1, 0));
}

/// The key of the only secret in force.
fn key_in_force(update: &Update) -> &str {
    assert_eq!(update.secrets.len(), 1);
    update.secrets.values().next().unwrap().pair().unwrap().1
}

#[test]
fn a_broken_secret_leaves_the_last_good_one_in_force_and_never_becomes_an_object() {
    let (first, second) = (pair(), pair());
    let mut files = files();
    let update = files.apply("a.yaml", text(secret("shop", &first)));
    assert!(update.changes.is_empty() && update.problems.is_empty(), "{update:?}");
    assert_eq!(key_in_force(&update), first.1);
    let mut keys = Secrets::default();
    keys.add_key("first", &first.1);
    keys.add_key("second", &second.1);
    let parsed = source::text::parse("a.yaml", secret("shop", &first).as_bytes(), &Options::default());
    for shown in [format!("{update:?}"), format!("{files:?}"), format!("{parsed:?}"), format!("{:?}", text(&first.1))] {
        assert_eq!(keys.in_bytes(shown.as_bytes()), []);
    }

    let mixed = (first.0.clone(), second.1.clone());
    let update = files.apply("a.yaml", text(secret("shop", &mixed)));
    assert_eq!(key_in_force(&update), first.1);
    let message = update.problems[0].to_string();
    assert!(message.contains("Secret edge/shop: stringData[tls.key]"), "{message}");
    assert_eq!(keys.in_bytes(message.as_bytes()), []);
    let update = files.apply("a.yaml", Content::Unreadable("gone fishing".to_owned()));
    assert_eq!(key_in_force(&update), first.1);

    let update = files.apply("a.yaml", text(secret("shop", &second)));
    assert_eq!((key_in_force(&update), update.problems.len()), (&*second.1, 0));
    // It moves to another file, and goes.
    files.take("a.yaml", Content::Gone);
    assert_eq!(files.secrets().len(), 1);
    let update = files.apply("b.yaml", text(secret("shop", &first)));
    assert_eq!(key_in_force(&update), first.1);
    assert!(files.apply("b.yaml", Content::Gone).secrets.is_empty());
}
