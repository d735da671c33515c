//! Configuration: what the operator decides, checked before anything is opened.
//!
//! Promise: a [`Config`] that exists can be started with: its names, addresses, levels and sizes
//! have been checked against each other, and whatever is wrong was said in three lines.

pub mod keys;
mod print;
pub mod source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::keyspace::{KeyspacePolicy, Level};
use ring::{ClusterId, Layout, Member, NodeId, Policies};
use toml::Value;

pub use self::print::print;
pub use self::source::{Settings, Source};
use crate::config::keys::{MEMBER_FIELDS, did_you_mean};
use crate::error::Fault;
use crate::limits::{CORES_MAX, DATABASES};
use crate::logging;
use crate::users::{ConfigUser, Users};

/// Everything that a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where its data are.
    pub data_dir: PathBuf,
    /// How many cores it uses.
    pub cores: usize,
    /// The cluster's id; `None` if the data directory decides (one node alone).
    pub cluster: Option<ClusterId>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The members, as the static list gives them; this node is one of them.
    pub members: Vec<Member>,
    /// The Redis face.
    pub redis: Redis,
    /// Where peers connect.
    pub peer_listen: SocketAddr,
    /// Where metrics and health are served, if anywhere.
    pub http_listen: Option<SocketAddr>,
    /// Certificates; only a node without peers goes without.
    pub tls: Option<certs::TlsFiles>,
    /// The terms of keyspaces, as far as administrators do not set others.
    pub policies: Policies,
    /// The engine.
    pub engine: Engine,
    /// What is logged.
    pub log_level: String,
    /// From when on a command is slow, in microseconds; `u64::MAX`: never.
    pub slow_us: u64,
    /// The file that it was read from, if there was one.
    pub file: Option<PathBuf>,
    /// All settings and where each was set, as text, without secrets.
    pub printed: String,
    /// True for a child of the demo: it drains when its standard input ends.
    pub drain_on_stdin_end: bool,
}

/// The Redis face.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Where clients connect, if they may without TLS.
    pub listen: Option<SocketAddr>,
    /// Where they connect with TLS, if anywhere, and what they see.
    pub tls: Option<(SocketAddr, certs::PublicFiles)>,
    /// The password of the user `default`, if there is one.
    pub requirepass: Option<String>,
    /// Further users.
    pub users: BTreeMap<String, ConfigUser>,
    /// A file with more users.
    pub acl_file: Option<PathBuf>,
    /// Whether clients must authenticate, as the configuration has it.
    pub auth_required: bool,
    /// Clients at a time.
    pub maxclients: u32,
    /// Once everything waits for longer than this, what waited longer is refused.
    pub queue_max: Duration,
    /// Idle clients are closed after so many seconds; 0: never.
    pub idle_timeout_s: u32,
    /// Whether FLUSHDB and FLUSHALL are served.
    pub allow_flush: bool,
    /// Whether a transaction may span slots.
    pub cross_slot: bool,
}

/// The engine.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Memory of a core before it is flushed.
    pub memtable_bytes: usize,
    /// Size of one file of the log.
    pub log_segment_bytes: u64,
    /// Log kept for peers that were away.
    pub log_retain_bytes: u64,
    /// Memory for blocks of tables.
    pub block_cache_bytes: usize,
    /// Bytes a second that compactions may read while they are not behind; 0: no limit.
    pub merge_rate: u64,
    /// Values from this size on stand beside the tables; `usize::MAX`: none.
    pub large_value_bytes: usize,
    /// How fast what is at rest is verified; 0: not at all.
    pub scrub_bytes_per_second: u64,
}

impl Config {
    /// What the settings say.
    ///
    /// # Errors
    /// A [`Fault`]: the first thing that is wrong.
    pub fn from_settings(settings: &Settings) -> Result<Self, Fault> {
        let read = Reader { settings };
        let name = read.text("node.name")?;
        let peer_listen = read.address("peer.listen")?;
        let redis_listen = read.address_if_any("redis.listen")?;
        let http_listen = read.address_if_any("http.listen")?;
        let cluster = match read.text("cluster.id")? {
            text if text.is_empty() => None,
            text => Some(text.parse::<ClusterId>().map_err(|e| read.wrong("cluster.id", &e))?),
        };
        let listens = (peer_listen, redis_listen, http_listen);
        let members = read.members(&name, listens)?;
        let Some(me) = members.iter().find(|m| m.name == name) else {
            let names: Vec<_> = members.iter().map(|m| m.name.as_str()).collect();
            return Err(Fault::new(
                format!("{name} is no member of the cluster"),
                format!("cluster.members lists {}", names.join(", ")),
                "set node.name to one of them, or add the node to the list on every member",
            ));
        };
        let node = me.id;
        let default = read.policy("keyspace", KeyspacePolicy::default())?;
        let mut own = Vec::new();
        for db in 0..DATABASES {
            let prefix = format!("keyspace.db.{db}");
            if keys::DB_FIELDS.iter().any(|f| settings.get(&format!("{prefix}.{f}")).is_some()) {
                own.push((db, read.policy(&prefix, default)?));
            }
        }
        let tls = read.tls()?;
        if members.len() > 1 {
            read.cluster_is_complete(cluster, tls.as_ref())?;
        }
        let config = Self {
            node,
            name,
            data_dir: PathBuf::from(read.text("node.data_dir")?),
            cores: read.cores()?,
            cluster,
            cluster_name: read.text("cluster.name")?,
            members,
            redis: read.redis(redis_listen)?,
            peer_listen,
            http_listen,
            tls,
            policies: Policies { default, own, closed: Vec::new() },
            engine: Engine {
                memtable_bytes: read.number("engine.memtable_bytes", 64 << 10, 4 << 30)? as usize,
                log_segment_bytes: read.number("engine.log_segment_bytes", 64 << 10, 4 << 30)?,
                log_retain_bytes: read.number("engine.log_retain_bytes", 0, 1 << 50)?,
                block_cache_bytes: read.number("engine.block_cache_bytes", 0, 1 << 40)? as usize,
                merge_rate: read.number("engine.compaction_bytes_per_second", 0, 1 << 40)?,
                large_value_bytes: match read.number("engine.large_value_bytes", 0, 1 << 30)? {
                    0 => usize::MAX,
                    bytes => bytes as usize,
                },
                scrub_bytes_per_second: read.number("engine.scrub_bytes_per_second", 0, 1 << 40)?,
            },
            log_level: read.log_level()?,
            slow_us: match read.number("log.slow_us", 0, u64::from(u32::MAX))? {
                0 => u64::MAX,
                us => us,
            },
            file: None,
            printed: print(settings, true),
            drain_on_stdin_end: false,
        };
        config.check_exposure()?;
        config.layout(ClusterId(0))?;
        Ok(config)
    }

    /// The layout that the static list of members makes.
    ///
    /// # Errors
    /// A [`Fault`] if the members make no sense together.
    pub fn layout(&self, cluster: ClusterId) -> Result<Layout, Fault> {
        let own = self.policies.own.iter();
        let copies = own.map(|(_, p)| p.n).fold(self.policies.default.n, u8::max);
        let layout = Layout::genesis(cluster, copies, self.members.iter().cloned());
        layout.map_err(|e| {
            Fault::new(
                "the members make no cluster",
                e.to_string(),
                "correct cluster.members; it must be the same list on every member",
            )
        })
    }

    /// True if Redis clients must authenticate.
    #[must_use]
    pub fn has_authentication(&self) -> bool {
        self.redis.auth_required
    }

    /// A port that strangers can reach needs a password.
    fn check_exposure(&self) -> Result<(), Fault> {
        let open = |listen: &SocketAddr| !listen.ip().is_loopback() && !self.has_authentication();
        let plain = self.redis.listen.filter(|listen| open(listen));
        let asked = |files: &certs::PublicFiles| files.clients == certs::ClientCerts::Required;
        let tls = self.redis.tls.as_ref().filter(|(_, files)| !asked(files));
        let tls = tls.map(|(listen, _)| *listen).filter(|listen| open(listen));
        for (key, listen) in [("redis.listen", plain), ("redis.tls_listen", tls)] {
            if let Some(listen) = listen {
                return Err(Fault::new(
                    format!("{key} = {listen} would serve everybody"),
                    "the address is not a loopback address, and no password is set",
                    "set redis.requirepass or redis.users, or listen on 127.0.0.1",
                ));
            }
        }
        Ok(())
    }
}

/// Reads typed values out of settings, naming key and source where one is wrong.
struct Reader<'a> {
    settings: &'a Settings,
}

impl Reader<'_> {
    fn wrong(&self, path: &str, why: &dyn std::fmt::Display) -> Fault {
        let value = self.settings.get(path).map_or_else(String::new, ToString::to_string);
        let source = self.settings.source(path);
        Fault::new(
            format!("{path} cannot be {value}"),
            why.to_string(),
            format!("correct it where it is set: {source}"),
        )
    }

    fn text(&self, path: &str) -> Result<String, Fault> {
        Ok(self.settings.get(path).and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn flag(&self, path: &str) -> bool {
        self.settings.get(path).and_then(Value::as_bool).unwrap_or_default()
    }

    fn number(&self, path: &str, least: u64, most: u64) -> Result<u64, Fault> {
        let value = self.settings.get(path).and_then(Value::as_integer).unwrap_or_default();
        match u64::try_from(value) {
            Ok(value) if (least..=most).contains(&value) => Ok(value),
            Ok(_) | Err(_) => Err(self.wrong(path, &format!("{least} to {most} are possible"))),
        }
    }

    fn address(&self, path: &str) -> Result<SocketAddr, Fault> {
        let text = self.text(path)?;
        text.parse().map_err(|_| self.wrong(path, &"an address is written IP:PORT, [IPv6]:PORT"))
    }

    fn address_if_any(&self, path: &str) -> Result<Option<SocketAddr>, Fault> {
        let any = !self.text(path)?.is_empty();
        any.then(|| self.address(path)).transpose()
    }

    fn log_level(&self) -> Result<String, Fault> {
        let level = self.text("log.level")?;
        logging::check(&level).map_err(|why| {
            let why = format!("{why}; possible are {}", logging::POSSIBLE);
            self.wrong("log.level", &why)
        })?;
        Ok(level)
    }

    fn cores(&self) -> Result<usize, Fault> {
        if self.settings.get("node.cores").is_none() {
            let all = std::thread::available_parallelism().map_or(1, usize::from);
            return Ok(all.min(CORES_MAX));
        }
        Ok(self.number("node.cores", 1, CORES_MAX as u64)? as usize)
    }

    fn redis(&self, listen: Option<SocketAddr>) -> Result<Redis, Fault> {
        let mut users = BTreeMap::new();
        if let Some(Value::Table(table)) = self.settings.get("redis.users") {
            for (user, password) in table {
                users.insert(user.clone(), self.user(user, password)?);
            }
        }
        let cross_slot = match self.text("redis.cross_slot")?.as_str() {
            "allow" => true,
            "error" => false,
            _ => return Err(self.wrong("redis.cross_slot", &"allow or error are possible")),
        };
        let requirepass = Some(self.text("redis.requirepass")?).filter(|p| !p.is_empty());
        let acl_file = Some(self.text("redis.acl_file")?).filter(|p| !p.is_empty());
        let acl_file = acl_file.map(PathBuf::from);
        let loaded = Users::load(requirepass.as_deref(), &users, acl_file.as_deref())?;
        Ok(Redis {
            listen,
            tls: self.redis_tls()?,
            requirepass,
            users,
            acl_file,
            auth_required: loaded.accounts().auth_required(),
            queue_max: match self.number("redis.queue_max_ms", 0, 60_000)? {
                0 => Duration::MAX,
                ms => Duration::from_millis(ms),
            },
            maxclients: self.number("redis.maxclients", 1, 1_000_000)? as u32,
            idle_timeout_s: self.number("redis.idle_timeout_s", 0, u64::from(u32::MAX))? as u32,
            allow_flush: self.flag("redis.allow_flush"),
            cross_slot,
        })
    }

    fn user(&self, name: &str, value: &Value) -> Result<ConfigUser, Fault> {
        let wrong = |why: &str| Err(self.wrong_user(name, why));
        let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        if name.contains(|c: char| c.is_whitespace() || c == '~') {
            return wrong("a name has no blanks, and no ~, which begins a consistency level");
        }
        let Value::Table(fields) = value else {
            let Some(password) = text(value) else { return wrong("it has no password") };
            return Ok(ConfigUser { password: Some(password), rules: None });
        };
        const FIELDS: [&str; 2] = ["password", "rules"];
        if let Some(unknown) = fields.keys().find(|f| !FIELDS.contains(&f.as_str())) {
            let meant = did_you_mean(unknown, FIELDS);
            let hint = meant.map_or_else(String::new, |m| format!("; did you mean {m}?"));
            return wrong(&format!("there is no field {unknown:?}{hint}"));
        }
        let field = |name: &str| fields.get(name).map(|v| text(v).ok_or(()));
        let (Ok(password), Ok(rules)) = (field("password").transpose(), field("rules").transpose())
        else {
            return wrong("password and rules are texts in quotes");
        };
        // Without one nobody comes in but by a certificate, or as the rules say.
        Ok(ConfigUser { password, rules: Some(rules.unwrap_or_default()) })
    }

    /// Passwords are not repeated.
    fn wrong_user(&self, name: &str, why: &str) -> Fault {
        let source = self.settings.source("redis.users");
        Fault::new(
            format!("redis.users.{name} makes no user"),
            why,
            format!("correct it where it is set: {source}"),
        )
    }

    fn redis_tls(&self) -> Result<Option<(SocketAddr, certs::PublicFiles)>, Fault> {
        let clients = match self.text("redis.tls_clients")?.as_str() {
            "" | "no" => certs::ClientCerts::No,
            "optional" => certs::ClientCerts::Optional,
            "required" => certs::ClientCerts::Required,
            _ => {
                let possible = "no, optional and required are possible";
                return Err(self.wrong("redis.tls_clients", &possible));
            }
        };
        let path = |key: &str| {
            let text = Some(self.text(key)?).filter(|p| !p.is_empty());
            Ok::<_, Fault>(text.map(PathBuf::from))
        };
        let (cert, key) = (path("redis.tls_cert")?, path("redis.tls_key")?);
        let ca = path("redis.tls_ca")?;
        let Some(listen) = self.address_if_any("redis.tls_listen")? else { return Ok(None) };
        let (Some(cert), Some(key)) = (cert, key) else {
            return Err(Fault::new(
                format!("redis.tls_listen = {listen} has no certificate"),
                "redis.tls_cert and redis.tls_key belong to it",
                "set both, or leave redis.tls_listen empty",
            ));
        };
        if clients != certs::ClientCerts::No && ca.is_none() {
            return Err(Fault::new(
                "redis.tls_clients asks for certificates that nobody can verify",
                "redis.tls_ca is not set",
                "set redis.tls_ca to the authority that issues them, or redis.tls_clients = \"no\"",
            ));
        }
        Ok(Some((listen, certs::PublicFiles { cert, key, ca, clients })))
    }

    fn policy(&self, prefix: &str, base: KeyspacePolicy) -> Result<KeyspacePolicy, Fault> {
        let mut policy = base;
        let path = |field: &str| format!("{prefix}.{field}");
        if self.settings.get(&path("n")).is_some() {
            let most = u64::from(ring::limits::COPIES_MAX);
            policy.n = self.number(&path("n"), 1, most)? as u8;
        }
        let level = |field: &str, level: &mut Level| {
            let text = self.text(&path(field))?;
            if !text.is_empty() {
                *level = text.parse().map_err(|e| self.wrong(&path(field), &e))?;
            }
            Ok::<_, Fault>(())
        };
        level("read", &mut policy.read)?;
        level("write", &mut policy.write)?;
        for field in ["durability", "conflict"] {
            let text = self.text(&path(field))?;
            if text.is_empty() {
                continue;
            }
            let wrong = |e: &dyn std::fmt::Display| self.wrong(&path(field), e);
            match field {
                "durability" => policy.durability = text.parse().map_err(|e| wrong(&e))?,
                _ => policy.conflict = text.parse().map_err(|e| wrong(&e))?,
            }
        }
        if self.settings.get(&path("ttl_s")).is_some() {
            let most = ring::limits::TTL_MS_MAX / 1_000;
            let ttl_s = self.number(&path("ttl_s"), 0, most)?;
            policy.ttl_ms = Some(ttl_s * 1_000).filter(|ms| *ms > 0);
        }
        policy.validate(policy.n).map_err(|e| {
            Fault::new(
                format!("[{prefix}] makes no sense"),
                e.to_string(),
                "change n or that level",
            )
        })?;
        Ok(policy)
    }

    fn tls(&self) -> Result<Option<certs::TlsFiles>, Fault> {
        let (ca, cert, key) = (self.text("tls.ca")?, self.text("tls.cert")?, self.text("tls.key")?);
        match [&ca, &cert, &key].iter().filter(|t| t.is_empty()).count() {
            3 => Ok(None),
            0 => Ok(Some(certs::TlsFiles { ca: ca.into(), cert: cert.into(), key: key.into() })),
            _ => Err(Fault::new(
                "[tls] is not complete",
                "tls.ca, tls.cert and tls.key belong together",
                "set all three; `ringctl cert issue` makes the files",
            )),
        }
    }

    fn cluster_is_complete(
        &self,
        cluster: Option<ClusterId>,
        tls: Option<&certs::TlsFiles>,
    ) -> Result<(), Fault> {
        if cluster.is_none() {
            return Err(Fault::new(
                "a cluster of several members needs an id",
                "cluster.members lists more than one, and cluster.id is not set",
                "set cluster.id to the same 32 hexadecimal digits on every member",
            ));
        }
        if tls.is_none() {
            return Err(Fault::new(
                "a cluster of several members needs certificates",
                "cluster.members lists more than one, and [tls] is not set",
                "`ringctl cert ca-init`, then `ringctl cert issue NAME`, then set tls.ca, cert, key",
            ));
        }
        Ok(())
    }

    fn members(
        &self,
        name: &str,
        (peer, redis, http): (SocketAddr, Option<SocketAddr>, Option<SocketAddr>),
    ) -> Result<Vec<Member>, Fault> {
        let Some(Value::Array(list)) = self.settings.get("cluster.members") else {
            let alone = Member {
                id: NodeId(1),
                redis: redis.map(|a| a.to_string()).unwrap_or_default(),
                http: http.map(|a| a.to_string()).unwrap_or_default(),
                ..Member::new(name, peer.to_string())
            };
            return Ok(vec![alone]);
        };
        let mut members = Vec::new();
        for (i, value) in list.iter().enumerate() {
            members.push(self.member(i, value)?);
        }
        members.sort_by_key(|m| m.id);
        if members.iter().zip(1..).any(|(m, id)| m.id != NodeId(id)) {
            let why = "the ids of a static list are 1, 2, 3 … without a gap";
            return Err(self.wrong_member("id", why));
        }
        Ok(members)
    }

    fn wrong_member(&self, field: &str, why: &str) -> Fault {
        let source = self.settings.source("cluster.members");
        Fault::new(
            format!("cluster.members has a wrong {field}"),
            why,
            format!("correct it where it is set: {source}"),
        )
    }

    fn member(&self, index: usize, value: &Value) -> Result<Member, Fault> {
        let Value::Table(table) = value else {
            return Err(self.wrong_member("entry", "each member is a table"));
        };
        if let Some(unknown) = table.keys().find(|k| !MEMBER_FIELDS.contains(&k.as_str())) {
            let meant = did_you_mean(unknown, MEMBER_FIELDS);
            let hint = meant.map_or_else(String::new, |m| format!("; did you mean {m}?"));
            let why = format!("there is no field {unknown:?}{hint}");
            return Err(self.wrong_member("field", &why));
        }
        let text = |field: &str| match table.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong_member(field, "a text is expected")),
        };
        let number = |field: &str| match table.get(field).map(|v| (v, v.as_integer())) {
            None => Ok(None),
            Some((_, Some(n))) if u32::try_from(n).is_ok() => Ok(Some(n as u32)),
            Some(_) => Err(self.wrong_member(field, "a whole number is expected")),
        };
        let need = |field: &str| {
            text(field)?
                .ok_or_else(|| self.wrong_member(field, &format!("member {} has none", index + 1)))
        };
        let base = Member::new(need("name")?, need("peer")?);
        Ok(Member {
            id: NodeId(number("id")?.unwrap_or(index as u32 + 1)),
            zone: text("zone")?.unwrap_or(base.zone.clone()),
            region: text("region")?.unwrap_or(base.region.clone()),
            capacity: number("capacity")?.unwrap_or(base.capacity),
            redis: text("redis")?.unwrap_or_default(),
            http: text("http")?.unwrap_or_default(),
            ..base
        })
    }
}

/// Loads a configuration from a file, this process's environment, and flags.
///
/// # Errors
/// A [`Fault`]: the first thing that is wrong.
pub fn load(
    file: Option<&Path>,
    flags: impl Iterator<Item = (String, String)>,
) -> Result<(Settings, Config), Fault> {
    let settings = Settings::gather(file, std::env::vars(), flags)?;
    let config = Config::from_settings(&settings)?;
    let config = Config { file: file.map(Path::to_owned), ..config };
    Ok((settings, config))
}
