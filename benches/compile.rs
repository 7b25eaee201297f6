//! What compiling costs: everything at once, and one change, in meshes of three sizes.
//!
//! One thread, one audience. "cold" begins with a world that is read already and ends with a whole snapshot, every
//! cluster, assignment, virtual host and listener encoded and checked. A change goes through the plane: from the
//! changed object to the new snapshot.

#![allow(missing_docs, clippy::disallowed_methods)]

mod meshes;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use compile::{Compiler, Options};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use meshes::{ENDPOINTS, Mesh, SIZES};
use world::{Change, Object, Settings, World};

fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    for services in SIZES {
        let changes = Mesh { services }.changes();
        group.bench_function(BenchmarkId::new("world", services), |bench| {
            bench.iter_batched(|| changes.clone(), world_of, BatchSize::PerIteration);
        });
        let world = world_of(changes);
        group.bench_function(BenchmarkId::new("compile", services), |bench| {
            bench.iter_with_large_drop(|| {
                let mut compiler = Compiler::new(Options::default());
                let snapshot = compiler.add(black_box(&world), &meshes::audience()).1;
                (compiler, snapshot)
            });
        });
    }
    group.finish();
}

fn world_of(changes: Vec<Change>) -> World {
    let mut world = World::new(Settings::default());
    for change in changes {
        world.apply(change);
    }
    world
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let services = 1_000;
    let text = Mesh { services }.yaml();
    group.bench_function(BenchmarkId::new("yaml", services), |bench| {
        bench.iter_with_large_drop(|| {
            source::text::parse("mesh.yaml", black_box(text.as_bytes()), &source::text::Options::default())
        });
    });
    group.finish();
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    group.sample_size(50).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for services in SIZES {
        let mesh = Mesh { services };
        let mut plane = mesh.plane();
        plane.attach(&meshes::node()).expect("the node is one that is served");
        let at = services / 2;
        let mut change = |name: &str, one: Arc<Object>, other: Arc<Object>| {
            let mut is_other = false;
            group.bench_function(BenchmarkId::new(name, services), |bench| {
                bench.iter(|| {
                    is_other = !is_other;
                    let object = if is_other { &other } else { &one };
                    let published = plane.apply([Change::Apply(object.clone())], Vec::new());
                    assert_eq!(published.snapshots.len(), 1, "the change must matter");
                    published
                });
            });
        };
        change("weight", mesh.weight(at, 80), mesh.weight(at, 20));
        change("endpoint", meshes::endpoints(at, ENDPOINTS), meshes::endpoints(at, ENDPOINTS - 1));
    }
    group.finish();
}

criterion_group!(benches, cold, reading, change);
criterion_main!(benches);
