//! `cargo xtask check`: formatting, lints, documentation and the guards of this project.
//!
//! **To add a guard**: a file here with a function that returns its `Finding`s and two tests (a
//! sample that it finds and one that it allows), and a line in `list.rs`.

// Reading Rust.
mod imports;
mod lexer;
mod source;
// What a check says, and all of them in order.
mod finding;
mod list;
// The checks.
mod directions;
mod habits;
mod owners;
mod places;
mod size;
mod tools;
mod unwraps;
mod vocabulary;
// The command.
mod command;

pub(crate) use command::{Arguments, run};
