//! Builds the core with what shuttle has in the place of std's and tokio's (`bus-core/src/sync.rs`).

fn main() {
    println!("cargo::rustc-cfg=sagabus_shuttle");
    println!("cargo::rerun-if-changed=build.rs");
}
