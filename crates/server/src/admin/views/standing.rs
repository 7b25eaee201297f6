//! Where nodes stand to what a run has assigned.

use rollout::Standing;
use world::ObjectRef;

use super::{Views, by_id};
use crate::Stopped;
use crate::admin::index::Index;
use crate::discovery::Roster;

impl Views {
    /// Who has accepted what came of the newest assignment of a run. The plane is asked first: what it says was
    /// published before the streams are asked, so none of them can miss it.
    pub(crate) async fn standing(&self, run: &ObjectRef) -> Result<Standing, Stopped> {
        let version = u64::try_from(self.plane.generation(run.clone()).await?).unwrap_or(0);
        let reports = Roster::inspect(self.roster.identified(), false, self.patience).await;
        let path = run.path();
        let work = move || Index::new(by_id(reports), Some(&path)).standing(&path, version);
        tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
    }
}
