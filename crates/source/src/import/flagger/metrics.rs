//! `analysis.metrics`, and the MetricTemplates that they refer to.

use std::cell::RefCell;
use std::time::Duration;

use world::api::delivery::{Bounds, MetricKind, MetricSpec};

use crate::import::{Remarks, Section, Source, Weight, query};

/// What a Canary says beside a metric.
pub(super) struct Scope<'c> {
    pub(super) namespace: &'c str,
    /// Of the Canary.
    pub(super) name: &'c str,
    /// `spec.targetRef.name`.
    pub(super) target: &'c str,
    pub(super) service: &'c str,
    /// `spec.metricsServer`.
    pub(super) prometheus: Option<&'c str>,
    /// So many bad values are forgiven.
    pub(super) forgiven: u32,
    pub(super) interval: Duration,
}

/// The MetricTemplates of all files.
pub(in crate::import) struct MetricTemplates<'s> {
    sources: Vec<&'s Source<'s>>,
    used: RefCell<Vec<(&'s str, &'s str)>>,
}

impl<'s> MetricTemplates<'s> {
    pub(in crate::import) fn new(sources: &'s [Source<'s>]) -> Self {
        let sources = sources.iter().filter(|s| s.group == "flagger.app" && s.kind == "MetricTemplate").collect();
        Self { sources, used: RefCell::default() }
    }

    fn find(&self, namespace: &str, name: &str) -> Option<&'s Source<'s>> {
        let found = *self.sources.iter().find(|s| s.namespace == namespace && s.name == name)?;
        self.used.borrow_mut().push((found.namespace, found.name));
        Some(found)
    }

    /// Says which templates no Canary of the files refers to.
    pub(in crate::import) fn unused(&self, remarks: &Remarks) {
        let used = self.used.borrow();
        for source in self.sources.iter().filter(|s| !used.contains(&(s.namespace, s.name))) {
            let message = format!("MetricTemplate {}/{} is used by no Canary here", source.namespace, source.name);
            remarks.add(Weight::Lost, source.file, source.node.line, "kind", message);
        }
    }
}

pub(super) fn metrics(
    analysis: &Section<'_, '_>,
    templates: &MetricTemplates<'_>,
    scope: &Scope<'_>,
) -> Vec<MetricSpec> {
    let mut metrics: Vec<MetricSpec> = Vec::new();
    for section in analysis.sections("metrics") {
        let Some(metric) = metric(&section, templates, scope) else { continue };
        if metrics.iter().any(|before| before.name == metric.name) {
            section
                .remark(Weight::Lost, format!("there is a metric \"{}\" already; this one is left out", metric.name));
            continue;
        }
        metrics.push(metric);
    }
    metrics
}

fn metric(section: &Section<'_, '_>, templates: &MetricTemplates<'_>, scope: &Scope<'_>) -> Option<MetricSpec> {
    let name = section.text("name").unwrap_or_default();
    let interval = section.span("interval").unwrap_or(scope.interval).max(Duration::from_secs(1));
    // The older form says only one end: the smallest share of good requests, or the largest of anything else.
    let older = section.number("threshold");
    let range =
        section.section("thresholdRange").map(|range| Bounds { min: range.number("min"), max: range.number("max") });
    let template = section.section("templateRef");
    let older_query = section.text("query");
    let spec = MetricSpec { name: name.clone(), ..MetricSpec::default() };
    if template.is_none() && older_query.is_none() {
        section.has("templateVariables");
        section.note("interval", "requests are counted as the proxies report them");
        return built_in(section, spec, range, older);
    }
    let range = range.or_else(|| older.map(|max| Bounds { min: None, max: Some(max) }));
    let Some(range) = range.filter(|range| range.min.is_some() || range.max.is_some()) else {
        section.remark(Weight::Lost, format!("metric \"{name}\" has no range, and is left out"));
        return None;
    };
    let mut spec =
        MetricSpec { kind: MetricKind::PromQuery, range: Some(range), interval, failure_limit: scope.forgiven, ..spec };
    let variables = section.section("templateVariables");
    let mut known = vec![
        ("namespace".to_owned(), scope.namespace.to_owned()),
        ("service".to_owned(), scope.service.to_owned()),
        ("name".to_owned(), scope.name.to_owned()),
        ("target".to_owned(), scope.target.to_owned()),
        ("ingress".to_owned(), scope.service.to_owned()),
        ("route".to_owned(), scope.service.to_owned()),
        ("interval".to_owned(), format!("{}s", interval.as_secs())),
    ];
    for key in variables.iter().flat_map(Section::keys) {
        let value = variables.as_ref().and_then(|variables| variables.text(key));
        known.extend(value.map(|value| (format!("variables.{key}"), value)));
    }
    let text = match template {
        None => {
            spec.url = scope.prometheus.map(str::to_owned);
            older_query.unwrap_or_default()
        }
        Some(reference) => {
            let namespace = reference.text("namespace").unwrap_or_else(|| scope.namespace.to_owned());
            let wanted = reference.text("name").unwrap_or_default();
            reference.has("kind");
            reference.has("apiVersion");
            let Some(template) = templates.find(&namespace, &wanted) else {
                let message = format!(
                    "MetricTemplate {namespace}/{wanted} is not among the files, and metric \"{name}\" is left out: \
                     name its file, too"
                );
                section.remark(Weight::Lost, message);
                return None;
            };
            let (text, address) = provided(template, section)?;
            spec.url = address.or_else(|| scope.prometheus.map(str::to_owned));
            text
        }
    };
    if spec.url.is_none() {
        section
            .remark(Weight::Lost, format!("metric \"{name}\" has no address: set url, or spec.analysis.prometheusUrl"));
    }
    if query::asks(&text, "target") {
        section.remark(
            Weight::Lost,
            format!(
                "the query of \"{name}\" selects the pods of one workload by name: select those of the candidate, by \
                 the revision that {{{{revision}}}} stands for"
            ),
        );
    }
    let (filled, unknown) = query::fill(&text, &known);
    for variable in unknown {
        section.remark(Weight::Lost, format!("nothing stands for {{{{ {variable} }}}} in the query of \"{name}\""));
    }
    spec.query = Some(filled);
    Some(spec)
}

/// The metrics that Flagger knows by name.
fn built_in(
    section: &Section<'_, '_>,
    spec: MetricSpec,
    range: Option<Bounds>,
    older: Option<f64>,
) -> Option<MetricSpec> {
    let both =
        || section.remark(Weight::Note, "stable is compared with as well: what both do is not the candidate's doing");
    match spec.name.as_str() {
        "request-success-rate" => {
            let least = range.and_then(|range| range.min).or(older).unwrap_or(99.0);
            // Rounded, because 1 - 0.99 is not 0.01 in binary.
            let share = ((100.0 - least) * 1e4).round() / 1e6;
            if !(0.0..0.5).contains(&share) {
                let message = format!("{least} % of good requests is no bound that can be judged: 50 to 100 is");
                section.remark(Weight::Lost, message);
                return Some(MetricSpec { kind: MetricKind::ErrorRate, ..spec });
            }
            if share == 0.0 {
                section.remark(Weight::Lost, "no failure at all cannot be shown by counting: one in 10,000 is allowed");
            }
            both();
            Some(MetricSpec { kind: MetricKind::ErrorRate, slo: Some(share.max(0.0001)), ..spec })
        }
        "request-duration" => {
            let most = range.and_then(|range| range.max).or(older).unwrap_or(500.0);
            if !(1.0..1e9).contains(&most) {
                section
                    .remark(Weight::Lost, format!("{most} ms is no duration of a request, and the metric is left out"));
                return None;
            }
            both();
            let kind = MetricKind::LatencyFraction;
            Some(MetricSpec { kind, latency_ms: Some(most.round() as u64), quantile: Some(0.99), ..spec })
        }
        name => {
            section.remark(Weight::Lost, format!("Flagger's own metric \"{name}\" is not known, and is left out"));
            None
        }
    }
}

/// The query and the address of a template, if Prometheus answers it.
fn provided(template: &Source<'_>, user: &Section<'_, '_>) -> Option<(String, Option<String>)> {
    let spec = template.spec(user.remarks())?;
    let text = spec.text("query").unwrap_or_default();
    let provider = spec.section("provider")?;
    let kind = provider.text("type").unwrap_or_default();
    if kind != "prometheus" {
        provider.lose_all(format!("provider \"{kind}\" is not asked: metrics of this template are left out"));
        return None;
    }
    provider.lose("secretRef", "Prometheus is asked without credentials");
    provider.lose("insecureSkipVerify", "certificates are checked");
    provider.lose("region", "Prometheus is asked at its address");
    provider.lose("headers", "Prometheus is asked without further headers");
    Some((text, provider.text("address")))
}
