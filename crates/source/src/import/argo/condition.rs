//! `successCondition` and `failureCondition`: comparisons of the result with a number.

use world::api::delivery::Bounds;

/// The good values, and whether a bound that was left out is in them now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Good {
    pub(super) range: Bounds,
    /// Some comparison was strict: its bound counts as good here, and did not there.
    pub(super) was_strict: bool,
}

/// The values that are good by a condition: all its comparisons hold. `None` when it is anything else.
pub(super) fn good(condition: &str) -> Option<Good> {
    // What says that nothing was measured is no value: it does not count here, neither way.
    let mut ways = condition.split("||").map(str::trim).filter(|way| !is_about_absence(way));
    let way = ways.next()?;
    match ways.next() {
        Some(_) => None,
        None => all(way.split("&&"), false),
    }
}

/// The values that are good although a condition is bad: none of its alternatives holds.
pub(super) fn not_bad(condition: &str) -> Option<Good> {
    match condition.contains("&&") {
        true => None,
        false => all(condition.split("||").map(str::trim).filter(|way| !is_about_absence(way)), true),
    }
}

fn is_about_absence(way: &str) -> bool {
    let way = unwrapped(way);
    way.starts_with("isNaN(") || way.starts_with("isInf(") || way.replace(' ', "") == "len(result)==0"
}

fn all<'t>(comparisons: impl Iterator<Item = &'t str>, is_inverted: bool) -> Option<Good> {
    let mut good = Good::default();
    for comparison in comparisons {
        let (operator, number) = comparison_of(comparison)?;
        let operator = match (operator, is_inverted) {
            (operator, false) => operator,
            (">", true) => "<=",
            (">=", true) => "<",
            ("<", true) => ">=",
            ("<=", true) => ">",
            _ => return None,
        };
        good.was_strict |= matches!(operator, "<" | ">");
        if matches!(operator, ">" | ">=" | "==") {
            good.range.min = Some(good.range.min.map_or(number, |min| min.max(number)));
        }
        if matches!(operator, "<" | "<=" | "==") {
            good.range.max = Some(good.range.max.map_or(number, |max| max.min(number)));
        }
    }
    let is_empty = matches!((good.range.min, good.range.max), (Some(min), Some(max)) if min > max);
    (good.range != Bounds::default() && !is_empty).then_some(good)
}

/// Operator and number, with the result on the left.
fn comparison_of(text: &str) -> Option<(&'static str, f64)> {
    let text = unwrapped(text);
    let operator = [">=", "<=", "==", ">", "<"].into_iter().find(|operator| text.contains(operator))?;
    let (left, right) = text.split_once(operator)?;
    let (left, right) = (unwrapped(left), unwrapped(right));
    if is_result(left) {
        return Some((operator, right.parse().ok()?));
    }
    let mirrored = match operator {
        ">=" => "<=",
        "<=" => ">=",
        ">" => "<",
        "<" => ">",
        _ => "==",
    };
    is_result(right).then_some(())?;
    Some((mirrored, left.parse().ok()?))
}

fn is_result(text: &str) -> bool {
    matches!(text, "result" | "result[0]" | "asFloat(result)" | "asInt(result)" | "asFloat(result[0])")
}

/// Without the parentheses around the whole.
fn unwrapped(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    match inner.filter(|inner| !inner.contains(['(', ')'])) {
        Some(inner) => inner.trim(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: Option<f64>, max: Option<f64>) -> Option<(Bounds, bool)> {
        Some((Bounds { min, max }, false))
    }

    fn read(found: Option<Good>) -> Option<(Bounds, bool)> {
        found.map(|good| (good.range, good.was_strict))
    }

    #[test]
    fn comparisons_of_the_result_become_a_range() {
        assert_eq!(read(good("result[0] >= 0.95")), range(Some(0.95), None));
        assert_eq!(read(good("0.95 <= result")), range(Some(0.95), None));
        assert_eq!(read(good("(result >= 1) && (result <= 2)")), range(Some(1.0), Some(2.0)));
        assert_eq!(read(good("len(result) == 0 || isNaN(result[0]) || result[0] <= 5")), range(None, Some(5.0)));
        assert_eq!(read(good("asFloat(result) == 3")), range(Some(3.0), Some(3.0)));
        assert_eq!(read(good("result > 1")), Some((Bounds { min: Some(1.0), max: None }, true)));
    }

    #[test]
    fn a_failure_is_turned_round() {
        assert_eq!(read(not_bad("result[0] > 5")), range(None, Some(5.0)));
        assert_eq!(read(not_bad("result < 1 || result > 2")), range(Some(1.0), Some(2.0)));
        assert_eq!(read(not_bad("result >= 5")), Some((Bounds { min: None, max: Some(5.0) }, true)));
    }

    #[test]
    fn anything_else_is_not_understood() {
        for text in [
            "result.ok",
            "result != 5",
            "true",
            "result > x",
            "result < 1 || result > 2",
            "",
            "result >= 2 && result <= 1",
        ] {
            assert_eq!(good(text), None, "{text}");
        }
        for text in ["result > 1 && result < 2", "result == 5"] {
            assert_eq!(not_bad(text), None, "{text}");
        }
    }
}
