//! Whole manifests, the properties that hold for any bytes, and the limits.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use source::text::{Options, Parsed, parse};
use world::{Kind, Spec};

fn read(text: &str) -> Parsed {
    parse("mesh.yaml", text.as_bytes(), &Options::default())
}

fn names(parsed: &Parsed) -> Vec<String> {
    parsed.objects.iter().map(|o| o.reference.to_string()).collect()
}

#[test]
fn a_hand_written_mesh_is_read_without_a_problem() {
    let parsed = read(include_str!("fixtures/bookshop.yaml"));
    assert_eq!(parsed.problems, []);
    assert_eq!(
        names(&parsed),
        [
            "Namespace bookshop",
            "Service bookshop/reviews",
            "DestinationRule bookshop/reviews",
            "VirtualService bookshop/reviews",
            "Gateway bookshop/front",
            "ServiceEntry bookshop/payments",
            "WorkloadEntry bookshop/till",
        ]
    );
    assert_eq!(parsed.others.len(), 2);
    let Spec::VirtualService(routes) = &parsed.objects[3].spec else { panic!("a VirtualService") };
    assert_eq!(routes.http[1].route.iter().map(|d| d.weight).collect::<Vec<_>>(), [Some(80), Some(20)]);
    assert_eq!(routes.http[1].timeout.unwrap().as_millis(), 500);
}

#[test]
fn what_kubectl_prints_is_read_without_a_problem() {
    let parsed = read(include_str!("fixtures/kubectl-list.yaml"));
    assert_eq!(parsed.problems, []);
    assert_eq!(
        names(&parsed),
        ["Service bookshop/ratings", "EndpointSlice bookshop/ratings-x2x7p", "Pod bookshop/ratings-v1-7c9f"]
    );
    assert_eq!(&*parsed.objects[0].meta.created, "2026-03-01T10:20:30Z");
    assert_eq!(parsed.objects[1].meta.generation, 4);
    let Spec::Pod(pod) = &parsed.objects[2].spec else { panic!("a Pod") };
    assert!(pod.is_ready());
    assert_eq!(pod.named_port("web"), Some(9080));
    assert_eq!(parsed.objects[2].meta.location.as_ref().unwrap().to_string(), "mesh.yaml:84:3");
}

#[test]
fn json_means_the_same_as_yaml() {
    let yaml = include_str!("fixtures/bookshop.yaml");
    let documents: Vec<serde_json::Value> =
        yaml.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let lines: Vec<String> = documents.iter().map(|d| serde_json::to_string_pretty(d).unwrap()).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": documents});
    let expected = read(yaml);
    for text in [lines.join("\n"), format!("[{}]", lines.join(",")), list.to_string()] {
        let parsed = parse("mesh.json", text.as_bytes(), &Options::default());
        assert_eq!(parsed.problems, []);
        let specs = |parsed: &Parsed| parsed.objects.iter().map(|o| o.spec.clone()).collect::<Vec<_>>();
        assert_eq!(specs(&parsed), specs(&expected));
    }
}

#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    let parsed = read(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {quoted: 'yes', version: v1}}\n\
         spec: {hostNetwork: yes, containers: [{name: c, ports: [{containerPort: 0120}]}]}",
    );
    assert_eq!(parsed.problems, []);
    let Spec::Pod(pod) = &parsed.objects[0].spec else { panic!("a Pod") };
    assert!(pod.spec.host_network);
    assert_eq!(pod.spec.containers[0].ports[0].container_port, 0o120);
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_no_obstacle() {
    let parsed = read("\u{feff}apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: a\r\n---\r\n");
    assert_eq!(parsed.problems, []);
    assert_eq!(names(&parsed), ["Namespace a"]);
}

#[test]
fn objects_without_a_namespace_go_to_the_default_one() {
    let options = Options { default_namespace: "shop".into(), ..Options::default() };
    let text = b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}";
    let parsed = parse("a.yaml", text, &options);
    assert_eq!(&*parsed.objects[0].reference.namespace, "shop");
    let parsed = parse("a.yaml", b"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}", &options);
    assert_eq!(&*parsed.objects[0].reference.namespace, "");
}

#[test]
fn binary_junk_is_one_problem() {
    let parsed = parse("a.yaml", b"kind: x\n\x00\xff\xfe\x80", &Options::default());
    assert_eq!(parsed.problems.len(), 1);
    assert_eq!(parsed.problems[0].message, "the file is not UTF-8 text: byte 0xff");
    assert_eq!(parsed.problems[0].location.as_ref().unwrap().to_string(), "a.yaml:2:2");
    assert!(parsed.unreadable);
}

#[test]
fn a_file_above_the_limit_is_refused() {
    let options = Options { max_file_bytes: 10, ..Options::default() };
    let parsed = parse("a.yaml", b"kind: Service", &options);
    assert_eq!(parsed.problems[0].message, "the file has 13 bytes, more than the limit of 10");
    assert!(parsed.unreadable);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{items}]\n");
    }
    let parsed = read(&text);
    assert_eq!(parsed.problems.len(), 1);
    assert!(parsed.problems[0].message.contains("limit"), "{}", parsed.problems[0].message);
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        let parsed = parse("deep.json", text.as_bytes(), &Options::default());
        assert!(parsed.unreadable, "{:?}", parsed.problems);
        let parsed = parse("deep.yaml", text.as_bytes(), &Options::default());
        assert!(parsed.unreadable, "{:?}", parsed.problems);
    }
    let blocks: String = (0..200).map(|depth| " ".repeat(depth) + "a:\n").collect();
    for text in [blocks, "[".repeat(20_000)] {
        assert_eq!(read(&text).problems[0].message, "invalid YAML: values are nested deeper than 100");
    }
}

#[test]
fn a_file_of_nothing_but_broken_documents_is_given_up() {
    let list = format!("[{}]", "a, ".repeat(10_000));
    for text in ["a: [\n---\n".repeat(10_000), "a\n---\n".repeat(10_000), list] {
        let parsed = read(&text);
        assert_eq!(parsed.problems.len(), 101);
        assert_eq!(parsed.problems[100].message, "100 documents of this file cannot be read");
    }
}

#[test]
fn many_documents_are_no_problem() {
    let text: String = (0..3_000)
        .map(|n| {
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n")
        })
        .collect();
    let parsed = read(&text);
    assert_eq!((parsed.problems.len(), parsed.objects.len()), (0, 3_000));
}

/// Manifest-like text: pieces that mean something in YAML or to us, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("apiVersion: networking.istio.io/v1\n"),
        Just("kind: VirtualService\n"),
        Just("kind: List\nitems:\n"),
        Just("metadata: {name: a}\n"),
        Just("spec:\n  http:\n  - route:\n    - weight: -1\n"),
        Just("---\n"),
        Just("- "),
        Just("  "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("\""),
        Just(": "),
        Just("&a "),
        Just("*a "),
        Just("<<: *a\n"),
        Just("!!binary x\n"),
        Just("|\n"),
        Just("\t"),
        Just("null"),
        Just(".nan\n"),
        Just("99999999999999999999\n"),
        Just("%YAML 1.2\n"),
        Just("...\n"),
        Just("? "),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parse("a.yaml", &bytes, &Options::default());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        parse("a.json", text.as_bytes(), &Options::default());
    }

    #[test]
    fn no_arrangement_of_yaml_makes_the_reader_panic(text in pieces()) {
        let parsed = parse("a.yaml", text.as_bytes(), &Options::default());
        prop_assert!(parsed.objects.iter().all(|o| o.reference.kind != Kind::Other("".into())));
    }

    /// Whatever stands before and after it, a sound document between marker lines is read. (Only a `%` directive
    /// reaches over the marker below it.)
    #[test]
    fn a_sound_document_is_read_beside_any_other(before in "[ -$&-~\n]{0,80}", after in "[ -~\n]{0,80}") {
        let text = format!("{before}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: sound}}\n---\n{after}");
        let parsed = read(&text);
        prop_assert!(parsed.objects.iter().any(|o| &*o.reference.name == "sound"), "{text}\n{:?}", parsed.problems);
    }
}
