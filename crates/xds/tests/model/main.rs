//! A stream against a reference client that behaves like Envoy, in random interleavings of publishes, deliveries,
//! rejections, pauses and reconnects. Failing seeds are kept in `main.regressions` beside this file.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod client;
mod hosts;
mod mesh;
mod run;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use xds::Variant;

use crate::run::{Action, Run, action, calm_action, picky_action};

const CASES: u32 = 4_000;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 50_000,
        ..ProptestConfig::default()
    }
}

fn play(variant: Variant, actions: &[Action]) -> Result<(), TestCaseError> {
    let mut run = Run::new(variant);
    let result = actions.iter().try_for_each(|action| run.act(action)).and_then(|()| run.finish());
    result.map_err(|why| TestCaseError::fail(format!("{why}\n{}", run.story())))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_state_of_the_world_client_ends_with_the_mesh_and_no_path_breaks_on_the_way(
        actions in prop::collection::vec(calm_action(), 1..60)
    ) {
        play(Variant::StateOfTheWorld, &actions)?;
    }

    #[test]
    fn a_delta_client_ends_with_the_mesh_and_no_path_breaks_on_the_way(
        actions in prop::collection::vec(calm_action(), 1..60)
    ) {
        play(Variant::Delta, &actions)?;
    }

    #[test]
    fn a_state_of_the_world_client_that_refuses_by_name_ends_with_the_mesh_and_no_other_path_breaks(
        actions in prop::collection::vec(picky_action(), 1..60)
    ) {
        play(Variant::StateOfTheWorld, &actions)?;
    }

    #[test]
    fn a_delta_client_that_refuses_by_name_ends_with_the_mesh_and_no_other_path_breaks(
        actions in prop::collection::vec(picky_action(), 1..60)
    ) {
        play(Variant::Delta, &actions)?;
    }

    #[test]
    fn a_state_of_the_world_client_that_rejects_and_stalls_and_returns_ends_with_the_mesh(
        actions in prop::collection::vec(action(), 1..60)
    ) {
        play(Variant::StateOfTheWorld, &actions)?;
    }

    #[test]
    fn a_delta_client_that_rejects_and_stalls_and_returns_ends_with_the_mesh(
        actions in prop::collection::vec(action(), 1..60)
    ) {
        play(Variant::Delta, &actions)?;
    }
}
