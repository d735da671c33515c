//! Says hello to a running cluster: writes a key, reads it, replaces it, removes it.
//!
//! ```text
//! ringd demo &
//! cargo run -p ringdb-client --example hello -- ./ringdb-demo/ringctl.toml
//! ```

use std::path::{Path, PathBuf};

use ringdb_client::{Client, Level};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| "ringdb-demo/ringctl.toml".into());
    match hello(&path).await {
        Ok(lines) => println!("{}", lines.join("\n")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// What it has to say.
pub(crate) async fn hello(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let ring = Client::open(path).await?;
    ring.ping().await?;
    let mut lines = Vec::new();

    ring.put("greeting", "hello").consistency(Level::Quorum).await?;
    let read = ring.get("greeting").consistency(Level::Quorum).await?;
    lines.push(format!("greeting: {}", show(read.values())));

    // With the context of what was read, the write replaces exactly that.
    let seen = ring.put("greeting", "hello, world").context(read.context()).await?;
    lines.push(format!("greeting: {}", show(ring.get("greeting").await?.values())));

    ring.delete("greeting").context(seen).await?;
    lines.push(format!("greeting: {}", show(ring.get("greeting").await?.values())));
    ring.close().await;
    Ok(lines)
}

fn show(values: &[impl AsRef<[u8]>]) -> String {
    let shown: Vec<_> =
        values.iter().map(|value| String::from_utf8_lossy(value.as_ref()).into_owned()).collect();
    if shown.is_empty() { "(none)".into() } else { shown.join(" | ") }
}
