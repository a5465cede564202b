//! The `offbuild` program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    offbuild::run::main()
}
