//! What one line of the table says.

use serde_json::{Value, json};

use crate::figures::{Figures, bytes, time, verdict};

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Bytes,
    /// Anything that is counted, also per second.
    Number,
}

impl Unit {
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::Seconds => time(value),
            Unit::Bytes => bytes(value),
            Unit::Number if value >= 1e6 => format!("{:.2} M", value / 1e6),
            Unit::Number if value >= 1e4 => format!("{:.1} k", value / 1e3),
            Unit::Number => format!("{:.*}", usize::from(value.fract() != 0.0), value),
        }
    }

    /// One value, or the smallest, the median and the largest.
    fn spread(self, figures: &Figures) -> String {
        match figures.count() {
            0 => "-".to_owned(),
            1 => self.text(figures.median()),
            _ => [figures.min(), figures.median(), figures.max()].map(|value| self.text(value)).join(" / "),
        }
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// It is shown only.
    None,
    /// The median is at most this.
    AtMost(f64),
    /// The median is at most so many times the other median.
    TimesAtMost(f64),
    /// The median is at least so many times the other median.
    TimesAtLeast(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub scenario: String,
    pub figure: &'static str,
    pub unit: Unit,
    /// What the product did, once for each round.
    pub ours: Figures,
    /// What something else did in the same run, and what that was.
    pub beside: Option<(String, Figures)>,
    pub target: Target,
    /// What has to be known to read it.
    pub remark: String,
}

impl Row {
    pub fn new(scenario: &str, figure: &'static str, unit: Unit, ours: Figures) -> Row {
        let (beside, target, remark) = (None, Target::None, String::new());
        Row { scenario: scenario.to_owned(), figure, unit, ours, beside, target, remark }
    }

    /// A scenario that could not be run, and why.
    pub fn missing(scenario: &str, reason: &str) -> Row {
        // One line of a table.
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        Row { remark: format!("NOT RUN: {reason}"), ..Row::new(scenario, "-", Unit::Number, Figures::default()) }
    }

    pub fn beside(self, name: &str, figures: Figures) -> Row {
        Row { beside: Some((name.to_owned(), figures)), ..self }
    }

    pub fn target(self, target: Target) -> Row {
        Row { target, ..self }
    }

    pub fn remark(mut self, remark: impl AsRef<str>) -> Row {
        let remark = remark.as_ref();
        if !remark.is_empty() {
            let gap = if self.remark.is_empty() { "" } else { "; " };
            self.remark = format!("{}{gap}{remark}", self.remark);
        }
        self
    }

    /// The median divided by the other median.
    pub fn ratio(&self) -> Option<f64> {
        let (_, beside) = self.beside.as_ref()?;
        (self.ours.count() > 0 && beside.count() > 0).then(|| self.ours.median() / beside.median())
    }

    /// Whether the target is reached, where there is one and it was measured.
    pub fn is_reached(&self) -> Option<bool> {
        match self.target {
            Target::None => None,
            Target::AtMost(most) => (self.ours.count() > 0).then(|| self.ours.median() <= most),
            Target::TimesAtMost(most) => self.ratio().map(|ratio| ratio <= most),
            Target::TimesAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
        }
    }

    /// As cells of the table.
    pub fn cells(&self) -> [String; 8] {
        let target = match self.target {
            Target::None => "-".to_owned(),
            Target::AtMost(most) => format!("≤ {}", self.unit.text(most)),
            Target::TimesAtMost(most) => format!("≤ {most} ×"),
            Target::TimesAtLeast(least) => format!("≥ {least} ×"),
        };
        let (name, beside) = match &self.beside {
            Some((name, figures)) => (format!("{name}: "), self.unit.spread(figures)),
            None => (String::new(), "-".to_owned()),
        };
        [
            self.scenario.clone(),
            self.figure.to_owned(),
            self.unit.spread(&self.ours),
            format!("{name}{beside}"),
            self.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            target,
            self.is_reached().map_or("-", verdict).to_owned(),
            self.remark.clone(),
        ]
    }

    pub fn json(&self) -> Value {
        let spread = |figures: &Figures| match figures.count() {
            0 => Value::Null,
            rounds => {
                json!({"rounds": rounds, "min": figures.min(), "median": figures.median(), "max": figures.max()})
            }
        };
        json!({
            "scenario": self.scenario,
            "figure": self.figure,
            "unit": match self.unit { Unit::Seconds => "seconds", Unit::Bytes => "bytes", Unit::Number => "number" },
            "ours": spread(&self.ours),
            "beside": self.beside.as_ref().map(|(name, figures)| json!({"name": name, "figures": spread(figures)})),
            "ratio": self.ratio(),
            "target": match self.target {
                Target::None => Value::Null,
                Target::AtMost(most) => json!({"at_most": most}),
                Target::TimesAtMost(most) => json!({"times_at_most": most}),
                Target::TimesAtLeast(least) => json!({"times_at_least": least}),
            },
            "reached": self.is_reached(),
            "remark": self.remark,
        })
    }
}
