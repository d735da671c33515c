//! What can go wrong, and that the caller learns what to do about it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::{CertError, Role};
use ringdb_client::{Client, ClientError, Patience, Tls, Told};
use tokio::net::UdpSocket;
use wire::hello::close;
use wire::{ClientReply, ClientRequest, ErrorCode, Header, Name};

use crate::fake::*;
use crate::requests::client_of;

/// Does not wait long for what will not come.
const HASTY: Patience =
    Patience { dial: Duration::from_millis(400), request: Duration::from_secs(5) };

fn told() -> Told {
    Told::new("it failed", "of this", "do that")
}

#[tokio::test]
async fn every_code_becomes_the_variant_that_says_what_to_do() {
    let ca = authority();
    let codes = [
        (ErrorCode::Unavailable { needed: 2, alive: 1 }, true),
        (ErrorCode::Unconfirmed { acked: 1, needed: 2 }, false),
        (ErrorCode::Overloaded { retry_after_ms: 30 }, true),
        (ErrorCode::NotReady, true),
        (ErrorCode::Behind, true),
        (ErrorCode::Conflict, true),
        (ErrorCode::Invalid, true),
        (ErrorCode::Unauthorised, true),
        (ErrorCode::Internal, false),
    ];
    let expected = [
        ClientError::Unavailable { needed: 2, alive: 1, told: told() },
        ClientError::Unconfirmed { acked: 1, needed: 2, told: told() },
        ClientError::Overloaded { retry_after: Duration::from_millis(30), told: told() },
        ClientError::NotReady { told: told() },
        ClientError::Behind { told: told() },
        ClientError::Conflict { told: told() },
        ClientError::Invalid { told: told() },
        ClientError::Unauthorised { told: told() },
        ClientError::Internal { told: told() },
    ];
    let n1 = FakeNode::start(&node(&ca, 1), 1, move |_, request| {
        let ClientRequest::Put { key, .. } = request else { panic!("{request:?}") };
        Answer::Say(error(codes[usize::from(key[0])].0))
    });
    let ring = client_of(&ca, &[&n1]).await;
    for (place, expected) in expected.into_iter().enumerate() {
        let key = vec![u8::try_from(place).unwrap()];
        let error = ring.put(key, "v").await.unwrap_err();
        assert_eq!(error, expected);
        assert_eq!(error.had_no_effect(), codes[place].1, "{error:?}");
        assert_eq!(error.to_string(), "it failed\n  why: of this\n  fix: do that");
    }
}

#[test]
fn an_error_without_words_of_the_node_has_three_lines_of_its_own() {
    let error = ClientError::Unavailable { needed: 2, alive: 1, told: Told::default() };
    assert_eq!(
        error.to_string(),
        "too few replicas are up\n  why: the level needs 2, 1 are up; nothing was sent\n  \
         fix: retry, ask for a lower level, or bring a replica back"
    );
}

#[tokio::test]
async fn a_dead_address_costs_a_moment_and_the_next_one_answers() {
    let ca = authority();
    let n2 = FakeNode::start(&node(&ca, 2), 2, |_, _| Answer::Say(ClientReply::Pong));
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let ring = Client::connect([nobody(), n2.address()], tls).await.unwrap();
    ring.ping().await.unwrap();
    assert_eq!(ring.contact().await.address, n2.address());
}

#[tokio::test]
async fn if_nobody_answers_all_addresses_are_named() {
    let ca = authority();
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let (one, two) = (nobody(), nobody());
    let error = Client::connect_with([&one, &two], tls.clone(), HASTY).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach any node: tried {one}, {two}\n  why: nothing answers there\n  \
             fix: start ringd there, or name a node that runs; QUIC needs UDP to pass"
        )
    );
    assert!(matches!(error, ClientError::Unreachable { attempts } if attempts.len() == 2));
    let error = Client::connect_with(["nonsense"], tls, HASTY).await.unwrap_err();
    let ClientError::Unreachable { attempts } = error else { panic!("{error}") };
    assert!(attempts[0].reason.starts_with("not an address: "), "{attempts:?}");
}

#[tokio::test]
async fn a_node_of_another_authority_is_not_believed() {
    let (ours, theirs) = (authority(), authority());
    let n1 = FakeNode::start(&node(&theirs, 1), 1, |_, _| Answer::Say(ClientReply::Pong));
    let pair = visitor(&ours, Role::Admin);
    let error = Client::connect([n1.address()], Tls::from_pair(&pair).unwrap()).await.unwrap_err();
    let ClientError::Unauthorised { told } = &error else { panic!("{error}") };
    assert_eq!(
        told.what,
        format!("no connection to {}: its certificate is signed by another CA", n1.address())
    );
    assert!(told.why.contains(&format!("trusts CA {:#}", ours.fingerprint())), "{error}");
    assert!(told.why.contains("node n1 of demo presented SHA256:"), "{error}");
}

#[tokio::test]
async fn a_client_cannot_pose_as_a_node() {
    let ca = authority();
    let thief = visitor(&ca, Role::Client);
    let n1 = FakeNode::start(&thief, 1, |_, _| Answer::Say(ClientReply::Pong));
    let tls = Tls::from_pair(&visitor(&ca, Role::Admin)).unwrap();
    let error = Client::connect([n1.address()], tls).await.unwrap_err();
    let ClientError::Unauthorised { told } = error else { panic!("{error}") };
    assert!(told.what.ends_with("it is no node of demo"), "{told}");
}

#[test]
fn a_node_certificate_is_not_for_clients() {
    let error = Tls::from_pair(&node(&authority(), 1)).unwrap_err();
    assert!(matches!(error, CertError::WrongRole { needs: Role::Client, .. }), "{error}");
}

#[tokio::test]
async fn a_role_that_the_node_refuses_is_told_in_its_words() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, _| {
        Answer::HangUp(close::CONTENT, "that was no request")
    });
    let ring = client_of(&ca, &[&n1]).await;
    let error = ring.put("k", "v").await.unwrap_err();
    let reason = "the node closed it: that was no request".to_owned();
    assert_eq!(error, ClientError::Interrupted { address: n1.address(), reason });
    assert!(!error.had_no_effect());
}

#[tokio::test]
async fn a_read_moves_on_when_its_node_goes_and_so_does_a_write_under_its_name() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, _| Answer::HangUp(close::CLOSING, "gone"));
    let n2 = FakeNode::start(&node(&ca, 2), 2, |_, request| {
        Answer::Say(match request {
            ClientRequest::Get { .. } => {
                ClientReply::Value { values: vec!["v".into()], context: Bytes::new() }
            }
            // It may do what it is asked first, and holds one of those that it was not.
            ClientRequest::Put { name: Some(name), key, .. }
                if name.first_asked == boot_of(2) || *key == b"held" =>
            {
                ClientReply::Done { context: Bytes::new() }
            }
            _ => error(ErrorCode::Unconfirmed { acked: 0, needed: 2 }),
        })
    });
    let ring = client_of(&ca, &[&n1, &n2]).await;
    assert_eq!(ring.contact().await.node.0, 1);
    ring.put("held", "v").await.unwrap();
    assert_eq!(ring.get("k").await.unwrap().values(), ["v"]);
    // From now on the node that answers is asked.
    ring.put("k", "w").await.unwrap();
    assert_eq!(ring.contact().await.node.0, 2);

    let ring = client_of(&ca, &[&n1, &n2]).await;
    let error = ring.put("k", "v").await.unwrap_err();
    assert!(matches!(error, ClientError::Unconfirmed { acked: 0, .. }), "{error}");
    assert!(!error.had_no_effect());

    let ring = client_of(&ca, &[&n1, &n2]).await;
    assert_eq!(ring.get("k").await.unwrap().values(), ["v"], "the read that meets it moves on");
}

/// A counter that hears of each name once, and answers only when it is asked a second time.
fn forgetful_counter(names: Arc<Mutex<Vec<Name>>>) -> impl Fn(&ClientRequest<'_>) -> Answer {
    move |request| {
        let ClientRequest::Add { name: Some(name), .. } = request else { panic!("{request:?}") };
        let mut names = names.lock().unwrap();
        names.push(*name);
        if names.iter().filter(|other| other.n == name.n).count() == 1 {
            return Answer::HangUp(close::CLOSING, "the answer is lost");
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().map(|name| name.n).collect();
        let value = i64::try_from(distinct.len()).unwrap();
        Answer::Say(ClientReply::Number { value, context: Bytes::new() })
    }
}

#[tokio::test]
async fn an_addition_whose_answer_was_lost_is_asked_for_again_under_the_same_name() {
    let ca = authority();
    let names = Arc::new(Mutex::new(Vec::new()));
    let script = forgetful_counter(names.clone());
    let n1 = FakeNode::start(&node(&ca, 1), 1, move |_, request| script(request));
    let ring = client_of(&ca, &[&n1]).await;
    assert_eq!(ring.counter("hits").add(1).await.unwrap(), 1);
    assert_eq!(ring.counter("hits").add(1).await.unwrap(), 2);
    // Twice each; a program's own repetition under a name is the same request as well.
    let name = ring.name();
    for _ in 0..2 {
        assert_eq!(ring.counter("hits").add(1).named(&name).await.unwrap(), 3);
    }
    let names = names.lock().unwrap();
    let numbers: Vec<_> = names.iter().map(|name| name.n).collect();
    assert_eq!(numbers, [1, 1, 2, 2, 3, 3, 3]);
    assert!(
        names.iter().all(|name| (name.client, name.first_asked) == (names[0].client, boot_of(1)))
    );
    assert!(names[1].age_ms >= names[0].age_ms);
    assert_eq!(ring.tally().retried, 3);
}

/// Notes the numbers of the names under which it is asked to put, and answers by how many there were.
fn put_by_put(
    names: Arc<Mutex<Vec<u64>>>,
    answer: impl Fn(usize) -> Answer,
) -> impl Fn(&Header, &ClientRequest<'_>) -> Answer {
    move |_, request| {
        let ClientRequest::Put { name: Some(name), .. } = request else { panic!("{request:?}") };
        let mut names = names.lock().unwrap();
        names.push(name.n);
        answer(names.len())
    }
}

#[tokio::test]
async fn what_was_certainly_not_done_is_another_request_when_it_is_asked_again() {
    let ca = authority();
    let names = Arc::new(Mutex::new(Vec::new()));
    let script = put_by_put(names.clone(), |asked| match asked {
        1 => Answer::Say(error(ErrorCode::Overloaded { retry_after_ms: 1 })),
        _ => Answer::Say(ClientReply::Done { context: Bytes::new() }),
    });
    let n1 = FakeNode::start(&node(&ca, 1), 1, script);
    let ring = client_of(&ca, &[&n1]).await;
    let name = ring.name();
    let refused = ring.put("k", "v").named(&name).await.unwrap_err();
    assert!(refused.had_no_effect());
    ring.put("k", "v").named(&name).await.unwrap();
    assert_eq!(*names.lock().unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_node_that_turns_a_repetition_away_says_nothing_of_the_first_copy() {
    let ca = authority();
    let names = Arc::new(Mutex::new(Vec::new()));
    let script = put_by_put(names.clone(), |asked| match asked {
        // The first copy may be on its way to those who carry it out still.
        1 => Answer::HangUp(close::CLOSING, "the answer is lost"),
        2 => Answer::Say(error(ErrorCode::NotReady)),
        3 => Answer::Say(error(ErrorCode::Overloaded { retry_after_ms: 1 })),
        _ => Answer::Say(ClientReply::Done { context: Bytes::new() }),
    });
    let n1 = FakeNode::start(&node(&ca, 1), 1, script);
    let ring = client_of(&ca, &[&n1]).await;
    ring.put("k", "v").await.unwrap();
    assert_eq!(*names.lock().unwrap(), [1, 1, 1, 1]);
}

/// Passes datagrams on between one client and a node, until it is cut: then both hear nothing.
async fn cable_to(node: &FakeNode) -> (String, tokio::task::JoinHandle<()>) {
    let any = || UdpSocket::bind(("127.0.0.1", 0));
    let (near, far) = (any().await.unwrap(), any().await.unwrap());
    far.connect(node.address).await.unwrap();
    let address = near.local_addr().unwrap().to_string();
    let cable = tokio::spawn(async move {
        let (mut out, mut back) = ([0; 2048], [0; 2048]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut out) => {
                    client = Some(from);
                    far.send(&out[..length]).await.unwrap();
                }
                Ok(length) = far.recv(&mut back) => {
                    near.send_to(&back[..length], client.unwrap()).await.unwrap();
                }
            }
        }
    });
    (address, cable)
}

#[tokio::test]
async fn a_node_that_falls_silent_is_left_behind_by_reads() {
    let ca = authority();
    let value = |_: &Header, request: &ClientRequest<'_>| {
        Answer::Say(match request {
            ClientRequest::Get { .. } => {
                ClientReply::Value { values: vec!["v".into()], context: Bytes::new() }
            }
            _ => error(ErrorCode::Unconfirmed { acked: 0, needed: 2 }),
        })
    };
    let n1 = FakeNode::start(&node(&ca, 1), 1, value);
    let n2 = FakeNode::start(&node(&ca, 2), 2, value);
    let (address, cable) = cable_to(&n1).await;
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let ring = Client::connect([address.clone(), n2.address()], tls).await.unwrap();
    assert_eq!(ring.get("k").await.unwrap().values(), ["v"]);
    assert_eq!(ring.contact().await.address, address);
    cable.abort();
    assert!(cable.await.unwrap_err().is_cancelled());
    // A write cannot know, unless another node does. A read asks that once the silence has lasted.
    let (write, read) = tokio::join!(ring.put("k", "w").into_future(), ring.get("k").into_future());
    assert!(matches!(write, Err(ClientError::Unconfirmed { acked: 0, .. })), "{write:?}");
    assert_eq!(read.unwrap().values(), ["v"]);
    assert_eq!(ring.contact().await.address, n2.address());
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_left_for_another_even_by_a_write() {
    let ca = authority();
    let asked = Arc::new(AtomicUsize::new(0));
    let n1 = FakeNode::start(&node(&ca, 1), 1, {
        let asked = asked.clone();
        move |_, _| {
            asked.fetch_add(1, Ordering::Relaxed);
            Answer::Say(error(ErrorCode::NotReady))
        }
    });
    let n2 = FakeNode::start(&node(&ca, 2), 2, |_, _| {
        Answer::Say(ClientReply::Done { context: Bytes::new() })
    });
    let ring = client_of(&ca, &[&n1, &n2]).await;
    ring.put("k", "v").await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(n2);
    let error = ring.delete("k").timeout(Duration::from_secs(8)).await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotReady { .. } | ClientError::Interrupted { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_silent_node_costs_the_time_given_and_no_more() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, _| Answer::Silence);
    let ring = client_of(&ca, &[&n1]).await;
    let after = Duration::from_millis(50);
    let error = ring.put("k", "v").timeout(after).await.unwrap_err();
    assert_eq!(error, ClientError::TimedOut { after });
    assert_eq!(
        error.to_string(),
        "no answer in 50 ms\n  why: the node, or the way to it, is slower than the time given; \
         a write may have taken effect\n  fix: give more time; repeat a write under its name, or read to \
         see"
    );
    assert_eq!(ring.pending().await, 0);
}

#[tokio::test]
async fn a_request_that_fits_no_frame_is_refused_here() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, _| Answer::Say(ClientReply::Pong));
    let ring = client_of(&ca, &[&n1]).await;
    let error = ring.put("k", vec![0; 17 << 20]).await.unwrap_err();
    assert!(matches!(error, ClientError::Invalid { .. }), "{error}");
    ring.ping().await.unwrap();
}

#[tokio::test]
async fn an_answer_to_another_question_is_an_error() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, _| Answer::Say(ClientReply::Pong));
    let ring = client_of(&ca, &[&n1]).await;
    let error = ring.get("k").await.unwrap_err();
    assert!(error.to_string().starts_with("the node answered another question\n"), "{error}");
}

#[tokio::test]
async fn a_refusal_of_one_node_says_nothing_of_what_the_next_one_does() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, _| Answer::Say(error(ErrorCode::NotReady)));
    let n2 = FakeNode::start(&node(&ca, 2), 2, |_, _| Answer::Silence);
    let ring = client_of(&ca, &[&n1, &n2]).await;
    let after = Duration::from_millis(400);
    let error = ring.put("k", "v").timeout(after).await.unwrap_err();
    // The second may have done it.
    assert_eq!(error, ClientError::TimedOut { after });
    assert!(!error.had_no_effect());
}
