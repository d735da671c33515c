//! `debug bundle`: all that helps somebody who cannot look for himself, in one directory.
//!
//! Promise: no secret is in it (nodes hide passwords, and neither keys nor certificates are taken);
//! what could not be had is listed with the reason, so that an absence means something.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use client::{AdminReply, AdminRequest, ClientError, Told};
use serde_json::json;

use crate::args::{Args, Format};
use crate::cluster::Cluster;
use crate::doctor;
use crate::failure::{Exit, Failure};
use crate::nodes::{Heard, PATIENCE, wall_ms};
use crate::render::{Record, Report, SCHEMA, Style, human};
use crate::show;

/// How much of the end of a log is taken.
const LOG_BYTES: u64 = 1 << 20;

struct Bundle {
    dir: PathBuf,
    files: Vec<(String, u64)>,
    missing: Vec<String>,
}

impl Bundle {
    fn put(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.dir.join(name);
        let parent = path.parent().unwrap_or(&self.dir);
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, content));
        written.map_err(|error| {
            let what = format!("{} cannot be written", path.display());
            Failure::operation(what, &error, "name a directory that you may write to with --out")
        })?;
        self.files.push((name.to_owned(), content.len() as u64));
        Ok(())
    }

    fn put_json(&mut self, name: &str, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| {
            Failure::operation(format!("{name} cannot be written"), &error, "report this")
        })?;
        self.put(name, (text + "\n").as_bytes())
    }

    fn lacks(&mut self, what: &str, error: &ClientError) {
        let Told { what: told, why, .. } = error.told();
        self.missing.push(format!("{what}: {told}: {why}"));
    }
}

pub(crate) async fn run(args: &Args, out: Option<&Path>) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let name = human::rfc3339(wall_ms()).replace([':', '.'], "-");
    let dir = out.map_or_else(|| PathBuf::from(format!("ringctl-bundle-{name}")), Into::into);
    if dir.exists() {
        let what = format!("{} exists already", dir.display());
        let told = Told::new(
            what,
            "a bundle is never mixed with another",
            "name another directory with --out",
        );
        return Err(Failure { exit: Exit::Usage, told });
    }
    let picture = doctor::look(args, &cluster).await?;
    let mut bundle = Bundle { dir, files: Vec::new(), missing: Vec::new() };
    let plain = Style { colour: false, wide: true };
    let findings = doctor::findings(&picture, &cluster);
    let report = doctor::report(&picture, &findings, plain);
    bundle.put("doctor.json", report.render(Format::Json).as_bytes())?;
    bundle.put("doctor.txt", report.text.as_bytes())?;
    bundle.put_json("status.json", &json!({ "schema": SCHEMA, "status": picture.status }))?;
    bundle.put_json(
        "version.json",
        &json!({ "schema": SCHEMA, "ringctl": env!("CARGO_PKG_VERSION"), "taken_at": human::rfc3339(wall_ms()) }),
    )?;
    if let Some((_, layout)) = picture.layouts.first() {
        bundle.put_json("layout.json", &json!({ "schema": SCHEMA, "layout": layout }))?;
    }
    for heard in &picture.heard {
        node(&mut bundle, heard).await?;
        log(&mut bundle, &cluster, &heard.status.name)?;
    }
    let missing = bundle.missing.iter().map(|line| format!("{line}\n")).collect::<String>();
    let missing = if missing.is_empty() { "nothing is missing\n".to_owned() } else { missing };
    bundle.put("missing.txt", missing.as_bytes())?;
    show(args, &told(&bundle));
    Ok(Exit::Fine)
}

async fn node(bundle: &mut Bundle, heard: &Heard) -> Result<(), Failure> {
    let name = &heard.status.name;
    if let Some(error) = &heard.silence {
        bundle.lacks(&format!("nodes/{name}"), error);
    }
    if let Some(facts) = &heard.facts {
        bundle.put_json(
            &format!("nodes/{name}/facts.json"),
            &json!({ "schema": SCHEMA, "facts": facts }),
        )?;
    }
    let Some(client) = &heard.client else { return Ok(()) };
    for (file, request) in
        [("metrics.txt", AdminRequest::Metrics), ("settings.toml", AdminRequest::Settings)]
    {
        let file = format!("nodes/{name}/{file}");
        match client.administer(request, PATIENCE).await {
            Ok(AdminReply::Text { text }) => bundle.put(&file, text.as_bytes())?,
            Ok(_) => bundle.missing.push(format!("{file}: the node answered another question")),
            Err(error) => bundle.lacks(&file, &error),
        }
    }
    Ok(())
}

/// The end of a node's log, if it lies on this machine, as that of a demo does.
fn log(bundle: &mut Bundle, cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let file = format!("nodes/{name}/log.txt");
    let Some(path) = cluster.log_of(name) else {
        bundle.missing.push(format!("{file}: the log of {name} is not on this machine"));
        return Ok(());
    };
    match tail(&path) {
        Ok(bytes) => bundle.put(&file, &bytes),
        Err(error) => {
            bundle.missing.push(format!("{file}: {}: {error}", path.display()));
            Ok(())
        }
    }
}

fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn told(bundle: &Bundle) -> Report {
    let dir = bundle.dir.display().to_string();
    let bytes: u64 = bundle.files.iter().map(|(_, bytes)| bytes).sum();
    let mut text = format!(
        "{dir}: {}, {}, no secrets; look before you send it\n",
        human::things(bundle.files.len(), "file", "files"),
        human::bytes(bytes)
    );
    bundle.missing.iter().for_each(|line| text += &format!("missing  {line}\n"));
    text += &format!("next: tar czf {dir}.tar.gz {dir}\n");
    let rows: Vec<_> = bundle
        .files
        .iter()
        .map(|(name, bytes)| {
            let path = bundle.dir.join(name).display().to_string();
            Record::new([("file", path.into()), ("bytes", (*bytes).into())])
        })
        .collect();
    let whole = Record::new([("dir", dir.into()), ("missing", bundle.missing.clone().into())]);
    Report { text, whole: whole.with("files", &rows), rows }
}
