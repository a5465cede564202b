//! The `offbuild` program.

fn main() {}
