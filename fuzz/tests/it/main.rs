//! Every input that was kept, through its target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sagabus_fuzz::TARGETS;
use tokio::time::Instant;

/// What no input may take, on a busy machine in a build without optimisation.
const EACH_MAX: Duration = Duration::from_secs(10);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let all = fs::read_dir(folder).expect("the folder can be read");
    let names = all.map(|one| one.expect("it can be read").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_kept_input_is_read_or_refused_in_time() {
    for (name, target) in TARGETS {
        let folder = corpus().join(name);
        let files = names(&folder);
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let input = fs::read(folder.join(&file)).expect("it can be read");
            let started = Instant::now();
            target(&input);
            let took = started.elapsed();
            assert!(took < EACH_MAX, "{name}: {file} took {took:?}");
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_its_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), targets);
}
