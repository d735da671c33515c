//! `version`: what this program is and speaks.

use client::{WIRE_VERSION, WIRE_VERSION_MIN};

use crate::args::Args;
use crate::failure::Exit;
use crate::render::{Record, Report};
use crate::show;

pub(crate) fn run(args: &Args) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    let row = Record::new([
        ("ringctl", version.into()),
        ("wire", WIRE_VERSION.into()),
        ("wire_min", WIRE_VERSION_MIN.into()),
    ]);
    let text = format!("ringctl {version}   wire v{WIRE_VERSION} (min v{WIRE_VERSION_MIN})\n");
    show(args, &Report { text, whole: row.clone().into(), rows: vec![row] });
    Exit::Fine
}
