//! What processes have used so far, from `/proc`.

use std::fs;

use crate::error::Error;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// CPU time of all its threads, in nanoseconds. The time of threads that have ended is not in it.
    pub(crate) cpu_nanos: u64,
    /// Resident memory in bytes.
    pub(crate) rss_bytes: u64,
    /// The most it ever was.
    pub(crate) peak_bytes: u64,
}

impl Cost {
    /// Of a process.
    ///
    /// # Errors
    /// If there is no such process, or it belongs to somebody else.
    pub(crate) fn of(pid: u32) -> Result<Self, Error> {
        let error = |error: std::io::Error| Error::Process { pid, reason: error.to_string() };
        let mut cpu_nanos = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(error)? {
            // Nanoseconds on the CPU are the first of three numbers. A thread may end while this reads.
            let text = task.and_then(|task| fs::read_to_string(task.path().join("schedstat"))).unwrap_or_default();
            cpu_nanos += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(error)?;
        Ok(Self { cpu_nanos, rss_bytes: bytes(&status, "VmRSS:"), peak_bytes: bytes(&status, "VmHWM:") })
    }

    /// Of this process.
    pub(crate) fn of_self() -> Self {
        Self::of(std::process::id()).unwrap_or_default()
    }
}

/// A line of `/proc/PID/status` such as `VmRSS:  123 kB`.
fn bytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let before = Cost::of_self();
        assert!(before.rss_bytes > 100_000 && before.peak_bytes >= before.rss_bytes, "{before:?}");
        let work: u64 = (0..5_000_000u64).map(std::hint::black_box).sum();
        assert!(work > 0);
        assert!(Cost::of_self().cpu_nanos > before.cpu_nanos);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Cost::of(0x7fff_fff0).unwrap_err().to_string();
        assert!(error.contains("2147483632"), "{error}");
    }
}
