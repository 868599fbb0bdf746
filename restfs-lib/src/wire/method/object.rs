//! Objects of a bucket: reading at any recovery point, user attributes.

use super::methods;
use crate::wire::bytes::{Content, Name};
use crate::wire::values::{BlockAt, Object, ObjectAt, Time};
use serde::{Deserialize, Serialize};

methods! {
    ObjectStat = "object.stat": ObjectParams => ObjectStatResult;
    ObjectLookup = "object.lookup": ObjectLookupParams => ObjectLookupResult;
    ObjectList = "object.list": ObjectListParams => ObjectListResult;
    ObjectLog = "object.log": ObjectLogParams => ObjectLogResult;
    ObjectRead = "object.read": ObjectReadParams => ObjectReadResult;
    ObjectSegments = "object.segments": ObjectSegmentsParams => ObjectSegmentsResult;
    /// A user attribute: names start with `restfs.`.
    AttributeSet = "object.attribute.set": AttributeSetParams => PointResult;
    AttributeGet = "object.attribute.get": AttributeParams => AttributeGetResult;
    AttributeList = "object.attribute.list": AttributeListParams => AttributeListResult;
    AttributeDelete = "object.attribute.delete": AttributeDeleteParams => PointResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectParams {
    pub bucket: String,
    pub object: ObjectAt,
    /// Recovery point; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatResult {
    pub id: u64,
    /// Revision that wrote its properties.
    pub serial: u64,
    pub object: Object,
    /// Its names; several are hard links.
    pub paths: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLookupParams {
    pub bucket: String,
    /// The directory.
    pub object: ObjectAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    pub name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLookupResult {
    /// Absent: the directory has no such name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectListParams {
    pub bucket: String,
    pub object: ObjectAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// Entries after this name; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    pub name: Name,
    pub id: u64,
    pub object: Object,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectListResult {
    /// In ascending order of names' bytes.
    pub entries: Vec<EntryInfo>,
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLogParams {
    pub bucket: String,
    pub object: ObjectAt,
    /// Where the path is looked up; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// Newest first, before this point; absent: from the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    pub limit: u32,
}

/// A recovery point in which something of the object changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub point: u64,
    pub time: Time,
    /// As of then; absent: removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
    pub properties: bool,
    pub content: bool,
    pub attributes: bool,
    pub names: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLogResult {
    pub id: u64,
    pub revisions: Vec<Revision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectReadParams {
    pub bucket: String,
    pub object: ObjectAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    pub offset: u64,
    /// At most 8 MiB.
    pub length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReadResult {
    /// Shorter than asked only at the end.
    pub content: Content,
    /// Of the whole file.
    pub size: u64,
}

/// Longest `object.read`: its base64 fits into a message.
pub const MAX_READ: u32 = 8 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectSegmentsParams {
    pub bucket: String,
    pub object: ObjectAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    pub from: u64,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    pub segment: u64,
    pub blocks: Vec<BlockAt>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSegmentsResult {
    /// In ascending order; those without a block are left out.
    pub segments: Vec<SegmentInfo>,
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeSetParams {
    pub bucket: String,
    pub object: ObjectAt,
    pub name: Name,
    pub value: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointResult {
    pub point: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeParams {
    pub bucket: String,
    pub object: ObjectAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    pub name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeDeleteParams {
    pub bucket: String,
    pub object: ObjectAt,
    pub name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeGetResult {
    pub value: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    pub name: Name,
    pub value: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeListParams {
    pub bucket: String,
    pub object: ObjectAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// Attributes after this name; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeListResult {
    /// In ascending order of names: extended attributes under their full names, and user attributes.
    pub attributes: Vec<Attribute>,
    /// They did not all fit into a message.
    pub more: bool,
}
