//! Modules that wait for commits.

use super::module::{Module, greeting};
use super::{Fixture, NORMAL, until};
use vfsx_proto::{Durability, Hello, ToDaemon, ToModule, Waits};

async fn remote(fixture: &Fixture, n: u8) -> Module {
    let mut module = Module::connect(&fixture.socket()).await;
    let hello = Hello {
        durability: Durability::Remote,
        ..greeting("data", n)
    };
    module.send(&ToDaemon::Hello(hello)).await;
    assert!(matches!(module.receive().await, ToModule::Welcome(_)));
    module
}

/// The next message that is no acknowledgement.
async fn other(module: &mut Module) -> ToModule {
    loop {
        match module.receive().await {
            ToModule::Ack { .. } => {}
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_committed_when_all_records_up_to_it_are_and_only_to_who_asked() {
    let fixture = Fixture::new(NORMAL);
    let wanted = fixture.share.wanted();
    let mut asking = remote(&fixture, 1).await;
    let mut silent = remote(&fixture, 2).await;
    asking.events(1..=3).await;
    silent.events(1..=3).await;
    asking.acknowledged(3).await;
    silent.acknowledged(3).await;
    asking.send(&ToDaemon::Await { sequence: 3 }).await;
    until("the wish is known", || *wanted.borrow() > 0).await;
    let record = *wanted.borrow();
    assert_eq!(record, fixture.journal.status().head);

    fixture.share.committed(record - 1);
    asking.assert_nothing_comes().await;
    fixture.share.committed(record);
    assert_eq!(other(&mut asking).await, ToModule::Committed { sequence: 3 });
    silent.assert_nothing_comes().await;

    // What is committed already is told at once.
    asking.send(&ToDaemon::Await { sequence: 2 }).await;
    silent.send(&ToDaemon::Await { sequence: 3 }).await;
    assert_eq!(other(&mut silent).await, ToModule::Committed { sequence: 3 });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_vfsxd_does_not_have_is_never_told_committed() {
    let fixture = Fixture::new(NORMAL);
    let mut module = remote(&fixture, 1).await;
    module.events(1..=2).await;
    module.acknowledged(2).await;
    module.send(&ToDaemon::Await { sequence: 3 }).await;
    fixture.share.committed(u64::MAX);
    module.assert_nothing_comes().await;
    assert_eq!(*fixture.share.wanted().borrow(), 0);
}

/// All that the session's clients have waited since it began.
fn told(calls: u64, fallbacks: u64, last_fallback_ns: i64) -> ToDaemon {
    ToDaemon::Waits(Waits {
        calls,
        fallbacks,
        last_fallback_ns,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_of_sessions_that_are_over_still_count() {
    let fixture = Fixture::new(NORMAL);
    let (mut first, mut second) = (remote(&fixture, 1).await, remote(&fixture, 2).await);
    first.send(&told(3, 1, 50)).await;
    first.send(&told(5, 2, 70)).await;
    second.send(&told(10, 1, 60)).await;
    until("both are known", || fixture.share.durability().waits.calls == 15).await;
    drop(first);
    until("one is over", || fixture.share.durability().remote == 1).await;
    let facts = fixture.share.durability();
    assert_eq!((facts.waits.calls, facts.waits.fallbacks), (15, 3));
    assert_eq!(facts.waits.last_fallback_ns, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_of_a_session_that_comes_back_count_once() {
    let fixture = Fixture::new(NORMAL);
    let calls = || fixture.share.durability().waits.calls;
    let mut module = remote(&fixture, 1).await;
    module.send(&told(5, 2, 70)).await;
    until("they are known", || calls() == 5).await;
    drop(module);
    until("the connection is gone", || {
        fixture.share.durability().remote == 0
    })
    .await;
    let mut module = remote(&fixture, 1).await;
    assert_eq!(calls(), 5, "neither forgotten nor counted twice");
    module.send(&told(6, 2, 70)).await;
    until("one more is known", || calls() == 6).await;

    // Another connection takes this one's place before vfsxd has noticed its end.
    let mut again = remote(&fixture, 1).await;
    module.assert_closed().await;
    assert_eq!(calls(), 6);
    again.send(&told(7, 3, 80)).await;
    until("one more is known", || calls() == 7).await;
    assert_eq!(fixture.share.durability().waits.fallbacks, 3);
}
