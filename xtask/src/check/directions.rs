//! Which package may depend on which: a star around the core, checked over `cargo metadata`.
//!
//! The rules are the two tables below. Dev-dependencies are free: tests may use anything.

use std::fs;

use super::finding::Finding;
use crate::fail::Result;
use crate::workspace::{Package, Workspace};

/// The place of a package in the star.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The middle: depends on no package of ours.
    Core,
    /// Depends on the core and on no other leaf.
    Leaf,
    /// Stands on top of an operator's functions and may use leaves: the programs for people.
    Skin,
    /// May depend on anything: it is published for tests, or not published, or the facade.
    Free,
}

/// Every package of the workspace. A new one is added here with its place.
const PLACES: &[(&str, Place)] = &[
    ("sagabus-core", Place::Core),
    ("sagabus-macros", Place::Leaf),
    ("sagabus-rabbitmq", Place::Leaf),
    ("sagabus-kafka", Place::Leaf),
    ("sagabus-outbox", Place::Leaf),
    ("sagabus-saga", Place::Leaf),
    ("sagabus-flow", Place::Leaf),
    ("sagabus-ops", Place::Leaf),
    ("sagabus-cli", Place::Skin),
    ("sagabus-dashboard", Place::Skin),
    ("sagabus", Place::Free),
    ("sagabus-testkit", Place::Free),
    ("sagabus-model", Place::Free),
    ("sagabus-sim", Place::Free),
    ("sagabus-shuttle", Place::Free),
    ("sagabus-chaos", Place::Free),
    ("sagabus-bench", Place::Free),
    ("sagabus-fuzz", Place::Free),
    ("xtask", Place::Free),
];

/// Drivers, and the one package that may use each (beside the free ones).
const DRIVERS: &[(&str, &str)] = &[
    ("lapin", "sagabus-rabbitmq"),
    ("rdkafka", "sagabus-kafka"),
    ("sqlx", "sagabus-outbox"),
];

/// Checks the packages of this workspace.
pub(crate) fn look(workspace: &Workspace) -> Result<Vec<Finding>> {
    let packages = workspace.packages()?;
    let mut found = Vec::new();
    for package in &packages {
        let path = package.manifest_path.strip_prefix(&workspace.root);
        let path = path
            .unwrap_or(&package.manifest_path)
            .to_string_lossy()
            .into_owned();
        // A manifest that cannot be read has no lines, and cargo has just read it.
        let manifest = fs::read_to_string(&package.manifest_path).unwrap_or_default();
        found.extend(look_at(package, &packages, &path, &manifest));
    }
    Ok(found)
}

fn look_at(package: &Package, all: &[Package], path: &str, manifest: &str) -> Vec<Finding> {
    let finding = |dependency: &str, fact: String, remedy: &str| Finding {
        path: path.to_owned(),
        line: line_of(manifest, dependency),
        fact,
        remedy: remedy.to_owned(),
    };
    let name = package.name.as_str();
    let Some(place) = place_of(name) else {
        let remedy = "add it to PLACES in xtask/src/check/directions.rs";
        return vec![finding(
            "name",
            format!("`{name}` has no place in the star"),
            remedy,
        )];
    };
    let mut found = Vec::new();
    let dependencies = package.dependencies.iter();
    for dependency in dependencies.filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
        let used = dependency.name.as_str();
        if all.iter().any(|other| other.name == used) && !may_use(place, used) {
            let fact = format!("`{name}` depends on `{used}`");
            let remedy = "a leaf depends on sagabus-core only; what both need belongs there";
            found.push(finding(used, fact, remedy));
        }
        let owner = DRIVERS.iter().find(|(driver, _)| *driver == used);
        if let Some((driver, owner)) = owner
            && *owner != name
            && place != Place::Free
        {
            let fact = format!("`{name}` depends on `{driver}`");
            let remedy = format!("only {owner} talks to it; go through its contract");
            found.push(finding(used, fact, &remedy));
        }
    }
    found
}

fn place_of(name: &str) -> Option<Place> {
    PLACES
        .iter()
        .find(|(package, _)| *package == name)
        .map(|(_, place)| *place)
}

fn may_use(place: Place, used: &str) -> bool {
    match place {
        Place::Core => false,
        Place::Leaf => place_of(used) == Some(Place::Core),
        Place::Skin => matches!(place_of(used), Some(Place::Core | Place::Leaf)),
        Place::Free => true,
    }
}

/// The line that declares a dependency, for the message.
fn line_of(manifest: &str, name: &str) -> usize {
    let declares = |line: &str| {
        let rest = line.trim_start().strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    manifest.lines().position(declares).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Dependency;

    fn facts(name: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let package = |name: &str, dependencies: &[(&str, Option<&str>)]| Package {
            name: name.to_owned(),
            manifest_path: PathBuf::new(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: kind.map(str::to_owned),
                })
                .collect(),
        };
        let all = [
            package(name, dependencies),
            package("sagabus-core", &[]),
            package("sagabus-outbox", &[]),
        ];
        let manifest = "[dependencies]\nsagabus-core.workspace = true\nsagabus-outbox = \"1\"\n";
        let found = look_at(&all[0], &all, "saga/Cargo.toml", manifest);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_leaf_on_a_leaf_is_found_at_its_line() {
        let found = facts(
            "sagabus-saga",
            &[("sagabus-core", None), ("sagabus-outbox", None)],
        );
        assert_eq!(found.len(), 1);
        let expected = "saga/Cargo.toml:3: `sagabus-saga` depends on `sagabus-outbox`; a leaf ";
        assert!(found[0].starts_with(expected), "{}", found[0]);
        assert_eq!(facts("sagabus-core", &[("sagabus-outbox", None)]).len(), 1);
    }

    #[test]
    fn a_driver_outside_its_package_is_found() {
        assert_eq!(facts("sagabus-saga", &[("sqlx", None)]).len(), 1);
        assert_eq!(facts("sagabus-saga", &[("lapin", Some("build"))]).len(), 1);
        assert_eq!(facts("sagabus-kafka", &[("rdkafka", None)]), [""; 0]);
    }

    #[test]
    fn a_package_without_a_place_is_found() {
        assert!(facts("sagabus-new", &[])[0].contains("has no place in the star"));
    }

    #[test]
    fn tests_and_free_packages_may_use_anything() {
        let all = [("sagabus-outbox", Some("dev")), ("sqlx", Some("dev"))];
        assert_eq!(facts("sagabus-saga", &all), [""; 0]);
        for free in ["sagabus", "sagabus-testkit", "sagabus-bench", "xtask"] {
            assert_eq!(
                facts(free, &[("sagabus-outbox", None), ("sqlx", None)]),
                [""; 0]
            );
        }
        assert_eq!(facts("sagabus-cli", &[("sagabus-outbox", None)]), [""; 0]);
    }
}
