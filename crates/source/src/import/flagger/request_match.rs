//! `analysis.match`: the conditions that Flagger puts into a VirtualService.

use world::api::delivery::{FieldMatch, RequestMatch};

use crate::import::Section;

/// The alternatives that can be said, which may be none; `None` when there is no `match` at all. One that cannot be said as a whole is
/// left out as a whole: without one of its conditions it would take more requests than were meant.
pub(super) fn matches(analysis: &Section<'_, '_>) -> Option<Vec<RequestMatch>> {
    let alternatives = analysis.sections("match");
    if alternatives.is_empty() {
        return None;
    }
    Some(alternatives.into_iter().filter_map(alternative).collect())
}

fn alternative(section: Section<'_, '_>) -> Option<RequestMatch> {
    let mut found = RequestMatch::default();
    let known = ["headers", "uri", "method", "queryParams", "sourceLabels"];
    let strange = section.keys().into_iter().find(|key| !known.contains(key));
    let many = ["headers", "queryParams"].into_iter().find(|name| {
        section.section(name).is_some_and(|fields| fields.keys().iter().filter(|k| fields.has(k)).count() > 1)
    });
    if let Some(field) = strange.or(many) {
        section.lose_all(format!("an alternative with such {field} cannot be said, and is left out"));
        return None;
    }
    if let Some((name, value)) = named(&section, "headers") {
        found.header = Some(FieldMatch { name: name.to_ascii_lowercase(), ..value });
    }
    if let Some((name, value)) = named(&section, "queryParams") {
        found.query = Some(FieldMatch { name, ..value });
    }
    found.path = section.section("uri").map(|uri| field(&uri));
    found.method = section.section("method").and_then(|method| method.text("exact"));
    if let Some(labels) = section.section("sourceLabels") {
        let labels = labels.keys().into_iter().filter_map(|key| Some((key.to_owned(), labels.text(key)?)));
        found.source_labels = labels.collect();
    }
    (found != RequestMatch::default()).then_some(found)
}

/// The only entry of a mapping from names to string matches.
fn named(section: &Section<'_, '_>, name: &str) -> Option<(String, FieldMatch)> {
    let fields = section.section(name)?;
    let key = fields.keys().first().copied()?;
    let value = fields.section(key)?;
    Some((key.to_owned(), field(&value)))
}

fn field(value: &Section<'_, '_>) -> FieldMatch {
    let field = FieldMatch {
        exact: value.text("exact"),
        prefix: value.text("prefix"),
        suffix: value.text("suffix"),
        regex: value.text("regex"),
        ..FieldMatch::default()
    };
    // Nothing at all matches every value that is there.
    if field.matchers() == 0 { FieldMatch { present: Some(true), ..field } } else { field }
}
