//! Waiting for something with a deadline, by asking again.

use std::fmt;
use std::time::{Duration, Instant};

/// The first pause between two probes; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Short enough not to show in a test's duration, long enough to cost no CPU over a minute.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What was waited for did not happen in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    what: String,
    within: Duration,
    last: Option<String>,
}

impl Late {
    /// `what` was awaited for `within`; `last` is what was seen at the last look, `None` if no look ever ended.
    pub fn new(what: impl Into<String>, within: Duration, last: Option<String>) -> Self {
        Late { what: what.into(), within, last }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?} for {}, in vain; ", self.within, self.what)?;
        match &self.last {
            Some(last) => write!(f, "last seen: {last}"),
            None => write!(f, "no look at it ever ended"),
        }
    }
}

impl std::error::Error for Late {}

/// Asks `probe` again and again until it returns `Ok`, and returns that value.
///
/// The probe is always asked at least once. A probe that hangs is cut off at the deadline.
///
/// # Errors
/// [`Late`] once `within` has passed; it tells what the last `Err` said.
pub async fn until<T, E: fmt::Display>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Late> {
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = Some(seen.to_string()),
            Err(_) => return Err(Late::new(what, within, last)),
        }
        if Instant::now() >= deadline {
            return Err(Late::new(what, within, last));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn returns_what_the_probe_returns_as_soon_as_it_does() {
        let mut asked = 0;
        let answer = until("the third answer", Duration::from_secs(5), async || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { Err(format!("answer {asked}")) }
        });
        assert_eq!(answer.await, Ok(3));
    }

    #[tokio::test]
    async fn says_what_was_seen_last_when_it_is_too_late() {
        let within = Duration::from_millis(30);
        let late = until::<(), _>("rain", within, async || Err("sunshine")).await.unwrap_err();
        assert_eq!(late.to_string(), "waited 30ms for rain, in vain; last seen: sunshine");
    }

    #[tokio::test]
    async fn cuts_off_a_probe_that_hangs() {
        let within = Duration::from_millis(30);
        let late = until::<(), &str>("godot", within, async || std::future::pending().await).await.unwrap_err();
        assert_eq!(late, Late::new("godot", within, None));
    }
}
