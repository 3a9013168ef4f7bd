//! Cross-crate tests, through the facade as a user sees it.

#[cfg(all(unix, feature = "sqlite"))]
mod demo;
// Runs on both stores.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod killed;
