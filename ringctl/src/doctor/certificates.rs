//! Certificates: which of those in use expire soon. What nodes show on their connections counts, not
//! what lies in their files: a renewed file helps only after a restart.

use x509_parser::prelude::ASN1Time;

use super::{Finding, Picture, Weight};
use crate::render::human;

/// From so many days before its end on a certificate is worth a word, and a problem.
const WARN_DAYS: i64 = 30;
const PROBLEM_DAYS: i64 = 7;

pub(super) fn look(picture: &Picture, _: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let now = ASN1Time::now().timestamp();
    let mut found = Vec::new();
    for (name, chain) in &picture.certificates {
        for (place, der) in chain.iter().enumerate() {
            found.extend(one(name, place == 0, der, now));
        }
    }
    // The authority is the same for all.
    found.dedup_by(|a, b| a.what == b.what);
    found
}

fn one(name: &str, own: bool, der: &[u8], now: i64) -> Option<Finding> {
    let make = |weight, what, why, fix| {
        let node = own.then(|| name.to_owned());
        Some(Finding { check: "certificates", weight, node, what, why, fix })
    };
    let whose =
        if own { format!("the certificate of {name}") } else { "the cluster's CA".to_owned() };
    let (_, parsed) = match x509_parser::parse_x509_certificate(der) {
        Ok(parsed) => parsed,
        Err(error) => {
            let fix = "issue it again: ringctl cert issue NAME".to_owned();
            return make(
                Weight::Warning,
                format!("{whose} cannot be read"),
                error.to_string(),
                fix,
            );
        }
    };
    let end = parsed.validity().not_after.timestamp();
    let days = (end - now).div_euclid(86_400);
    if days >= WARN_DAYS {
        return None;
    }
    let weight = if days < PROBLEM_DAYS { Weight::Problem } else { Weight::Warning };
    let when = match days {
        ..0 => "has expired".to_owned(),
        0 => "expires within a day".to_owned(),
        days => format!("expires in {}", human::things(days as usize, "day", "days")),
    };
    let until = human::rfc3339(u64::try_from(end).unwrap_or(0) * 1_000);
    let fix = if own && name == "this client" {
        "issue a new one: ringctl cert issue NAME --role admin, and name it in the context"
    } else if own {
        "issue a new one: ringctl cert issue NAME --node-id N, then restart the node"
    } else {
        "make a new authority and issue all certificates anew, before it ends"
    };
    make(
        weight,
        format!("{whose} {when}"),
        format!("it is valid until {until}; afterwards its connections are refused"),
        fix.to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_the_end_the_worse() {
        let ca = certs::ca_init("demo").expect("keys can be made");
        let subject = certs::Subject::of_role("ann", certs::Role::Admin);
        let pair = certs::issue(&ca, &subject, certs::Validity::days(10)).expect("it is issued");
        let mut pems = x509_parser::pem::Pem::iter_from_buffer(pair.cert_pem.as_bytes());
        let der = pems.next().expect("there is one").expect("it is PEM").contents;
        let now = ASN1Time::now().timestamp();
        let at = |days: i64| {
            let found = one("n1", true, &der, now + days * 86_400)?;
            Some((found.weight, found.what))
        };
        assert_eq!(at(-30), None);
        let what = |when: &str| format!("the certificate of n1 {when}");
        assert_eq!(at(1), Some((Weight::Warning, what("expires in 9 days"))));
        assert_eq!(at(5), Some((Weight::Problem, what("expires in 5 days"))));
        assert_eq!(at(11), Some((Weight::Problem, what("has expired"))));
        assert_eq!(one("n1", true, b"nothing", now).map(|f| f.weight), Some(Weight::Warning));
    }
}
