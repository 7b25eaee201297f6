//! Continuous requests, and what came of each.
//!
//! A [`Load`] sends the request of its [`Plan`] over a few kept-alive connections until it is stopped, on a thread of
//! its own, and keeps a [`Sample`] per request. What happened between two moments is a [`Window`].
//!
//! A request belongs to the moment at which it was *begun*: those begun after a change of weights was made visible are
//! judged by the new weights. So a window ends only once the requests that were begun in it are finished.
//!
//! A failure is everything but the expected status: a refused or broken connection, a timeout, another status, for gRPC
//! a status other than OK. One thing is not: if a kept-alive connection turns out to have been closed before any
//! byte of the request was written, the request goes once more on a new connection, as every HTTP client does (RFC 9110,
//! section 9.2.2 lets clients do that only if it is known that the request was not processed).
//!
//! [`Plan::once`] sends a single request, and shows all of its response.

mod connection;
mod once;
mod plan;
mod sample;
mod window;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// The method of a request.
pub use http::Method;
pub use once::Reply;
pub use plan::{Plan, Rate};
pub use sample::{Outcome, Sample};
pub use window::Window;

use crate::netns::Namespace;
use crate::wait::{self, Late};
use crate::worker::{StopSignal, Worker};

/// Running load. Dropping it stops it at once and forgets the requests under way.
#[derive(Debug)]
pub struct Load {
    record: Arc<Record>,
    timeout: Duration,
    worker: Worker,
}

/// What the connections write down and the owner reads. The owner looks into it again and again: to wake another thread
/// after each request would cost the client more than anything else but the request itself.
#[derive(Debug)]
struct Record {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// In the order in which they were finished.
    samples: Vec<Sample>,
    /// Per connection: when the request under way was begun.
    under_way: Vec<Option<Instant>>,
    connects: u64,
}

impl Record {
    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic while the lock was held cannot leave the book half written: every write is a single push or store.
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn finish(&self, connection: usize, sample: Sample) {
        let mut book = self.book();
        book.under_way[connection] = None;
        book.samples.push(sample);
    }
}

impl Load {
    /// Starts to send.
    ///
    /// # Errors
    /// If the plan does not make a valid request, or the thread cannot be started. That nobody listens at the address is
    /// not an error here, but makes failed requests.
    pub fn start(plan: Plan) -> io::Result<Load> {
        Load::start_in(None, plan)
    }

    /// Starts to send from a network namespace: see [`Load::start`].
    ///
    /// # Errors
    /// As there, and if the namespace cannot be entered.
    pub fn start_in(place: Option<&Namespace>, plan: Plan) -> io::Result<Load> {
        plan.request().map_err(io::Error::other)?;
        let book = Book { under_way: vec![None; plan.connections], ..Book::default() };
        let record = Arc::new(Record { book: Mutex::new(book) });
        let (timeout, shared) = (plan.timeout, record.clone());
        let (worker, ()) = Worker::start("load", place, move |stop| Ok(((), run(plan, shared, stop))))?;
        Ok(Load { record, timeout, worker })
    }

    /// What came of the requests that were begun from `from` on and before `to`. Waits until all of those are finished,
    /// which takes no longer than the plan's timeout.
    pub async fn window(&self, from: Instant, to: Instant) -> Window {
        // Twice the timeout is only a safeguard: each request ends by itself at its timeout.
        let settled = wait::until("the requests under way", self.timeout * 2, async || {
            let book = self.record.book();
            match book.under_way.iter().flatten().filter(|begun| **begun >= from && **begun < to).count() {
                0 => Ok(()),
                count => Err(count),
            }
        });
        let _ = settled.await;
        let book = self.record.book();
        Window::new(book.samples.iter().filter(|sample| sample.begun >= from && sample.begun < to).cloned().collect())
    }

    /// What came of the requests that were begun from `from` on: see [`Load::window`].
    pub async fn since(&self, from: Instant) -> Window {
        self.window(from, Instant::now()).await
    }

    /// What comes of the next `count` requests, in the order in which they are begun, from now on.
    ///
    /// # Errors
    /// If they are not finished `within` this time.
    pub async fn next(&self, count: usize, within: Duration) -> Result<Window, Late> {
        let from = Instant::now();
        let (mut looked_at, mut found) = (self.record.book().samples.len(), 0);
        let what = format!("{count} requests");
        let enough = wait::until(&what, within, async || {
            let book = self.record.book();
            found += book.samples[looked_at..].iter().filter(|sample| sample.begun >= from).count();
            looked_at = book.samples.len();
            if found >= count { Ok(()) } else { Err(found) }
        });
        match enough.await {
            Ok(()) => Ok(self.since(from).await.first(count)),
            Err(_) => Err(Late::new(what, within, Some(self.since(from).await.to_string()))),
        }
    }

    /// The first request begun from `from` on that satisfies `wanted`, in the order in which they were begun, as far as
    /// they are finished: with it, `sample.finished() - from` is how long a change took to reach the traffic.
    ///
    /// # Errors
    /// If there is none `within` this time from now.
    pub async fn first(
        &self,
        from: Instant,
        within: Duration,
        wanted: impl Fn(&Sample) -> bool,
    ) -> Result<Sample, Late> {
        let what = "a request with the wanted outcome";
        let mut looked_at = 0;
        let found = wait::until(what, within, async || {
            let book = self.record.book();
            let fresh = book.samples[looked_at..].iter().filter(|sample| sample.begun >= from && wanted(sample));
            let first = fresh.min_by_key(|sample| sample.begun).cloned();
            looked_at = book.samples.len();
            first.ok_or(looked_at)
        });
        match found.await {
            Ok(sample) => Ok(sample),
            Err(_) => Err(Late::new(what, within, Some(self.since(from).await.to_string()))),
        }
    }

    /// How many connections were opened so far, those that failed included.
    pub fn connects(&self) -> u64 {
        self.record.book().connects
    }

    /// The CPU time of the thread that sends, to tell whether the client bounds a measurement.
    pub fn cpu_time(&self) -> Duration {
        self.worker.cpu_time()
    }

    /// Begins no more requests, waits for those under way, and returns all that ever happened.
    pub async fn stop(self) -> Window {
        self.worker.drain(self.timeout * 2).await;
        Window::new(std::mem::take(&mut self.record.book().samples))
    }
}

async fn run(plan: Plan, record: Arc<Record>, stop: StopSignal) {
    let plan = Arc::new(plan);
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for index in 0..plan.connections {
        connections.spawn(connection::run(index, started, plan.clone(), record.clone(), stop.clone()));
    }
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
