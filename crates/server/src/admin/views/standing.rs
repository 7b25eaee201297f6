//! Where nodes stand to what a run has assigned.

use std::collections::HashSet;

use plane::MemberId;
use rollout::Standing;
use world::ObjectRef;

use super::{Views, by_id};
use crate::Stopped;
use crate::admin::index::Index;
use crate::discovery::Roster;

impl Views {
    /// Who has accepted what came of the newest assignment of each of these runs, all by one look at the streams. The
    /// plane is asked first: what it says was published before the streams are asked, so none of them can miss it.
    pub(crate) async fn standings(&self, runs: &[ObjectRef]) -> Result<Vec<Standing>, Stopped> {
        let mut known = Vec::with_capacity(runs.len());
        for run in runs {
            let version = u64::try_from(self.plane.generation(run.clone()).await?).unwrap_or(0);
            known.push((version, self.plane.attached(run.clone()).await?));
        }
        let reports = Roster::inspect(self.roster.identified(), false, self.patience).await;
        let departed = self.roster.departed();
        let paths: Vec<String> = runs.iter().map(ObjectRef::path).collect();
        let work = move || {
            let index = Index::new(by_id(reports), Some(&paths));
            let stale = |path: &str, version| {
                let reports = departed.iter().map(|departed| (&*departed.node.id, &departed.report));
                u32::try_from(Index::behind(reports, path, version)).unwrap_or(u32::MAX)
            };
            let standing = |(path, (version, attached)): (&String, (u64, Option<HashSet<MemberId>>))| {
                let stale = stale(path, version);
                rollout::Standing { stale, ..index.standing(path, version, attached.as_ref()) }
            };
            paths.iter().zip(known).map(standing).collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
    }
}
