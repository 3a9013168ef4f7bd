//! The program `sagabus`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagabus_cli::operator()
}
