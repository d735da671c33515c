//! Cluster: from flags and files to a connection, and how to name things of its surroundings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::context::{ClusterContext, ContextFile};
use client::{Client, ClientError, Patience, Tls, Told};

use crate::args::Args;
use crate::failure::{Exit, Failure};

/// Where a demo that was started here leaves its contexts.
const DEMO_CONTEXTS: &str = "ringdb-demo/ringctl.toml";

/// Where a person keeps theirs, below the home directory.
const OWN_CONTEXTS: &str = ".config/ringctl/config.toml";

/// A cluster to talk to.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The file in which it was found.
    file: PathBuf,
    nodes: Vec<String>,
    tls: Tls,
    cert: PathBuf,
    patience: Patience,
    /// Nothing may be changed there.
    readonly: bool,
}

impl Cluster {
    /// The cluster that flags, environment and files name.
    pub(crate) fn find(args: &Args) -> Result<Self, Failure> {
        let file = contexts_file(args)?;
        let contexts = ContextFile::load(&file)?;
        let context: &ClusterContext = contexts.choose(args.context.as_deref(), &file)?;
        let tls = Tls::load(&context.tls_files())?;
        check_cluster(context, &tls, &file)?;
        let default = Patience::default();
        let patience = Patience { dial: default.dial.min(args.timeout), request: args.timeout };
        let (nodes, readonly) = (context.nodes.clone(), context.readonly);
        let cert = context.cert.clone();
        Ok(Self { nodes, file, tls, cert, patience, readonly })
    }

    /// Connects to `wanted`, an address or a node's name, or to any node.
    pub(crate) async fn connect(&self, wanted: Option<&str>) -> Result<Client, Failure> {
        match wanted {
            None => self.dial(&self.nodes).await,
            Some(address) if address.contains(':') => self.dial_one(address).await,
            Some(name) => {
                let any = self.dial(&self.nodes).await?;
                let status = any.status().await?;
                any.close().await;
                match status.nodes.iter().find(|node| node.name == name) {
                    Some(node) => self.dial_one(&node.address).await,
                    None => {
                        let known: Vec<_> = status.nodes.iter().map(|n| n.name.as_str()).collect();
                        let why = format!("{} has {}", status.name, known.join(", "));
                        let what = format!("no node has the name {name}");
                        let told = Told::new(what, why, "name one of those, or host:port");
                        Err(Failure { exit: Exit::Usage, told })
                    }
                }
            }
        }
    }

    /// How long an answer may take.
    pub(crate) const fn timeout(&self) -> Duration {
        self.patience.request
    }

    /// A client of its own, for the runtime that it is called on.
    pub(crate) async fn dial_all(&self, addresses: &[String]) -> Result<Client, ClientError> {
        Client::connect_with(addresses, self.tls.clone(), self.patience).await
    }

    /// The certificate that this program shows, as DER; empty if its file is gone by now.
    pub(crate) fn own_certificates(&self) -> Vec<Vec<u8>> {
        let text = std::fs::read(&self.cert).unwrap_or_default();
        let pems = x509_parser::pem::Pem::iter_from_buffer(&text).filter_map(Result::ok);
        pems.filter(|pem| pem.label == "CERTIFICATE").map(|pem| pem.contents).collect()
    }

    /// The log of a node, if it is one of a demo on this machine.
    pub(crate) fn log_of(&self, name: &str) -> Option<PathBuf> {
        let log = self.dir().join(name).join("ringd.log");
        log.exists().then_some(log)
    }

    /// An error if the context says that nothing may be changed there.
    pub(crate) fn check_writable(&self, what: &str) -> Result<(), Failure> {
        if !self.readonly {
            return Ok(());
        }
        let told = Told::new(
            format!("{what} is refused"),
            format!("the context in {} is marked readonly", self.file.display()),
            "use another context, or remove readonly = true from this one",
        );
        Err(Failure { exit: Exit::Usage, told })
    }

    /// Connects to one node for a moment, without a word if it cannot.
    pub(crate) fn dial_aside(
        &self,
        address: String,
        patience: Duration,
    ) -> impl Future<Output = Result<Client, ClientError>> + use<> {
        let tls = self.tls.clone();
        let Patience { dial, request } = self.patience;
        let patience = Patience { dial: dial.min(patience), request: request.min(patience) };
        Client::connect_with([address], tls, patience)
    }

    async fn dial_one(&self, address: &str) -> Result<Client, Failure> {
        self.dial(&[address.to_owned()]).await.map_err(|mut failure| {
            if failure.exit == Exit::Unreachable {
                failure.told.fix = "start that node, or ask any: leave --node out".into();
            }
            failure
        })
    }

    async fn dial(&self, addresses: &[String]) -> Result<Client, Failure> {
        let client = Client::connect_with(addresses, self.tls.clone(), self.patience).await;
        client.map_err(|error| {
            let mut failure = Failure::from(error);
            if failure.exit == Exit::Unreachable {
                failure.told.fix = self.bring_any_back();
            }
            failure
        })
    }

    fn bring_any_back(&self) -> String {
        if self.is_demo() {
            let dir = self.dir().display();
            return format!(
                "start the demo (ringd demo --data-dir {dir}), or see {dir}/n*/ringd.log"
            );
        }
        "start ringd there, or name a node that runs with --node; QUIC needs UDP to pass".into()
    }

    /// The command that brings a node back, if it is one of a demo.
    pub(crate) fn bring_back(&self, name: &str) -> Option<String> {
        let config = self.dir().join(name).join("ringd.toml");
        config.exists().then(|| format!("ringd start --config {}", config.display()))
    }

    /// Whether a demo wrote the contexts: its nodes lie beside them.
    fn is_demo(&self) -> bool {
        self.dir().join("n1").join("ringd.toml").exists()
    }

    fn dir(&self) -> &Path {
        match self.file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        }
    }
}

/// The first file of contexts that there is.
pub(crate) fn contexts_file(args: &Args) -> Result<PathBuf, Failure> {
    if let Some(file) = &args.config {
        return Ok(file.clone());
    }
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(OWN_CONTEXTS));
    let candidates: Vec<_> =
        [Some(PathBuf::from(DEMO_CONTEXTS)), home].into_iter().flatten().collect();
    if let Some(found) = candidates.iter().find(|file| file.exists()) {
        return Ok(found.clone());
    }
    let looked: Vec<_> = candidates.iter().map(|file| file.display().to_string()).collect();
    let told = Told::new(
        "no cluster is known here",
        format!("there is no file of contexts: looked for {}", looked.join(", ")),
        "run ringd demo in this directory, or name a file with --config FILE or RINGCTL_CONFIG",
    );
    Err(Failure { exit: Exit::Usage, told })
}

/// A context and its certificate must speak of the same cluster.
fn check_cluster(context: &ClusterContext, tls: &Tls, file: &Path) -> Result<(), Failure> {
    let certified = &tls.identity().cluster;
    match &context.cluster {
        Some(named) if named != certified => {
            let told = Told::new(
                format!("the context of {named} has a certificate of another cluster"),
                format!("{} is for {}", context.cert.display(), tls.identity()),
                format!("correct cluster, ca, cert and key in {}", file.display()),
            );
            Err(Failure { exit: Exit::Usage, told })
        }
        _ => Ok(()),
    }
}
