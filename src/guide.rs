//! Guides: longer texts, whose examples are tested.

#[doc = include_str!("../docs/sagas.md")]
pub mod sagas {}

#[doc = include_str!("../docs/state-machines.md")]
pub mod state_machines {}

#[cfg(feature = "sqlite")]
#[doc = include_str!("../docs/scheduling.md")]
pub mod scheduling {}

#[doc = include_str!("../docs/versions.md")]
pub mod versions {}
