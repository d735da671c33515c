//! Two writers who do not know of each other: nothing is lost, and a third puts it together.
//!
//! ```text
//! ringd demo &
//! cargo run -p ringdb-client --example siblings -- ./ringdb-demo/ringctl.toml
//! ```

use std::path::{Path, PathBuf};

use ringdb_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| "ringdb-demo/ringctl.toml".into());
    match siblings(&path).await {
        Ok(lines) => println!("{}", lines.join("\n")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// What it has to say.
pub(crate) async fn siblings(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let (one, two) = (Client::open(path).await?, Client::open(path).await?);
    one.delete("basket").await?;

    // Both have read the empty basket, and both write.
    let (a, b) = (one.get("basket").await?, two.get("basket").await?);
    one.put("basket", "apple").context(a.context()).await?;
    two.put("basket", "pear").context(b.context()).await?;

    // Neither had seen what the other wrote: both values are there.
    let both = one.get("basket").await?;
    let mut values: Vec<_> =
        both.values().iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect();
    values.sort();
    let mut lines = vec![format!("concurrent: {}", values.join(" | "))];

    // Whoever knows what a basket is joins them; the context replaces both.
    two.put("basket", values.join(" and ")).context(both.context()).await?;
    let read = one.get("basket").await?;
    let values = read.values().iter().map(|v| String::from_utf8_lossy(v)).collect::<Vec<_>>();
    lines.push(format!("joined: {}", values.join(" | ")));
    one.close().await;
    two.close().await;
    Ok(lines)
}
