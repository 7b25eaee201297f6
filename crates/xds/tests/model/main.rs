//! A stream against a reference client that behaves like Envoy, in random interleavings of publishes, deliveries,
//! rejections, pauses and reconnects. Failing seeds are kept in `main.regressions` beside this file.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod client;
mod hosts;
mod mesh;
mod run;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use xds::Variant;

use crate::client::Manner;
use crate::run::{Action, Run, action, calm_action, joining_action, manner, picky_action, spoiling_action};

/// The same ones each time, so that a change is judged by what it does. `PROPTEST_CASES=20000` looks for new ones.
const CASES: u32 = 2_500;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(CASES),
        rng_seed: if cases.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) },
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 5_000,
        ..ProptestConfig::default()
    }
}

fn play(variant: Variant, actions: &[Action]) -> Result<(), TestCaseError> {
    play_as(variant, Manner::Lists, actions, 0)
}

fn play_as(variant: Variant, manner: Manner, actions: &[Action], spoil: u32) -> Result<(), TestCaseError> {
    let mut run = Run::new(variant, manner);
    let result = actions.iter().try_for_each(|action| run.act(action)).and_then(|()| run.finish(spoil));
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
    fn a_state_of_the_world_client_meets_nobody_whom_its_cluster_does_not_admit(
        actions in prop::collection::vec(joining_action(), 1..60)
    ) {
        play(Variant::StateOfTheWorld, &actions)?;
    }

    #[test]
    fn a_delta_client_meets_nobody_whom_its_cluster_does_not_admit(
        actions in prop::collection::vec(joining_action(), 1..60)
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
    fn a_state_of_the_world_client_that_refuses_what_is_bad_gets_all_that_is_good(
        actions in prop::collection::vec(spoiling_action(), 1..60), manner in manner(), spoil in any::<u32>()
    ) {
        play_as(Variant::StateOfTheWorld, manner, &actions, spoil)?;
    }

    #[test]
    fn a_delta_client_that_refuses_what_is_bad_gets_all_that_is_good(
        actions in prop::collection::vec(spoiling_action(), 1..60), manner in manner(), spoil in any::<u32>()
    ) {
        play_as(Variant::Delta, manner, &actions, spoil)?;
    }

    #[test]
    fn a_state_of_the_world_client_that_rejects_and_stalls_and_returns_ends_with_the_mesh(
        actions in prop::collection::vec(action(), 1..60), manner in manner(), spoil in any::<u32>()
    ) {
        play_as(Variant::StateOfTheWorld, manner, &actions, spoil)?;
    }

    #[test]
    fn a_delta_client_that_rejects_and_stalls_and_returns_ends_with_the_mesh(
        actions in prop::collection::vec(action(), 1..60), manner in manner(), spoil in any::<u32>()
    ) {
        play_as(Variant::Delta, manner, &actions, spoil)?;
    }
}
