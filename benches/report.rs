//! Prints what Criterion has measured as tables, with the targets beside the figures. Measures nothing itself.
//!
//! Reads `target/criterion/<group>/<benchmark>/<parameter>/new/sample.json`: for each sample how many iterations it
//! had and how long they took together.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

mod figures;
mod meshes;

use std::fs;
use std::path::{Path, PathBuf};

use figures::{Figures, Table, time, verdict};
use meshes::SIZES;
use serde_json::Value;

/// What istiod publishes for one item, in seconds (its own Go benchmarks, istio/istio pull request 54425).
const ISTIOD_VIRTUAL_SERVICE: f64 = 10.3e-6;
const ISTIOD_CLUSTER: f64 = 7.6e-6;
const ISTIOD_ENDPOINT: f64 = 2.04e-6;
/// How many times faster than that an item must be.
const TIMES: f64 = 4.0;

fn main() {
    // Cargo adds `--bench`.
    let topic = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let is_wanted = |name: &str| topic.as_deref().is_none_or(|topic| topic == name);
    if is_wanted("compile") {
        compile();
        changes();
    }
    if is_wanted("translate") {
        translate();
    }
    if is_wanted("snapshot") {
        snapshots();
    }
    if is_wanted("stream") {
        streams();
    }
}

/// Seconds of one iteration, one figure for each sample. `None` when the benchmark was not run.
fn measured(benchmark: &str) -> Option<Figures> {
    let target = std::env::var("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    let text = fs::read_to_string(target.join("criterion").join(benchmark).join("new/sample.json")).ok()?;
    let sample: Value = serde_json::from_str(&text).unwrap();
    let numbers =
        |of: &str| -> Vec<f64> { sample[of].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect() };
    Some(Figures::new(
        numbers("times").iter().zip(numbers("iters")).map(|(nanos, iterations)| nanos * 1e-9 / iterations),
    ))
}

fn spread(figures: Option<&Figures>) -> String {
    figures.map_or("not run".to_owned(), |f| format!("{} / {} / {}", time(f.min()), time(f.median()), time(f.max())))
}

/// A row with one column of min / median / max for each size.
fn by_size(table: &mut Table, what: &str, benchmark: &str) {
    let [small, middle, large] = SIZES.map(|size| spread(measured(&format!("{benchmark}/{size}")).as_ref()));
    table.row([what.to_owned(), small, middle, large]);
}

const BY_SIZE: [&str; 4] = ["min / median / max", "100 services", "1,000 services", "10,000 services"];

fn compile() {
    let mut table = Table::new("Compile cold: one thread, one sidecar (target: below 2 s at 10,000 services)", BY_SIZE);
    by_size(&mut table, "objects → world", "cold/world");
    by_size(&mut table, "world → snapshot", "cold/compile");
    table.print();
    if let Some(large) = measured("cold/compile/10000") {
        println!("\nReached: {} (median {})", verdict(large.median() < 2.0), time(large.median()));
    }
    if let Some(read) = measured("read/yaml/1000") {
        println!("\nReading the YAML of 1,000 services (1.5 MB) takes {} (min / median / max).", spread(Some(&read)));
    }
}

fn changes() {
    let mut table = Table::new(
        "Compile one change: object → snapshot (target: a weight below 1 ms, independent of the number of services)",
        BY_SIZE,
    );
    by_size(&mut table, "one weight", "change/weight");
    by_size(&mut table, "one endpoint", "change/endpoint");
    table.print();
    if let [Some(small), _, Some(large)] = SIZES.map(|size| measured(&format!("change/weight/{size}"))) {
        println!(
            "\nReached: {} (median {} with 10,000 services, {:.1} times that with 100: trees are deeper and caches colder)",
            verdict(large.median() < 1e-3),
            time(large.median()),
            large.median() / small.median()
        );
    }
}

fn translate() {
    let mut table = Table::new(
        "Translate: one item to bytes (target: at least 4 times faster than istiod's published figure, another machine)",
        [
            "item",
            "min / median / max",
            "with check and canonical order",
            "by prost",
            "istiod",
            "times faster",
            "reached",
        ],
    );
    let mut row = |what: &str, benchmark: &str, others: [Option<&str>; 2], items: f64, istiod: f64| {
        let of = |name: &str| measured(name).map(|f| time(f.median() / items));
        let [checked, prost] = others.map(|name| name.and_then(of).unwrap_or_else(|| "-".to_owned()));
        let Some(figures) = measured(benchmark) else { return };
        let per_item = [figures.min(), figures.median(), figures.max()].map(|seconds| time(seconds / items));
        let times = istiod / (figures.median() / items);
        table.row([
            what.to_owned(),
            per_item.join(" / "),
            checked,
            prost,
            time(istiod),
            format!("{times:.1}"),
            verdict(times >= TIMES).to_owned(),
        ]);
    };
    let virtual_services = [
        ("VirtualService as in istiod's benchmark", "two-matches"),
        ("VirtualService with a split", "split"),
        ("VirtualService with two entries, retries", "rich"),
    ];
    for (what, case) in virtual_services {
        let checked = format!("virtual-service/checked/{case}");
        row(what, &format!("virtual-service/bytes/{case}"), [Some(&checked), None], 1.0, ISTIOD_VIRTUAL_SERVICE);
    }
    for (what, case) in [("cluster", "plain"), ("cluster of a subset", "subset"), ("cluster with a policy", "policy")] {
        let prost = format!("cluster/prost/{case}");
        row(what, &format!("cluster/bytes/{case}"), [None, Some(&prost)], 1.0, ISTIOD_CLUSTER);
    }
    for count in [10, 100, 1000] {
        let prost = format!("endpoints/prost-encode-only/{count}");
        let what = format!("endpoint, of {count}");
        row(&what, &format!("endpoints/bytes/{count}"), [None, Some(&prost)], f64::from(count), ISTIOD_ENDPOINT);
    }
    table.print();
}

fn snapshots() {
    let mut table = Table::new("Encode and diff: what the first stream that asks pays", BY_SIZE);
    by_size(&mut table, "encode: route configuration of all services", "snapshot/encode-route-configuration");
    by_size(&mut table, "encode: body of all assignments", "snapshot/encode-all-assignments");
    by_size(&mut table, "diff: one assignment", "snapshot/diff-one-assignment");
    by_size(&mut table, "diff: every assignment", "snapshot/diff-everything");
    table.print();
}

fn streams() {
    let mut table = Table::new("Stream: what each further stream pays (no sockets)", BY_SIZE);
    for (variant, of_variant) in [("delta", "delta"), ("state of the world", "sotw")] {
        for change in ["weight", "endpoint"] {
            by_size(
                &mut table,
                &format!("{variant}: one {change} published → response"),
                &format!("stream/publish-{change}-{of_variant}"),
            );
            by_size(&mut table, &format!("{variant}: its ACK"), &format!("stream/accept-{change}-{of_variant}"));
        }
    }
    table.print();
}
