//! No path of somebody's machine and no package mirror in any tracked file.

use super::finding::{Allowed, Finding, allows};

/// Folders that exist on one machine and not on the next.
const FOLDERS: &[&str] = &[
    "/home/",
    "/root/",
    "/Users/",
    "/work/",
    "/workspace/",
    "C:\\Users\\",
];

/// Hosts that a machine's own settings name; the repository does not.
const HOSTS: &[&str] = &[
    "deb.debian.org",
    "security.debian.org",
    "snapshot.debian.org",
    "archive.ubuntu.com",
    "static.crates.io",
    "index.crates.io",
    "repo1.maven.org",
    "repo.maven.apache.org",
    "registry.npmjs.org",
    "files.pythonhosted.org",
    "proxy.golang.org",
    "artifactregistry",
    "artifactory",
];

const ALLOWED: &[Allowed] = &[Allowed {
    path: "xtask/src/check/places.rs",
    why: "this list and its samples",
}];

/// Finds machine folders and mirror hosts in a text file.
pub(crate) fn look(path: &str, text: &str) -> Vec<Finding> {
    if allows(ALLOWED, path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut add = |fact: String, remedy: &str| {
            let (path, remedy) = (path.to_owned(), remedy.to_owned());
            found.push(Finding {
                path,
                line: at + 1,
                fact,
                remedy,
            });
        };
        if let Some(folder) = FOLDERS.iter().find(|folder| begins_path(line, folder)) {
            add(
                format!("a path below `{folder}`"),
                "name it relative to the root or to `$HOME`",
            );
        }
        if let Some(host) = HOSTS.iter().find(|host| line.contains(**host)) {
            add(
                format!("the package host `{host}`"),
                "use what the machine's own settings say",
            );
        }
    }
    found
}

/// Whether the folder stands at the start of an absolute path, and not inside another one.
fn begins_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"/._-~}>*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_and_mirrors_are_found_with_their_line() {
        let samples = [
            ("x\nlet path = \"/home/me/x\";", "`/home/`"),
            ("\n# see /root/notes", "`/root/`"),
            (
                "\nmirror = http://deb.debian.org/debian",
                "`deb.debian.org`",
            ),
        ];
        for (text, fact) in samples {
            let found = look("docs/a.md", text);
            assert_eq!(found.len(), 1, "{text}");
            let shown = found[0].to_string();
            assert!(
                shown.starts_with("docs/a.md:2: ") && shown.contains(fact),
                "{shown}"
            );
        }
    }

    #[test]
    fn relative_paths_and_addresses_are_allowed() {
        let samples = [
            "$HOME/.cache/sagabus",
            "https://example.org/home/page",
            "units/work/done",
            "/usr/lib/postgresql",
            "${ROOT}/work/x",
        ];
        for text in samples {
            assert!(look("docs/a.md", text).is_empty(), "{text}");
        }
    }
}
