//! Points in time as RFC 3339 writes them.

/// Milliseconds since 1970 in UTC of an RFC 3339 text: `2026-12-24T18:00:00Z`, `2026-12-24T19:00:00.5+01:00`.
///
/// # Errors
/// Says what is wrong with the text. Times before 1970 are refused.
pub fn parse_time(text: &str) -> Result<u64, String> {
    read(text).ok_or_else(|| format!("{text:?} is not a time (example: 2026-12-24T18:00:00Z)"))
}

fn read(text: &str) -> Option<u64> {
    // Fields stand at fixed places, so anything but ASCII is wrong, and slicing below cannot split a character.
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = &text[from..to];
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
    };
    let is_at = |at: usize, allowed: &str| allowed.contains(char::from(text.as_bytes()[at]));
    let is_shaped = is_at(4, "-") && is_at(7, "-") && is_at(10, "Tt ") && is_at(13, ":") && is_at(16, ":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last = *days.get(usize::try_from(month - 1).ok()?)?;
    if !is_shaped || !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        millis = format!("{:0<3}", &fraction[..end])[..3].parse().ok()?;
        rest = &fraction[end..];
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('+') { 1 } else { -1 };
            let (hours, minutes) = rest.strip_prefix(['+', '-'])?.split_once(':')?;
            let two = |part: &str| (part.len() == 2).then(|| part.parse::<u8>().ok()).flatten().map(i64::from);
            sign * (two(hours).filter(|h| *h < 24)? * 3600 + two(minutes).filter(|m| *m < 60)? * 60)
        }
    };
    let days = days_since_epoch(year, month, day);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    u64::try_from(seconds * 1_000 + millis).ok()
}

/// Days from 1970-01-01, by counting years from March so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
        - 1
        - 719_468
}

/// The RFC 3339 text in UTC of this many milliseconds since 1970, to the second: `2026-12-24T18:00:00Z`.
pub fn time_text(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (days, rest) = (i64::try_from(seconds / 86_400).unwrap_or(i64::MAX / 2), seconds % 86_400);
    // The inverse of the count above, four centuries at a time.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_alike() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-12-24T18:00:00Z", 1_798_135_200),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(parse_time(text), Ok(seconds * 1_000), "{text}");
            assert_eq!(time_text(seconds * 1_000), text);
        }
        assert_eq!(parse_time("2026-12-24T19:00:00.25+01:00"), Ok(1_798_135_200_250));
        for day in 0..80_000 {
            let millis = day * 86_400_000 + 1_000;
            assert_eq!(parse_time(&time_text(millis)), Ok(millis));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T00:00:00",
            "1969-01-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00éZ",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
