//! Short forms of calls that people's tools make.

use super::{Client, ClientError};
use crate::model::{Object, ObjectId, Segment};
use crate::wire::limits::{MAX_ATTRIBUTES, MAX_PAGE};
use crate::wire::method::*;
use crate::wire::values::ObjectAt;
use crate::wire::{Content, Name, RpcError, segment_from_wire};
use bytes::Bytes;

/// An entry of a directory with its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub id: ObjectId,
    pub object: Object,
}

impl Client {
    pub async fn server_info(&self) -> Result<ServerInfoResult, ClientError> {
        self.call::<ServerInfo>(&NoParams {}).await
    }

    pub async fn whoami(&self) -> Result<WhoamiResult, ClientError> {
        self.call::<Whoami>(&NoParams {}).await
    }

    /// A recovery point from its text: `latest`, number, time, or time ago.
    pub async fn resolve_point(&self, bucket: &str, at: &str) -> Result<PointResolveResult, ClientError> {
        let params = PointResolveParams {
            bucket: bucket.to_owned(),
            at: at.to_owned(),
        };
        self.call::<PointResolve>(&params).await
    }

    pub async fn stat(
        &self,
        bucket: &str,
        object: ObjectAt,
        point: Option<u64>,
    ) -> Result<ObjectStatResult, ClientError> {
        let params = ObjectParams {
            bucket: bucket.to_owned(),
            object,
            point,
        };
        self.call::<ObjectStat>(&params).await
    }

    /// What a name in a directory leads to.
    pub async fn lookup(
        &self,
        bucket: &str,
        dir: ObjectAt,
        point: Option<u64>,
        name: &[u8],
    ) -> Result<Option<ObjectId>, ClientError> {
        let name = Name(name.to_vec());
        let params = ObjectLookupParams {
            bucket: bucket.to_owned(),
            object: dir,
            point,
            name,
        };
        Ok(self.call::<ObjectLookup>(&params).await?.id.map(ObjectId))
    }

    /// Entries of a directory after a name, and whether there are more.
    pub async fn entries(
        &self,
        bucket: &str,
        object: ObjectAt,
        point: Option<u64>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<Entry>, bool), ClientError> {
        let params = ObjectListParams {
            bucket: bucket.to_owned(),
            object,
            point,
            after: after.map(|name| Name(name.to_vec())),
            limit: limit.min(MAX_PAGE) as u32,
        };
        let result = self.call::<ObjectList>(&params).await?;
        let entry = |e: EntryInfo| {
            let object = e.object.try_into().map_err(|e: RpcError| self.odd(&e.message))?;
            Ok(Entry {
                name: e.name.0,
                id: ObjectId(e.id),
                object,
            })
        };
        Ok((
            result
                .entries
                .into_iter()
                .map(entry)
                .collect::<Result<_, ClientError>>()?,
            result.more,
        ))
    }

    /// Extended and user attributes, name and value.
    pub async fn attributes(
        &self,
        bucket: &str,
        object: ObjectAt,
        point: Option<u64>,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, ClientError> {
        let bucket = bucket.to_owned();
        let mut params = AttributeListParams {
            bucket,
            object,
            point,
            after: None,
        };
        let (mut attributes, mut bytes) = (Vec::new(), 0);
        loop {
            let result = self.call::<AttributeList>(&params).await?;
            let names = params
                .after
                .iter()
                .chain(result.attributes.iter().map(|a| &a.name));
            if !names.is_sorted_by(|a, b| a < b) {
                return Err(self.odd("object.attribute.list: the names are out of order"));
            }
            if result.more && result.attributes.is_empty() {
                return Err(self.odd("object.attribute.list: more promised, none sent"));
            }
            params.after = result.attributes.last().map(|a| a.name.clone());
            bytes += result
                .attributes
                .iter()
                .map(|a| a.name.0.len() + a.value.0.len())
                .sum::<usize>();
            if bytes > MAX_ATTRIBUTES {
                let text = format!("object.attribute.list: more than {MAX_ATTRIBUTES} bytes for one object");
                return Err(self.odd(&text));
            }
            attributes.extend(result.attributes.into_iter().map(|a| (a.name.0, a.value.0)));
            if !result.more {
                return Ok(attributes);
            }
        }
    }

    /// Segments with blocks, number `from` and above, and whether there are more.
    pub async fn segments(
        &self,
        bucket: &str,
        object: ObjectAt,
        point: Option<u64>,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<(u64, Segment)>, bool), ClientError> {
        let limit = limit.min(MAX_PAGE) as u32;
        let params = ObjectSegmentsParams {
            bucket: bucket.to_owned(),
            object,
            point,
            from,
            limit,
        };
        let result = self.call::<ObjectSegments>(&params).await?;
        let segment = |s: SegmentInfo| {
            let segment = segment_from_wire(&s.blocks).map_err(|e| self.odd(&e.message))?;
            Ok((s.segment, segment))
        };
        Ok((
            result
                .segments
                .into_iter()
                .map(segment)
                .collect::<Result<_, ClientError>>()?,
            result.more,
        ))
    }

    /// Up to [`MAX_READ`] bytes of a file; fewer only at its end.
    pub async fn read(
        &self,
        bucket: &str,
        object: ObjectAt,
        point: Option<u64>,
        offset: u64,
        length: u32,
    ) -> Result<Bytes, ClientError> {
        let params = ObjectReadParams {
            bucket: bucket.to_owned(),
            object,
            point,
            offset,
            length,
        };
        let content = self.call::<ObjectRead>(&params).await?.content.0;
        if content.len() > length as usize {
            return Err(self.odd("object.read: more bytes than asked for"));
        }
        Ok(content)
    }

    pub async fn set_attribute(
        &self,
        bucket: &str,
        object: ObjectAt,
        name: &[u8],
        value: Bytes,
    ) -> Result<u64, ClientError> {
        let params = AttributeSetParams {
            bucket: bucket.to_owned(),
            object,
            name: Name(name.to_vec()),
            value: Content(value),
        };
        Ok(self.call::<AttributeSet>(&params).await?.point)
    }

    pub async fn get_attribute(
        &self,
        bucket: &str,
        object: ObjectAt,
        name: &[u8],
    ) -> Result<Bytes, ClientError> {
        let params = AttributeParams {
            bucket: bucket.to_owned(),
            object,
            point: None,
            name: Name(name.to_vec()),
        };
        Ok(self.call::<AttributeGet>(&params).await?.value.0)
    }

    /// Edits a bucket that no source owns, in one transaction.
    pub async fn apply(&self, bucket: &str, edits: Vec<Edit>) -> Result<BucketApplyResult, ClientError> {
        self.call::<BucketApply>(&BucketApplyParams {
            bucket: bucket.to_owned(),
            edits,
        })
        .await
    }
}
