//! What will be wrong with the routes of an intent's runs, before there is one.

use world::api::delivery::{DeploymentIntent, RequestMatch};
use world::{Object, Problem, Spec};

use crate::Options;
use crate::route::regex;

/// Expressions that no client of this size of runtime takes; what they are part of would never match, so an intent with
/// an error among these is not to be carried out.
pub fn problems(object: &Object, options: &Options) -> Vec<Problem> {
    let Spec::DeploymentIntent(intent) = &object.spec else { return Vec::new() };
    let mut problems = Vec::new();
    for (field, matches) in matches(intent) {
        for (at, condition) in matches.iter().enumerate() {
            let RequestMatch { header, cookie, query, path, .. } = condition;
            for (name, value) in [("header", header), ("cookie", cookie), ("query", query), ("path", path)] {
                let Some(pattern) = value.as_ref().and_then(|value| value.regex.as_deref()) else { continue };
                let Err(why) = regex::check(pattern, options.max_regex_instructions) else { continue };
                let message = format!("invalid regular expression \"{pattern}\": {why}");
                let problem = Problem::error(&object.reference, format!("{field}[{at}].{name}.regex"), message);
                problems.push(problem.consequence("no run is started for this intent"));
            }
        }
    }
    problems
}

/// Every list of matches, with its field.
fn matches(intent: &DeploymentIntent) -> Vec<(String, &[RequestMatch])> {
    let strategy = &intent.strategy;
    let mut lists: Vec<(String, &[RequestMatch])> = Vec::new();
    for (at, step) in strategy.canary.iter().flat_map(|canary| canary.steps.iter().enumerate()) {
        let field = format!("spec.strategy.canary.steps[{at}]");
        lists.extend(step.header_route.iter().map(|route| (format!("{field}.headerRoute.match"), &*route.matches)));
        lists.extend(step.mirror.iter().map(|mirror| (format!("{field}.mirror.match"), &*mirror.matches)));
    }
    let preview = strategy.blue_green.iter().map(|blue_green| &*blue_green.preview.matches);
    lists.extend(preview.map(|matches| ("spec.strategy.blueGreen.preview.match".to_owned(), matches)));
    for (at, variant) in strategy.ab.iter().flat_map(|test| test.variants.iter().enumerate()) {
        lists.push((format!("spec.strategy.ab.variants[{at}].match"), &variant.matches));
    }
    lists.extend(strategy.mirror.iter().map(|mirror| ("spec.strategy.mirror.match".to_owned(), &*mirror.matches)));
    lists
}
