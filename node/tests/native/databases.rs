//! Databases other than 0, from programs.

use client::{ClientError, Level, Session};

use super::{connect, runtime, until_routed};
use crate::support::demo::Demo;

#[test]
fn a_program_works_in_the_database_that_it_chose_and_in_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let zero = connect(dir.path()).await;
        until_routed(&zero).await;
        let four = zero.database(4);
        let session = Session::new();
        zero.put("k", "zero").await.unwrap();
        four.put("k", "four").consistency(Level::One).session(&session).await.unwrap();
        let read = four.get("k").consistency(Level::One).session(&session).await.unwrap();
        assert_eq!(read.values(), ["four"]);
        assert_eq!(zero.get("k").await.unwrap().values(), ["zero"]);
        assert_eq!(four.counter("c").add(3).await.unwrap(), 3);
        assert_eq!(four.counter("c").add(4).await.unwrap(), 7);
        assert!(zero.get("c").await.unwrap().values().is_empty());
        let many = four.get_many(["k", "c", "absent"]).await;
        let many: Vec<_> = many.into_iter().map(|read| read.unwrap().values().to_vec()).collect();
        assert_eq!((many[0][0].as_ref(), many[1][0].as_ref()), (&b"four"[..], &b"7"[..]));
        assert!(many[2].is_empty());
        for i in 0..5 {
            four.put(("inbox", format!("{i}")), "letter").await.unwrap();
        }
        zero.put(("inbox", "9"), "letter").await.unwrap();
        assert_eq!(four.range("inbox", "1"..).await.unwrap().rest().await.unwrap().len(), 4);
        assert_eq!(four.delete_range("inbox", ..).await.unwrap(), 5);
        assert_eq!(zero.range("inbox", ..).await.unwrap().rest().await.unwrap().len(), 1);
        four.delete("k").await.unwrap();
        let refused = zero.database(16).get("k").await.unwrap_err();
        assert!(matches!(refused, ClientError::Invalid { .. }), "{refused}");
        assert!(refused.told().why.contains("there is no database 16"), "{refused}");
    });
    let mut redis = demo.client(2);
    assert_eq!(redis.ask("GET k"), "zero");
    assert_eq!(redis.ask("SELECT 4"), "OK");
    assert_eq!((redis.ask("GET k"), redis.ask("GET c")), ("nil".into(), "7".into()));
    demo.stop();
}
