//! Concurrent values: seen, resolved, and never discarded by a context that has not seen them.

use crate::story::Story;

/// The last word of a reply.
fn last(heard: &str) -> &str {
    heard.rsplit(' ').next().expect("a word")
}

#[test]
fn two_writes_from_one_context_are_siblings_until_a_third_has_seen_both() {
    let mut story = Story::new();
    story.says("SET cart book");
    let heard = story.says("RING.GET cart WITHCTX");
    assert!(heard.starts_with("*2 $4 book $"), "{heard}");
    let old = last(&heard).to_owned();
    assert!(story.says(&format!("RING.SET cart book,pen CTX {old}")).starts_with('$'));
    assert!(story.says(&format!("RING.SET cart book,ink CTX {old}")).starts_with('$'));
    let heard = story.says("RING.SIBLINGS cart");
    assert!(heard.starts_with("*4 $8 siblings *2 *6 $5 value $8 book,ink $4 node $2 n"), "{heard}");
    assert!(heard.contains("$5 value $8 book,pen"), "{heard}");
    let both = last(&heard).to_owned();
    let new = story.says(&format!("RING.RESOLVE cart {both} book,ink,pen"));
    assert_eq!(story.says("GET cart"), "$12 book,ink,pen");
    assert!(story.says("RING.SIBLINGS cart").starts_with("*4 $8 siblings *1 "));
    assert!(story.says(&format!("RING.DEL cart CTX {both}")).starts_with('$'));
    assert_eq!(story.says("GET cart"), "$12 book,ink,pen", "the deletion had not seen it");
    assert!(story.says(&format!("RING.DEL cart CTX {}", last(&new))).starts_with('$'));
    assert_eq!(story.says("GET cart"), "$-1");
}

#[test]
fn a_context_serves_its_own_key_in_its_own_keyspace_alone() {
    let mut story = Story::new();
    story.says("SET a 1");
    let token = last(&story.says("RING.GET a WITHCTX")).to_owned();
    let refused = "-ERR context is for another key. fix: ";
    assert!(story.says(&format!("RING.SET b 1 CTX {token}")).starts_with(refused));
    story.says("SELECT 1");
    assert!(story.says(&format!("RING.SET a 1 CTX {token}")).starts_with(refused));
    story.says("SELECT 0");
    let begins = "-ERR context is not base64url text. fix: ";
    assert!(story.says("RING.SET a 1 CTX ???").starts_with(begins));
    story.host.secret = [9; 16];
    let begins = "-ERR context was changed, or comes from another cluster. fix: ";
    assert!(story.says(&format!("RING.SET a 1 CTX {token}")).starts_with(begins));
    let begins = "-ERR syntax error. fix: RING.SET key value CTX context";
    assert!(story.says("RING.SET a 1").starts_with(begins));
    story.goes(&[("RING.GET a", "$1 1"), ("RING.GET a NOW", "-ERR syntax error")]);
}

#[test]
fn where_tells_the_slot_and_its_owners() {
    let mut story = Story::new();
    let heard = story.says("RING.WHERE foo");
    assert!(heard.starts_with("*8 $4 slot :12182 $5 group :47 $4 hash :"), "{heard}");
    assert!(heard.ends_with("$6 owners *3 $2 n1 $2 n2 $2 n3"), "{heard}");
}
