//! Secrets of gateways as plain files: `<namespace>/<name>/tls.crt`, `tls.key`, `ca.crt`, as Kubernetes mounts them.
//!
//! Pure: what a directory holds is handed in. A secret whose files do not fit together keeps its last good form, and has a
//! problem that names the file. What the files of objects define counts before it, see [`crate::Files`].

use std::collections::BTreeMap;
use std::sync::Arc;

use world::{Kind, Location, ObjectRef, Problem};

use crate::text::{Flaw, Parts, SecretDefinition, assemble};
use crate::validate::REFUSED;

/// What is known of all directories of secrets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SecretFolders {
    folders: BTreeMap<Folder, State>,
    /// Directories that cannot be read as a whole, or have files where no secret can be.
    misplaced: Vec<Problem>,
}

/// Where a secret stands. The order is the one in which definitions count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Folder {
    /// Which of the configured directories it is in.
    pub(crate) root: usize,
    /// The namespace, the directory below that.
    pub(crate) namespace: Arc<str>,
    /// The name, the directory below that.
    pub(crate) name: Arc<str>,
    /// The directory with the files, for messages.
    pub(crate) place: Arc<str>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    /// The last that could be used.
    good: Option<SecretDefinition>,
    problem: Option<Problem>,
}

impl Folder {
    fn reference(&self) -> ObjectRef {
        ObjectRef::new(Kind::Other("Secret".into()), &self.namespace, &self.name)
    }

    fn location(&self, file: &str) -> Location {
        let file = if file.is_empty() { self.place.clone() } else { format!("{}/{file}", self.place).into() };
        Location { file, line: 0, column: 0 }
    }
}

impl SecretFolders {
    /// Takes in the files of a secret; or the name of the one that cannot be read, and why.
    pub(crate) fn take(&mut self, folder: &Folder, files: Result<Parts, (&str, String)>) {
        let refused = |file: &str, message: String, hint: &str| {
            let problem = Problem::error(&folder.reference(), file, message).consequence(REFUSED).hint(hint);
            Some(problem.at(Some(folder.location(file))))
        };
        let read = match files {
            Ok(parts) => assemble(&parts).map_err(|Flaw { part, error, hint }| refused(part, error.to_string(), hint)),
            Err((file, why)) => Err(refused(file, format!("it cannot be read: {why}"), "")),
        };
        let state = self.folders.entry(folder.clone()).or_default();
        match read {
            Ok(content) => {
                let (reference, location) = (folder.reference(), folder.location(""));
                let good = Some(SecretDefinition { reference, location, content: Arc::new(content) });
                *state = State { good, problem: None };
            }
            Err(problem) => state.problem = problem,
        }
    }

    /// Forgets what is not in one of these any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&Folder) -> bool) {
        self.folders.retain(|folder, _| is_there(folder));
    }

    /// Replaces what is wrong beside the secrets.
    pub(crate) fn set_misplaced(&mut self, problems: Vec<Problem>) {
        self.misplaced = problems;
    }

    /// The secrets in the order in which they count.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &SecretDefinition> {
        self.folders.values().filter_map(|state| state.good.as_ref())
    }

    /// Everything that is wrong now.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.folders.values().filter_map(|state| state.problem.as_ref()).chain(&self.misplaced)
    }
}
