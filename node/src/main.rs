//! ringd
fn main() {}
