//! A thread with a runtime of its own that does one thing until it is told to stop.
//!
//! Sample services and load live on such threads for two reasons. A test may block its thread (to write files, to wait
//! for a process) without stalling the traffic that it measures. And dropping a worker joins the thread, so that its
//! sockets are closed when `drop` returns: the next test can have the port.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::thread::Pid;
use tokio::sync::{oneshot, watch};

use crate::netns::Namespace;

/// What a worker is asked to do. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// Finish what was begun, begin nothing new.
    Draining,
    /// Drop everything now.
    Aborted,
}

/// Tells the future of a worker when it should finish.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<Phase>);

impl StopSignal {
    /// Whether the worker was asked to finish.
    pub fn is_set(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Returns once the worker was asked to finish.
    pub async fn wait(&mut self) {
        self.reached(Phase::Draining).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // An error means that the worker itself is gone, which is as good as an order to stop.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

/// The owner of a thread that runs one future. Dropping it drops the future where it stands and joins the thread.
#[derive(Debug)]
pub struct Worker {
    phase: watch::Sender<Phase>,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
    id: Pid,
}

impl Worker {
    /// Starts a thread, in the network namespace `place` if one is given, and runs there the future that `make` returns.
    ///
    /// `make` runs on the new thread, inside its runtime: it is the place to bind sockets. The value that it returns
    /// beside the future is handed back. The future should end soon after the [`StopSignal`] is set.
    ///
    /// # Errors
    /// What `make` returned, or why the thread, its runtime or its namespace could not be had.
    pub fn start<T, F, Work>(name: &str, place: Option<&Namespace>, make: F) -> io::Result<(Worker, T)>
    where
        T: Send + 'static,
        F: FnOnce(StopSignal) -> io::Result<(T, Work)> + Send + 'static,
        Work: Future<Output = ()>,
    {
        let (phase, signal) = watch::channel(Phase::Running);
        let (end, ended) = oneshot::channel();
        let (started, outcome) = mpsc::channel();
        let place = place.cloned();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let begin = || -> io::Result<_> {
                if let Some(place) = place {
                    place.enter()?;
                }
                tokio::runtime::Builder::new_current_thread().enable_all().build()
            };
            let runtime = match begin() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                let mut aborted = StopSignal(signal.clone());
                match make(StopSignal(signal)) {
                    Ok((value, work)) => {
                        drop(started.send(Ok((value, rustix::thread::gettid()))));
                        tokio::select! {
                            () = work => {}
                            () = aborted.reached(Phase::Aborted) => {}
                        }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
            // Tasks that the future spawned end with the runtime, before anyone is told that the thread is done.
            drop(runtime);
            let _ = end.send(());
        })?;
        match outcome.recv() {
            Ok(Ok((value, id))) => Ok((Worker { phase, ended, thread: Some(thread), id }, value)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other(format!("the thread \"{name}\" panicked before it had started"))),
        }
    }

    /// Asks the future to finish, and waits for that; what has not finished `within` this time is dropped.
    /// Returns whether it finished by itself.
    pub async fn drain(mut self, within: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        tokio::time::timeout(within, &mut self.ended).await.is_ok()
    }

    /// The CPU time that the thread has used so far, from `/proc`; zero once the thread has ended.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/self/task/{}/schedstat", self.id.as_raw_nonzero());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The first of three numbers is the time on a CPU in nanoseconds.
        Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Aborted);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the panic hook; a second one from here would abort the test.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_dropped_worker_has_closed_its_sockets() {
        let (worker, address) = Worker::start("holder", None, |_| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = socket.local_addr()?;
            Ok((address, async move {
                std::future::pending::<()>().await;
                drop(socket);
            }))
        })
        .unwrap();
        TcpListener::bind(address).unwrap_err();
        drop(worker);
        Worker::start("next", None, move |_| Ok((crate::backend::bind(address)?, async {}))).unwrap();
    }

    #[tokio::test]
    async fn draining_lets_the_future_finish() {
        let (worker, ()) =
            Worker::start("drainer", None, |mut stop| Ok(((), async move { stop.wait().await }))).unwrap();
        assert!(worker.drain(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn draining_gives_up_at_its_deadline() {
        let (worker, ()) = Worker::start("stubborn", None, |_| Ok(((), std::future::pending()))).unwrap();
        assert!(!worker.drain(Duration::from_millis(20)).await);
    }

    #[test]
    fn an_error_at_the_start_is_the_callers() {
        let make = |_| -> io::Result<((), std::future::Ready<()>)> { Err(io::Error::other("no luck")) };
        assert_eq!(Worker::start("luckless", None, make).unwrap_err().to_string(), "no luck");
    }
}
