//! The Terrace server.
fn main() {}
