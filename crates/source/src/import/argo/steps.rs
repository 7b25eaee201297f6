//! `strategy.canary.steps`.

use std::time::Duration;

use world::api::delivery::{
    FieldMatch, HeaderRoute, MirrorStep, PauseStep, RequestMatch, Step, StepAnalysis, Weight as Share,
};

use super::Profiles;
use crate::import::{Section, Weight};

/// A step that sets this percentage.
pub(super) fn weight(percent: f64) -> Step {
    Step { set_weight: Some(Share::from_ppm((percent.clamp(0.0, 100.0) * 1e4).round() as u32)), ..Step::default() }
}

/// The steps that can be said; `most` is the weight that means everything.
pub(super) fn steps(canary: &Section<'_, '_>, most: f64, profiles: &mut Profiles<'_, '_>) -> Vec<Step> {
    let sections = canary.sections("steps");
    sections.into_iter().enumerate().filter_map(|(at, section)| step(section, at, most, profiles)).collect()
}

fn step(section: Section<'_, '_>, at: usize, most: f64, profiles: &mut Profiles<'_, '_>) -> Option<Step> {
    let kind = section.keys().first().copied()?;
    match kind {
        "setWeight" => section.number(kind).map(|percent| weight(percent * 100.0 / most)),
        "pause" => {
            let duration = section.section(kind).and_then(|pause| pause.span("duration"));
            let duration = duration.map(|duration| duration.max(Duration::from_secs(1)));
            Some(Step { pause: Some(PauseStep { duration }), ..Step::default() })
        }
        "analysis" => {
            let used = section.section(kind)?;
            let (name, span) = profiles.judge(&format!("step-{at}"), &used)?;
            let analysis = StepAnalysis { profile_ref: Some(name), min_duration: span, ..StepAnalysis::default() };
            Some(Step { analysis: Some(analysis), ..Step::default() })
        }
        "setHeaderRoute" => {
            let route = section.section(kind)?;
            let name = route.text("name").unwrap_or_default();
            let matches: Vec<_> = route.sections("match").iter().filter_map(header).collect();
            let route = HeaderRoute { name, enabled: !matches.is_empty(), matches };
            Some(Step { header_route: Some(route), ..Step::default() })
        }
        "setMirrorRoute" => {
            let route = section.section(kind)?;
            route.has("name");
            let matches = route.sections("match");
            let percent = route.number("percentage").unwrap_or(100.0);
            let mirror = MirrorStep {
                percent: Share::from_ppm((percent.clamp(0.0, 100.0) * 1e4).round() as u32),
                enabled: !matches.is_empty(),
                matches: matches.into_iter().filter_map(mirrored).collect(),
                ..MirrorStep::default()
            };
            Some(Step { mirror: Some(mirror), ..Step::default() })
        }
        "setCanaryScale" => {
            section.lose(kind, "scaling is not Pointsman's: scale the candidate before, and wait by requireEndpoints");
            None
        }
        _ => {
            section.lose(kind, format!("there is no step like {kind}: the step is left out"));
            None
        }
    }
}

/// Of several headers one suffices, as with Argo.
fn header(section: &Section<'_, '_>) -> Option<RequestMatch> {
    let name = section.text("headerName")?.to_ascii_lowercase();
    let value = section.section("headerValue").map(|value| field(&value)).unwrap_or_default();
    Some(RequestMatch { header: Some(named(name, value)), ..RequestMatch::default() })
}

fn named(name: String, value: FieldMatch) -> FieldMatch {
    let present = (value.matchers() == 0).then_some(true);
    FieldMatch { name, present, ..value }
}

fn field(value: &Section<'_, '_>) -> FieldMatch {
    FieldMatch {
        exact: value.text("exact"),
        prefix: value.text("prefix"),
        regex: value.text("regex"),
        ..FieldMatch::default()
    }
}

/// Several headers of one match all have to hold, which cannot be said.
fn mirrored(section: Section<'_, '_>) -> Option<RequestMatch> {
    let headers = section.section("headers");
    if headers.as_ref().is_some_and(|headers| headers.keys().len() > 1) {
        if let Some(headers) = headers {
            headers.lose_all("a match of several headers cannot be said, and is left out");
        }
        return None;
    }
    let header = headers.as_ref().and_then(|headers| {
        let name = headers.keys().first().copied()?;
        Some(named(name.to_ascii_lowercase(), field(&headers.section(name)?)))
    });
    let method = section.section("method").and_then(|method| {
        let exact = method.text("exact");
        for way in ["prefix", "regex"] {
            method.lose(way, "a method is compared as a whole");
        }
        exact
    });
    let path = section.section("path").map(|path| field(&path)).filter(|path| path.matchers() == 1);
    let found = RequestMatch { header, method, path, ..RequestMatch::default() };
    if found == RequestMatch::default() {
        section.remark(Weight::Lost, "the match is empty, and is left out");
        return None;
    }
    Some(found)
}
