//! A counter that several add to at once, and an addition that may be repeated.
//!
//! ```text
//! ringd demo &
//! cargo run -p ringdb-client --example counter -- ./ringdb-demo/ringctl.toml
//! ```

use std::future::IntoFuture;
use std::path::{Path, PathBuf};

use ringdb_client::{Client, ClientError};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| "ringdb-demo/ringctl.toml".into());
    match counter(&path).await {
        Ok(lines) => println!("{}", lines.join("\n")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// What it has to say.
pub(crate) async fn counter(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let (one, two) = (Client::open(path).await?, Client::open(path).await?);
    one.delete("hits").await?;
    for _ in 0..10 {
        let (hits, others) = (one.counter("hits"), two.counter("hits"));
        let (a, b) = tokio::join!(hits.add(3).into_future(), others.add(-1).into_future());
        a?;
        b?;
    }
    let mut lines =
        vec![format!("ten times 3 and ten times -1: {}", one.counter("hits").value().await?)];

    // The client asks again by itself while the time lasts. A program that wants to go on longer gives the
    // addition a name: under it, it counts once, however often it is sent.
    let name = one.name();
    let add = || one.counter("hits").add(100).named(&name).into_future();
    let mut left = 5;
    let value = loop {
        match add().await {
            Err(ClientError::TimedOut { .. } | ClientError::Unconfirmed { .. }) if left > 0 => {
                left -= 1;
            }
            done => break done?,
        }
    };
    lines.push(format!("with 100 more: {value}"));
    lines.push(format!("sent once more: {}", add().await?));
    one.close().await;
    two.close().await;
    Ok(lines)
}
