//! Any message survives any cutting of the stream, and no bytes make the decoder panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vfsx_proto::*;

fn node() -> impl Strategy<Value = NodeRef> {
    any::<(u64, u64, i64)>().prop_map(|(dev, ino, btime_ns)| NodeRef { dev, ino, btime_ns })
}

fn dir() -> impl Strategy<Value = DirRef> {
    (node(), vec(any::<u8>(), 0..40)).prop_map(|(node, path_hint)| DirRef { node, path_hint })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..40)
}

fn kind() -> impl Strategy<Value = NodeKind> {
    prop_oneof![
        Just(NodeKind::File),
        Just(NodeKind::Directory),
        Just(NodeKind::Symlink),
        Just(NodeKind::Special)
    ]
}

fn reason() -> impl Strategy<Value = GapReason> {
    prop_oneof![
        Just(GapReason::RingFull),
        Just(GapReason::DaemonAbsent),
        Just(GapReason::Panic),
        Just(GapReason::Unrepresentable)
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Noted),
        Just(Durability::Journal),
        Just(Durability::Remote)
    ]
}

fn exclude() -> impl Strategy<Value = Exclude> {
    (vec(any::<u8>(), 0..40), any::<bool>(), any::<i64>()).prop_map(|(patterns, case_sensitive, read_ns)| {
        Exclude {
            patterns,
            case_sensitive,
            read_ns,
        }
    })
}

fn on_names() -> impl Strategy<Value = Event> {
    prop_oneof![
        (dir(), name(), node(), kind()).prop_map(|(dir, name, node, kind)| Event::Create {
            dir,
            name,
            node,
            kind
        }),
        (dir(), name(), node()).prop_map(|(dir, name, node)| Event::Link { dir, name, node }),
        (dir(), name(), dir(), name(), node(), option::of(node())).prop_map(
            |(from, from_name, to, to_name, node, replaced)| Event::Rename {
                from,
                from_name,
                to,
                to_name,
                node,
                replaced
            }
        ),
        (dir(), name(), node()).prop_map(|(dir, name, node)| Event::Unlink { dir, name, node }),
        (dir(), name()).prop_map(|(dir, name)| Event::Look { dir, name }),
    ]
}

fn on_objects() -> impl Strategy<Value = Event> {
    let ranges = vec(
        any::<(u64, u64)>().prop_map(|(start, end)| Range { start, end }),
        0..20,
    );
    prop_oneof![
        (any::<u64>(), node(), name()).prop_map(|(handle, node, path_hint)| Event::Opened {
            handle,
            node,
            path_hint
        }),
        (any::<u64>(), node(), name(), ranges, any::<bool>()).prop_map(
            |(handle, node, path_hint, ranges, whole)| {
                Event::Dirty {
                    handle,
                    node,
                    path_hint,
                    ranges,
                    whole,
                }
            }
        ),
        (any::<u64>(), node()).prop_map(|(handle, node)| Event::Flushed { handle, node }),
        (any::<u64>(), node()).prop_map(|(handle, node)| Event::Closed { handle, node }),
        (node(), name(), any::<(bool, bool)>()).prop_map(|(node, path_hint, (stat, xattrs))| {
            Event::Touched {
                node,
                path_hint,
                changed: Changed { stat, xattrs },
            }
        }),
        (any::<i64>(), reason()).prop_map(|(since_ns, reason)| Event::Gap { since_ns, reason }),
    ]
}

fn on_data() -> impl Strategy<Value = Event> {
    let place =
        option::of(any::<(u64, u32)>().prop_map(|(position, checksum)| InRing { position, checksum }));
    let xattrs = vec((name(), vec(any::<u8>(), 0..40)), 0..4);
    let metadata = (
        any::<(u32, u32, u32)>(),
        any::<((i64, u32), (i64, u32))>(),
        xattrs,
    );
    prop_oneof![
        (any::<(u64, u64, u64)>(), node(), place).prop_map(|((handle, start, length), node, data)| {
            Event::Write {
                handle,
                node,
                start,
                length,
                data,
            }
        }),
        (any::<(u64, u64)>(), node()).prop_map(|((handle, size), node)| Event::Resized {
            handle,
            node,
            size
        }),
        (node(), name(), metadata).prop_map(
            |(node, path_hint, ((mode, uid, gid), (mtime, atime), xattrs))| {
                Event::Metadata {
                    node,
                    path_hint,
                    metadata: Metadata {
                        mode,
                        uid,
                        gid,
                        mtime,
                        atime,
                        xattrs,
                    },
                }
            }
        ),
    ]
}

fn message() -> impl Strategy<Value = ToDaemon> {
    let event = prop_oneof![on_names(), on_objects(), on_data()];
    let stamped =
        (any::<u64>(), any::<i64>(), any::<u64>(), event).prop_map(|(sequence, time_ns, began_ns, event)| {
            Stamped {
                sequence,
                time_ns,
                began_ns,
                event,
            }
        });
    prop_oneof![
        vec(stamped, 0..5).prop_map(ToDaemon::Events),
        any::<u64>().prop_map(|token| ToDaemon::Sent { token }),
        any::<u64>().prop_map(|sequence| ToDaemon::Await { sequence }),
        Just(ToDaemon::AckNow),
        any::<(u64, u64, i64)>().prop_map(|(calls, fallbacks, last_fallback_ns)| {
            ToDaemon::Waits(Waits {
                calls,
                fallbacks,
                last_fallback_ns,
            })
        }),
        (
            any::<[u8; 16]>(),
            ".*",
            any::<u32>(),
            ".*",
            ".*",
            durability(),
            exclude(),
            any::<(Option<u64>, u64)>()
        )
            .prop_map(
                |(session, share, pid, samba, module, durability, exclude, (ring, spooled))| {
                    ToDaemon::Hello(Hello {
                        session: SessionId(session),
                        share,
                        pid,
                        samba,
                        module,
                        durability,
                        exclude,
                        ring,
                        spooled,
                    })
                }
            ),
    ]
}

proptest! {
    #[test]
    fn messages_survive_any_cutting_of_the_stream(messages in vec(message(), 1..8), cuts in vec(1usize..200, 1..50)) {
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).expect("small");
        }
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
            decoder.push(piece);
            while let Some(message) = decoder.next::<ToDaemon>().expect("own bytes") {
                got.push(message);
            }
            rest = after;
        }
        prop_assert_eq!(got, messages);
        prop_assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn foreign_bytes_give_errors_or_messages_but_never_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode::<ToDaemon>(&bytes);
        let _ = decode::<ToModule>(&bytes);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next::<ToDaemon>() {}
    }
}
