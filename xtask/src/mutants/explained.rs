//! Mutants that no test can notice: what they do is what the code promises, too.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::found::{Reasons, file_of};

/// One mistake that changes nothing that anybody could see.
struct Explained {
    file: &'static str,
    /// The line that is changed, without its indentation: it stands once in the file.
    line: &'static str,
    change: &'static str,
    why: &'static str,
}

const EXPLAINED: &[Explained] = &[];

/// Says of these mutants of a checkout which are explained, and how.
pub(super) fn reasons(names: &[String], tree: &Path) -> Reasons {
    let mut files = HashMap::new();
    let mut reasons = Reasons::new();
    for name in names {
        let file = file_of(name);
        let text = files.entry(file).or_insert_with(|| {
            // A file that is not there has no line that is explained.
            fs::read_to_string(tree.join(file)).unwrap_or_default()
        });
        if let Some(why) = reason(name, text) {
            reasons.insert(name.clone(), why);
        }
    }
    reasons
}

/// Returns why a mutant of a file with this text cannot be noticed, where that is known.
fn reason(name: &str, text: &str) -> Option<&'static str> {
    let (place, change) = name.split_once(": ")?;
    let mut place = place.split(':');
    let (file, number) = (place.next()?, place.next()?.parse::<usize>().ok()?);
    let line = text.lines().nth(number.checked_sub(1)?)?.trim();
    let is_it = |one: &&Explained| one.file == file && one.line == line && one.change == change;
    EXPLAINED.iter().find(is_it).map(|one| one.why)
}
