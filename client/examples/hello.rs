//! Says hello to a running cluster: writes a key, reads it, replaces it, removes it.
//!
//! ```text
//! ringd demo &
//! cargo run -p ringdb-client --example hello -- ./ringdb-demo/ringctl.toml
//! ```

use std::path::PathBuf;

use ringdb_client::context::ContextFile;
use ringdb_client::{Client, Level, Tls};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| "ringdb-demo/ringctl.toml".into());
    if let Err(error) = hello(&path).await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn hello(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let file = ContextFile::load(path)?;
    let cluster = file.choose(None, path)?;
    let ring = Client::connect(cluster.nodes.clone(), Tls::load(&cluster.tls_files())?).await?;
    println!("{} answers in {:?}", ring.contact().await.address, ring.ping().await?);

    ring.put("greeting", "hello").consistency(Level::Quorum).await?;
    let read = ring.get("greeting").consistency(Level::Quorum).await?;
    println!("greeting: {}", show(read.values()));

    // With the context of what was read, the write replaces exactly that.
    let seen = ring.put("greeting", "hello, world").context(read.context()).await?;
    println!("greeting: {}", show(ring.get("greeting").await?.values()));

    ring.delete("greeting").context(seen).await?;
    println!("greeting: {}", show(ring.get("greeting").await?.values()));
    ring.close().await;
    Ok(())
}

fn show(values: &[impl AsRef<[u8]>]) -> String {
    let shown: Vec<_> =
        values.iter().map(|value| String::from_utf8_lossy(value.as_ref()).into_owned()).collect();
    if shown.is_empty() { "(none)".into() } else { shown.join(" | ") }
}
