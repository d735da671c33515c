//! `man`: a page for each command, to be put where `man` looks.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Args;
use crate::environment::with_variables;
use crate::failure::{Exit, Failure};
use crate::render::{Record, Report, human};
use crate::show;

pub(crate) fn run(args: &Args, dir: &Path) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| {
        let what = format!("the pages cannot be written to {}", dir.display());
        Failure::operation(what, &error, "name a directory that you may write to")
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(with_variables(Args::command()), dir).map_err(failed)?;
    let files = std::fs::read_dir(dir).map_err(failed)?;
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with("ringctl") && name.ends_with(".1")).collect();
    names.sort_unstable();
    let text = format!(
        "{} in {dir}\nnext: man {dir}/ringctl.1, or move them to a directory man1 of MANPATH\n",
        human::things(names.len(), "page", "pages"),
        dir = dir.display()
    );
    let rows: Vec<_> = names
        .iter()
        .map(|name| Record::new([("file", dir.join(name).display().to_string().into())]))
        .collect();
    let whole = Record::new([("dir", dir.display().to_string().into())]).with("pages", &rows);
    show(args, &Report { text, whole, rows });
    Ok(Exit::Fine)
}
