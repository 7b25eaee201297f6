//! Analyses of a Rollout, and the templates that they name.

use std::time::Duration;

use regex::Regex;
use world::api::delivery::{AnalysisProfile, Bounds, MetricKind, MetricSpec};

use super::{Templates, condition};
use crate::import::{Section, Source, Weight, query};

/// When an analysis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// As a step, which ends.
    Step,
    /// Beside the steps.
    Beside,
}

/// The profiles that the analyses of one Rollout become.
pub(super) struct Profiles<'s, 't> {
    namespace: &'t str,
    rollout: &'t str,
    templates: &'t Templates<'s>,
    /// The label that revisions are told apart by: a hash of the template is a revision only where it is that label.
    label: String,
    found: Vec<(String, AnalysisProfile)>,
    /// Names of those that judge the whole run.
    watching: Vec<String>,
}

impl<'s, 't> Profiles<'s, 't> {
    pub(super) fn new(rollout: &'t Source<'_>, templates: &'t Templates<'s>, label: &str) -> Self {
        let (namespace, rollout) = (rollout.namespace, rollout.name);
        Self { namespace, rollout, templates, label: label.to_owned(), found: Vec::new(), watching: Vec::new() }
    }

    /// Takes an analysis that runs beside the steps.
    pub(super) fn watch(&mut self, place: &str, used: &Section<'_, '_>) {
        if let Some((name, _)) = self.convert(place, used, When::Beside) {
            self.watching.push(name);
        }
    }

    /// Takes an analysis; its profile's name, and how long its measurements take at least.
    pub(super) fn judge(&mut self, place: &str, used: &Section<'_, '_>) -> Option<(String, Option<Duration>)> {
        self.convert(place, used, When::Step)
    }

    fn convert(&mut self, place: &str, used: &Section<'_, '_>, when: When) -> Option<(String, Option<Duration>)> {
        let mut references = used.sections("templates");
        let older = used.text("templateName");
        let is_cluster = used.flag("clusterScope").unwrap_or(false);
        let arguments = self.arguments(used);
        let dry = dry_runs(used);
        used.note("measurementRetention", "what was measured is kept with the run");
        used.note("analysisRunMetadata", "there is no AnalysisRun");
        let named = references.drain(..).filter_map(|reference| {
            let is_cluster = reference.flag("clusterScope").unwrap_or(false);
            Some((reference.text("templateName")?, is_cluster))
        });
        let named: Vec<_> = named.chain(older.map(|name| (name, is_cluster))).collect();
        let mut metrics: Vec<MetricSpec> = Vec::new();
        let mut longest = None;
        for (name, is_cluster) in named {
            let kind = if is_cluster { "ClusterAnalysisTemplate" } else { "AnalysisTemplate" };
            let Some(template) = self.templates.find(kind, self.namespace, &name) else {
                used.remark(Weight::Lost, format!("{kind} {name} is not among the files: name its file, too"));
                continue;
            };
            self.of_template(template, used, &arguments, when, &mut metrics, &mut longest);
        }
        mark_dry(&dry, &mut metrics, used);
        if metrics.is_empty() {
            used.remark(Weight::Lost, "no metric of the analysis is converted, and it judges nothing");
            return None;
        }
        let name = format!("{}-{place}", self.rollout);
        self.found.push((name.clone(), AnalysisProfile { metrics }));
        Some((name, longest))
    }

    fn of_template(
        &self,
        template: &Source<'_>,
        used: &Section<'_, '_>,
        given: &[(String, String)],
        when: When,
        metrics: &mut Vec<MetricSpec>,
        longest: &mut Option<Duration>,
    ) {
        let Some(spec) = template.spec(used.remarks()) else { return };
        let mut known: Vec<(String, String)> = given.to_vec();
        known.extend(self.arguments(&spec).into_iter().filter(|(name, _)| given.iter().all(|(g, _)| g != name)));
        let dry = dry_runs(&spec);
        spec.note("measurementRetention", "what was measured is kept with the run");
        for nested in spec.sections("templates") {
            nested.lose_all("templates within templates are left out: name them in the Rollout");
        }
        let mut own = Vec::new();
        for section in spec.sections("metrics") {
            let Some((metric, span)) = metric(section, &known, when) else { continue };
            if metrics.iter().chain(&own).any(|before| before.name == metric.name) {
                used.remark(Weight::Lost, format!("two metrics are called \"{}\": the first counts", metric.name));
                continue;
            }
            *longest = (*longest).max(span);
            own.push(metric);
        }
        mark_dry(&dry, &mut own, &spec);
        metrics.append(&mut own);
    }

    /// Names and values, with `args.` before each name.
    fn arguments(&self, section: &Section<'_, '_>) -> Vec<(String, String)> {
        let mut known = Vec::new();
        for argument in section.sections("args") {
            let Some(name) = argument.text("name") else { continue };
            let mut value = argument.text("value");
            if let Some(from) = argument.section("valueFrom") {
                let is_hash = from.text("podTemplateHashValue").is_some_and(|which| which == "Latest");
                if is_hash && self.label == "pod-template-hash" {
                    value = Some("{{revision}}".to_owned());
                } else if is_hash {
                    let message = format!("the hash of the candidate is not its revision: select by `{}`", self.label);
                    from.remark(Weight::Lost, message);
                    value = Some("{{revision}}".to_owned());
                }
                from.lose("fieldRef", format!("write the value of \"{name}\" into the query"));
                from.lose("secretKeyRef", format!("secrets are not read: \"{name}\" stays without a value"));
            }
            known.extend(value.map(|value| (format!("args.{name}"), value)));
        }
        known
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The profiles that judge the whole run.
    pub(super) fn watching(&self) -> Vec<String> {
        self.watching.clone()
    }

    pub(super) fn into_profiles(self) -> Vec<(String, AnalysisProfile)> {
        self.found
    }
}

/// The regular expressions by which metrics are only shown, as they are written.
fn dry_runs(section: &Section<'_, '_>) -> Vec<String> {
    section.sections("dryRun").iter().filter_map(|dry| dry.text("metricName")).collect()
}

/// Argo looks for the expression anywhere in the name.
fn mark_dry(dry: &[String], metrics: &mut [MetricSpec], said_by: &Section<'_, '_>) {
    for text in dry {
        let Ok(expression) = Regex::new(text) else {
            said_by.remark(Weight::Lost, format!("dryRun: {text:?} is no regular expression, and marks no metric"));
            continue;
        };
        let mut is_used = false;
        for metric in metrics.iter_mut().filter(|metric| expression.is_match(&metric.name)) {
            (metric.dry_run, is_used) = (true, true);
        }
        if !is_used {
            said_by.remark(Weight::Lost, format!("dryRun: no metric that is converted is called {text:?}"));
        }
    }
}

/// A metric, and how long its measurements take if they are counted.
fn metric(section: Section<'_, '_>, known: &[(String, String)], when: When) -> Option<(MetricSpec, Option<Duration>)> {
    let name = section.text("name").unwrap_or_default();
    let Some(provider) = section.section("provider") else {
        section.lose_all(format!("metric \"{name}\" has no provider, and is left out"));
        return None;
    };
    let kind = provider.keys().first().copied().unwrap_or_default();
    let source = match kind {
        "prometheus" | "web" => provider.section(kind),
        _ => None,
    };
    let Some(source) = source else {
        provider.lose_all(format!("provider \"{kind}\" is not asked: metric \"{name}\" is left out"));
        section.lose_all(format!("metric \"{name}\" is left out"));
        return None;
    };
    let interval = section.span("interval");
    let count = section.text("count").and_then(|count| fill(&section, &count, known).parse::<u32>().ok());
    let Some(range) = range(&section, &name) else {
        source.lose_all(format!("metric \"{name}\" is left out"));
        section.lose_all(format!("metric \"{name}\" is left out: only comparisons with numbers can be said"));
        return None;
    };
    for (field, message) in [
        ("initialDelay", "set spec.analysis.warmup, or a step pause before"),
        ("inconclusiveLimit", "a value is good or bad; none at all holds the run"),
        ("consecutiveErrorLimit", "errors of the provider hold the run; set onError: Fail where they are failures"),
        ("consecutiveSuccessLimit", "a step ends when its time has passed and nothing is wrong"),
    ] {
        section.lose(field, message);
    }
    if interval.is_none() {
        let message =
            "without an interval Argo measured it once; it is asked for each minute now, as long as it judges";
        section.remark(Weight::Lost, message);
    } else if count.is_some_and(|count| count > 0) && when == When::Beside {
        section.lose("count", "beside the steps it is measured to the end of the run, however often that is");
    }
    let mut spec = MetricSpec {
        name,
        range: Some(range),
        interval: interval.unwrap_or(Duration::from_secs(60)).max(Duration::from_secs(1)),
        failure_limit: section
            .text("failureLimit")
            .and_then(|limit| fill(&section, &limit, known).parse().ok())
            .unwrap_or(0),
        ..MetricSpec::default()
    };
    let text = |field: &str| source.text(field).map(|text| fill(&source, &text, known));
    if kind == "prometheus" {
        spec.kind = MetricKind::PromQuery;
        spec.url = text("address");
        spec.query = Some(text("query").unwrap_or_default());
        if spec.url.is_none() {
            source.remark(Weight::Lost, "there is no address: set url, or spec.analysis.prometheusUrl");
        }
    } else {
        spec.kind = MetricKind::Web;
        spec.url = Some(text("url").unwrap_or_default());
        spec.json_path = text("jsonPath").map(|path| path.trim_matches(['{', '}']).to_owned());
        if source.text("method").is_some_and(|method| method != "GET") {
            source.lose("method", "a metric is asked for by GET");
        }
    }
    source.note("timeout", "an answer is waited for as long as the interval allows");
    source.note("timeoutSeconds", "an answer is waited for as long as the interval allows");
    for field in ["authentication", "headers", "body", "jsonBody", "insecure", "rangeQuery"] {
        source.lose(field, "a metric is asked for without it");
    }
    let span = interval.zip(count).map(|(interval, count)| interval.saturating_mul(count));
    Some((spec, span))
}

fn range(section: &Section<'_, '_>, name: &str) -> Option<Bounds> {
    let success = section.text("successCondition");
    let failure = section.text("failureCondition");
    let good = match (&success, &failure) {
        (Some(success), _) => condition::good(success),
        (None, Some(failure)) => condition::not_bad(failure),
        (None, None) => None,
    };
    match (&good, &success, &failure) {
        (None, None, None) => section.remark(Weight::Lost, format!("metric \"{name}\" has no condition")),
        (None, ..) => {
            let text = success.as_deref().or(failure.as_deref()).unwrap_or_default();
            section.remark(Weight::Lost, format!("\"{text}\" is more than a comparison of the result with numbers"));
        }
        (Some(_), Some(_), Some(_)) => section.remark(
            Weight::Lost,
            "what is neither success nor failure was inconclusive, and is a bad value now: successCondition counts",
        ),
        (Some(good), ..) if good.was_strict => {
            section.remark(Weight::Note, format!("the bound itself is a good value of \"{name}\" now"));
        }
        (Some(_), ..) => {}
    }
    good.map(|good| good.range)
}

fn fill(section: &Section<'_, '_>, text: &str, known: &[(String, String)]) -> String {
    let (filled, unknown) = query::fill(text, known);
    for variable in unknown {
        section.remark(Weight::Lost, format!("nothing stands for {{{{{variable}}}}}"));
    }
    filled
}
