//! What an unquoted word of YAML means: as Go's YAML 1.1 reader under kubectl resolves it, so that `yes` is a boolean
//! and `0644` is octal here as well.

use super::node::Value;

/// Resolves an unquoted, untagged scalar.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Value::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    // Most words are not numbers, and their first character shows it.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::String(text.into());
    }
    integer(text).or_else(|| float(text)).unwrap_or_else(|| Value::String(text.into()))
}

/// `12`, `-12`, `1_000`, `0x1f`, `0b101`, `0o17`, `017`.
fn integer(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (is_negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // The standard parser would take another sign.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    if is_negative {
        return 0i64.checked_sub_unsigned(number).map(Value::Int);
    }
    Some(i64::try_from(number).map_or(Value::Unsigned(number), Value::Int))
}

/// `1.5`, `.5`, `1.`, `1e3`; not Rust's `inf` and `nan`.
fn float(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let is_decimal = plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    let has_digit = plain.bytes().any(|b| b.is_ascii_digit());
    (is_decimal && has_digit).then(|| plain.parse().ok().map(Value::Float))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_they_mean_to_kubectl() {
        for (text, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("12", Value::Int(12)),
            ("-12", Value::Int(-12)),
            ("+12", Value::Int(12)),
            ("1_000", Value::Int(1000)),
            ("0644", Value::Int(0o644)),
            ("0o17", Value::Int(0o17)),
            ("0x1F", Value::Int(31)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("18446744073709551615", Value::Unsigned(u64::MAX)),
            ("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0)),
            ("1.50", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            ("089", Value::Float(89.0)),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
        for text in
            ["v1", "1.2.3", "10.0.0.1", "5s", "-", "+", ".", "1-2", "0x", "--1", "inf", "2026-03-01", "80:80", "é"]
        {
            assert_eq!(resolve(text), Value::String(text.into()), "{text}");
        }
    }
}
