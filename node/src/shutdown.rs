//! Shutdown: how a node runs until somebody tells it to stop, and how it obeys.
//!
//! SIGTERM and SIGINT drain; the second one ends the process at once. A child of the demo also
//! drains when its standard input ends, which it does when the demo is gone, however it went. Where
//! Redis clients come with TLS, SIGHUP has the files of certificates read again.

use std::io::Read;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::error::{EXIT_REFUSED, Fault};
use crate::front::tls::Offered;
use crate::server::Server;
use crate::{http, shared::Shared};

/// Runs a node until it is told to stop; the exit code.
///
/// # Errors
/// A [`Fault`] if it does not start.
pub async fn run(config: Config) -> Result<i32, Fault> {
    let watch_stdin = config.drain_on_stdin_end;
    let mut interrupt = listen_to(SignalKind::interrupt())?;
    let mut terminate = listen_to(SignalKind::terminate())?;
    let web = config.http_listen.map(http::bind).transpose()?;
    let server = Server::start(config)?;
    let shared = server.shared();
    if let Some(listener) = web {
        tokio::spawn(serve(listener, shared.clone()));
    }
    if let Some(offered) = server.offered() {
        tokio::spawn(read_again(listen_to(SignalKind::hangup())?, offered));
    }
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stdin_ends(), if watch_stdin => {}
        }
    };
    tokio::select! {
        () = told => {}
        why = shared.failed() => {
            error!(why, "this node must not go on");
            eprintln!("{}", fatal(&why));
            return Ok(EXIT_REFUSED);
        }
    }
    tokio::select! {
        code = server.stop() => Ok(code),
        _ = interrupt.recv() => Ok(hurried()),
        _ = terminate.recv() => Ok(hurried()),
    }
}

/// Reads certificates again whenever it is told to.
async fn read_again(mut hangup: Signal, offered: Arc<Offered>) {
    while hangup.recv().await.is_some() {
        match offered.reload() {
            Ok(()) => info!("the certificates of the Redis port were read again"),
            Err(e) => error!("the certificates of the Redis port stay as they were: {e}"),
        }
    }
}

fn hurried() -> i32 {
    warn!("told twice: ending at once");
    1
}

fn listen_to(kind: SignalKind) -> Result<Signal, Fault> {
    signal(kind).map_err(|e| {
        Fault::new("cannot listen to signals", e.to_string(), "see the limits of this system")
    })
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    if let Err(e) = http::serve(listener, shared).await {
        error!(error = %e, "HTTP is no longer served");
    }
}

async fn stdin_ends() {
    let bell = Arc::new(Notify::new());
    let ringer = bell.clone();
    // A read of standard input cannot be cancelled, so a thread waits in it until the process ends.
    let reader = move || {
        let mut bytes = [0; 64];
        while std::io::stdin().read(&mut bytes).is_ok_and(|n| n > 0) {}
        ringer.notify_one();
    };
    match std::thread::Builder::new().name("stdin".into()).spawn(reader) {
        Ok(_) => bell.notified().await,
        Err(e) => {
            warn!(error = %e, "cannot watch standard input");
            std::future::pending::<()>().await;
        }
    }
}

/// What a machine said, as the three lines that everybody expects.
fn fatal(why: &str) -> String {
    if why.starts_with("error:") {
        return why.to_owned();
    }
    let mut lines = why.lines().map(str::trim);
    let what = lines.next().unwrap_or_default();
    let mut rest = |prefix: &str, otherwise: &str| {
        let line = lines.next().unwrap_or(otherwise);
        line.strip_prefix(prefix).unwrap_or(line).trim().to_owned()
    };
    let reason = rest("why:", "the replication machine refused to go on");
    let fix = rest("fix:", "see the log of this node and of its peers");
    Fault::new(what, reason, fix).to_string()
}
