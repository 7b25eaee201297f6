//! Puts together what the admin API answers, from what the streams say about themselves and from the plane.

mod held;
mod nodes;
mod objects;
mod standing;
mod wait;

pub(crate) use nodes::NodeFilter;
pub(crate) use objects::ObjectFilter;
pub(crate) use wait::Condition;

use std::sync::Arc;
use std::time::Duration;

use proto::ResourceType;
use tokio_util::sync::CancellationToken;
use xds::{HoldingState, Verdict};

use crate::Stopped;
use crate::discovery::{Entry, Report, Roster};
use crate::journal::{EventFilter, Feed, Journal, Listener};
use crate::plane_task::PlaneHandle;
use crate::view;

/// Entries of one answer, if nobody asks for another number.
pub(super) const PAGE: usize = 1000;

/// Answers the questions of the admin API.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    roster: Arc<Roster>,
    plane: PlaneHandle,
    journal: Arc<Journal>,
    /// How long a stream may take to say what it holds.
    patience: Duration,
    /// Cancelled when the server begins to end.
    draining: CancellationToken,
}

/// A part of a list: so many entries after the one of this name.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) after: String,
    pub(crate) limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: String::new(), limit: PAGE }
    }
}

impl Views {
    pub(crate) fn new(
        roster: Arc<Roster>,
        plane: PlaneHandle,
        journal: Arc<Journal>,
        patience: Duration,
        draining: CancellationToken,
    ) -> Self {
        Self { roster, plane, journal, patience, draining }
    }

    /// What happens from now on, or after the event of this number; it ends when the server does.
    pub(crate) fn events(&self, filter: EventFilter, after: Option<u64>) -> Feed {
        Feed::new(self.journal.listen(after), filter, self.draining.clone())
    }

    /// Listens to all that happens, frequent events included.
    pub(crate) fn listen(&self) -> Listener {
        self.journal.listen(None)
    }

    /// The last changes, newest first.
    pub(crate) fn changes(&self) -> view::Changes {
        view::Changes { changes: self.journal.changes().iter().map(|trace| trace.view()).collect() }
    }

    /// One change, if it is among the last.
    pub(crate) fn change(&self, generation: u64) -> Option<view::Change> {
        self.journal.change(generation).map(|trace| trace.view())
    }

    /// What the streams of this node were sent, of the types that `wanted` takes; `None` when no stream of such a
    /// node is open.
    pub(crate) async fn node_config(
        &self,
        id: &str,
        wanted: impl Fn(ResourceType) -> bool + Send + 'static,
    ) -> Option<view::NodeConfig> {
        self.sent_to(id, wanted, resource).await.map(|mut resources| {
            resources.sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
            view::NodeConfig { node_id: id.to_owned(), resources }
        })
    }

    /// [`Views::node_config`] in another form, unordered. The work is done on a thread where it delays no stream.
    pub(super) async fn sent_to<T: Send + 'static>(
        &self,
        id: &str,
        wanted: impl Fn(ResourceType) -> bool + Send + 'static,
        form: impl Fn(&snapshot::Cell, &HoldingState) -> T + Send + 'static,
    ) -> Option<Vec<T>> {
        let mut entries = self.roster.identified();
        entries.retain(|entry| entry.id() == id);
        if entries.is_empty() {
            return None;
        }
        let reports = Roster::inspect(entries, true, self.patience).await;
        let work = move || {
            let holdings = reports.iter().filter_map(|(_, report)| report.as_ref()).flat_map(|report| &report.holdings);
            holdings
                .filter(|holding| wanted(holding.cell.resource_type()))
                .map(|holding| form(&holding.cell, &holding.state))
                .collect()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Everything that is wrong.
    pub(crate) async fn problems(&self) -> Result<view::Problems, Stopped> {
        let problems = self.plane.problems().await?;
        Ok(view::Problems { problems: problems.iter().map(view::Problem::from).collect() })
    }
}

/// Reports with the ids of their nodes.
fn by_id(reports: Vec<(Entry, Option<Report>)>) -> impl Iterator<Item = (Arc<str>, Option<Report>)> {
    reports.into_iter().map(|(entry, report)| (entry.id().into(), report))
}

fn resource(cell: &snapshot::Cell, state: &HoldingState) -> view::Resource {
    let type_url = cell.resource_type().type_url();
    let origins: std::collections::BTreeSet<String> = cell.origins().map(|origin| origin.object.to_string()).collect();
    view::Resource {
        r#type: cell.resource_type().short().to_owned(),
        type_url: type_url.to_owned(),
        name: cell.name().to_string(),
        version: cell.version().to_string(),
        state: state_view(state),
        rejection: match state {
            HoldingState::Rejected { message, .. } => message.to_string(),
            HoldingState::Sent | HoldingState::Accepted => String::new(),
        },
        origins: origins.into_iter().collect(),
        body: proto::descriptor::to_redacted_json(type_url, &cell.value()),
    }
}

/// How the API names the state of a holding.
pub(super) fn state_view(state: &HoldingState) -> view::ResourceState {
    match state {
        HoldingState::Sent | HoldingState::Rejected { verdict: Verdict::Suspect, .. } => view::ResourceState::Pending,
        HoldingState::Accepted => view::ResourceState::Accepted,
        HoldingState::Rejected { verdict: Verdict::Culprit | Verdict::Untried, .. } => view::ResourceState::Rejected,
    }
}
