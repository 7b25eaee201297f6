//! Counts in a Redis, by the same rule as [`quota::Ledger`]'s.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quota::{Rate, Standing};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};

/// What keys begin with.
const PREFIX: &str = "pointsman:quota:";
/// How long Redis may take: less than proxies wait for us.
const TIMEOUT: Duration = Duration::from_millis(200);

/// One step of one count, which nobody else comes between. The clock is Redis's own, so that replicas need not agree.
/// A count is a hash: the window's number, what it let through, and what the one before did; it goes when it can count no
/// more.
static STEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local limit, hits, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local index = math.floor(micros / window)
local passed = (micros % window) / window
local count = redis.call('HMGET', KEYS[1], 'window', 'now', 'before')
local at, now, before = tonumber(count[1]), tonumber(count[2]) or 0, tonumber(count[3]) or 0
if at == nil then
  at, now, before = index, 0, 0
elseif index == at + 1 then
  at, now, before = index, 0, now
elseif index > at then
  at, now, before = index, 0, 0
elseif index < at then
  passed = 0
end
local used = now + math.ceil(before * (1 - passed))
local allowed = used + hits <= limit
if allowed then
  now = now + hits
end
redis.call('HSET', KEYS[1], 'window', at, 'now', now, 'before', before)
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 500))
used = now + math.ceil(before * (1 - passed))
return {allowed and 1 or 0, math.max(0, limit - used), math.floor(window * (1 - passed))}
",
    )
});

/// A Redis that replicas share.
pub(crate) struct RedisStore {
    connection: ConnectionManager,
    /// It did not answer when it was last asked.
    is_away: AtomicBool,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("is_away", &self.is_away).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects when it is first asked, and again whenever the connection is lost.
    pub(super) fn open(url: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { connection, is_away: AtomicBool::new(false) })
    }

    /// Asks for `hits`, all or nothing.
    pub(super) async fn take(&self, key: &str, rate: Rate, hits: i64) -> Result<Standing, RedisError> {
        let window = u64::try_from(rate.window().as_micros()).unwrap_or(u64::MAX);
        // Another rate has another key, and so begins anew.
        let key = format!("{PREFIX}{}/{window}:{key}", rate.requests());
        let mut step = STEP.prepare_invoke();
        step.key(key).arg(rate.requests()).arg(hits).arg(window);
        let answer = step.invoke_async::<(u8, u32, u64)>(&mut self.connection.clone()).await;
        match &answer {
            Ok(_) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("quotas are counted again");
                }
            }
            Err(error) => {
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the Redis of quotas does not answer; proxies do what the limits say for that");
                }
            }
        }
        let (allowed, remaining, until_reset) = answer?;
        Ok(Standing {
            is_allowed: allowed == 1,
            remaining,
            until_reset: Duration::from_micros(until_reset),
            is_uncounted: false,
        })
    }
}
