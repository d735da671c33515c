//! Neighbours in order: a log of one sensor, read by time from either end, and its old part removed.
//!
//! ```text
//! ringd demo &
//! cargo run -p ringdb-client --example range -- ./ringdb-demo/ringctl.toml
//! ```

use std::path::{Path, PathBuf};

use ringdb_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| "ringdb-demo/ringctl.toml".into());
    match range(&path).await {
        Ok(lines) => println!("{}", lines.join("\n")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// What it has to say.
pub(crate) async fn range(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let ring = Client::open(path).await?;
    ring.delete_range("sensor:7", ..).await?;
    for month in 1..=12 {
        for day in [1, 15] {
            let (key, value) = (format!("2026-{month:02}-{day:02}"), format!("{} °C", month + day));
            ring.put(("sensor:7", key), value).await?;
        }
    }

    let mut lines = Vec::new();
    let mut march = ring.range("sensor:7", "2026-03".."2026-04").await?;
    while let Some(row) = march.next().await? {
        let (sort, value) = (row.sort_key(), row.values().first());
        let value = value.map(|v| String::from_utf8_lossy(v)).unwrap_or_default();
        lines.push(format!("{}: {value}", String::from_utf8_lossy(sort)));
    }

    let latest = ring.range("sensor:7", ..).reverse().limit(2).await?.rest().await?;
    let latest: Vec<_> = latest.iter().map(|row| String::from_utf8_lossy(row.sort_key())).collect();
    lines.push(format!("latest: {}", latest.join(", ")));

    let gone = ring.delete_range("sensor:7", .."2026-07").await?;
    let left = ring.range("sensor:7", ..).page(5).await?.rest().await?.len();
    lines.push(format!("{gone} removed, {left} left"));
    ring.close().await;
    Ok(lines)
}
