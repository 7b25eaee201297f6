//! Texts with places that are filled in.

/// Puts what `value` says of a name for each `{{name}}`; blanks around the name do not count.
///
/// # Errors
/// What `value` says of a name that it does not know, or that a `{{` has no end.
pub fn fill_in(text: &str, value: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, behind) = after.split_once("}}").ok_or("there is a {{ without its }}")?;
        filled.push_str(before);
        filled.push_str(&value(name.trim())?);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_the_rest_stays() {
        let value = |name: &str| match name {
            "a" => Ok("1".to_owned()),
            _ => Err(format!("no {name}")),
        };
        assert_eq!(fill_in("x{{a}}{{ a }}{y}", value), Ok("x11{y}".to_owned()));
        assert_eq!(fill_in("{{b}}", value), Err("no b".to_owned()));
        assert!(fill_in("{{a", value).is_err());
    }
}
