//! node: the driver around the pure machines, as the library behind `ringd`.

pub mod mesh;
