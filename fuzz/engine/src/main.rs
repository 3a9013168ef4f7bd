//! libFuzzer around one target, which `SAGABUS_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("SAGABUS_FUZZ_TARGET").unwrap_or_default();
    let mut all = sagabus_fuzz::TARGETS.iter();
    let found = all.find(|(name, _)| *name == wanted);
    found.expect("SAGABUS_FUZZ_TARGET names a target").1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
