//! A DestinationRule, or an addition to one, for subsets that a route names and nobody defines.

use std::fmt::Write as _;

use world::{Hostname, ObjectRef};

/// A manifest that defines `subsets` of `host`, each by its name as the value of the label `label_key`, ready to
/// paste. Its namespace is that of the Kubernetes service behind the host; for other hosts `default`. It ends with a
/// line break.
pub(crate) fn suggestion(host: &Hostname, subsets: &[&str], label_key: &str) -> String {
    let mut labels = host.as_str().trim_start_matches("*.").split('.');
    let name = labels.next().filter(|first| *first != "*" && !first.is_empty()).unwrap_or("all");
    let namespace = match (labels.next(), labels.next()) {
        (Some(namespace), Some("svc")) => namespace,
        _ => "default",
    };
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {}\n  namespace: {}\n\
         spec:\n  host: {}\n  subsets:\n",
        scalar(name),
        scalar(namespace),
        scalar(host.as_str())
    );
    write_subsets(&mut text, subsets, label_key);
    text
}

/// The same for a host that has a rule already: what to add to that one. A manifest of a second rule would often have the
/// name of the first.
pub(crate) fn addition(rule: &ObjectRef, subsets: &[&str], label_key: &str) -> String {
    let mut text = format!("Add to spec.subsets of {rule}:\n");
    write_subsets(&mut text, subsets, label_key);
    text
}

fn write_subsets(text: &mut String, subsets: &[&str], label_key: &str) {
    for subset in subsets {
        // Writing to a String cannot fail.
        let _ = write!(text, "  - name: {0}\n    labels:\n      {1}: {0}\n", scalar(subset), scalar(label_key));
    }
}

/// A string as a YAML scalar: plain where every YAML reader takes it for a string, else in double quotes.
fn scalar(text: &str) -> String {
    let letter_first = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    // Words that YAML 1.1 reads as booleans or null.
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if letter_first && plain && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Writing to a String cannot fail.
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use world::Kind;

    use super::*;

    #[test]
    fn a_rule_that_exists_is_named_with_what_it_lacks() {
        let rule = ObjectRef::new(Kind::DestinationRule, "shop", "reviews");
        assert_eq!(
            addition(&rule, &["v3", "4"], "version"),
            "Add to spec.subsets of DestinationRule shop/reviews:\n  \
             - name: v3\n    labels:\n      version: v3\n  \
             - name: \"4\"\n    labels:\n      version: \"4\"\n"
        );
    }

    #[test]
    fn the_rule_stands_in_the_services_namespace_and_selects_by_the_label() {
        let text = suggestion(&Hostname::new("reviews.shop.svc.cluster.local"), &["v1", "v2"], "version");
        assert_eq!(
            text,
            "apiVersion: networking.istio.io/v1\n\
             kind: DestinationRule\n\
             metadata:\n  name: reviews\n  namespace: shop\n\
             spec:\n  host: reviews.shop.svc.cluster.local\n  subsets:\n  \
             - name: v1\n    labels:\n      version: v1\n  \
             - name: v2\n    labels:\n      version: v2\n"
        );
    }

    #[test]
    fn names_that_yaml_would_read_as_numbers_or_booleans_are_quoted() {
        let text = suggestion(&Hostname::new("*.example.com"), &["1", "on", "a\"b\n"], "app.kubernetes.io/version");
        assert!(text.contains("host: \"*.example.com\"\n"), "{text}");
        assert!(text.contains("name: \"1\"\n    labels:\n      app.kubernetes.io/version: \"1\"\n"), "{text}");
        assert!(text.contains("name: \"on\"\n"), "{text}");
        assert!(text.contains(r#"name: "a\"b\u000a""#), "{text}");
    }
}
