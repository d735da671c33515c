//! Errors: a client hears only errors that are written down, and each means what is written of it.

/// What an error says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing was done.
    Nothing,
    /// It may have been done.
    Perhaps,
    /// Such an error is written down nowhere, or fits no request that is made here.
    Undocumented,
}

/// What is promised.
pub const PROMISE: &str = "only documented errors are told";

/// What this line says: its code first, as it was sent.
#[must_use]
pub fn told(line: &str) -> Told {
    let code = line.split(' ').next().unwrap_or_default();
    match code {
        "UNAVAILABLE" | "OVERLOADED" | "LOADING" | "EXECABORT" => Told::Nothing,
        "UNCONFIRMED" => Told::Perhaps,
        // The few errors of the many that begin like this which a request of ours can meet.
        "ERR" if line.contains("as many concurrent values as are kept") => Told::Nothing,
        "ERR" if line.starts_with("ERR a watched key has changed. Nothing was done") => {
            Told::Nothing
        }
        _ => Told::Undocumented,
    }
}
