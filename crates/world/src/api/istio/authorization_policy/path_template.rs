//! Paths with `{*}` and `{**}`.

/// A path of which parts are left open: `/users/{*}/orders`, `/static/{**}/index.html`.
///
/// It is what Envoy's URI templates can express (`source/extensions/path/uri_template_lib`, 1.40), as Envoy refuses a
/// whole listener for one that it does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// What stands between the slashes, of which the path begins with one. A last one that is empty is a slash at the end.
    pub segments: Vec<Segment>,
    /// Text behind the last segment, if that is open; may be empty.
    pub suffix: String,
}

/// One part of a [`PathTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This.
    Literal(String),
    /// `{*}`: one segment, which is not empty.
    One,
    /// `{**}`: any number of segments, also none.
    Any,
}

impl PathTemplate {
    /// Whether a path of a policy is a template at all.
    pub fn is_meant(text: &str) -> bool {
        text.contains("{*}") || text.contains("{**}")
    }

    /// Reads a template.
    ///
    /// # Errors
    /// Says what Envoy would not take.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("\"{text}\" is not a path template: {why}"));
        let Some(rest) = text.strip_prefix('/') else { return wrong("it does not begin with a slash") };
        let (mut segments, mut suffix, mut is_last) = (Vec::new(), String::new(), false);
        let count = rest.split('/').count();
        for (at, part) in rest.split('/').enumerate() {
            if is_last {
                return wrong("nothing but text may follow an open part within its segment, and only in the last one");
            }
            let (segment, behind) = match (part.strip_prefix("{**}"), part.strip_prefix("{*}")) {
                (Some(behind), _) => (Segment::Any, behind),
                (None, Some(behind)) => (Segment::One, behind),
                (None, None) => (Segment::Literal(part.to_owned()), ""),
            };
            if !matches!(segment, Segment::Literal(_)) && segments.contains(&Segment::Any) {
                return wrong("no open part may follow {**}");
            }
            let is_end = at + 1 == count && at > 0;
            match &segment {
                Segment::Literal(text) if text.is_empty() && is_end => {}
                Segment::Literal(text) if !is_text(text) => {
                    return wrong("between slashes there may be {*}, {**}, or letters, digits and -._~%!$&'()+,;:@");
                }
                Segment::Literal(_) | Segment::One | Segment::Any => {}
            }
            if !behind.is_empty() {
                if !is_text(behind) {
                    return wrong("only text may follow an open part within its segment");
                }
                suffix = behind.to_owned();
                is_last = true;
            }
            segments.push(segment);
        }
        Ok(Self { segments, suffix })
    }

    /// As Envoy writes it: `/users/*/orders`.
    pub fn to_envoy(&self) -> String {
        let part = |segment: &Segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::One => "/*".to_owned(),
            Segment::Any => "/**".to_owned(),
        };
        let mut text: String = self.segments.iter().map(part).collect();
        text.push_str(&self.suffix);
        text
    }
}

/// The characters of a path that Envoy knows in templates (`kLiteral`).
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn templates_are_written_as_envoy_writes_them() {
        for (text, envoy) in [
            ("/users/{*}/orders", "/users/*/orders"),
            ("/{**}", "/**"),
            ("/static/{**}/index.html", "/static/**/index.html"),
            ("/{*}/{**}", "/*/**"),
            ("/img/{*}.png", "/img/*.png"),
            ("/a/{*}/", "/a/*/"),
        ] {
            assert_eq!(PathTemplate::parse(text).unwrap().to_envoy(), envoy, "{text}");
        }
    }

    #[test]
    fn what_envoy_does_not_take_is_told() {
        for text in [
            "{*}",
            "/a//{*}",
            "/{**}/{*}",
            "/{**}/{**}",
            "/a{*}",
            "/{*}.png/x",
            "/{*}{*}",
            "/*/{*}",
            "/{name}/{*}",
            "/{a=*}/{*}",
            "/{}/{*}",
            "/ü/{*}",
            "/a b/{*}",
            "/a=b/{*}",
            "/{*}/**",
        ] {
            assert!(PathTemplate::parse(text).is_err(), "{text}");
        }
    }
}
