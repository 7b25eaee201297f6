//! `spec.strategy` and `spec.stickiness` of an intent.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::span::{OptionalSpan, Span};
use super::{Amount, RequestMatch, Weight};
use crate::api::schema::{HEADER, TIME, TOKEN, at_least, rule};

/// `spec.strategy`: a type and the block of that type, which may be left out where its defaults do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.type == 'Canary' || !has(self.canary)",
            "the block canary is for type: Canary",
        ),
        rule(
            "self.type == 'BlueGreen' || !has(self.blueGreen)",
            "the block blueGreen is for type: BlueGreen",
        ),
        rule(
            "self.type == 'Rolling' || !has(self.rolling)",
            "the block rolling is for type: Rolling",
        ),
        rule(
            "(self.type == 'AB') == has(self.ab)",
            "the block ab is for type: AB, which needs it",
        ),
        rule(
            "self.type == 'Mirror' || !has(self.mirror)",
            "the block mirror is for type: Mirror",
        ),
    ]))]
pub struct Strategy {
    /// Which.
    #[serde(rename = "type")]
    pub kind: StrategyType,
    /// For `Canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// For `BlueGreen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,
    /// For `Rolling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
    /// For `AB`, which needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ab: Option<AbTest>,
    /// For `Mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorTest>,
}

/// `strategy.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// Weights rise step by step.
    #[default]
    Canary,
    /// All at once, after a look.
    BlueGreen,
    /// Endpoints are exchanged in batches.
    Rolling,
    /// Several variants side by side, for their users' sake.
    #[serde(rename = "AB")]
    Ab,
    /// Copies of requests; answers are thrown away.
    Mirror,
}

/// `strategy.canary`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "(has(self.allowDecrease) && self.allowDecrease) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).isSorted()",
            "weights do not fall, but with allowDecrease: true",
        ),
        rule(
            "(has(self.allowDecrease) && self.allowDecrease) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).all(w, w <= self.maxStep + 0.00001 || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).exists(v, v < w && w - v <= self.maxStep + 0.00001))",
            "no weight rises by more than maxStep",
        ),
        rule(
            "self.promote == 'Manual' || (self.steps.filter(s, has(s.setWeight)).size() > 0 && self.steps.filter(s, has(s.setWeight))[self.steps.filter(s, has(s.setWeight)).size() - 1].setWeight == 100.0)",
            "the last weight is 100, or promote is Manual",
        ),
    ]))]
pub struct Canary {
    /// What is done, in order.
    #[schemars(length(min = 1, max = 64))]
    pub steps: Vec<Step>,
    /// Weights may fall between steps.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_decrease: bool,
    /// The largest single rise.
    #[schemars(range(min = 0.0001))]
    pub max_step: Weight,
    /// Whether the candidate becomes stable by itself after the last step.
    pub promote: Promotion,
}

impl Default for Canary {
    /// 1, 5, 10, 25, 50 and 100 percent, each judged.
    fn default() -> Self {
        let ppm = [10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];
        let steps = ppm.into_iter().flat_map(|ppm| {
            let rise = Step { set_weight: Some(Weight::from_ppm(ppm)), ..Step::default() };
            [rise, Step { analysis: Some(StepAnalysis::default()), ..Step::default() }]
        });
        Self { steps: steps.collect(), allow_decrease: false, max_step: Weight::FULL, promote: Promotion::Auto }
    }
}

/// Who promotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// The run itself.
    #[default]
    Auto,
    /// Somebody, by the action `promote`.
    Manual,
}

/// One step: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "[has(self.setWeight), has(self.pause), has(self.analysis), has(self.headerRoute), has(self.mirror), has(self.requireEndpoints), has(self.gate)].filter(given, given).size() == 1",
            "a step is exactly one of setWeight, pause, analysis, headerRoute, mirror, requireEndpoints and gate",
        ),
    ]))]
pub struct Step {
    /// The candidate's share from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_weight: Option<Weight>,
    /// Waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStep>,
    /// Waits for a verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<StepAnalysis>,
    /// Sends matching requests to the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_route: Option<HeaderRoute>,
    /// Sends copies to the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStep>,
    /// Waits for endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_endpoints: Option<RequireEndpoints>,
    /// Waits for a yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStep>,
}

impl Step {
    /// The names of the fields that are given, in order.
    pub fn given(&self) -> Vec<&'static str> {
        let fields = [
            ("setWeight", self.set_weight.is_some()),
            ("pause", self.pause.is_some()),
            ("analysis", self.analysis.is_some()),
            ("headerRoute", self.header_route.is_some()),
            ("mirror", self.mirror.is_some()),
            ("requireEndpoints", self.require_endpoints.is_some()),
            ("gate", self.gate.is_some()),
        ];
        fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// `pause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!has(self.duration) || duration(self.duration) >= duration('1s')",
            "a pause is at least 1s; without a duration it waits for somebody",
        ),
    ]))]
pub struct PauseStep {
    /// How long; until somebody promotes without.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// `analysis` of a step: what is left out is said by `spec.analysis`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!has(self.minDuration) || !has(self.maxDuration) || duration(self.minDuration) <= duration(self.maxDuration)",
            "minDuration is not longer than maxDuration",
        ),
    ]))]
pub struct StepAnalysis {
    /// Judges by this profile as well, from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_ref: Option<String>,
    /// Never passes sooner.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub min_duration: Option<Duration>,
    /// Is inconclusive afterwards.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// Never passes with fewer requests to the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
}

/// `headerRoute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!self.enabled || (has(self.match) && size(self.match) > 0)",
            "there is no match: say which requests are meant",
        ),
    ]))]
pub struct HeaderRoute {
    /// By which a later step finds it again.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Which requests.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
    /// False takes the route of this name away.
    pub enabled: bool,
}

impl Default for HeaderRoute {
    fn default() -> Self {
        Self { name: String::new(), matches: Vec::new(), enabled: true }
    }
}

/// `mirror` of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MirrorStep {
    /// Of how many requests a copy is sent.
    pub percent: Weight,
    /// Of which requests; of all when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
    /// Copies of requests that change something are meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_methods: bool,
    /// False ends mirroring.
    pub enabled: bool,
}

impl Default for MirrorStep {
    fn default() -> Self {
        Self { percent: Weight::FULL, matches: Vec::new(), allow_unsafe_methods: false, enabled: true }
    }
}

/// `requireEndpoints`: at least one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.absolute) || has(self.percentOfStable)",
            "give absolute or percentOfStable",
        ),
    ]))]
pub struct RequireEndpoints {
    /// So many healthy ones of the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub absolute: Option<u32>,
    /// In percent of stable's healthy ones; may be above 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub percent_of_stable: Option<u32>,
}

/// `gate` of a step: a webhook, or somebody's `promote`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.webhook) != (has(self.manual) && self.manual)",
            "give webhook or manual: true, and not both",
        ),
    ]))]
pub struct GateStep {
    /// The URL that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https://.+"))]
    pub webhook: Option<String>,
    /// Waits for the action `promote`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
}

/// `strategy.blueGreen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BlueGreen {
    /// Who sees the candidate before the switch.
    pub preview: Preview,
    /// Switches by itself once the candidate is ready.
    pub auto_promote: bool,
    /// Waits before it switches.
    #[serde(with = "Span")]
    pub delay: Duration,
    /// All at once, or over some time.
    pub switch: Switch,
    /// Keeps what was stable ready for so long.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("30s")))]
    pub keep_previous: Duration,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            preview: Preview::default(),
            auto_promote: true,
            delay: Duration::ZERO,
            switch: Switch::Instant,
            keep_previous: Duration::from_secs(600),
        }
    }
}

/// `blueGreen.preview`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Preview {
    /// Which requests go to the candidate; none when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
}

/// `blueGreen.switch`: `Instant`, or `{ramp: 5m}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// In one publication.
    #[default]
    Instant,
    /// In ten even parts over this time.
    Ramp(Duration),
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Ramp {
            #[serde(with = "Span")]
            ramp: Duration,
        }
        match self {
            Switch::Instant => serializer.serialize_str("Instant"),
            Switch::Ramp(ramp) => Ramp { ramp: *ramp }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InstantOrRamp;
        impl<'de> Visitor<'de> for InstantOrRamp {
            type Value = Switch;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("Instant, or a mapping such as {ramp: 5m}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "Instant" => Ok(Switch::Instant),
                    _ => Err(E::unknown_variant(text, &["Instant", "{ramp: 5m}"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Switch, A::Error> {
                let mut ramp = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "ramp" {
                        map.next_value::<IgnoredAny>()?;
                        return Err(A::Error::custom(format!("unknown field {key:?}; write Instant or {{ramp: 5m}}")));
                    }
                    let text = map.next_value::<String>()?;
                    ramp = Some(crate::text::parse_duration(&text).map_err(A::Error::custom)?);
                }
                ramp.map(Switch::Ramp).ok_or_else(|| A::Error::missing_field("ramp"))
            }
        }
        deserializer.deserialize_any(InstantOrRamp)
    }
}

/// A word or a mapping: an API server's schema can check the word, and has to let any mapping pass.
impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-preserve-unknown-fields": true, "pattern": "^Instant$"})
    }
}

/// `strategy.rolling`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rolling {
    /// How many endpoints change at a time, of as many as stable has when the run begins.
    #[schemars(range(min = 1))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "type(self) != string || !self.matches('^0*([.]0*)?%?$')",
            "a batch is at least one endpoint",
        ),
    ]))]
    pub batch: Amount,
    /// How many may be missing meanwhile.
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "type(self) != string || !self.matches('^100([.]0*)?%$')",
            "not all endpoints may be missing",
        ),
    ]))]
    pub max_unavailable: Amount,
    /// Waits after each batch.
    #[serde(with = "Span")]
    pub settle: Duration,
}

impl Default for Rolling {
    fn default() -> Self {
        Self {
            batch: Amount::Share(Weight::from_ppm(250_000)),
            max_unavailable: Amount::Count(0),
            settle: Duration::from_secs(30),
        }
    }
}

/// `strategy.ab`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.variants.all(v, self.variants.exists_one(w, w.name == v.name))",
            "names of variants are unique",
        ),
        rule(
            "self.variants.filter(v, has(v.share)).map(v, v.share).sum() > 99.99995 && self.variants.filter(v, has(v.share)).map(v, v.share).sum() < 100.00005",
            "the shares add up to 100",
        ),
    ]))]
pub struct AbTest {
    /// Two to eight.
    #[schemars(length(min = 2, max = 8))]
    pub variants: Vec<Variant>,
    /// When it ends, as RFC 3339 in UTC; with nobody's decision, stable takes everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TIME))]
    pub end_at: Option<String>,
    /// Who says which variant wins.
    pub winner: Winner,
}

/// `ab.variants[]`: reached by a share or by matching.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.share) || (has(self.match) && size(self.match) > 0)",
            "nothing leads to the variant: give it a share or a match",
        ),
    ]))]
pub struct Variant {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The revision that serves it.
    #[schemars(length(min = 1))]
    pub revision: String,
    /// Its share of what no variant matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Weight>,
    /// Requests that always get it.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
}

/// `ab.winner`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Winner {
    /// Somebody, by promoting or aborting.
    #[default]
    Manual,
    /// The candidate, when the analysis passes at the end.
    BySignal,
}

/// `strategy.mirror`: copies for a while, and a verdict. Nobody is ever answered by the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MirrorTest {
    /// Of how many requests a copy is sent.
    #[schemars(range(min = 0.0001))]
    pub percent: Weight,
    /// Of which requests; of all when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
    /// Copies of requests that change something are meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_methods: bool,
    /// For how long at least.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub duration: Duration,
}

impl Default for MirrorTest {
    fn default() -> Self {
        Self {
            percent: Weight::FULL,
            matches: Vec::new(),
            allow_unsafe_methods: false,
            duration: Duration::from_secs(600),
        }
    }
}

/// `spec.stickiness`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.mode != 'Hash' || (has(self.key) && size(self.key) > 0)",
            "Hash needs a key: header, cookie, query or sourceIp",
        ),
    ]))]
pub struct Stickiness {
    /// How.
    pub mode: StickinessMode,
    /// What a client is known by, the first that it has; for `Hash`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub key: Vec<HashKey>,
    /// The cookie of `Cookie`.
    pub cookie: StickyCookie,
}

/// `stickiness.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StickinessMode {
    /// Every request is a new draw.
    #[default]
    None,
    /// By a hash of the client's key: who is on the candidate stays there as its weight rises.
    Hash,
    /// By a cookie that the answer sets.
    Cookie,
}

/// `stickiness.key[]`: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "[has(self.header), has(self.cookie), has(self.query), has(self.sourceIp) && self.sourceIp].filter(given, given).size() == 1",
            "exactly one of header, cookie, query and sourceIp is given",
        ),
    ]))]
pub struct HashKey {
    /// The value of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = HEADER))]
    pub header: Option<String>,
    /// The value of a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TOKEN))]
    pub cookie: Option<String>,
    /// The value of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The client's address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub source_ip: bool,
}

/// `stickiness.cookie`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StickyCookie {
    /// A token of RFC 6265.
    #[schemars(regex(pattern = TOKEN))]
    pub name: String,
    /// `Max-Age`.
    #[serde(with = "Span")]
    pub ttl: Duration,
    /// `Path`.
    pub path: String,
    /// `Domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
}

impl Default for StickyCookie {
    fn default() -> Self {
        Self {
            name: "pm-rev".to_owned(),
            ttl: Duration::from_secs(24 * 3600),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
        }
    }
}

/// `cookie.sameSite`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    None,
}
