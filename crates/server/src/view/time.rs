//! Points in time, as text.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY: u64 = 86_400;

/// A time in UTC, to the millisecond. Displayed, written and read as RFC 3339 text such as
/// `2026-11-21T13:42:07.250Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    millis_since_1970: u64,
}

/// A text that is not a time of the form that [`Timestamp`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a time such as 2026-11-21T13:42:07.250Z")]
pub struct TimestampError(String);

impl Timestamp {
    /// The time as the clock has it.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis_since_1970)
    }
}

/// A time before 1970 becomes its beginning; no clock that is set says so.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { millis_since_1970: since_epoch.as_secs() * 1000 + u64::from(since_epoch.subsec_millis()) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.millis_since_1970 / 1000, self.millis_since_1970 % 1000);
        let (year, month, day) = date(seconds / DAY);
        let (hour, minute, second) = (seconds % DAY / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u64>().ok());
        let parse = || {
            let days = days(part(0..4)?, part(5..7)?, part(8..10)?)?;
            let seconds = days * DAY + part(11..13)? * 3600 + part(14..16)? * 60 + part(17..19)?;
            Some(Self { millis_since_1970: seconds * 1000 + part(20..23)? })
        };
        // Only the one form is taken: what is written again must be the same text.
        parse().filter(|time| time.to_string() == text).ok_or_else(|| TimestampError(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March, so that the day that may be missing is the last.
const DAYS_TO_1970: u64 = 719_468;
/// Days of 400 years.
const ERA: u64 = 146_097;

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    let (era, day_of_era) = ((days + DAYS_TO_1970) / ERA, (days + DAYS_TO_1970) % ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The other way round; `None` before 1970 and for months and days that there never are.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * ERA + day_of_era - DAYS_TO_1970)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_and_read_as_rfc_3339_text() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, text) in cases {
            let time = Timestamp::from(UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn what_is_not_such_a_text_is_not_read() {
        for text in ["", "2024-02-30T00:00:00.000Z", "2024-02-29T00:00:00Z", "1969-12-31T00:00:00.000Z", "now"] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError(text.to_owned())));
        }
    }
}
