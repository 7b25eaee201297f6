//! Responses that the client rejected: what may be at fault, and what the client holds now.
//!
//! A rejection is of a response, but clients apply of it what they can (rule P-15). Envoy 1.40 was seen to add every
//! cluster and listener that it can, to carry out the removals, and to list the others by name, after words that
//! always begin alike ([`NAMED_ONLY`]); gRPC takes all resources but those that it names (gRFC A46). Then the rest
//! counts as accepted, and what is named as at fault. Otherwise everything that was new in the response is a suspect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use snapshot::{Cell, Name};

use super::Substream;
use crate::stream::flight::Flight;
use crate::stream::isolation::{self, Hold, Isolation, Unit};
use crate::stream::view::Held;
use crate::{Outcome, Rejection};

/// How Envoy begins when it has applied everything but what it names
/// (`source/common/upstream/cds_api_impl.cc`, `source/common/listener_manager/lds_api.cc` of 1.40).
const NAMED_ONLY: &str = "Error adding/updating ";

/// How Envoy ends a message that it has cut (`Utility::truncateGrpcStatusMessage`, `source/common/config/utility.cc`).
const CUT: &str = "...(truncated)";

/// What a client that rejects a response may have applied of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Anything between nothing and everything.
    Unknown,
    /// All that its words do not name, if they name something.
    Unnamed,
    /// The same, but the words were cut, so that they may have named more.
    UnnamedAndMore,
}

impl Applied {
    /// As far as the words of a client tell.
    pub(crate) fn by(message: &str, grpc: bool) -> Self {
        match grpc || message.starts_with(NAMED_ONLY) {
            true if message.ends_with(CUT) => Applied::UnnamedAndMore,
            true => Applied::Unnamed,
            false => Applied::Unknown,
        }
    }
}

/// A resource of a rejected response, and what the client had in its place.
struct Suspect {
    refused: Arc<Cell>,
    before: Option<Arc<Cell>>,
}

/// What was in a rejected response.
#[derive(Default)]
struct Brought {
    /// New or changed, and still the last that the client was sent.
    suspects: Vec<Suspect>,
    /// Accepted before, and only repeated.
    repeats: Vec<Name>,
    /// There was more, which has been replaced or given up since, and may have been at fault.
    is_incomplete: bool,
}

impl Suspect {
    /// It stays in the responses in the form that was refused, so that the client keeps what it may have of it.
    fn stays(&mut self) {
        self.before = Some(self.refused.clone());
    }
}

impl Substream {
    /// Books the rejection of the response at `index`; `is_superseded` when a later one is known to have brought all
    /// of it that is still wanted, and was accepted. Returns what happened, the rejection first.
    pub(crate) fn reject(
        &mut self,
        index: usize,
        (code, message): (i32, &str),
        applied: Applied,
        is_superseded: bool,
        at: Instant,
    ) -> Vec<Outcome> {
        let brought = if is_superseded { Brought::default() } else { self.brought(index) };
        let Brought { suspects, repeats, is_incomplete } = brought;
        let flight = self.flights.remove(index);
        let named = self.named(&flight, &suspects, message);
        let rejection = Rejection {
            resource_type: self.resource_type,
            nonce: flight.nonce.clone(),
            version: flight.version,
            code,
            message: message.into(),
            at,
            suspects: self.told(&flight, &named),
        };
        self.last_rejection = Some(rejection.clone());
        let mut outcomes = vec![Outcome::Rejected(rejection.clone())];
        let (words, resource_type) = (rejection.message, self.resource_type);
        let blind = self.is_blind(&flight);
        let is_named = |suspect: &Suspect| named.contains(suspect.refused.name());
        let (mut at_fault, mut open) = match applied {
            Applied::Unknown => (Vec::new(), suspects),
            Applied::Unnamed | Applied::UnnamedAndMore => suspects.into_iter().partition(is_named),
        };
        if blind {
            at_fault.iter_mut().chain(&mut open).for_each(Suspect::stays);
        }
        let is_found = !at_fault.is_empty();
        for suspect in at_fault {
            let units = self.go_back(suspect, &words, at);
            outcomes.extend(self.isolation().blame(resource_type, units, &words));
        }
        if applied == Applied::Unnamed && !named.is_empty() {
            let done = flight.replaced.iter().filter(|cell| !named.contains(cell.name())).cloned().collect();
            self.linger(done, at);
            return outcomes;
        }
        if flight.contents.len(resource_type) > 0 {
            self.owe_removals(&flight);
        }
        if applied == Applied::UnnamedAndMore && is_found && !blind {
            // Nearly all of it was taken. It is said again, and what is not taken then will be named.
            let after = self.responses;
            for Suspect { refused: cell, before } in open {
                self.view.exceptions.insert(cell.name().clone(), Held::Probable { before, cell, after });
            }
            return outcomes;
        }
        let mut units = Vec::new();
        for suspect in open {
            units.extend(self.go_back(suspect, &words, at));
        }
        if !units.is_empty() {
            repeats.into_iter().for_each(|name| self.repeat_name(name));
            outcomes.extend(if blind {
                self.isolation().hold_untried(resource_type, units)
            } else {
                let named = meant(&units, &named, message);
                let words = (!is_incomplete).then_some(words);
                self.isolation().refuse(resource_type, &flight.nonce, units, &named, words)
            });
        }
        outcomes
    }

    /// Whether the client may hold resources of an earlier stream that are not known here, and would lose them if they
    /// were left out of a response: in state-of-the-world, until it has accepted one. Until then nothing is left out to
    /// find out what is at fault.
    fn is_blind(&self, flight: &Flight) -> bool {
        flight.full_state && self.returning && self.accepted.is_none()
    }

    /// What was in the response at `index`. One that is the whole set of its type brings again what came with unanswered
    /// ones before it.
    fn brought(&self, index: usize) -> Brought {
        let first = if self.flights[index].full_state { 0 } else { index };
        let mut seen = BTreeSet::new();
        let mut brought = Brought::default();
        let flight = &self.flights[index];
        brought.is_incomplete = flight.full_state
            && self.isolation.as_ref().is_some_and(|isolation| isolation.is_newer_than(flight.number));
        for (at, flight) in self.flights[first..=index].iter().enumerate().rev() {
            for cell in flight.contents.iter(self.resource_type) {
                let last = self.view.cell(self.resource_type, cell.name());
                let is_last = last.is_some_and(|last| last.version() == cell.version());
                if !is_last || !self.subscription.covers(cell.name()) {
                    brought.is_incomplete |= first + at == index;
                } else if seen.insert(cell.name().clone()) {
                    // What it is known to hold comes before what it may hold.
                    let mut before = flight.replaced.iter().filter(|before| before.name() == cell.name());
                    let before = before.next().filter(|_| !flight.introduces(cell)).cloned();
                    match before {
                        Some(before) if before.version() == cell.version() => brought.repeats.push(cell.name().clone()),
                        before => brought.suspects.push(Suspect { refused: cell.clone(), before }),
                    }
                }
            }
        }
        brought
    }

    /// The resources of a response that the client's words name: of all that was in it, if that was the whole set.
    fn named(&self, flight: &Flight, suspects: &[Suspect], message: &str) -> BTreeSet<Name> {
        let mut all: BTreeSet<&Name> = flight.contents.iter(self.resource_type).map(|cell| cell.name()).collect();
        all.extend(suspects.iter().map(|suspect| suspect.refused.name()));
        if flight.full_state {
            all.extend(self.view.base.iter().flat_map(|base| base.iter(self.resource_type)).map(|cell| cell.name()));
            all.extend(self.view.exceptions.iter().filter_map(|(_, held)| held.cell()).map(|cell| cell.name()));
        }
        let listed: BTreeSet<_> = all.iter().filter(|name| lists(message, name)).map(|name| (*name).clone()).collect();
        match listed.is_empty() {
            false => listed,
            true => all.into_iter().filter(|name| names(message, name)).cloned().collect(),
        }
    }

    /// The names to tell: those that were named, or what else there was if it was only one.
    fn told(&self, flight: &Flight, named: &BTreeSet<Name>) -> Vec<Name> {
        if named.is_empty() && flight.contents.len(self.resource_type) == 1 {
            return flight.contents.iter(self.resource_type).map(|cell| cell.name().clone()).collect();
        }
        named.iter().cloned().collect()
    }

    /// Takes a suspect for not sent, as far as one can know; returns what is to be held back.
    fn go_back(&mut self, suspect: Suspect, words: &Arc<str>, at: Instant) -> Vec<(Unit, Hold)> {
        let Suspect { refused, before } = suspect;
        let units = isolation::suspects(&refused, before.as_ref(), words, at, self.responses);
        let after = self.responses;
        // The client goes on with what it had, and may be about to forget it.
        self.tell_soon(before.as_slice(), at);
        self.view.exceptions.insert(refused.name().clone(), Held::Doubtful { before, refused, after });
        units
    }

    fn isolation(&mut self) -> &mut Isolation {
        self.isolation.get_or_insert_default()
    }

    /// The removals in a rejected response may not have been applied, and nothing will ever change about them: so they
    /// are owed again, without what came with them. A response of removals only is not repeated.
    fn owe_removals(&mut self, flight: &Flight) {
        for (name, held) in flight.removed.iter().filter(|(name, _)| self.subscription.covers(name)) {
            if self.view.cell(self.resource_type, name).is_none() {
                let after = self.responses;
                let held = match held {
                    Held::Cell(old) | Held::Again(Some(old)) => {
                        Held::Doubtful { before: Some(old.clone()), refused: old.clone(), after }
                    }
                    // It was asked for and is not there: that has been told, and may not have been taken.
                    Held::Again(None) => Held::Foreign(None),
                    Held::Nothing | Held::Foreign(_) | Held::Doubtful { .. } | Held::Probable { .. } => held.clone(),
                };
                self.view.exceptions.insert_if_absent(name.clone(), || held);
            }
        }
    }
}

/// The units that the client's words mean: parts that they name, or else all of the resources that they name.
fn meant(units: &[(Unit, Hold)], named: &BTreeSet<Name>, message: &str) -> BTreeSet<Unit> {
    let units = || units.iter().map(|(unit, _)| unit);
    let parts: BTreeSet<_> =
        units().filter(|unit| unit.part.as_ref().is_some_and(|part| names(message, part))).cloned().collect();
    match parts.is_empty() {
        false => parts,
        true => units().filter(|unit| named.contains(&unit.name)).cloned().collect(),
    }
}

/// Whether Envoy lists a resource among those that it has not applied: `... cluster(s) a: why, b: why` or
/// `... listener(s) a: why\nb: why`. A name within a reason does not count.
fn lists(message: &str, name: &str) -> bool {
    message.starts_with(NAMED_ONLY)
        && !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let (before, after) = (&message[..at], &message[at + name.len()..]);
            after.starts_with(": ") && [") ", ", ", "\n"].iter().any(|lead| before.ends_with(lead))
        })
}

/// Whether a client's words name a resource: its name stands there as a word of its own.
fn names(message: &str, name: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '|' | '/');
    !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let before = message[..at].chars().next_back();
            let mut after = message[at + name.len()..].chars();
            let ends = match after.next() {
                None => true,
                // A full stop or a colon ends the name unless the word goes on after it.
                Some('.' | ':') => after.next().is_none_or(|c| !joins(c)),
                Some(c) => !joins(c),
            };
            ends && before.is_none_or(|c| !joins(c) && !matches!(c, '.' | ':'))
        })
}
