//! Conditions in Envoy's expression language (CEL), which compares as many values as there are, where a regular expression of
//! all of them would be longer than Envoy takes.

use proto::pb::envoy::config::core::v3::TypedExtensionConfig;
use proto::pb::envoy::config::route::v3::rate_limit::Action;
use proto::pb::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use proto::pb::envoy::extensions::rate_limit_descriptors::expr::v3::Descriptor;
use proto::pb::envoy::extensions::rate_limit_descriptors::expr::v3::descriptor::ExprSpecifier;

use super::value::Form;
use crate::Options;
use crate::pack::any;
use crate::route::regex;

/// The value of an entry whose condition holds.
pub(super) const HOLDS: &str = "yes";
/// What fails, and so makes no entry: no request has such a header, because a name has no space.
const FAILS: &str = "request.headers['no limit']";

/// The expression that is [`HOLDS`] when the header has one of the values, and fails when it has not, or is missing.
///
/// # Errors
/// Says which value is too long. Only of hosts some are: their case does not count, which takes a regular expression each.
pub(super) fn of(header: &str, values: &[String], form: Form) -> Result<String, String> {
    let value = match form {
        Form::Text => format!("request.headers[{}]", quoted(header)),
        Form::Path => "request.url_path".to_owned(),
        Form::Host => "request.host".to_owned(),
    };
    let one = |text: &String| match (form, text.strip_suffix('*'), text.strip_prefix('*')) {
        (Form::Host, ..) => {
            let pattern = host(text);
            // Expressions know no other bound (`source/extensions/filters/common/expr/evaluator.cc`).
            regex::check(&pattern, Options::DEFAULT_REGEX_INSTRUCTIONS)
                .map_err(|why| format!("\"{text}\" is too long: {why}"))?;
            Ok(format!("{value}.matches({})", quoted(&pattern)))
        }
        (_, Some(prefix), _) => Ok(format!("{value}.startsWith({})", quoted(prefix))),
        (_, None, Some(suffix)) => Ok(format!("{value}.endsWith({})", quoted(suffix))),
        (_, None, None) => Ok(format!("{value} == {}", quoted(text))),
    };
    let alternatives: Result<Vec<_>, String> = values.iter().map(one).collect();
    Ok(format!("{} ? '{HOLDS}' : {FAILS}", alternatives?.join(" || ")))
}

/// The action that makes an entry of what the expression comes to, and no descriptor if it fails.
pub(super) fn action(key: &str, text: &str) -> Action {
    let descriptor = Descriptor {
        descriptor_key: key.to_owned(),
        skip_if_error: false,
        expr_specifier: Some(ExprSpecifier::Text(text.to_owned())),
    };
    let extension = TypedExtensionConfig {
        name: "envoy.rate_limit_descriptors.expr".to_owned(),
        typed_config: Some(any(&descriptor)),
    };
    Action { action_specifier: Some(ActionSpecifier::Extension(extension)) }
}

fn host(text: &str) -> String {
    let name = match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(prefix), _) => format!("{}.*", regex_syntax::escape(prefix)),
        (None, Some(suffix)) => format!(".*{}", regex_syntax::escape(suffix)),
        (None, None) => regex_syntax::escape(text),
    };
    format!("(?i)^{name}(?::[0-9]+)?$")
}

/// A text of the language. (Control characters are kept out by the source.)
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_form_compares_what_is_its_own() {
        let of = |header, values: &[&str], form| {
            of(header, &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>(), form)
        };
        assert_eq!(
            of(":path", &["/a", "/b/*", "*.png"], Form::Path).unwrap(),
            "request.url_path == '/a' || request.url_path.startsWith('/b/') || request.url_path.endsWith('.png') \
             ? 'yes' : request.headers['no limit']"
        );
        assert_eq!(
            of("x-tier", &["it's", r"a\b"], Form::Text).unwrap(),
            r"request.headers['x-tier'] == 'it\'s' || request.headers['x-tier'] == 'a\\b' ? 'yes' : request.headers['no limit']"
        );
        assert_eq!(
            of(":authority", &["a.test"], Form::Host).unwrap(),
            r"request.host.matches('(?i)^a\\.test(?::[0-9]+)?$') ? 'yes' : request.headers['no limit']"
        );
        let error = of(":authority", &["a.test", &"b".repeat(200)], Form::Host).unwrap_err();
        assert!(error.contains("bbb\" is too long"), "{error}");
    }
}
