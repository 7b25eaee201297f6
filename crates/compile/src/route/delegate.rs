//! Delegation: an entry that leaves the details to another VirtualService, which has no hosts of its own.
//!
//! The two are merged as Istio merges them (`pilot/pkg/model/virtualservice.go`): every match of the delegate is
//! narrowed by every match of the root that it does not contradict, and the delegate's entry takes over from the
//! root's what it does not say itself. One difference: of a delegate's entry only the matches that contradict every
//! match of the root are left out, not the entry as a whole. A delegate that cannot be used answers 503 with the
//! reason instead of letting its requests fall through to other entries.

use std::borrow::Cow;
use std::sync::Arc;

use world::api::istio::{HttpMatch, HttpRoute, StringMatch};
use world::{Export, Object, Problem};

use super::rule::{Inherited, Part, Place, Rule, virtual_service};

/// How VirtualServices are found by namespace and name.
pub type FindDelegate<'a> = dyn Fn(&str, &str) -> Option<Arc<Object>> + 'a;

/// The entries of `http[]` in order, each delegating one replaced by its delegate's. The objects that took part are
/// told to `used`.
pub(super) fn rules<'a>(
    root: &'a Arc<Object>,
    find: &FindDelegate<'_>,
    problems: &mut Vec<Problem>,
    mut used: impl FnMut(&Object),
) -> Vec<Rule<'a>> {
    let Some(spec) = virtual_service(root) else { return Vec::new() };
    let mut rules = Vec::with_capacity(spec.http.len());
    for (index, route) in spec.http.iter().enumerate() {
        let place = Place { object: root.clone(), index };
        let Some(delegate) = &route.delegate else {
            rules.push(Rule { route: Cow::Borrowed(route), place, inherited: None, refusal: None });
            continue;
        };
        let namespace = if delegate.namespace.is_empty() { place.namespace() } else { &delegate.namespace };
        let named = format!("VirtualService {namespace}/{}", delegate.name);
        let usable = find(namespace, &delegate.name)
            .ok_or_else(|| format!("delegate {named} does not exist"))
            .and_then(|found| check(&found, root, &named).map(|()| found));
        match usable {
            Ok(found) => {
                used(&found);
                merge(&mut rules, route, &place, &found, problems);
            }
            Err(why) => {
                let problem = place.error(".delegate", why.as_str()).consequence("its requests are answered 503");
                problems.push(problem);
                rules.push(Rule { route: Cow::Borrowed(route), place, inherited: None, refusal: Some(why) });
            }
        }
    }
    rules
}

/// Whether `found` can be a delegate of `root`.
fn check(found: &Object, root: &Object, named: &str) -> Result<(), String> {
    let Some(spec) = virtual_service(found) else { return Err(format!("delegate {named} is not a VirtualService")) };
    if found.reference == root.reference {
        return Err(format!("{named} delegates to itself"));
    }
    if !Export::parse(&spec.export_to, &found.reference.namespace).is_visible_to(&root.reference.namespace) {
        return Err(format!("delegate {named} is not exported to namespace \"{}\"", root.reference.namespace));
    }
    if !spec.hosts.is_empty() {
        return Err(format!("delegate {named} has hosts of its own, so it cannot be a delegate of {}", root.reference));
    }
    Ok(())
}

fn merge(
    rules: &mut Vec<Rule<'_>>,
    route: &HttpRoute,
    root: &Place,
    delegate: &Arc<Object>,
    problems: &mut Vec<Problem>,
) {
    let Some(spec) = virtual_service(delegate) else { return };
    for (index, inner) in spec.http.iter().enumerate() {
        let place = Place { object: delegate.clone(), index };
        let (merged, origins) = match matches(&route.matches, &inner.matches, root, &place, problems) {
            Some(both) => both,
            None => continue,
        };
        let refusal = inner.delegate.as_ref().map(|next| {
            let namespace = if next.namespace.is_empty() { place.namespace() } else { &next.namespace };
            let circle = [&root.object, delegate]
                .into_iter()
                .any(|o| &*o.reference.namespace == namespace && *o.reference.name == *next.name);
            let named = format!("VirtualService {namespace}/{}", next.name);
            let (from, to) = (&root.object.reference, &delegate.reference);
            let why = match circle {
                true => format!("{from} delegates to {to}, which delegates back to {named}: a cycle"),
                false => format!("{from} delegates to {to}, which delegates to {named}: a delegate cannot delegate"),
            };
            problems.push(place.error(".delegate", why.as_str()).consequence("its requests are answered 503"));
            why
        });
        let (mut route, parts) = take_over(route, inner);
        route.matches = merged.into();
        let inherited = Some(Inherited { root: root.clone(), parts, matches: origins });
        rules.push(Rule { route: Cow::Owned(route), place, inherited, refusal });
    }
}

/// The delegate's entry with what it leaves to the root, and which parts those are.
fn take_over(root: &HttpRoute, delegate: &HttpRoute) -> (HttpRoute, Vec<Part>) {
    let mut merged = delegate.clone();
    let mut parts = Vec::new();
    merged.name = match (root.name.as_str(), delegate.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    };
    fn inherit<T: Clone>(own: &mut Option<T>, root: &Option<T>, part: Part, parts: &mut Vec<Part>) {
        if own.is_none() && root.is_some() {
            own.clone_from(root);
            parts.push(part);
        }
    }
    // A redirect or a direct response of the root makes sense only where the delegate names no other answer.
    if delegate.route.is_empty() && delegate.redirect.is_none() && delegate.direct_response.is_none() {
        inherit(&mut merged.redirect, &root.redirect, Part::Redirect, &mut parts);
        inherit(&mut merged.direct_response, &root.direct_response, Part::DirectResponse, &mut parts);
    }
    inherit(&mut merged.rewrite, &root.rewrite, Part::Rewrite, &mut parts);
    inherit(&mut merged.timeout, &root.timeout, Part::Timeout, &mut parts);
    inherit(&mut merged.retries, &root.retries, Part::Retries, &mut parts);
    inherit(&mut merged.fault, &root.fault, Part::Fault, &mut parts);
    inherit(&mut merged.cors_policy, &root.cors_policy, Part::Cors, &mut parts);
    inherit(&mut merged.headers, &root.headers, Part::Headers, &mut parts);
    if delegate.mirror.is_none() && delegate.mirrors.is_empty() && (root.mirror.is_some() || !root.mirrors.is_empty()) {
        merged.mirror.clone_from(&root.mirror);
        merged.mirrors.clone_from(&root.mirrors);
        merged.mirror_percentage = root.mirror_percentage;
        merged.mirror_percent = root.mirror_percent;
        parts.push(Part::Mirror);
    }
    (merged, parts)
}

type Merged = (Vec<HttpMatch>, Vec<(Option<usize>, Option<usize>)>);

/// The matches of both; `None` when there are some but none can hold.
fn matches(
    root: &[HttpMatch],
    delegate: &[HttpMatch],
    root_place: &Place,
    place: &Place,
    problems: &mut Vec<Problem>,
) -> Option<Merged> {
    let gateways = |m: &HttpMatch, place: &Place| HttpMatch { gateways: qualified(&m.gateways, place), ..m.clone() };
    if delegate.is_empty() {
        let origins = (0..root.len()).map(|at| (Some(at), None)).collect();
        return Some((root.iter().map(|m| gateways(m, root_place)).collect(), origins));
    }
    if root.is_empty() {
        let origins = (0..delegate.len()).map(|at| (None, Some(at))).collect();
        return Some((delegate.iter().map(|m| gateways(m, place)).collect(), origins));
    }
    let mut merged = Vec::new();
    let mut origins = Vec::new();
    for (inner, narrow) in delegate.iter().enumerate() {
        let narrow = gateways(narrow, place);
        let before = merged.len();
        for (outer, wide) in root.iter().enumerate() {
            let wide = gateways(wide, root_place);
            if !contradicts(&wide, &narrow) {
                merged.push(intersection(&wide, &narrow));
                origins.push((Some(outer), Some(inner)));
            }
        }
        if merged.len() == before {
            let message = format!("contradicts every match of {}, which delegates to it", root_place.object.reference);
            let problem = place
                .warning(&format!(".match[{inner}]"), message)
                .consequence("it never matches")
                .hint("A delegate can only narrow what it is given: its prefixes must begin with the root's.");
            problems.push(problem);
        }
    }
    (!merged.is_empty()).then_some((merged, origins))
}

/// Gateway names in full, because the two objects may stand in different namespaces.
fn qualified(gateways: &[String], place: &Place) -> Vec<String> {
    gateways.iter().map(|name| super::matching::gateway_name(name, place.namespace()).into_owned()).collect()
}

/// Whether no request can satisfy both. Istio's rule: regular expressions do not combine with anything.
fn contradicts(root: &HttpMatch, delegate: &HttpMatch) -> bool {
    let strings = |root: &Option<StringMatch>, delegate: &Option<StringMatch>| match (root, delegate) {
        (Some(root), Some(delegate)) => disjoint(root, delegate),
        _ => false,
    };
    let values = |of: fn(&HttpMatch) -> &std::collections::BTreeMap<String, Option<StringMatch>>| {
        of(delegate).iter().any(|(name, inner)| match of(root).get(name) {
            Some(outer) => strings(outer, inner),
            None => false,
        })
    };
    let given = |m: &HttpMatch| m.uri.is_some();
    strings(&root.uri, &delegate.uri)
        || strings(&root.scheme, &delegate.scheme)
        || strings(&root.method, &delegate.method)
        || strings(&root.authority, &delegate.authority)
        || values(|m| &m.headers)
        || values(|m| &m.without_headers)
        || values(|m| &m.query_params)
        || (given(root) && given(delegate) && root.ignore_uri_case != delegate.ignore_uri_case)
        || matches!((root.port, delegate.port), (Some(a), Some(b)) if a != b)
        || (!root.source_namespace.is_empty()
            && !delegate.source_namespace.is_empty()
            && root.source_namespace != delegate.source_namespace)
        || delegate.source_labels.iter().any(|(key, value)| root.source_labels.get(key).is_some_and(|v| v != value))
        || (!root.gateways.is_empty()
            && !delegate.gateways.is_empty()
            && !delegate.gateways.iter().any(|name| root.gateways.contains(name)))
}

fn disjoint(root: &StringMatch, delegate: &StringMatch) -> bool {
    match (root, delegate) {
        (StringMatch { exact: None, prefix: None, regex: None }, _)
        | (_, StringMatch { exact: None, prefix: None, regex: None }) => false,
        (StringMatch { exact: Some(outer), .. }, StringMatch { exact: Some(inner), .. }) => outer != inner,
        (StringMatch { prefix: Some(outer), .. }, StringMatch { exact: Some(inner), .. })
        | (StringMatch { prefix: Some(outer), .. }, StringMatch { prefix: Some(inner), .. }) => {
            !inner.starts_with(outer)
        }
        _ => true,
    }
}

/// The conditions of both; the delegate's, being the narrower, where both give one.
fn intersection(root: &HttpMatch, delegate: &HttpMatch) -> HttpMatch {
    let mut both = delegate.clone();
    both.name = match (root.name.as_str(), delegate.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    };
    let narrower = |own: &mut Option<StringMatch>, root: &Option<StringMatch>| {
        if own.as_ref().is_none_or(|own| *own == StringMatch::default()) {
            own.clone_from(root);
        }
    };
    if delegate.uri.is_none() {
        both.ignore_uri_case = root.ignore_uri_case;
    }
    narrower(&mut both.uri, &root.uri);
    narrower(&mut both.scheme, &root.scheme);
    narrower(&mut both.method, &root.method);
    narrower(&mut both.authority, &root.authority);
    for (own, root) in [(&mut both.headers, &root.headers), (&mut both.query_params, &root.query_params)] {
        for (name, value) in root {
            narrower(own.entry(name.clone()).or_default(), value);
        }
    }
    for (name, value) in &root.without_headers {
        // Here presence, which leaves no value at all, is the narrowest.
        if value.as_ref().is_none_or(|v| *v == StringMatch::default()) {
            both.without_headers.insert(name.clone(), None);
        } else {
            both.without_headers.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    both.port = delegate.port.or(root.port);
    for (key, value) in &root.source_labels {
        both.source_labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if both.source_namespace.is_empty() {
        both.source_namespace.clone_from(&root.source_namespace);
    }
    if both.gateways.is_empty() {
        both.gateways.clone_from(&root.gateways);
    } else if !root.gateways.is_empty() {
        both.gateways.retain(|name| root.gateways.contains(name));
    }
    if both.stat_prefix.is_empty() {
        both.stat_prefix.clone_from(&root.stat_prefix);
    }
    both
}
