//! `cert`: a cluster's authority, what it signs, and what a certificate says.

use std::path::Path;

use certs::{CaPair, Fingerprint, Role, Subject, Validity, identity_of};
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{ASN1Time, X509Certificate};

use crate::args::{Args, Cert};
use crate::failure::{Exit, Failure};
use crate::render::{Record, Report};
use crate::show;

pub(crate) fn run(args: &Args, command: &Cert) -> Result<Exit, Failure> {
    let report = match command {
        Cert::CaInit { out, cluster } => ca_init(out, cluster)?,
        Cert::Issue { name, role, node_id, out, ca, days, hosts } => {
            let node = node_id.map(client::NodeId);
            let subject = Subject { name: name.clone(), role: *role, node, hosts: hosts.clone() };
            issue(&subject, *days, out, ca.as_deref().unwrap_or(out))?
        }
        Cert::Show { file } => show_file(file)?,
    };
    show(args, &report);
    Ok(Exit::Fine)
}

fn ca_init(out: &Path, cluster: &str) -> Result<Report, Failure> {
    let ca = certs::ca_init(cluster)?;
    ca.write(out)?;
    let (cert, key) = (out.join("ca.pem"), out.join("ca.key"));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let fingerprint = ca.fingerprint().to_string();
    let text = format!(
        "cluster      {cluster}\nfingerprint  {fingerprint}\ncertificate  {cert}   every node and \
         client needs it\nprivate key  {key}   whoever has it can add nodes: keep it off them\n\
         next: ringctl cert issue NODE --node-id N --out {out}\n",
        out = out.display()
    );
    let row = Record::new([
        ("cluster", cluster.into()),
        ("fingerprint", fingerprint.into()),
        ("cert", cert.into()),
        ("key", key.into()),
    ]);
    Ok(Report { text, rows: vec![row.clone()], whole: row.into() })
}

fn issue(subject: &Subject, days: u32, out: &Path, ca_dir: &Path) -> Result<Report, Failure> {
    if subject.node.is_some() && subject.role != Role::Node {
        let what = format!("a {} has no number", subject.role);
        let told = client::Told::new(what, "--node-id is for nodes", "leave --node-id out");
        return Err(Failure { exit: Exit::Usage, told });
    }
    let ca = CaPair::load(ca_dir).map_err(|error| {
        let missing = matches!(&error, certs::CertError::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound);
        let mut failure = Failure::from(error);
        if missing {
            failure.told.why = "the cluster's CA is needed to sign".into();
            failure.told.fix =
                "name its directory with --ca DIR, or make one: ringctl cert ca-init".into();
        }
        failure
    })?;
    let validity = Validity::days(days);
    let pair = certs::issue(&ca, subject, validity)?;
    let files = pair.write(out)?;
    let path = |path: &Path| path.display().to_string();
    let (cert, key, ca) = (path(&files.cert), path(&files.key), path(&files.ca));
    let fingerprint = pair.fingerprint().to_string();
    let next = match subject.role {
        Role::Node => {
            format!("set [tls] ca, cert and key in the configuration of {}", subject.name)
        }
        Role::Client | Role::Admin => "name ca, cert and key in a context: \
            ~/.config/ringctl/config.toml"
            .to_owned(),
    };
    let text = format!(
        "holder       {}\nfingerprint  {fingerprint}\nvalid for    {days} days\n\
         certificate  {cert}\nprivate key  {key}\nCA           {ca}\nnext: {next}\n",
        pair.identity
    );
    let row = Record::new([
        ("cluster", pair.identity.cluster.as_str().into()),
        ("name", pair.identity.name.as_str().into()),
        ("role", pair.identity.role.to_string().into()),
        ("node_id", pair.identity.node.map(|node| node.0.to_string()).into()),
        ("fingerprint", fingerprint.into()),
        ("days", days.into()),
        ("cert", cert.into()),
        ("key", key.into()),
        ("ca", ca.into()),
    ]);
    Ok(Report { text, rows: vec![row.clone()], whole: row.into() })
}

fn show_file(file: &Path) -> Result<Report, Failure> {
    let text = std::fs::read(file).map_err(|source| {
        Failure::from(certs::CertError::Unreadable { path: file.to_owned(), source })
    });
    let text = text.map_err(|mut failure| {
        failure.told.fix = "name a file in PEM form, such as certs/ca.pem".into();
        if !file.exists() {
            failure.told.why = "there is no such file".into();
        }
        failure
    })?;
    let sections: Vec<Pem> = Pem::iter_from_buffer(&text).filter_map(Result::ok).collect();
    let ders =
        sections.iter().filter(|pem| pem.label == "CERTIFICATE").map(|pem| &pem.contents[..]);
    let rows = ders.map(|der| describe(file, der)).collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() {
        let found: Vec<_> = sections.iter().map(|pem| pem.label.to_lowercase()).collect();
        let why = match &found[..] {
            [] => "there is no section in PEM form".to_owned(),
            some => format!("it holds: {}", some.join(", ")),
        };
        let what = format!("{} holds no certificate", file.display());
        let told = client::Told::new(what, why, "name the .pem file of a certificate or CA");
        return Err(Failure { exit: Exit::Usage, told });
    }
    let text = rows.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("\n");
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    let whole = Record::new([("file", file.display().to_string().into())]);
    let whole = whole.with("certificates", &rows);
    Ok(Report { text, whole, rows })
}

fn describe(file: &Path, der: &[u8]) -> Result<(String, Record), Failure> {
    let what = || format!("a certificate in {} cannot be read", file.display());
    let fix = "issue it again: ringctl cert issue NAME";
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| Failure::operation(what(), &error, fix))?;
    let fingerprint = Fingerprint::of(der).to_string();
    let validity = parsed.validity();
    let (from, until) = (moment(validity.not_before), moment(validity.not_after));
    let identity = identity_of(der).ok();
    let holder = match &identity {
        Some(identity) => identity.to_string(),
        None if parsed.is_ca() => format!("CA of {}", cluster_of(&parsed).unwrap_or("?")),
        None => "nobody with a role in a cluster".into(),
    };
    let now = ASN1Time::now();
    let state = if now > validity.not_after {
        "expired"
    } else if now < validity.not_before {
        "not valid yet"
    } else {
        "valid"
    };
    let number = identity.as_ref().and_then(|identity| identity.node);
    let text = format!(
        "holder       {holder}{}\nsubject      {}\nsigned by    {}\nfingerprint  {fingerprint}\n\
         valid        {from} to {until} ({state})\n",
        number.map_or_else(String::new, |node| format!(", number {}", node.0)),
        parsed.subject(),
        parsed.issuer(),
    );
    let of = |value: Option<String>| value.map_or(Value::Null, Value::from);
    let row = Record::new([
        ("ca", parsed.is_ca().into()),
        ("cluster", of(cluster_of(&parsed).map(Into::into))),
        ("name", of(identity.as_ref().map(|identity| identity.name.clone()))),
        ("role", of(identity.as_ref().map(|identity| identity.role.to_string()))),
        ("node_id", of(number.map(|node| node.0.to_string()))),
        ("subject", parsed.subject().to_string().into()),
        ("issuer", parsed.issuer().to_string().into()),
        ("fingerprint", fingerprint.into()),
        ("not_before", from.into()),
        ("not_after", until.into()),
        ("state", state.into()),
    ]);
    Ok((text, row))
}

fn cluster_of<'a>(parsed: &'a X509Certificate<'_>) -> Option<&'a str> {
    parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok())
}

/// As RFC 3339 writes it.
fn moment(time: ASN1Time) -> String {
    let at = time.to_datetime();
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}
