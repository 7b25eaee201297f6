//! `AnalysisProfile`: a metric that cannot be measured is refused here, instead of passing every check later.

use std::time::Duration;

use world::api::delivery::{
    AnalysisProfile, DEFAULT_PROFILE, JsonPath, MetricKind, MetricSpec, OnMetricError, fill_in,
};

use super::Findings;
use super::{names, url};

/// What is asked less often says nothing about the step that goes on.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn analysis_profile(name: &str, spec: &AnalysisProfile, findings: &mut Findings) {
    if name == DEFAULT_PROFILE {
        findings
            .error("metadata.name", format!("\"{DEFAULT_PROFILE}\" is the name of the profile that is built in"))
            .hint(
                "Give it a name of its own, and name that in spec.analysis.profiles of the intents that are to use it.",
            );
    }
    if spec.metrics.is_empty() {
        findings.error("spec.metrics", "there is no metric").hint("A profile without metrics would pass everything.");
    }
    for (at, metric) in spec.metrics.iter().enumerate() {
        let field = format!("spec.metrics[{at}]");
        names::line(&format!("{field}.name"), &metric.name, "metric", findings);
        if let Some(first) = spec.metrics[..at].iter().position(|m| m.name == metric.name && !m.name.is_empty()) {
            findings.error(format_args!("{field}.name"), format!("\"{}\" is metrics[{first}] already", metric.name));
        }
        bounds(&field, metric, findings);
        places(&field, metric, findings);
        needs(&field, metric, findings);
    }
}

fn bounds(field: &str, metric: &MetricSpec, findings: &mut Findings) {
    // Both are written so that NaN is refused, too.
    if !(1.0..=1e6).contains(&metric.tolerance.ratio) {
        findings.error(format_args!("{field}.tolerance.ratio"), format!("{} is below 1", metric.tolerance.ratio));
    }
    if !(0.0..1.0).contains(&metric.tolerance.delta) {
        let message = format!("{} is not a share of 1", metric.tolerance.delta);
        findings.error(format_args!("{field}.tolerance.delta"), message).hint("Half a percent is 0.005.");
    }
    for (name, value) in [("slo", metric.slo), ("quantile", metric.quantile)] {
        if let Some(value) = value.filter(|v| !(*v > 0.0 && *v < 1.0)) {
            findings
                .error(format_args!("{field}.{name}"), format!("{value} is not between 0 and 1"))
                .hint("One percent is 0.01; the 99th percentile is 0.99.");
        }
    }
    if metric.acceptable().is_some_and(|slo| slo >= 0.5) {
        findings.error(format_args!("{field}.slo"), "half of all requests may be bad").hint("Use less than 0.5.");
    }
    if metric.interval < Duration::from_secs(1) {
        findings.error(format_args!("{field}.interval"), format!("{:?} is shorter than 1s", metric.interval));
    } else if metric.interval > LONGEST_INTERVAL {
        findings.error(format_args!("{field}.interval"), format!("{:?} is longer than 24h", metric.interval));
    }
    if let Some(range) = &metric.range {
        if let (Some(min), Some(max)) = (range.min, range.max)
            && (min > max || min.is_nan() || max.is_nan())
        {
            findings.error(format_args!("{field}.range"), format!("no value lies between {min} and {max}"));
        } else if range.min.is_none() && range.max.is_none() {
            findings.error(format_args!("{field}.range"), "every value is good").hint("Give min or max.");
        }
    }
}

/// Whom it asks, for what, and where the number is in the answer: else it would be known in the middle of a run only.
fn places(field: &str, metric: &MetricSpec, findings: &mut Findings) {
    let value = |name: &str| match MetricSpec::VARIABLES.contains(&name) {
        // Stands for what is filled in: it is encoded where it is part of a URL.
        true => Ok("x".to_owned()),
        false => Err(format!("there is no variable {{{{{name}}}}}")),
    };
    let hint = || format!("Known: {{{{{}}}}}.", MetricSpec::VARIABLES.join("}}, {{"));
    if let Some(Err(wrong)) = metric.query.as_deref().map(|query| fill_in(query, value)) {
        findings.error(format_args!("{field}.query"), wrong).hint(hint());
    }
    if let Some(url) = &metric.url {
        let field = format!("{field}.url");
        match (metric.kind, fill_in(url, value)) {
            (MetricKind::Web, Ok(filled)) => url::http(&field, &filled, findings),
            (MetricKind::Web, Err(wrong)) => _ = findings.error(&field, wrong).hint(hint()),
            // The address of a Prometheus is taken as it is.
            (_, _) => url::http(&field, url, findings),
        }
    }
    if let Some(Err(wrong)) = metric.json_path.as_deref().map(JsonPath::parse) {
        findings.error(format_args!("{field}.jsonPath"), wrong).hint("Write one place, such as $.data[0].value.");
    }
}

/// What others count: of both revisions, and compared with each other and with what is acceptable.
fn counts(field: &str, metric: &MetricSpec, findings: &mut Findings) {
    if metric.slo.is_none() {
        let message = format!("a metric of kind {:?} needs range, or slo if it counts", metric.kind);
        findings.error(format_args!("{field}.range"), message);
        return;
    }
    let (name, text) = match metric.kind {
        MetricKind::Web => ("url", metric.url.as_deref()),
        _ => ("query", metric.query.as_deref()),
    };
    // A text with another mistake is told of already.
    let with = |revision: &str| {
        text.and_then(|text| fill_in(text, |name| Ok(if name == "revision" { revision } else { "" }.to_owned())).ok())
    };
    if let (Some(one), Some(other)) = (with("a"), with("b"))
        && one == other
    {
        findings
            .error(format_args!("{field}.{name}"), "it asks the same of both revisions")
            .hint("What counts is asked of candidate and stable: {{revision}} stands for the one that is asked about.");
    }
    if metric.on_error == OnMetricError::Fail {
        findings
            .error(format_args!("{field}.onError"), "without an answer there is nothing to be counted")
            .hint("Leave it out: the run waits for an answer.");
    }
}

/// What each kind cannot do without, and what has no meaning for it.
fn needs(field: &str, metric: &MetricSpec, findings: &mut Findings) {
    let needed: &[&str] = match metric.kind {
        MetricKind::ErrorRate => &[],
        MetricKind::LatencyFraction => &["latencyMs"],
        MetricKind::Threshold => &["range", "query"],
        MetricKind::PromQuery => &["query"],
        MetricKind::Web => &["url"],
    };
    let given = [
        ("latencyMs", metric.latency_ms.is_some()),
        ("range", metric.range.is_some()),
        ("query", metric.query.is_some()),
        ("url", metric.url.is_some()),
    ];
    for (name, given) in given {
        if needed.contains(&name) && !given {
            let message = format!("a metric of kind {:?} needs {name}", metric.kind);
            findings.error(format_args!("{field}.{name}"), message);
        }
    }
    if metric.is_of_others() && metric.range.is_none() {
        counts(field, metric, findings);
    }
    if metric.is_counted() && metric.range.is_some() {
        findings
            .error(format_args!("{field}.range"), "requests are counted, not compared with a range")
            .hint("Use slo for an absolute bound.");
    }
    if metric.kind == MetricKind::Threshold
        && let Some(query) = metric.query.as_deref().filter(|query| !KNOWN.contains(query))
    {
        findings
            .error(format_args!("{field}.query"), format!("there is no metric \"{query}\""))
            .hint(format!("Proxies report: {}.", KNOWN.join(", ")));
    }
    let codes = |text: &str| text.split(',').all(|code| code.trim().parse::<u16>().is_ok());
    if metric.kind == MetricKind::ErrorRate
        && !matches!(metric.classify.as_str(), "http5xx" | "grpcServerError")
        && !codes(&metric.classify)
    {
        let message = format!("{:?} does not say what is an error", metric.classify);
        findings
            .error(format_args!("{field}.classify"), message)
            .hint("Known: http5xx, grpcServerError, or codes such as \"500,503\".");
    }
}

/// The numbers that a `Threshold` can be asked of what proxies report, of the candidate each.
const KNOWN: &[&str] = &["error-rate", "request-rate", "slow-fraction"];
