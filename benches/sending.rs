//! Ways to send the same bytes to many clients: tonic's codec, a body of shared pieces under hyper, streams of the
//! `h2` crate driven by the task of their connection, and `http2` of this repository driven so. No control plane is
//! behind them: each is what its way costs at the least.
//!
//! The server is a process of its own (this program, started again), so that its time and memory are its own. Every
//! client sends a first message as long as Envoy's, then each round is one message to every client and one of 100
//! bytes back.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "sending/client.rs"]
mod client;
mod figures;
#[path = "sending/server.rs"]
mod server;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use client::Clients;
use figures::{Figures, Table, time};
use server::Way;

/// The variable that makes this program the server.
const SERVER: &str = "POINTSMAN_BENCH_SENDING";
/// Bytes of a client's first message: an Envoy 1.40 with its list of extensions.
const FIRST: usize = 61_000;

/// One row of the measurement.
struct Case {
    clients: usize,
    bytes: usize,
    rounds: usize,
}

const CASES: [Case; 2] =
    [Case { clients: 1_000, bytes: 500, rounds: 60 }, Case { clients: 500, bytes: 300_000, rounds: 6 }];
/// Each way is measured so often, in turn.
const RUNS: usize = 5;

fn main() {
    if let Ok(asked) = std::env::var(SERVER) {
        return server::run(&asked);
    }
    let mut table = Table::new(
        "Sending: one message to every client and its acknowledgement, without a control plane",
        ["clients, message", "way", "server CPU", "times h2", "round p50", "RSS, connected", "RSS, after"],
    );
    for case in CASES {
        let mut measured: [Vec<Measured>; 4] = Default::default();
        for _ in 0..RUNS {
            for (way, runs) in Way::ALL.into_iter().zip(&mut measured) {
                runs.push(measure(way, &case));
            }
        }
        let cpu = |runs: &[Measured]| Figures::new(runs.iter().map(|run| run.cpu));
        let floor = cpu(&measured[2]).median();
        for (way, runs) in Way::ALL.into_iter().zip(&measured) {
            let cpu = cpu(runs);
            let median = |of: fn(&Measured) -> f64| Figures::new(runs.iter().map(of)).median();
            table.row([
                format!("{}, {}", case.clients, figures::bytes(case.bytes as f64)),
                way.name().to_owned(),
                format!("{} / {} / {}", time(cpu.min()), time(cpu.median()), time(cpu.max())),
                format!("{:.2}", cpu.median() / floor),
                time(median(|run| run.round)),
                format!("{:.1} KiB", median(|run| run.connected)),
                format!("{:.1} KiB", median(|run| run.after)),
            ]);
        }
    }
    table.print();
}

/// Of one run.
struct Measured {
    /// Seconds of the server for one message and its acknowledgement.
    cpu: f64,
    /// Seconds from the first byte to the last acknowledgement, the median round.
    round: f64,
    /// KiB resident for each client once all are connected, and after the last round.
    connected: f64,
    after: f64,
}

fn measure(way: Way, case: &Case) -> Measured {
    let mut server = Server::start(way, case);
    let empty = server.resident();
    let mut clients = Clients::connect(server.port, case.clients, FIRST);
    clients.wait_for_messages(case.bytes);
    server.line();
    let per_client = |kib: f64| (kib - empty) / case.clients as f64;
    let connected = per_client(server.resident());
    let (begin, mut rounds) = (server.cpu(), Vec::new());
    for _ in 0..case.rounds {
        let begun = Instant::now();
        server.push();
        clients.wait_for_messages(case.bytes);
        server.line();
        rounds.push(begun.elapsed());
    }
    let cpu = (server.cpu() - begin) / (case.rounds * case.clients) as f64;
    let after = per_client(server.resident());
    Measured { cpu, round: Figures::of(rounds).median(), connected, after }
}

/// The server's process. Ended when dropped.
struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(way: Way, case: &Case) -> Server {
        let asked = format!("{} {} {}", way.name(), case.clients, case.bytes);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(SERVER, asked)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Server { child, input, output, port: 0 };
        server.port = server.line().trim().parse().unwrap();
        server
    }

    /// Sends to every client.
    fn push(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    /// What the server says next: its port, then a line whenever every client has sent one message more.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the server has ended");
        line
    }

    /// Seconds of all its threads.
    fn cpu(&self) -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = threads.map(|thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        });
        nanos.sum::<f64>() / 1e9
    }

    /// KiB.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
