//! The audit trail of the admin API: who has changed what, from where, and what came of it.
//!
//! Two lines of JSON for each call that may change something, linked by a number: one before anything is done, without
//! which nothing is done, and one with the outcome before it is answered. Tokens are never in it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use world::{Acceptance, Submission};

use crate::StateError;
use crate::trust::AuditLog;
use crate::view::Timestamp;

/// Of a text that a caller says so many characters are kept.
const LONGEST: usize = 1000;

/// The trail; without a state directory it is in the log of the server alone.
#[derive(Debug)]
pub(crate) struct AuditTrail {
    log: Option<AuditLog>,
    /// Of the last call; begins where no other process of this trail has been.
    last: Mutex<u64>,
}

/// A call that may change something.
#[derive(Clone, Debug)]
pub(super) struct AuditedCall {
    number: u64,
    peer: String,
    /// The name of the token; empty where none is needed.
    caller: String,
    method: String,
    path: String,
    deed: Deed,
}

/// What a call does, as far as whoever carries it out knows. Cloning gives another hold of the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Deed {
    said: Arc<Mutex<Said>>,
}

#[derive(Clone, Debug, Default)]
struct Said {
    what: String,
    objects: Vec<String>,
    actor: String,
    reason: String,
    error: String,
}

impl Deed {
    fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Who asks, and why, in the caller's own words.
    pub(super) fn by(&self, actor: &str, reason: &str) {
        self.say(|said| (said.actor, said.reason) = (cut(actor), cut(reason)));
    }

    /// What is done, to which object.
    pub(super) fn is(&self, what: &str, object: String) {
        self.say(|said| (said.what, said.objects) = (what.to_owned(), vec![cut(&object)]));
    }

    /// Objects are handed over, or deleted.
    pub(super) fn is_submission(&self, submission: &Submission) {
        match submission {
            Submission::Apply(application) => self.say(|said| {
                said.what = if application.is_dry_run { "apply (dry run)" } else { "apply" }.to_owned();
                said.objects = application.only.iter().map(|only| only.path()).collect();
            }),
            Submission::Delete(deletion) => {
                let what = if deletion.is_dry_run { "delete (dry run)" } else { "delete" };
                self.is(what, deletion.reference.path());
            }
        }
    }

    /// What has become of the objects.
    pub(super) fn has_taken(&self, acceptance: &Acceptance) {
        let taken = acceptance.objects.iter().map(|taken| {
            let (path, effect, generation) = (taken.reference.path(), taken.effect.as_str(), taken.generation);
            format!("{path} {effect}, generation {generation}")
        });
        self.say(|said| said.objects = taken.collect());
    }

    /// It was not done, for this reason.
    pub(super) fn is_refused(&self, why: &str) {
        self.say(|said| said.error = cut(why));
    }
}

impl AuditTrail {
    /// The trail in a state directory, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn open(state: Option<&Path>) -> io::Result<Self> {
        let directory = state.map(|state| state.join("audit"));
        if let Some(directory) = &directory {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let log = directory.map(|directory| AuditLog::new(directory.join("admin.jsonl")));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { log, last: Mutex::new(u64::try_from(since.as_micros()).unwrap_or(0)) })
    }

    /// Records that something is asked for. Blocks on the disk.
    ///
    /// # Errors
    /// It could not be recorded, so it must not be done.
    pub(super) fn begin(
        &self,
        peer: String,
        caller: String,
        method: &str,
        path: &str,
        deed: Deed,
    ) -> Result<AuditedCall, StateError> {
        let number = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last += 1;
            *last
        };
        let call = AuditedCall { number, peer, caller, method: method.to_owned(), path: cut(path), deed };
        let mut line = call.line("asked");
        line["method"] = json!(call.method);
        self.append(&line)?;
        Ok(call)
    }

    /// Records what came of it. Blocks on the disk.
    ///
    /// # Errors
    /// It could not be recorded. It is done all the same.
    pub(super) fn end(&self, call: &AuditedCall, outcome: &str) -> Result<(), StateError> {
        let said = call.deed.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (peer, caller, path) = (&*call.peer, &*call.caller, &*call.path);
        tracing::info!(
            peer, caller, actor = said.actor, what = said.what, objects = ?said.objects, path, outcome, error = said.error,
            "somebody has called the admin API"
        );
        let mut line = call.line("answered");
        let fields = [("what", said.what), ("actor", said.actor), ("reason", said.reason), ("error", said.error)];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            line[name] = json!(value);
        }
        line["objects"] = json!(said.objects);
        line["outcome"] = json!(outcome);
        self.append(&line)
    }

    fn append(&self, line: &Value) -> Result<(), StateError> {
        match &self.log {
            Some(log) => log.append(&format!("{line}\n")),
            None => Ok(()),
        }
    }
}

impl AuditedCall {
    /// What both lines say.
    fn line(&self, event: &str) -> Value {
        json!({
            "time": Timestamp::from(SystemTime::now()).to_string(),
            "event": event,
            "call": self.number,
            "peer": self.peer,
            "caller": self.caller,
            "path": self.path,
        })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
