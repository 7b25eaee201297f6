//! Where counts are kept.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quota::{Ledger, Rate, Standing};

use super::redis_store::RedisStore;

/// Parts of the ledger that can be used at one time.
const PARTS: usize = 16;
/// How many keys are counted for at a time, of some 150 bytes each.
const MOST_KEYS: usize = 400_000;

/// Where quotas are counted.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum QuotaStore {
    /// In this process: a restart begins anew, and each replica counts for itself.
    #[default]
    Embedded,
    /// In the Redis at this URL, `redis://[user:password@]host[:port][/database]` or `rediss://…` with TLS: all
    /// replicas count together.
    Redis(String),
}

/// Without the address, which may have a password in it.
impl fmt::Debug for QuotaStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuotaStore::Embedded => "Embedded",
            QuotaStore::Redis(_) => "Redis",
        })
    }
}

/// Reads the URL of a Redis.
impl FromStr for QuotaStore {
    type Err = redis::RedisError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        redis::Client::open(url).map(|_| QuotaStore::Redis(url.to_owned()))
    }
}

/// A store in use.
#[derive(Debug)]
pub(crate) enum Store {
    Embedded(Embedded),
    Redis(RedisStore),
}

/// Counts in this process.
#[derive(Debug)]
pub(crate) struct Embedded {
    parts: Box<[Mutex<Ledger>]>,
    hasher: RandomState,
    since: Instant,
}

impl Store {
    /// Opens it; a Redis is connected to when it is first asked.
    ///
    /// # Errors
    /// A URL that is none.
    pub(crate) fn open(store: &QuotaStore) -> Result<Self, redis::RedisError> {
        Ok(match store {
            QuotaStore::Embedded => Store::Embedded(Embedded::new()),
            QuotaStore::Redis(url) => Store::Redis(RedisStore::open(url)?),
        })
    }

    /// Asks for `hits`, all or nothing.
    ///
    /// # Errors
    /// Nobody can say how many there were.
    pub(crate) async fn take(&self, key: &str, rate: Rate, hits: u64) -> Result<Standing, redis::RedisError> {
        match self {
            Store::Embedded(embedded) => Ok(embedded.part(key).take(key, rate, hits, embedded.now())),
            Store::Redis(redis) => redis.take(key, rate, i64::try_from(hits).unwrap_or(i64::MAX)).await,
        }
    }
}

impl Embedded {
    fn new() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::new(Ledger::new(MOST_KEYS / PARTS))).collect();
        Self { parts, hasher: RandomState::new(), since: Instant::now() }
    }

    fn part(&self, key: &str) -> MutexGuard<'_, Ledger> {
        let at = self.hasher.hash_one(key) as usize % PARTS;
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}
