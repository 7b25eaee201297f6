//! One entry of `http[]` as it is in force, with the places that its parts came from.

use std::borrow::Cow;
use std::sync::Arc;

use world::api::istio::{HttpMatch, HttpRoute, VirtualService};
use world::{Object, Problem, Severity, Spec};

/// An entry of `http[]` of one VirtualService.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The VirtualService.
    pub(super) object: Arc<Object>,
    /// Index of the entry.
    pub(super) index: usize,
}

impl Place {
    /// The namespace that short names mean.
    pub(super) fn namespace(&self) -> &str {
        &self.object.reference.namespace
    }

    /// Something wrong at `field` below the entry, such as `.route[1].weight`; empty for the entry itself.
    pub(super) fn error(&self, field: &str, message: impl Into<String>) -> Problem {
        self.problem(Severity::Error, field, message)
    }

    /// Something odd at `field` below the entry.
    pub(super) fn warning(&self, field: &str, message: impl Into<String>) -> Problem {
        self.problem(Severity::Warning, field, message)
    }

    fn problem(&self, severity: Severity, field: &str, message: impl Into<String>) -> Problem {
        let field = format!("spec.http[{}]{field}", self.index);
        let problem = Problem::error(&self.object.reference, field, message).at(self.object.meta.location.clone());
        Problem { severity, ..problem }
    }
}

/// The parts of an entry that a delegate takes over from the entry that delegates to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Rewrite,
    Redirect,
    DirectResponse,
    Timeout,
    Retries,
    Fault,
    Mirror,
    Cors,
    Headers,
}

/// What a delegate has from the entry that delegates to it.
#[derive(Clone, Debug)]
pub(super) struct Inherited {
    /// The delegating entry.
    pub(super) root: Place,
    /// Its parts that are in force.
    pub(super) parts: Vec<Part>,
    /// For each match of the rule: index in the root's matches and in the delegate's, where it came from both.
    pub(super) matches: Vec<(Option<usize>, Option<usize>)>,
}

/// An entry of `http[]` as it is in force.
#[derive(Clone, Debug)]
pub(super) struct Rule<'a> {
    /// What it says.
    pub(super) route: Cow<'a, HttpRoute>,
    /// Where its destinations are written.
    pub(super) place: Place,
    /// What came from elsewhere.
    pub(super) inherited: Option<Inherited>,
    /// Set when nothing of it can be done: every request that it matches is answered 503 with this.
    pub(super) refusal: Option<String>,
}

impl Rule<'_> {
    /// Where a part was written.
    pub(super) fn place_of(&self, part: Part) -> &Place {
        match &self.inherited {
            Some(inherited) if inherited.parts.contains(&part) => &inherited.root,
            _ => &self.place,
        }
    }

    /// Where the condition of match `index` was written that `has` recognises, and the path of that match.
    pub(super) fn place_of_match(&self, index: usize, has: impl Fn(&HttpMatch) -> bool) -> (&Place, String) {
        let own = |index: usize| (&self.place, format!(".match[{index}]"));
        let Some(inherited) = &self.inherited else { return own(index) };
        match inherited.matches.get(index) {
            Some((Some(root), delegate)) => {
                let written = |at: &usize| entry(&self.place).and_then(|e| e.matches.get(*at)).is_some_and(&has);
                match delegate.filter(written) {
                    Some(delegate) => own(delegate),
                    None => (&inherited.root, format!(".match[{root}]")),
                }
            }
            Some((None, Some(delegate))) => own(*delegate),
            Some((None, None)) | None => own(index),
        }
    }
}

/// The specification of a VirtualService; `None` for another kind.
pub(super) fn virtual_service(object: &Object) -> Option<&VirtualService> {
    match &object.spec {
        Spec::VirtualService(spec) => Some(spec),
        _ => None,
    }
}

fn entry(place: &Place) -> Option<&HttpRoute> {
    virtual_service(&place.object)?.http.get(place.index)
}
