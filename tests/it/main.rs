//! Cross-crate tests, through the facade as a user sees it.

mod killed;
