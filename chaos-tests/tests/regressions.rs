//! Seeds that once broke a promise, each with what was wrong; they must never again.

use chaos_tests::profile::Profile;
use chaos_tests::run::run;
use chaos_tests::sim::trace::Telling;

/// Profile, seed, seconds, and what it found.
const ONCE_BROKEN: &[(&str, u64, u64, &str)] = &[
    ("quiet", 2, 20, "a read at ALL saw a difference and repaired nothing"),
    ("lossy", 9, 20, "a mark that found no space left a sealed frame behind"),
    ("crashes", 6, 20, "a life began with its clock twenty seconds ahead"),
    ("lossy", 103, 20, "parts of two servings of one pull were taken for one"),
    ("lossy", 159, 20, "a flush that was forwarded twice was done twice"),
    ("sync", 27, 20, "a ceiling half a second further than usual was taken for a broken clock"),
    ("transactions", 0, 10, "a transaction asked for again was stopped by its own writes"),
    (
        "swarm",
        1421,
        60,
        "a retry was refused by a process whose log told no more that it was minted",
    ),
    (
        "swarm",
        2_450_339_069,
        60,
        "the check did not know that a deadline written at ONE may outlive the next writer's own",
    ),
    (
        "swarm",
        1_646_675_563,
        60,
        "the check took a synced write at ONE for safe from rot of the one copy that has it",
    ),
    ("swarm", 1062, 60, "a retried write of one slot was no write when another slot was refused"),
    (
        "terms",
        7,
        20,
        "the check took a SET at another node for one that knew of the deadline set before it",
    ),
    (
        "acks",
        14,
        30,
        "a client's request was forwarded to a process whose log told no more that it was minted",
    ),
    ("sessions", 2, 15, "of several slots one was written, and the command said that nothing was"),
];

#[test]
fn what_once_failed_never_fails_again() {
    for (name, seed, seconds, what) in ONCE_BROKEN {
        let profile = Profile::draw(name, *seed, *seconds).expect("the profile exists");
        let outcome = run(&profile, Telling::Silent);
        assert_eq!(outcome.broken, None, "{name} seed {seed} ({what})");
    }
}
