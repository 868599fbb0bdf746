//! Each limit: at it is taken, one more is refused, and the refusal says the number.

use super::*;
use bson::RawDocumentBuf;
use bson::raw::cstr;

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, RpcError>, limit: impl std::fmt::Display) {
    let error = result.unwrap_err();
    assert!(error.message.contains(&limit.to_string()), "{error}");
    assert!(
        !error.message.contains('\n') && error.message.len() < 300,
        "{error}"
    );
}

#[test]
fn names_paths_and_attributes_have_their_longest() {
    let name = |length: usize| Name(vec![b'x'; length]);
    let path =
        |length: usize| Name([b"/".to_vec(), b"x/".repeat(length / 2), vec![b'x'; length % 2]].concat());
    assert!(check::entry_name(name(limits::MAX_NAME)).is_ok());
    refused(check::entry_name(name(limits::MAX_NAME + 1)), limits::MAX_NAME);
    assert!(check::attribute_name(name(limits::MAX_ATTRIBUTE_NAME)).is_ok());
    refused(
        check::attribute_name(name(limits::MAX_ATTRIBUTE_NAME + 1)),
        limits::MAX_ATTRIBUTE_NAME,
    );
    assert!(check::link_target(name(limits::MAX_PATH)).is_ok());
    refused(check::link_target(name(limits::MAX_PATH + 1)), limits::MAX_PATH);
    assert!(check::path(&path(limits::MAX_PATH - 1)).is_ok());
    refused(check::path(&path(limits::MAX_PATH)).map(drop), limits::MAX_PATH);
    assert!(check::path(&Name([b"/".to_vec(), vec![b'x'; limits::MAX_NAME + 1]].concat())).is_err());
    let value = |length: usize| Content(vec![0; length].into());
    assert!(check::attribute_value(value(limits::MAX_ATTRIBUTE_VALUE)).is_ok());
    refused(
        check::attribute_value(value(limits::MAX_ATTRIBUTE_VALUE + 1)),
        limits::MAX_ATTRIBUTE_VALUE,
    );
    let label = "x".repeat(limits::MAX_LABEL);
    assert!(check::label(&label, "bucket").is_ok());
    refused(check::label(&format!("{label}x"), "bucket"), limits::MAX_LABEL);
}

#[test]
fn numbers_and_counts_have_their_largest() {
    assert!(check::count(5, 5, "keys").is_ok());
    refused(check::count(6, 5, "keys"), 5);
    assert!(check::integer(limits::MAX_INTEGER, "size").is_ok());
    refused(
        check::integer(limits::MAX_INTEGER + 1, "size"),
        limits::MAX_INTEGER,
    );
    let most = limits::MAX_BLOCK as u32;
    assert!(check::block_length(most).is_ok());
    refused(check::block_length(most + 1), most);
    assert!(check::block_length(0).is_err());
    assert!(check::layout(most, limits::MAX_SEGMENT_BLOCKS).is_ok());
    refused(check::layout(most * 2, 1), most);
    refused(
        check::layout(most, limits::MAX_SEGMENT_BLOCKS + 1),
        limits::MAX_SEGMENT_BLOCKS,
    );
    assert_eq!(check::page(u32::MAX).unwrap(), limits::MAX_PAGE);
    assert!(check::page(0).is_err());
}

#[test]
fn a_patch_has_so_many_pieces_and_no_more() {
    let patch = |count: usize| PatchContent {
        key: Hex([0; 32]),
        length: limits::MAX_BLOCK as u32,
        base: Hex([0; 32]),
        pieces: (0..count as u32).map(|n| Piece(n * 2, 1)).collect(),
        compression: values::Compression::None,
        content: Content(vec![0; count].into()),
    };
    assert!(patch(limits::MAX_PIECES).checked().is_ok());
    refused(
        patch(limits::MAX_PIECES + 1).checked().map(drop),
        limits::MAX_PIECES,
    );
}

#[test]
fn ids_and_methods_have_their_longest() {
    let request = |id: usize, method: usize| Message::Request {
        id: Id::Text("i".repeat(id)),
        method: "m".repeat(method),
        params: Payload::empty(Encoding::Json),
    };
    let decoded = |message: Message| {
        let bytes = message.encode(Encoding::Json).unwrap();
        Message::decode(Encoding::Json, &bytes)
    };
    assert!(decoded(request(64, limits::MAX_METHOD)).is_ok());
    refused(decoded(request(65, 1)), 64);
    refused(decoded(request(1, limits::MAX_METHOD + 1)), limits::MAX_METHOD);
}

/// What is inside of the message's own document, in one more for each level.
fn nested(levels: usize) -> Result<Message, RpcError> {
    let mut inner = RawDocumentBuf::new();
    for _ in 1..levels {
        let mut outer = RawDocumentBuf::new();
        outer.append(cstr!("a"), &inner);
        inner = outer;
    }
    let mut message = RawDocumentBuf::new();
    message.append(cstr!("jsonrpc"), "2.0");
    message.append(cstr!("method"), "m");
    message.append(cstr!("params"), &inner);
    Message::decode(Encoding::Bson, &message.into_bytes())
}

#[test]
fn documents_are_so_deep_and_no_deeper() {
    assert!(nested(32).is_ok());
    refused(nested(33), "nested too deep");
}
