//! ringctl
fn main() {}
