//! JSON-RPC 2.0: one message is one request, notification, response or error. Batches are refused: a connection
//! carries many requests at once anyway.

use super::encoding::{Encoding, Payload};
use super::error::{Code, ErrorData, RpcError};
use super::limits::{MAX_MESSAGE, MAX_METHOD};
use bson::RawDocumentBuf;
use bson::raw::{RawBsonRef, RawDocument, RawIter, cstr};
use bson::spec::ElementType;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

const VERSION: &str = "2.0";
/// Documents and arrays inside each other; a commit has 7. JSON's decoder has a bound of its own (128).
const MAX_DEPTH: usize = 32;
/// Longest id given as a string.
const MAX_ID: usize = 64;

/// Chosen by the caller, given back in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an id: a string, or an integer of 64 bits")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Id, E> {
        Ok(Id::Number(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Id, E> {
        i64::try_from(number).map(Id::Number).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
        Ok(Id::Text(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Request {
        id: Id,
        method: String,
        params: Payload,
    },
    Notification {
        method: String,
        params: Payload,
    },
    Response {
        id: Id,
        result: Payload,
    },
    /// `id` is absent when the request could not be read.
    Error {
        id: Option<Id>,
        error: RpcError,
    },
}

impl Message {
    /// The error is [`Code::TooLarge`] for a message over [`MAX_MESSAGE`].
    pub fn encode(&self, encoding: Encoding) -> Result<Vec<u8>, RpcError> {
        let bytes = match encoding {
            Encoding::Json => self.encode_json()?,
            Encoding::Bson => self.encode_bson()?,
        };
        check_length(bytes.len())?;
        Ok(bytes)
    }

    pub fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, RpcError> {
        check_length(bytes.len())?;
        match encoding {
            Encoding::Json => {
                let wire: Wire<'_, &RawValue> = serde_json::from_slice(bytes).map_err(unreadable)?;
                wire.into_message(Encoding::Json, |raw| raw.get().as_bytes().to_vec())
            }
            Encoding::Bson => {
                check_depth(
                    RawDocument::from_bytes(bytes)
                        .map_err(unreadable)?
                        .iter_elements(),
                    MAX_DEPTH,
                )?;
                let wire: Wire<'_, &RawDocument> = bson::deserialize_from_slice(bytes).map_err(unreadable)?;
                wire.into_message(Encoding::Bson, |raw| raw.as_bytes().to_vec())
            }
        }
    }

    /// Payloads are JSON already, so they are set in as they are.
    fn encode_json(&self) -> Result<Vec<u8>, RpcError> {
        let (head, payload) = match self {
            Self::Request { id, method, params } => (
                format!(r#""id":{},"method":{},"params":"#, json(id)?, json(method)?),
                params,
            ),
            Self::Notification { method, params } => {
                (format!(r#""method":{},"params":"#, json(method)?), params)
            }
            Self::Response { id, result } => (format!(r#""id":{},"result":"#, json(id)?), result),
            Self::Error { id, error } => return Ok(json(&ErrorResponse::new(id, error))?.into_bytes()),
        };
        let mut out = Vec::with_capacity(head.len() + payload.bytes.len() + 24);
        out.extend_from_slice(br#"{"jsonrpc":"2.0","#);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&payload.bytes);
        out.push(b'}');
        Ok(out)
    }

    fn encode_bson(&self) -> Result<Vec<u8>, RpcError> {
        fn raw(payload: &Payload) -> Result<&RawDocument, RpcError> {
            RawDocument::from_bytes(&payload.bytes).map_err(unencodable)
        }
        let mut out = RawDocumentBuf::new();
        out.append(cstr!("jsonrpc"), VERSION);
        match self {
            Self::Request { id, method, params } => {
                append_id(&mut out, id);
                out.append(cstr!("method"), method.as_str());
                out.append(cstr!("params"), raw(params)?);
            }
            Self::Notification { method, params } => {
                out.append(cstr!("method"), method.as_str());
                out.append(cstr!("params"), raw(params)?);
            }
            Self::Response { id, result } => {
                append_id(&mut out, id);
                out.append(cstr!("result"), raw(result)?);
            }
            Self::Error { id, error } => {
                return bson::serialize_to_vec(&ErrorResponse::new(id, error)).map_err(unencodable);
            }
        }
        Ok(out.into_bytes())
    }
}

fn append_id(out: &mut RawDocumentBuf, id: &Id) {
    match id {
        Id::Number(number) => out.append(cstr!("id"), *number),
        Id::Text(text) => out.append(cstr!("id"), text.as_str()),
    }
}

/// The members of all four kinds of message; `P` is a value left as it is.
#[derive(Deserialize)]
struct Wire<'a, P> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default)]
    id: Option<Id>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(default = "none")]
    params: Option<P>,
    #[serde(default = "none")]
    result: Option<P>,
    #[serde(default)]
    error: Option<WireError>,
}

fn none<P>() -> Option<P> {
    None
}

impl<P> Wire<'_, P> {
    fn into_message(self, encoding: Encoding, bytes: impl Fn(P) -> Vec<u8>) -> Result<Message, RpcError> {
        if self.jsonrpc != VERSION {
            return Err(invalid("`jsonrpc` must be \"2.0\""));
        }
        if matches!(&self.id, Some(Id::Text(text)) if text.len() > MAX_ID) {
            return Err(invalid("`id` is longer than 64 bytes"));
        }
        let payload = |raw: Option<P>| match raw {
            Some(raw) => Payload {
                encoding,
                bytes: bytes(raw),
            },
            None => Payload::empty(encoding),
        };
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => {
                if method.len() > MAX_METHOD {
                    return Err(invalid("`method` is longer than 64 bytes"));
                }
                let (method, params) = (method.into_owned(), payload(self.params));
                Ok(match self.id {
                    Some(id) => Message::Request { id, method, params },
                    None => Message::Notification { method, params },
                })
            }
            (None, Some(result), None) => Ok(Message::Response {
                id: self.id.ok_or_else(|| invalid("a response without `id`"))?,
                result: payload(Some(result)),
            }),
            (None, None, Some(error)) => Ok(Message::Error {
                id: self.id,
                error: error.into(),
            }),
            _ => Err(invalid("a message has one of `method`, `result` and `error`")),
        }
    }
}

/// Apart from [`Wire`] because its `id` is written even when it is null.
#[derive(Serialize)]
struct ErrorResponse<'a> {
    jsonrpc: &'static str,
    id: &'a Option<Id>,
    error: WireError,
}

impl<'a> ErrorResponse<'a> {
    fn new(id: &'a Option<Id>, error: &RpcError) -> Self {
        Self {
            jsonrpc: VERSION,
            id,
            error: WireError {
                code: error.code.number(),
                message: error.message.clone(),
                data: error.data.clone(),
            },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WireError {
    code: i32,
    message: String,
    #[serde(default)]
    data: ErrorData,
}

impl From<WireError> for RpcError {
    fn from(error: WireError) -> Self {
        Self {
            code: Code::from_number(error.code),
            message: error.message,
            data: error.data,
        }
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, RpcError> {
    serde_json::to_string(value).map_err(unencodable)
}

/// Decoding descends as the message does, and so does skipping what is not known.
fn check_depth(elements: RawIter<'_>, left: usize) -> Result<(), RpcError> {
    for element in elements {
        let element = element.map_err(unreadable)?;
        let inner = match element.element_type() {
            ElementType::EmbeddedDocument | ElementType::Array => element.value().map_err(unreadable)?,
            ElementType::JavaScriptCodeWithScope => return Err(unreadable("code is not data")),
            _ => continue,
        };
        let left = left
            .checked_sub(1)
            .ok_or_else(|| unreadable("it is nested too deep"))?;
        match inner {
            RawBsonRef::Document(inner) => check_depth(inner.iter_elements(), left)?,
            RawBsonRef::Array(inner) => check_depth(inner.iter_elements(), left)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_length(length: usize) -> Result<(), RpcError> {
    if length <= MAX_MESSAGE {
        return Ok(());
    }
    Err(RpcError::new(
        Code::TooLarge,
        format!("a message of {length} bytes is longer than the limit of {MAX_MESSAGE}"),
    ))
}

fn invalid(text: &str) -> RpcError {
    RpcError::new(Code::InvalidRequest, text)
}

fn unreadable(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(Code::Parse, format!("message cannot be read: {error}"))
}

fn unencodable(error: impl std::fmt::Display) -> RpcError {
    RpcError::new(Code::Internal, format!("message cannot be encoded: {error}"))
}
