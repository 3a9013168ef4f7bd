//! What comes of following a run.

use std::collections::BTreeMap;

use sagabus_core::EndpointName;
use sagabus_core::endpoint::EndpointId;

use super::known::Known;
use super::walk::Walk;
use crate::seen::Seen;

/// What came of following a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Messages at endpoints, and rows for a broker.
    pub followed: u64,
    /// Those of them that were lost sight of: too many copies were in hand at once.
    pub lost: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// The first step that a model does not have.
    pub stray: Option<String>,
}

/// Follows what was seen. `is_whole` says that the run came to its end.
pub(crate) fn follow(
    seen: &[Seen],
    endpoints: &BTreeMap<EndpointId, EndpointName>,
    is_whole: bool,
) -> Followed {
    let mut walk = Walk::new(Known::new(seen, endpoints));
    let mut steps = seen.iter().enumerate();
    let stray = steps.find_map(|(at, one)| {
        let error = walk.see(one).err()?;
        Some(format!("step {at}, {}: {error}", summary(one)))
    });
    let stray = stray.or_else(|| walk.unfinished().filter(|_| is_whole));
    Followed {
        followed: (walk.messages.len() + walk.rows.len()) as u64,
        lost: walk.lost(),
        steps: walk.steps,
        stray,
    }
}

fn summary(seen: &Seen) -> String {
    match seen {
        Seen::Called {
            process,
            group,
            ended,
        } => {
            let sources = group.units.iter().flat_map(|unit| &unit.sources);
            let sources: Vec<_> = sources.collect();
            format!("{process} commits {sources:?}, {ended:?}")
        }
        other => format!("{other:?}").chars().take(300).collect(),
    }
}
