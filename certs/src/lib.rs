//! certs: see the crate description in Cargo.toml.
