//! Which nodes a request for client status is about.

use proto::pb::envoy::r#type::matcher::v3::double_matcher::MatchPattern as Number;
use proto::pb::envoy::r#type::matcher::v3::list_matcher::MatchPattern as List;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern as Text;
use proto::pb::envoy::r#type::matcher::v3::struct_matcher::path_segment::Segment;
use proto::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern as Pattern;
use proto::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher, StructMatcher, ValueMatcher};
use proto::pb::google::protobuf::Value;
use proto::pb::google::protobuf::value::Kind;
use regex::{Regex, RegexBuilder};
use xds::Node;

/// A node is taken when any of these takes it, or when there are none.
#[derive(Debug)]
pub(super) struct Matchers(Vec<Matcher>);

/// Takes a node when the id and all of the metadata match.
#[derive(Debug)]
struct Matcher {
    id: Option<TextMatcher>,
    metadata: Vec<(Vec<String>, ValueTest)>,
}

#[derive(Debug)]
enum TextMatcher {
    Exact(String, bool),
    Prefix(String, bool),
    Suffix(String, bool),
    Contains(String, bool),
    Regex(Regex),
}

#[derive(Debug)]
enum ValueTest {
    Null,
    Number(Number),
    Text(TextMatcher),
    Bool(bool),
    Present(bool),
    OneOf(Box<ValueTest>),
    Any(Vec<ValueTest>),
}

impl Matchers {
    /// # Errors
    /// A matcher that says nothing, or that is not understood here; in words.
    pub(super) fn new(matchers: &[NodeMatcher]) -> Result<Self, String> {
        matchers.iter().map(Matcher::new).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the request is about this node.
    pub(super) fn take(&self, node: &Node) -> bool {
        self.0.is_empty() || self.0.iter().any(|matcher| matcher.takes(node))
    }
}

impl Matcher {
    fn new(matcher: &NodeMatcher) -> Result<Self, String> {
        let id = matcher.node_id.as_ref().map(TextMatcher::new).transpose()?;
        let metadata = matcher.node_metadatas.iter().map(metadata).collect::<Result<_, _>>()?;
        Ok(Self { id, metadata })
    }

    fn takes(&self, node: &Node) -> bool {
        let at = |path: &[String]| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            node.metadata_value(&path).cloned()
        };
        self.id.as_ref().is_none_or(|id| id.takes(&node.id))
            && self.metadata.iter().all(|(path, test)| test.takes(at(path).as_ref()))
    }
}

fn metadata(matcher: &StructMatcher) -> Result<(Vec<String>, ValueTest), String> {
    let keys = matcher.path.iter().map(|segment| match &segment.segment {
        Some(Segment::Key(key)) => Ok(key.clone()),
        None => Err("a path segment without a key".to_owned()),
    });
    let value = matcher.value.as_ref().ok_or("a metadata matcher without a value")?;
    Ok((keys.collect::<Result<_, _>>()?, ValueTest::new(value)?))
}

impl TextMatcher {
    fn new(matcher: &StringMatcher) -> Result<Self, String> {
        let ignore_case = matcher.ignore_case;
        let fold = |text: &String| if ignore_case { text.to_lowercase() } else { text.clone() };
        match &matcher.match_pattern {
            Some(Text::Exact(text)) => Ok(Self::Exact(fold(text), ignore_case)),
            Some(Text::Prefix(text)) => Ok(Self::Prefix(fold(text), ignore_case)),
            Some(Text::Suffix(text)) => Ok(Self::Suffix(fold(text), ignore_case)),
            Some(Text::Contains(text)) => Ok(Self::Contains(fold(text), ignore_case)),
            Some(Text::SafeRegex(regex)) => RegexBuilder::new(&format!("^(?:{})$", regex.regex))
                .size_limit(1 << 20)
                .build()
                .map(Self::Regex)
                .map_err(|error| error.to_string()),
            Some(Text::Custom(_)) => Err("custom string matchers are not understood here".to_owned()),
            None => Err("a string matcher without a pattern".to_owned()),
        }
    }

    fn takes(&self, text: &str) -> bool {
        let fold = |ignore_case: &bool| if *ignore_case { text.to_lowercase() } else { text.to_owned() };
        match self {
            Self::Exact(wanted, ignore_case) => fold(ignore_case) == *wanted,
            Self::Prefix(wanted, ignore_case) => fold(ignore_case).starts_with(wanted),
            Self::Suffix(wanted, ignore_case) => fold(ignore_case).ends_with(wanted),
            Self::Contains(wanted, ignore_case) => fold(ignore_case).contains(wanted),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

impl ValueTest {
    fn new(matcher: &ValueMatcher) -> Result<Self, String> {
        match &matcher.match_pattern {
            Some(Pattern::NullMatch(_)) => Ok(Self::Null),
            Some(Pattern::DoubleMatch(number)) => {
                number.match_pattern.map(Self::Number).ok_or("a number matcher without a pattern".to_owned())
            }
            Some(Pattern::StringMatch(text)) => TextMatcher::new(text).map(Self::Text),
            Some(Pattern::BoolMatch(wanted)) => Ok(Self::Bool(*wanted)),
            Some(Pattern::PresentMatch(wanted)) => Ok(Self::Present(*wanted)),
            Some(Pattern::ListMatch(list)) => match &list.match_pattern {
                Some(List::OneOf(one)) => Ok(Self::OneOf(Box::new(Self::new(one)?))),
                None => Err("a list matcher without a pattern".to_owned()),
            },
            Some(Pattern::OrMatch(any)) => {
                any.value_matchers.iter().map(Self::new).collect::<Result<_, _>>().map(Self::Any)
            }
            None => Err("a value matcher without a pattern".to_owned()),
        }
    }

    fn takes(&self, value: Option<&Value>) -> bool {
        let kind = value.and_then(|value| value.kind.as_ref());
        match (self, kind) {
            (Self::Present(wanted), kind) => kind.is_some() == *wanted,
            (Self::Any(tests), _) => tests.iter().any(|test| test.takes(value)),
            (Self::Null, Some(Kind::NullValue(_))) => true,
            (Self::Number(Number::Exact(wanted)), Some(Kind::NumberValue(number))) => number == wanted,
            (Self::Number(Number::Range(range)), Some(Kind::NumberValue(number))) => {
                (range.start..range.end).contains(number)
            }
            (Self::Text(text), Some(Kind::StringValue(value))) => text.takes(value),
            (Self::Bool(wanted), Some(Kind::BoolValue(value))) => value == wanted,
            (Self::OneOf(test), Some(Kind::ListValue(list))) => list.values.iter().any(|item| test.takes(Some(item))),
            (Self::Null | Self::Number(_) | Self::Text(_) | Self::Bool(_) | Self::OneOf(_), _) => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use proto::pb::envoy::r#type::matcher::v3::struct_matcher::PathSegment;
    use proto::pb::google::protobuf::Struct;

    use super::*;

    fn node(id: &str, version: &str) -> Node {
        let value = Value { kind: Some(Kind::StringValue(version.to_owned())) };
        let fields = HashMap::from([("ISTIO_VERSION".to_owned(), value)]);
        Node { id: id.to_owned(), metadata: Struct { fields }, ..Node::default() }
    }

    fn text(pattern: Text) -> StringMatcher {
        StringMatcher { match_pattern: Some(pattern), ignore_case: false }
    }

    fn by_version(pattern: Pattern) -> NodeMatcher {
        let path = vec![PathSegment { segment: Some(Segment::Key("ISTIO_VERSION".to_owned())) }];
        let value = Some(ValueMatcher { match_pattern: Some(pattern) });
        NodeMatcher { node_id: None, node_metadatas: vec![StructMatcher { path, value }] }
    }

    #[test]
    fn no_matcher_takes_every_node_and_any_of_several_is_enough() {
        assert!(Matchers::new(&[]).unwrap().take(&node("a", "1")));
        let id = |id: &str| NodeMatcher { node_id: Some(text(Text::Exact(id.to_owned()))), node_metadatas: vec![] };
        let matchers = Matchers::new(&[id("a"), id("b")]).unwrap();
        assert!(matchers.take(&node("a", "")) && matchers.take(&node("b", "")) && !matchers.take(&node("ab", "")));
    }

    #[test]
    fn id_and_metadata_must_both_match() {
        let mut matcher = by_version(Pattern::StringMatch(text(Text::Prefix("1.2".to_owned()))));
        matcher.node_id = Some(text(Text::Suffix(".default".to_owned())));
        let matchers = Matchers::new(&[matcher]).unwrap();
        assert!(matchers.take(&node("x.default", "1.27")));
        assert!(!matchers.take(&node("x.default", "1.31")) && !matchers.take(&node("x.other", "1.27")));
    }

    #[test]
    fn absence_can_be_asked_for() {
        let matchers = Matchers::new(&[by_version(Pattern::PresentMatch(false))]).unwrap();
        assert!(matchers.take(&Node { id: "bare".to_owned(), ..Node::default() }));
        assert!(!matchers.take(&node("a", "1")));
    }

    #[test]
    fn what_says_nothing_is_refused_in_words() {
        let empty = NodeMatcher { node_id: Some(StringMatcher::default()), node_metadatas: vec![] };
        assert_eq!(Matchers::new(&[empty]).unwrap_err(), "a string matcher without a pattern");
    }
}
