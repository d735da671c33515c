//! The application of ten lines that the README prints, word for word.

use ringdb_client::{Client, Level};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ring = Client::open("ringdb-demo/ringctl.toml").await?;
    ring.put("cart:42", "two apples").consistency(Level::Quorum).await?;
    let read = ring.get("cart:42").await?; // none, one, or siblings
    ring.put("cart:42", "three apples").context(read.context()).await?; // replaces what was read
    println!("visit {}", ring.counter("visits").add(1).await?); // exact, whoever else adds
    Ok(())
}

#[cfg(test)]
pub(crate) fn run() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
