//! Metrics that somebody else answers: a Prometheus, or any URL.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use rollout::Tally;
use serde_json::Value;
use world::api::delivery::{JsonPath, MetricKind, MetricSpec, fill_in};

/// What stands for the names in `{{name}}`.
pub type Variables = BTreeMap<String, String>;

/// What is to be asked, and how the answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The metric that it answers.
    pub metric: String,
    /// What is to be asked for by HTTP.
    pub url: String,
    /// How often.
    pub interval: Duration,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The answer of Prometheus to an instant query.
    Prometheus,
    /// JSON, and where in it.
    Json(JsonPath),
}

/// What one arm of a rollout had since somebody else began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests, or whatever is counted.
    pub total: u64,
    /// Those that were good; never more than `total`.
    pub good: u64,
}

impl Count {
    /// What came since it was `earlier`; `None` when less is counted now: whoever counts has begun anew.
    pub fn since(self, earlier: Count) -> Option<Tally> {
        let (total, good) = (self.total.checked_sub(earlier.total)?, self.good.checked_sub(earlier.good)?);
        Some(Tally::new(total, total.saturating_sub(good)))
    }
}

impl Question {
    /// The questions behind a metric of these kinds that counts: about the candidate, and about stable. `{{revision}}`
    /// stands for the one that is asked about.
    ///
    /// # Errors
    /// As [`Question::new`].
    pub fn of_both(
        spec: &MetricSpec,
        prometheus: Option<&str>,
        variables: &Variables,
    ) -> Result<Option<[Self; 2]>, String> {
        let about = |name: &str| {
            let mut variables = variables.clone();
            let revision = variables.get(name).cloned().unwrap_or_default();
            variables.insert("revision".to_owned(), revision);
            Self::new(spec, prometheus, &variables)
        };
        Ok(about("candidate")?.zip(about("stable")?).map(|(candidate, stable)| [candidate, stable]))
    }

    /// The question behind a metric of kind `PromQuery` or `Web`; `None` for other kinds. A metric's own `url` comes before
    /// `prometheus`. Beside `variables`, `{{interval}}` is the metric's interval in seconds, such as `60s`.
    ///
    /// # Errors
    /// In words: there is no address, a variable that nobody knows, or a path that leads nowhere.
    pub fn new(spec: &MetricSpec, prometheus: Option<&str>, variables: &Variables) -> Result<Option<Self>, String> {
        let mut variables = variables.clone();
        variables.insert("interval".to_owned(), format!("{}s", spec.interval.as_secs().max(1)));
        let (url, form) = match spec.kind {
            MetricKind::ErrorRate | MetricKind::LatencyFraction | MetricKind::Threshold => return Ok(None),
            MetricKind::PromQuery => {
                let address = spec.url.as_deref().or(prometheus);
                let address =
                    address.ok_or("there is no Prometheus to ask: give url or spec.analysis.prometheusUrl")?;
                let query = fill(spec.query.as_deref().unwrap_or_default(), &variables, str::to_owned)?;
                let url = format!("{}/api/v1/query?query={}", address.trim_end_matches('/'), encoded(&query));
                (url, Form::Prometheus)
            }
            MetricKind::Web => {
                let url = fill(spec.url.as_deref().ok_or("there is no url")?, &variables, encoded)?;
                (url, Form::Json(JsonPath::parse(spec.json_path.as_deref().unwrap_or_default())?))
            }
        };
        Ok(Some(Self { metric: spec.name.clone(), url, interval: spec.interval, form }))
    }

    /// The number in the body of an answer; `None` when it says that there is none: no series, `NaN`, or a total of 0.
    ///
    /// # Errors
    /// In words, when the body is something else than was asked for.
    pub fn answer(&self, body: &str) -> Result<Option<f64>, String> {
        let document = json(body)?;
        match &self.form {
            Form::Prometheus => prometheus(&document),
            Form::Json(path) => share_or_number(found(path, &document)?),
        }
    }

    /// The counts in the body of an answer, of one that counts; `None` when it says that there are none.
    ///
    /// # Errors
    /// As [`Question::answer`].
    pub fn count(&self, body: &str) -> Result<Option<Count>, String> {
        let document = json(body)?;
        match &self.form {
            Form::Prometheus => labelled(&document),
            Form::Json(path) => {
                let value = found(path, &document)?;
                let (good, total) = good_and_total(value)?.ok_or_else(|| {
                    format!("{value} is no count: an object with the numbers good and total is wanted")
                })?;
                count(good, total).map(Some)
            }
        }
    }
}

fn json(body: &str) -> Result<Value, String> {
    serde_json::from_str(body).map_err(|error| format!("the answer is not JSON: {error}"))
}

fn found<'a>(path: &JsonPath, document: &'a Value) -> Result<&'a Value, String> {
    path.find(document).ok_or_else(|| format!("the answer has nothing at \"{path}\""))
}

/// The series of an answer of `/api/v1/query`, which is a vector.
fn series(document: &Value) -> Result<&[Value], String> {
    succeeded(document)?;
    let result = document["data"]["result"].as_array().filter(|_| document["data"]["resultType"] == "vector");
    result.map(Vec::as_slice).ok_or_else(|| "the answer is not a vector of Prometheus".to_owned())
}

fn succeeded(document: &Value) -> Result<(), String> {
    if document["status"] != "success" {
        let words = document["error"].as_str().unwrap_or("the answer is not one of Prometheus");
        return Err(words.to_owned());
    }
    Ok(())
}

/// The counts in a vector of two series that have `good` and `total` as their label `count`; `None` when it has none.
fn labelled(document: &Value) -> Result<Option<Count>, String> {
    let series = series(document)?;
    if series.is_empty() {
        return Ok(None);
    }
    let of = |name: &str| {
        let mut named = series.iter().filter(|one| one["metric"]["count"] == name);
        match (named.next(), named.next()) {
            (Some(one), None) => number(&one["value"][1]),
            (_, _) => None,
        }
    };
    match (of("good"), of("total"), series.len()) {
        (Some(good), Some(total), 2) => count(good, total).map(Some),
        _ => Err("the query has to have two series as its answer, one with the label count=\"good\" and one with \
                  count=\"total\""
            .to_owned()),
    }
}

fn count(good: f64, total: f64) -> Result<Count, String> {
    if !(good >= 0.0 && good <= total && total < 1e18) {
        return Err(format!("{good} good ones of {total} in all make no sense"));
    }
    // Prometheus has nothing but floating point numbers; counts are whole ones, or as good as.
    let (good, total) = (good.round() as u64, total.round() as u64);
    Ok(Count { total, good: good.min(total) })
}

/// The answer of `/api/v1/query`: a scalar, or a vector of one element at most.
fn prometheus(document: &Value) -> Result<Option<f64>, String> {
    succeeded(document)?;
    let result = &document["data"]["result"];
    let sample = match document["data"]["resultType"].as_str() {
        Some("scalar") => result,
        Some("vector") => match result.as_array().map(Vec::as_slice) {
            Some([]) => return Ok(None),
            Some([one]) => &one["value"],
            Some(many) => return Err(format!("the query has {} series as its answer; one is wanted", many.len())),
            None => return Err("the answer is not one of Prometheus".to_owned()),
        },
        Some(other) => return Err(format!("the query has a {other} as its answer; a number is wanted")),
        None => return Err("the answer is not one of Prometheus".to_owned()),
    };
    number(&sample[1]).ok_or_else(|| format!("{sample} is no sample")).map(known)
}

/// A number, also as text, or `{"good": 99, "total": 100}`, which is a share from 0 to 1.
fn share_or_number(value: &Value) -> Result<Option<f64>, String> {
    match good_and_total(value)? {
        Some((good, total)) if !(good >= 0.0 && good <= total) => {
            Err(format!("{good} good ones of {total} in all make no sense"))
        }
        Some((good, total)) => Ok(known(good / total)),
        None => number(value).map(known).ok_or_else(|| format!("{value} is no number")),
    }
}

/// The numbers in `{"good": 99, "total": 100}`; `None` when it is no object.
fn good_and_total(value: &Value) -> Result<Option<(f64, f64)>, String> {
    let Value::Object(fields) = value else { return Ok(None) };
    let field = |name: &str| fields.get(name).and_then(number);
    match (field("good"), field("total")) {
        (Some(good), Some(total)) => Ok(Some((good, total))),
        _ => Err("the answer is an object without the numbers good and total".to_owned()),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What is not a number says that nothing is known, as a quotient without requests does.
fn known(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

/// Puts values for `{{name}}`.
fn fill(text: &str, variables: &Variables, write: impl Fn(&str) -> String) -> Result<String, String> {
    fill_in(text, |name| {
        variables.get(name).map(|value| write(value)).ok_or_else(|| {
            let known: Vec<_> = variables.keys().map(String::as_str).collect();
            format!("nothing is known of {{{{{name}}}}}; there are: {}", known.join(", "))
        })
    })
}

/// For the query of a URL: all but RFC 3986's unreserved characters as `%XX`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => all.push(char::from(byte)),
            _ => write!(all, "%{byte:02X}").expect("a String takes what is written"),
        }
        all
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("service", "reviews.default"), ("revision", "v2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn asked(kind: MetricKind, text: &str, path: Option<&str>) -> Question {
        let (query, url) = match kind {
            MetricKind::Web => (None, Some(text.to_owned())),
            _ => (Some(text.to_owned()), None),
        };
        let json_path = path.map(str::to_owned);
        let spec = MetricSpec { name: "asked".to_owned(), kind, query, url, json_path, ..MetricSpec::default() };
        Question::new(&spec, Some("http://prometheus:9090/"), &variables()).unwrap().unwrap()
    }

    #[test]
    fn a_query_goes_to_prometheus_with_its_variables_filled_in() {
        let question = asked(MetricKind::PromQuery, "rate(x{v=\"{{revision}}\"}[{{ interval }}])", None);
        assert_eq!(question.url, "http://prometheus:9090/api/v1/query?query=rate%28x%7Bv%3D%22v2%22%7D%5B60s%5D%29");
        let question = asked(MetricKind::Web, "http://web/{{service}}?r={{revision}}", None);
        assert_eq!(question.url, "http://web/reviews.default?r=v2");
        let own =
            MetricSpec { kind: MetricKind::PromQuery, url: Some("http://own".to_owned()), ..MetricSpec::default() };
        let question = Question::new(&own, Some("http://prometheus:9090"), &variables()).unwrap().unwrap();
        assert_eq!(question.url, "http://own/api/v1/query?query=");
        assert_eq!(Question::new(&MetricSpec::default(), None, &variables()), Ok(None));
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let spec = |query: &str| MetricSpec {
            kind: MetricKind::PromQuery,
            query: Some(query.to_owned()),
            ..MetricSpec::default()
        };
        let error = |query: &str, address| Question::new(&spec(query), address, &variables()).unwrap_err();
        assert!(error("up", None).contains("there is no Prometheus to ask"));
        let words = error("{{pod}}", Some("http://p"));
        assert_eq!(words, "nothing is known of {{pod}}; there are: interval, revision, service");
        assert!(error("{{revision", Some("http://p")).contains("without its }}"));
    }

    #[test]
    fn answers_of_prometheus_are_numbers_or_nothing_or_errors() {
        let question = asked(MetricKind::PromQuery, "up", None);
        let answer = |result_type: &str, result: &str| {
            let body = format!(r#"{{"status":"success","data":{{"resultType":"{result_type}","result":{result}}}}}"#);
            question.answer(&body)
        };
        assert_eq!(answer("vector", r#"[{"metric":{},"value":[1.5,"0.25"]}]"#), Ok(Some(0.25)));
        assert_eq!(answer("scalar", r#"[1.5,"7"]"#), Ok(Some(7.0)));
        assert_eq!(answer("scalar", r#"[1.5,"+Inf"]"#), Ok(Some(f64::INFINITY)));
        assert_eq!(answer("vector", "[]"), Ok(None));
        assert_eq!(answer("vector", r#"[{"metric":{},"value":[1.5,"NaN"]}]"#), Ok(None));
        assert!(answer("vector", r#"[{"value":[1,"1"]},{"value":[1,"2"]}]"#).unwrap_err().contains("2 series"));
        assert!(answer("matrix", "[]").unwrap_err().contains("a matrix"));
        assert!(answer("vector", r#"[{"metric":{}}]"#).is_err());
        assert!(answer("vector", "{}").is_err());
        assert_eq!(question.answer(r#"{"status":"error","error":"parse error"}"#), Err("parse error".to_owned()));
        assert!(question.answer("<html>").unwrap_err().contains("not JSON"));
        assert!(question.answer("[]").is_err());
    }

    #[test]
    fn answers_of_others_are_numbers_or_shares() {
        let question = asked(MetricKind::Web, "http://web", Some("$.checks[0]"));
        let answer = |value: &str| question.answer(&format!(r#"{{"checks":[{value}]}}"#));
        assert_eq!(answer("0.5"), Ok(Some(0.5)));
        assert_eq!(answer("\"12\""), Ok(Some(12.0)));
        assert_eq!(answer(r#"{"good":99,"total":100}"#), Ok(Some(0.99)));
        assert_eq!(answer(r#"{"good":0,"total":0}"#), Ok(None));
        assert!(answer(r#"{"good":3,"total":2}"#).unwrap_err().contains("make no sense"));
        assert!(answer(r#"{"good":3}"#).unwrap_err().contains("without the numbers"));
        assert!(answer("true").unwrap_err().contains("is no number"));
        assert!(question.answer("{}").unwrap_err().contains("nothing at"));
    }

    fn counting(kind: MetricKind) -> [Question; 2] {
        let (query, url) = match kind {
            MetricKind::Web => (None, Some("http://web/{{revision}}".to_owned())),
            _ => (Some("sum(x{v='{{revision}}'})".to_owned()), None),
        };
        let json_path = Some("$.of".to_owned()).filter(|_| kind == MetricKind::Web);
        let spec = MetricSpec { kind, query, url, json_path, slo: Some(0.01), ..MetricSpec::default() };
        let variables = [("revision", "v2"), ("candidate", "v2"), ("stable", "v1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Question::of_both(&spec, Some("http://p"), &variables).unwrap().unwrap()
    }

    #[test]
    fn what_counts_is_asked_of_both_revisions() {
        let urls = counting(MetricKind::Web).map(|question| question.url);
        assert_eq!(urls, ["http://web/v2", "http://web/v1"]);
        let [_, stable] = counting(MetricKind::PromQuery);
        assert!(stable.url.ends_with("sum%28x%7Bv%3D%27v1%27%7D%29"), "{}", stable.url);
    }

    #[test]
    fn counts_are_good_ones_and_all_of_them_and_nothing_else() {
        let [web, _] = counting(MetricKind::Web);
        let answer = |value: &str| web.count(&format!(r#"{{"of":{value}}}"#));
        assert_eq!(answer(r#"{"good":"99","total":100}"#), Ok(Some(Count { total: 100, good: 99 })));
        assert!(answer("0.99").unwrap_err().contains("is no count"));
        assert!(answer(r#"{"good":3,"total":2}"#).unwrap_err().contains("make no sense"));
        assert!(answer(r#"{"good":1,"total":1e300}"#).unwrap_err().contains("make no sense"));
        let [prometheus, _] = counting(MetricKind::PromQuery);
        let answer = |result: &str| {
            let body = format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#);
            prometheus.count(&body)
        };
        let series = |name: &str, value: &str| format!(r#"{{"metric":{{"count":"{name}"}},"value":[1,"{value}"]}}"#);
        let (good, total) = (series("good", "98.9999"), series("total", "100"));
        assert_eq!(answer(&format!("{good},{total}")), Ok(Some(Count { total: 100, good: 99 })));
        assert_eq!(answer(""), Ok(None), "there are no such series");
        for other in [good.clone(), format!("{good},{good}"), format!("{good},{total},{total}")] {
            assert!(answer(&other).unwrap_err().contains("two series"), "{other}");
        }
        assert_eq!(prometheus.count(r#"{"status":"error","error":"parse error"}"#), Err("parse error".to_owned()));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}"#;
        assert!(prometheus.count(scalar).unwrap_err().contains("not a vector"));
    }

    #[test]
    fn what_came_between_two_answers_is_their_difference_unless_it_was_begun_anew() {
        let count = |good, total| Count { total, good };
        assert_eq!(count(108, 110).since(count(99, 100)), Some(Tally::new(10, 1)));
        assert_eq!(count(100, 100).since(count(100, 100)), Some(Tally::new(0, 0)));
        assert_eq!(count(5, 6).since(count(99, 100)), None);
        assert_eq!(count(99, 120).since(count(100, 100)), None, "what was good does not become bad");
    }
}
