//! Requests at a steady pace, one after the other, with a resolution below a millisecond.
//!
//! The load of the test bed is paced by timers that tick in milliseconds, which is as long as what is measured here;
//! and sending without a pause keeps both cores busy. So this is one thread with one connection and a high-resolution
//! sleep.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Sample {
    pub begun: Instant,
    pub finished: Instant,
    pub status: u16,
    pub mark: String,
    pub backend: String,
}

/// A running probe.
pub struct Probe {
    record: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// Sends GET requests for `host` to `address`, one every `pause` (later, if an answer takes longer).
    pub fn start(address: SocketAddr, host: &str, pause: Duration) -> Probe {
        let record = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let (shared, stopped) = (record.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("Envoy listens");
            stream.set_nodelay(true).expect("a TCP socket can be told not to wait");
            while !stopped.load(Ordering::Relaxed) {
                let sample = exchange(&mut stream, &request).expect("Envoy answers on a kept-alive connection");
                let next = sample.begun + pause;
                shared.lock().expect("nobody panics with the lock").push(sample);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Probe { record, stop, thread: Some(thread) }
    }

    /// Waits until so many requests were answered.
    pub fn answered(&self, count: usize) {
        self.wait(|samples| (samples.len() >= count).then_some(()));
    }

    /// Waits for the first answer with this mark.
    pub fn first(&self, mark: &str) -> Sample {
        self.wait(|samples| samples.iter().find(|sample| sample.mark == mark).cloned())
    }

    /// Looks now and then: to be woken by every answer would cost more than sending the request.
    fn wait<T>(&self, find: impl Fn(&[Sample]) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let samples = self.record.lock().expect("nobody panics with the lock");
            if let Some(found) = find(&samples) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain; last seen: {:?}", samples.last());
            drop(samples);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it, and returns all samples in order.
    pub fn stop(mut self) -> Vec<Sample> {
        self.end();
        std::mem::take(&mut self.record.lock().expect("nobody panics with the lock"))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the probe's thread ends by itself");
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// One request and its whole answer, whose length must be given.
fn exchange(stream: &mut TcpStream, request: &str) -> std::io::Result<Sample> {
    let begun = Instant::now();
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(1024);
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let named = |line: &str| {
                line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|h| h.1.to_owned())
            };
            head.lines().find_map(named).unwrap_or_default()
        };
        if body.len() < header("content-length").parse().expect("Envoy gives a length for a short answer") {
            continue;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let finished = Instant::now();
        return Ok(Sample { begun, finished, status, mark: header("x-mark"), backend: header("x-backend") });
    }
}
