//! Rules for numbers, and for times taken as numbers.

use std::fmt;

use super::Broken;

/// The rules that all numbers share.
pub(in super::super) struct Numbers<T> {
    /// The type's name in rules, such as `uint32`.
    pub(super) name: &'static str,
    pub(super) constant: Option<T>,
    pub(super) lt: Option<T>,
    pub(super) lte: Option<T>,
    pub(super) gt: Option<T>,
    pub(super) gte: Option<T>,
    pub(super) any_of: Box<[T]>,
    pub(super) none_of: Box<[T]>,
    /// Whether the default value passes.
    pub(super) ignore_empty: bool,
}

/// `Numbers<$wide>` of one of the twelve messages of number rules, which differ only in their type.
macro_rules! numbers {
    ($name:literal, $rules:expr, $wide:ty) => {{
        let rules = $rules;
        Numbers::<$wide> {
            name: $name,
            constant: rules.r#const.map(<$wide>::from),
            lt: rules.lt.map(<$wide>::from),
            lte: rules.lte.map(<$wide>::from),
            gt: rules.gt.map(<$wide>::from),
            gte: rules.gte.map(<$wide>::from),
            any_of: rules.r#in.iter().copied().map(<$wide>::from).collect(),
            none_of: rules.not_in.iter().copied().map(<$wide>::from).collect(),
            ignore_empty: rules.ignore_empty(),
        }
    }};
}
pub(super) use numbers;

impl<T: Copy + PartialOrd + Default + fmt::Display> Numbers<T> {
    /// Checks one value. A float that is not a number is outside of every range, as Envoy has it for percentages.
    #[inline]
    pub(super) fn check(&self, value: T) -> Option<Broken> {
        if self.ignore_empty && value == T::default() {
            return None;
        }
        let listed = self.constant.is_none_or(|c| c == value)
            && (self.any_of.is_empty() || self.any_of.contains(&value))
            && !self.none_of.contains(&value);
        if listed && self.in_range(value) { None } else { Some(self.broken(value)) }
    }

    #[inline]
    fn in_range(&self, value: T) -> bool {
        let above = self.gt.is_none_or(|bound| value > bound) && self.gte.is_none_or(|bound| value >= bound);
        let below = self.lt.is_none_or(|bound| value < bound) && self.lte.is_none_or(|bound| value <= bound);
        (above && below) || ((above || below) && self.is_reversed())
    }

    /// Bounds the wrong way round exclude what lies between them.
    fn is_reversed(&self) -> bool {
        match (self.gt.or(self.gte), self.lt.or(self.lte)) {
            (Some(lower), Some(upper)) => lower > upper,
            _ => false,
        }
    }

    #[cold]
    fn broken(&self, value: T) -> Broken {
        let mut rules: Vec<String> =
            [("const", self.constant), ("gt", self.gt), ("gte", self.gte), ("lt", self.lt), ("lte", self.lte)]
                .into_iter()
                .filter_map(|(what, bound)| Some(format!("{}.{what} = {}", self.name, bound?)))
                .collect();
        for (what, list) in [("in", &self.any_of), ("not_in", &self.none_of)] {
            if !list.is_empty() {
                let list: Vec<_> = list.iter().map(T::to_string).collect();
                rules.push(format!("{}.{what} = [{}]", self.name, list.join(", ")));
            }
        }
        Broken { rule: rules.join(", "), value: value.to_string() }
    }
}

/// A duration, or a time since 1970. Displayed in seconds, such as `0.25s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(in super::super) struct Nanoseconds(i128);

impl Nanoseconds {
    pub(super) fn new(seconds: i64, nanos: i32) -> Self {
        Self(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
    }
}

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (seconds, nanos) = (self.0.unsigned_abs() / 1_000_000_000, self.0.unsigned_abs() % 1_000_000_000);
        let fraction = format!(".{nanos:09}");
        write!(f, "{sign}{seconds}{}s", fraction.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(gt: Option<f64>, lt: Option<f64>) -> Numbers<f64> {
        let (constant, lte, gte, any_of, none_of) = (None, None, None, [].into(), [].into());
        Numbers { name: "double", constant, lt, lte, gt, gte, any_of, none_of, ignore_empty: false }
    }

    #[test]
    fn bounds_the_wrong_way_round_exclude_what_lies_between() {
        let rule = range(Some(10.0), Some(5.0));
        assert_eq!([4.0, 5.0, 7.0, 10.0, 11.0].map(|v| rule.check(v).is_none()), [true, false, false, false, true]);
    }

    #[test]
    fn not_a_number_is_outside_of_every_range() {
        assert!(range(Some(0.0), None).check(f64::NAN).is_some());
        assert!(range(Some(10.0), Some(5.0)).check(f64::NAN).is_some());
        assert!(range(None, None).check(f64::NAN).is_none());
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let shown = |seconds, nanos| Nanoseconds::new(seconds, nanos).to_string();
        assert_eq!(shown(1, 0), "1s");
        assert_eq!(shown(0, 250_000_000), "0.25s");
        assert_eq!(shown(-1, -500_000_000), "-1.5s");
        assert_eq!(shown(0, 1), "0.000000001s");
    }
}
