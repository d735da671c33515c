//! Reads at ONE that never miss what the same user has written or seen, through two processes.
//!
//! ```text
//! ringd demo &
//! cargo run -p ringdb-client --example session -- ./ringdb-demo/ringctl.toml
//! ```

use std::path::{Path, PathBuf};

use ringdb_client::{Client, Level, Session};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| "ringdb-demo/ringctl.toml".into());
    match session(&path).await {
        Ok(lines) => println!("{}", lines.join("\n")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// What it has to say.
pub(crate) async fn session(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let ring = Client::open(path).await?;
    let session = Session::new();
    ring.put("profile:7", "before").session(&session).await?;
    ring.put("profile:7", "after").consistency(Level::One).session(&session).await?;

    // One replica is enough: if it lacks what the session has seen, it fetches that first.
    let read = ring.get("profile:7").consistency(Level::One).session(&session).await?;
    let value = read.values().first().map(|v| String::from_utf8_lossy(v)).unwrap_or_default();
    let mut lines = vec![format!("here: {value}")];

    // As a cookie, the session goes on in another process, over another node.
    let cookie = session.to_bytes();
    let (elsewhere, resumed) = (Client::open(path).await?, Session::from_bytes(&cookie)?);
    let read = elsewhere.get("profile:7").consistency(Level::One).session(&resumed).await?;
    let value = read.values().first().map(|v| String::from_utf8_lossy(v)).unwrap_or_default();
    lines.push(format!("elsewhere: {value}"));
    elsewhere.close().await;
    ring.close().await;
    Ok(lines)
}
