//! How far the streams of one audience have got with what was published to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::journal::{Settled, Trace};

/// Publications that are followed at one time. Whoever is further behind is no longer counted for the older ones.
const FOLLOWED: usize = 256;

/// The publications that not all streams of an audience have dealt with, oldest first. A stream says once how far it
/// has got, however many publications it has skipped.
#[derive(Debug, Default)]
pub(crate) struct Tide {
    open: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    trace: Arc<Trace>,
    /// Streams that have not dealt with it.
    streams: usize,
}

impl Tide {
    /// A change is published to the streams that there are.
    pub(super) fn rise(&mut self, trace: &Arc<Trace>, streams: usize) {
        if streams == 0 {
            return;
        }
        trace.concerns(streams);
        let open = &mut self.open;
        open.push_back(Step { trace: trace.clone(), streams });
        if open.len() > FOLLOWED
            && let Some(Step { trace, streams }) = open.pop_front()
        {
            trace.lose(streams);
        }
    }

    /// One stream has dealt with everything after the generation `from`, up to `to`. `sent_at` is when it was last sent
    /// something.
    pub(super) fn settle(&mut self, from: u64, to: u64, how: &Settled<'_>, sent_at: Option<Instant>, now: Instant) {
        if from >= to {
            return;
        }
        let open = &mut self.open;
        let steps = open.iter_mut().filter(|step| (from + 1..=to).contains(&step.trace.generation()));
        for step in steps.filter(|step| step.streams > 0) {
            step.streams -= 1;
            step.trace.settle(how, sent_at, now);
        }
        while open.front().is_some_and(|step| step.streams == 0) {
            open.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_skips_publications_settles_them_with_the_one_that_it_takes() {
        let mut tide = Tide::default();
        let traces: Vec<_> = [4, 7, 9].into_iter().map(Trace::sample).collect();
        traces.iter().for_each(|trace| tide.rise(trace, 2));
        let node: Arc<str> = "n".into();
        let accepted = Settled::Answered { node: &node, rejected: false };
        let open = || traces.iter().map(|trace| trace.view().outstanding).collect::<Vec<_>>();
        tide.settle(3, 4, &accepted, None, Instant::now());
        assert_eq!(open(), [1, 2, 2]);
        tide.settle(3, 9, &accepted, None, Instant::now());
        assert_eq!(open(), [0, 1, 1]);
        tide.settle(4, u64::MAX, &Settled::Gone, None, Instant::now());
        assert_eq!(open(), [0, 0, 0]);
        assert!(tide.open.is_empty(), "what is done is forgotten");
    }

    #[test]
    fn publications_that_nobody_settles_are_given_up_in_the_end() {
        let mut tide = Tide::default();
        let first = Trace::sample(1);
        tide.rise(&first, 1);
        (2..=300).for_each(|generation| tide.rise(&Trace::sample(generation), 1));
        assert_eq!(tide.open.len(), FOLLOWED);
        assert_eq!(first.view().outstanding, 1, "it is not said to have arrived");
    }

    #[test]
    fn a_publication_to_nobody_is_not_followed() {
        let mut tide = Tide::default();
        let trace = Trace::sample(1);
        tide.rise(&trace, 0);
        assert_eq!(trace.view().streams, 0);
        assert!(tide.open.is_empty());
    }
}
