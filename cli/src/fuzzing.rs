//! A door to what reads what operators type and write down, for the fuzzer and nobody else.

use std::ffi::OsString;

use clap::Parser;

use crate::arguments::{Arguments, Noun};
use crate::config::Config;
use crate::place;

/// Reads the words of a command line.
pub fn words(words: Vec<OsString>) {
    let line = std::iter::once(OsString::from("sagabus")).chain(words);
    if let Err(error) = Arguments::<Noun>::try_parse_from(line) {
        assert!(!error.render().to_string().is_empty());
    }
}

/// Reads a configuration file and picks a profile.
pub fn configuration(profile: Option<&str>, text: &str) {
    match Config::read(text) {
        Ok(config) => {
            if let Err(fact) = config.choose(profile) {
                assert!(fact.contains("has no profile"), "{fact}");
            }
        }
        Err(wrong) => {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&wrong.line), "{wrong:?}");
        }
    }
}

/// Names a database without opening it; returns what is said where that cannot be.
pub fn place(text: &str) -> String {
    let refused = place::check(Some(text)).err();
    refused.map_or_else(String::new, |failure| format!("{failure:?}"))
}
