//! Variables in queries: `{{ name }}`.

/// Puts values for variables, and lists those without one, which stay. What Pointsman itself fills in stays as well.
pub(super) fn fill(text: &str, known: &[(String, String)]) -> (String, Vec<String>) {
    let mut filled = String::new();
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        filled.push_str(before);
        let name = name.trim().trim_start_matches('.');
        match known.iter().find(|(known, _)| known == name) {
            Some((_, value)) => filled.push_str(value),
            None => {
                if name != "revision" && !unknown.iter().any(|before| before == name) {
                    unknown.push(name.to_owned());
                }
                filled.push_str(&format!("{{{{{name}}}}}"));
            }
        }
        rest = behind;
    }
    filled.push_str(rest);
    (filled, unknown)
}

/// Whether the text has this variable.
pub(super) fn asks(text: &str, name: &str) -> bool {
    let parts = text.split("{{").skip(1).filter_map(|part| part.split_once("}}"));
    parts.into_iter().any(|(variable, _)| variable.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_and_those_without_a_value_are_told() {
        let known = [("namespace".to_owned(), "shop".to_owned())];
        let (filled, unknown) = fill("a{ns=\"{{ namespace }}\",r=\"{{revision}}\"}[{{interval}}] {{", &known);
        assert_eq!(filled, "a{ns=\"shop\",r=\"{{revision}}\"}[{{interval}}] {{");
        assert_eq!(unknown, ["interval"]);
        assert!(asks("{{ target }}", "target") && !asks("target", "target"));
    }
}
