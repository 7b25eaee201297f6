//! What encoding and comparing snapshots costs, in meshes of three sizes.
//!
//! Every figure is of a snapshot that nobody has asked anything yet: what is encoded or compared once is shared by all
//! streams afterwards.

#![allow(missing_docs, clippy::disallowed_methods)]

mod meshes;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meshes::{ENDPOINTS, Mesh, SIZES};
use plane::Plane;
use proto::ResourceType;
use snapshot::Snapshot;
use world::{Change, Object};

/// A mesh in which one object has two versions, put in turn.
struct Turns {
    plane: Plane,
    versions: [Arc<Object>; 2],
    at: usize,
}

impl Turns {
    fn new(mesh: Mesh, versions: [Arc<Object>; 2]) -> Self {
        let mut plane = mesh.plane();
        plane.attach(&meshes::node()).expect("the node is one that is served");
        Self { plane, versions, at: 0 }
    }

    fn snapshot(&self) -> Snapshot {
        let snapshots = self.plane.snapshots();
        snapshots.values().next().expect("a node is attached").clone()
    }

    /// The snapshots before and after the next change.
    fn next(&mut self) -> (Snapshot, Snapshot) {
        let before = self.snapshot();
        self.at = 1 - self.at;
        self.plane.apply([Change::Apply(self.versions[self.at].clone())], Vec::new());
        (before, self.snapshot())
    }

    /// Times `what` on fresh snapshots.
    fn time<T>(&mut self, iterations: u64, mut what: impl FnMut(&Snapshot, &Snapshot) -> T) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            let (before, after) = self.next();
            let begin = Instant::now();
            let result = black_box(what(&before, &after));
            total += begin.elapsed();
            drop(result);
        }
        total
    }
}

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for services in SIZES {
        let mesh = Mesh { services };
        let at = services / 2;
        let mut weights = Turns::new(mesh, [mesh.weight(at, 80), mesh.weight(at, 20)]);
        weights.next();
        group.bench_function(BenchmarkId::new("encode-route-configuration", services), |bench| {
            bench.iter_custom(|n| {
                weights.time(n, |_, after| {
                    let cell = after.get(ResourceType::Route, "80").expect("all services share port 80");
                    cell.delta_entry().len()
                })
            });
        });
        let mut scaled = Turns::new(mesh, [meshes::endpoints(at, ENDPOINTS), meshes::endpoints(at, ENDPOINTS - 1)]);
        scaled.next();
        group.bench_function(BenchmarkId::new("encode-all-assignments", services), |bench| {
            bench.iter_custom(|n| scaled.time(n, |_, after| after.all_delta(ResourceType::Endpoints)));
        });
        group.bench_function(BenchmarkId::new("diff-one-assignment", services), |bench| {
            bench.iter_custom(|n| {
                scaled.time(n, |before, after| {
                    let changes = after.changes(before, ResourceType::Endpoints);
                    assert_eq!(changes.changed.len(), 1);
                    changes
                })
            });
        });
        let nothing = Snapshot::new(scaled.snapshot().layers().iter().map(|_| snapshot::Layer::new()));
        group.bench_function(BenchmarkId::new("diff-everything", services), |bench| {
            bench.iter_custom(|n| {
                scaled.time(n, |_, after| {
                    let changes = after.changes(&nothing, ResourceType::Endpoints);
                    assert_eq!(changes.changed.len(), services as usize);
                    changes
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
