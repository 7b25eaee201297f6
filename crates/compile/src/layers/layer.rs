//! One layer: its units, what they read, and what they built.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Layer, Name};
use world::{Hostname, Key, Problem, Reader, World};

use super::listeners::ListenerTable;
use super::output::Output;
use super::reads::Reads;
use super::table::Table;
use super::unit::Unit;
use super::unit::catch_all;
use super::{LayerKey, Role};
use crate::slots::Slots;
use crate::{Options, Served, Work};

/// Compiles one layer and keeps it up to date.
#[derive(Debug)]
pub(super) struct LayerCompiler {
    key: LayerKey,
    options: Options,
    layer: Arc<Layer>,
    /// The numbers of the units.
    units: HashMap<Unit, u32>,
    runs: Slots<Run>,
    /// Those of them that found something wrong: few, so that asking for it does not cost the mesh.
    troubled: BTreeSet<u32>,
    /// Which units read what.
    reads: Reads,
    /// Keys that the layer began to read (`true`), or reads no more, since that was asked last; not kept for layers
    /// that are asked about every change.
    read_changes: Vec<(Key, bool)>,
    tables: BTreeMap<Name, Table>,
    listeners: ListenerTable,
    /// Problems of tables and listeners, found when they were last put together.
    shared_problems: BTreeMap<Name, Vec<Problem>>,
    /// The ports of the workload that services lead to.
    served: Vec<Served>,
    /// Those that none leads to any more, and that are kept all the same.
    held: Vec<Served>,
    /// What is held has changed since the last run.
    is_held_stale: bool,
}

/// What the last run of a unit left behind.
#[derive(Debug)]
struct Run {
    unit: Unit,
    /// What it read, as [`Reads`] numbers it.
    reads: Box<[u32]>,
    cells: Box<[(ResourceType, Name)]>,
    hosts: Box<[(Name, Name)]>,
    problems: Box<[Problem]>,
}

impl Run {
    /// A unit that has not run.
    fn new(unit: Unit) -> Self {
        Self { unit, reads: Box::default(), cells: Box::default(), hosts: Box::default(), problems: Box::default() }
    }
}

impl LayerCompiler {
    pub(super) fn new(key: LayerKey, options: Options, held: Vec<Served>) -> Self {
        let listeners = ListenerTable::new(key.clone(), options.clone());
        Self {
            key,
            options,
            layer: Layer::new(),
            units: HashMap::new(),
            runs: Slots::default(),
            troubled: BTreeSet::new(),
            reads: Reads::default(),
            read_changes: Vec::new(),
            tables: BTreeMap::new(),
            listeners,
            shared_problems: BTreeMap::new(),
            served: Vec::new(),
            held,
            is_held_stale: false,
        }
    }

    pub(super) fn layer(&self) -> &Arc<Layer> {
        &self.layer
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let of_units = self.troubled.iter().filter_map(|unit| self.runs.get(*unit)).flat_map(|run| run.problems.iter());
        of_units.chain(self.shared_problems.values().flatten())
    }

    /// Runs every unit that the world gives rise to.
    pub(super) fn build(&mut self, world: &World) {
        let mut dirty: BTreeSet<Unit> = Unit::fixed(self.key.role).collect();
        if self.key.role == Role::Outbound {
            dirty.extend(world.hosts().flat_map(|host| Unit::of_host(host, &self.key.audience)));
            dirty.extend(world.route_hosts().flat_map(|host| Unit::of_route_host(host, &self.key.audience)));
        }
        self.run(world, dirty, &mut Work::default());
    }

    /// The ports of the workload that services lead to, as of the last run.
    pub(super) fn served(&self) -> &[Served] {
        &self.served
    }

    /// Keeps these ports of the workload, from the next run on.
    pub(super) fn hold(&mut self, held: Vec<Served>) {
        self.held = held;
        self.is_held_stale = true;
    }

    /// Whether what was touched can change which ports of the workload services lead to.
    pub(super) fn may_serve_others(&self, touched: &BTreeSet<Key>) -> bool {
        let reader = self.units.get(&Unit::Inbound);
        touched.iter().any(|key| self.reads.of(key).any(|unit| Some(&unit) == reader))
    }

    /// Runs the units that read something that was touched, and those of hosts that are new.
    pub(super) fn update(&mut self, world: &World, touched: &BTreeSet<Key>, work: &mut Work) {
        let mut dirty = BTreeSet::new();
        if std::mem::take(&mut self.is_held_stale) {
            dirty.insert(Unit::Inbound);
        }
        for key in touched {
            dirty.extend(self.reads.of(key).filter_map(|unit| self.runs.get(unit)).map(|run| run.unit.clone()));
            if self.key.role == Role::Outbound {
                match key {
                    Key::Service(host) => dirty.extend(self.unknown(Unit::of_host(host, &self.key.audience))),
                    Key::Routes(host) => dirty.extend(self.unknown(Unit::of_route_host(host, &self.key.audience))),
                    _ => {}
                }
            }
        }
        self.run(world, dirty, work);
    }

    fn unknown(&self, units: impl Iterator<Item = Unit>) -> Vec<Unit> {
        units.filter(|unit| !self.units.contains_key(unit)).collect()
    }

    fn run(&mut self, world: &World, dirty: BTreeSet<Unit>, work: &mut Work) {
        if dirty.is_empty() {
            return;
        }
        let mut edit = self.layer.edit();
        let mut stale_tables = BTreeSet::new();
        for unit in dirty {
            if !unit.is_wanted(world) {
                self.forget(&unit, &mut edit, &mut stale_tables);
                continue;
            }
            let reader = Reader::new(world);
            let mut output = unit.run(&reader, &self.key.audience, &self.options, &self.held);
            if unit == Unit::Inbound {
                self.served = std::mem::take(&mut output.served);
            }
            work.units += 1;
            work.resources += output.cells.len() + output.hosts.len();
            self.take(world, unit, reader.into_reads(), output, &mut edit, &mut stale_tables);
        }
        for name in stale_tables {
            self.finish_table(name, &mut edit);
        }
        let problems = &mut self.shared_problems;
        work.resources += self.listeners.finish(world, &mut edit, |name, found| {
            problems.insert(name, found);
        });
        self.shared_problems.retain(|_, problems| !problems.is_empty());
        self.layer = edit.finish();
    }

    fn finish_table(&mut self, name: Name, edit: &mut snapshot::Edit) {
        let Some(table) = self.tables.get_mut(&name) else { return };
        let mut problems = Vec::new();
        if table.is_empty() {
            table.take_out(edit);
            self.tables.remove(&name);
        } else {
            table.finish(&self.key.audience, edit, &mut problems);
            problems.extend(table.conflicts());
        }
        self.shared_problems.insert(name, problems);
    }

    /// Puts in what a unit built, and takes out what it built the time before and no longer does.
    fn take(
        &mut self,
        world: &World,
        unit: Unit,
        reads: BTreeSet<Key>,
        output: Output,
        edit: &mut snapshot::Edit,
        stale_tables: &mut BTreeSet<Name>,
    ) {
        let number = match self.units.get(&unit) {
            Some(number) => *number,
            None => {
                let number = self.runs.put(Run::new(unit.clone()));
                self.units.insert(unit.clone(), number);
                number
            }
        };
        let empty = Run::new(unit.clone());
        let previous = self.runs.get_mut(number).map_or(empty, |run| std::mem::replace(run, Run::new(unit.clone())));
        let reads = self.note(number, previous.reads, &reads);
        let mut problems = output.problems;
        let mut cells = Vec::with_capacity(output.cells.len());
        for made in output.cells {
            cells.push((made.cell.resource_type(), made.cell.name().clone()));
            edit.set(made.stamped(world));
        }
        for (resource_type, name) in previous.cells.iter().filter(|gone| !cells.contains(gone)) {
            edit.remove(*resource_type, name);
        }
        let mut hosts = Vec::with_capacity(output.hosts.len());
        for host in output.hosts {
            hosts.push((host.table.clone(), host.name.clone()));
            stale_tables.insert(host.table.clone());
            let catch_all = || {
                let catch_all = catch_all(&host.table, &self.key.audience, &self.options);
                Table::new(host.table.clone(), self.key.audience.hosts, catch_all)
            };
            self.tables.entry(host.table.clone()).or_insert_with(catch_all).set(host.stamped(world));
        }
        for (table, name) in previous.hosts.iter().filter(|gone| !hosts.contains(gone)) {
            self.drop_host(table, name, stale_tables);
        }
        self.listeners.set(world, unit.clone(), output.chains);
        problems.sort();
        problems.dedup();
        if problems.is_empty() {
            self.troubled.remove(&number);
        } else {
            self.troubled.insert(number);
        }
        let (cells, hosts, problems) = (cells.into(), hosts.into(), problems.into());
        if let Some(run) = self.runs.get_mut(number) {
            *run = Run { unit, reads, cells, hosts, problems };
        }
    }

    fn forget(&mut self, unit: &Unit, edit: &mut snapshot::Edit, stale_tables: &mut BTreeSet<Name>) {
        let Some(number) = self.units.remove(unit) else { return };
        let Some(run) = self.runs.take(number) else { return };
        self.troubled.remove(&number);
        self.note(number, run.reads, &BTreeSet::new());
        for (resource_type, name) in &run.cells {
            edit.remove(*resource_type, name);
        }
        for (table, name) in &run.hosts {
            self.drop_host(table, name, stale_tables);
        }
        self.listeners.drop(unit);
    }

    fn drop_host(&mut self, table: &Name, name: &Name, stale_tables: &mut BTreeSet<Name>) {
        if let Some(of_table) = self.tables.get_mut(table) {
            of_table.remove(name);
            stale_tables.insert(table.clone());
        }
    }

    /// Notes what a unit has read, in place of what it read before.
    fn note(&mut self, unit: u32, before: Box<[u32]>, reads: &BTreeSet<Key>) -> Box<[u32]> {
        let is_broad = self.is_broad();
        let changes = &mut self.read_changes;
        self.reads.replace(unit, before, reads, |key, is_read| {
            if !is_broad {
                changes.push((key.clone(), is_read));
            }
        })
    }

    /// Whether it has to be asked about every change: those towards services read nearly everything, and hosts that
    /// nobody read of yet concern them. There are few of them, because many nodes share one.
    pub(super) fn is_broad(&self) -> bool {
        self.key.role == Role::Outbound
    }

    /// Keys that it began to read (`true`), or reads no more, since the last call, in order.
    pub(super) fn take_read_changes(&mut self) -> Vec<(Key, bool)> {
        std::mem::take(&mut self.read_changes)
    }

    /// What it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = &Key> {
        self.reads.keys()
    }
}

impl Unit {
    /// Whether the world still has what the unit is about.
    fn is_wanted(&self, world: &World) -> bool {
        let has_service = |host: &Hostname| world.has_host(host);
        match self {
            Unit::Statics | Unit::Inbound | Unit::Edge | Unit::Raw => true,
            Unit::Clusters(host)
            | Unit::Assignments(host)
            | Unit::VirtualHosts(host)
            | Unit::Chains(host)
            | Unit::ApiListeners(host) => has_service(host),
            Unit::RouteHost(host) => world.has_route_host(host),
        }
    }
}
