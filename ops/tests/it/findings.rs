//! What status and doctor may find: each is somebody's to look at, and the runbook says how.

use std::collections::BTreeSet;

use sagabus_ops::doctor::CHECKS;

/// Every code that the sources put into a finding.
fn in_sources() -> BTreeSet<&'static str> {
    let sources = [
        include_str!("../../src/status.rs"),
        include_str!("../../src/doctor.rs"),
    ];
    let mut codes = BTreeSet::new();
    for text in sources {
        let findings = text.split("#[cfg(test)]").next().unwrap();
        let named = findings.split("code: \"").skip(1);
        codes.extend(named.filter_map(|rest| rest.split('"').next()));
        // A schedule's finding is put together from three words.
        let words = findings.split("_ => return None").next().unwrap();
        let words = words.split('"').skip(1).step_by(2);
        codes.extend(words.filter(|word| word.starts_with("schedule_")));
    }
    codes
}

#[test]
fn every_finding_belongs_to_a_check_of_the_doctor() {
    let known: BTreeSet<_> = CHECKS.iter().flat_map(|(_, _, codes)| *codes).collect();
    let known: BTreeSet<&str> = known.into_iter().copied().collect();
    assert!(known.len() > 15, "{known:?}");
    assert_eq!(known, in_sources());
}

#[test]
fn the_runbook_has_a_row_for_every_finding() {
    let page = include_str!("../../../docs/operations.md");
    let (_, runbook) = page.split_once("\n## Runbook\n").unwrap();
    let (runbook, _) = runbook.split_once("\n## ").unwrap();
    let alerts: Vec<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .collect();
    for code in in_sources() {
        let quoted = format!("`{code}`");
        assert!(alerts.iter().any(|alert| alert.contains(&quoted)), "{code}");
    }
    let (_, findings) = page.split_once("each with a `code`: ").unwrap();
    let (findings, _) = findings.split_once('.').unwrap();
    let text = include_str!("../../src/status.rs");
    for code in in_sources() {
        let is_of_status = text.contains(&format!("\"{code}\""));
        assert_eq!(
            findings.contains(&format!("`{code}`")),
            is_of_status,
            "{code}"
        );
    }
}
