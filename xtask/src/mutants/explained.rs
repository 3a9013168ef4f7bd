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

const EXPLAINED: &[Explained] = &[Explained {
    file: "bus-core/src/tries.rs",
    line: "u32::try_from(failure_count(&self.attempts)).unwrap_or(u32::MAX - 1)",
    change: "replace - with / in Tries::failures",
    why: "no message has four billion attempts, each of which takes memory",
}];

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn what_is_explained_stands_once_in_its_file() {
        let root = Workspace::find().unwrap().root;
        for one in EXPLAINED {
            let text = fs::read_to_string(root.join(one.file)).unwrap();
            let is_it = |(_, line): &(usize, &str)| line.trim() == one.line;
            let found: Vec<_> = text.lines().enumerate().filter(is_it).collect();
            let [(at, _)] = found[..] else {
                panic!("{}: {} stands {} times", one.file, one.line, found.len());
            };
            let name = |change| format!("{}:{}:9: {change}", one.file, at + 1);
            assert_eq!(reason(&name(one.change), &text), Some(one.why));
            assert_eq!(reason(&name("replace it with nothing"), &text), None);
        }
    }
}
