//! From a method's name to the function that does it.

use super::{
    Service, admin, attribute, block, bucket, content, edit, need, object, point, purge, replication, token,
    tree, upkeep, verify,
};
use crate::auth::Identity;
use restfs_lib::wire::method::*;
use restfs_lib::wire::{Code, Payload, RpcError};
use std::future::Future;
use std::sync::Arc;

impl Service {
    /// Carries a call out. What it changed is durable when it returns, unless the method says otherwise.
    pub async fn call(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        method: &str,
        params: Payload,
    ) -> Result<Payload, RpcError> {
        let result = self.dispatch(identity, method, params).await;
        if let Err(error) = &result {
            note(identity, method, error);
        }
        result
    }

    async fn dispatch(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        method: &str,
        params: Payload,
    ) -> Result<Payload, RpcError> {
        // Before the params are looked at. Each method checks again, with the bucket that they name.
        identity.check(need::of(method).ok_or_else(|| unknown(method))?)?;
        let call = Call {
            service: self,
            identity,
            params,
        };
        match method {
            ServerInfo::NAME => call.read::<ServerInfo>(admin::server_info).await,
            Whoami::NAME => call.look::<Whoami>(admin::whoami).await,
            TokenCreate::NAME => call.run::<TokenCreate, _>(token::create).await,
            TokenList::NAME => call.read::<TokenList>(token::list).await,
            TokenRevoke::NAME => call.run::<TokenRevoke, _>(token::revoke).await,

            BucketCreate::NAME => call.run::<BucketCreate, _>(bucket::create).await,
            BucketList::NAME => call.read::<BucketList>(bucket::list).await,
            BucketInfo::NAME => call.look::<BucketInfo>(bucket::info).await,
            BucketSet::NAME => call.run::<BucketSet, _>(bucket::set).await,
            BucketDelete::NAME => call.run::<BucketDelete, _>(bucket::delete).await,
            BucketPurge::NAME => call.run::<BucketPurge, _>(purge::purge).await,
            BucketApply::NAME => call.run::<BucketApply, _>(edit::apply).await,
            CommitList::NAME => call.read::<CommitList>(point::commits).await,
            PointResolve::NAME => call.look::<PointResolve>(point::resolve).await,

            ObjectStat::NAME => call.look::<ObjectStat>(object::stat).await,
            ObjectLookup::NAME => call.look::<ObjectLookup>(object::lookup).await,
            ObjectList::NAME => call.read::<ObjectList>(object::list).await,
            ObjectLog::NAME => call.read::<ObjectLog>(object::log).await,
            ObjectRead::NAME => call.read::<ObjectRead>(content::read).await,
            ObjectSegments::NAME => call.read::<ObjectSegments>(content::segments).await,
            AttributeSet::NAME => call.run::<AttributeSet, _>(attribute::set).await,
            AttributeGet::NAME => call.look::<AttributeGet>(attribute::get).await,
            AttributeList::NAME => call.read::<AttributeList>(attribute::list).await,
            AttributeDelete::NAME => call.run::<AttributeDelete, _>(attribute::delete).await,

            BlockMissing::NAME => call.read::<BlockMissing>(block::missing).await,
            BlockPut::NAME => call.read::<BlockPut>(block::put).await,
            BlockPatch::NAME => call.read::<BlockPatch>(block::patch).await,
            BlockGet::NAME => call.read::<BlockGet>(block::get).await,
            BlockCheck::NAME => call.read::<BlockCheck>(verify::blocks).await,
            BlockWanted::NAME => call.read::<BlockWanted>(upkeep::wanted).await,

            GcStart::NAME => call.run::<GcStart, _>(upkeep::start_gc).await,
            GcStatus::NAME => call.read::<GcStatus>(upkeep::gc_status).await,
            ScrubStart::NAME => call.run::<ScrubStart, _>(upkeep::start).await,
            ScrubStatus::NAME => call.read::<ScrubStatus>(upkeep::status).await,

            ReplicationPosition::NAME => call.look::<ReplicationPosition>(replication::position).await,
            ReplicationCommit::NAME => call.run::<ReplicationCommit, _>(replication::commit).await,
            TreeDigest::NAME => call.look::<TreeDigest>(tree::digest).await,
            TreeGroups::NAME => call.read::<TreeGroups>(tree::groups).await,
            TreeRows::NAME => call.read::<TreeRows>(tree::rows).await,
            TreeRecount::NAME => call.read::<TreeRecount>(verify::groups).await,

            _ => Err(unknown(method)),
        }
    }
}

fn unknown(method: &str) -> RpcError {
    RpcError::new(Code::MethodNotFound, format!("there is no method {method:?}"))
}

/// A method that is done in one go, by a thread that may block.
type Read<M> = fn(&Service, &Identity, <M as Method>::Params) -> Result<<M as Method>::Result, RpcError>;

struct Call<'a> {
    service: &'a Arc<Service>,
    identity: &'a Arc<Identity>,
    params: Payload,
}

impl Call<'_> {
    async fn read<M: Method>(self, work: Read<M>) -> Result<Payload, RpcError> {
        let identity = self.identity.clone();
        let params = self.params;
        let run = move |service: &Service| {
            let encoding = params.encoding();
            Payload::encode(encoding, &work(service, &identity, params.decode()?)?)
        };
        self.service.blocking(run).await
    }

    /// A few look-ups: done on the spot, since handing it to another thread takes longer than the work. A disk may
    /// block it all the same, so one thread always stays free of it.
    async fn look<M: Method>(self, work: Read<M>) -> Result<Payload, RpcError> {
        match self.service.on_the_spot.try_acquire() {
            Ok(_permit) => {
                let encoding = self.params.encoding();
                Payload::encode(
                    encoding,
                    &work(self.service, self.identity, self.params.decode()?)?,
                )
            }
            Err(_) => self.read::<M>(work).await,
        }
    }

    async fn run<M: Method, F>(
        self,
        work: impl FnOnce(Arc<Service>, Arc<Identity>, M::Params) -> F,
    ) -> Result<Payload, RpcError>
    where
        F: Future<Output = Result<M::Result, RpcError>>,
    {
        let encoding = self.params.encoding();
        let params = self.params.decode()?;
        // On the heap: the futures of some methods are large, and this one holds the largest of them.
        let result = Box::pin(work(self.service.clone(), self.identity.clone(), params)).await?;
        Payload::encode(encoding, &result)
    }
}

/// The server's own troubles are for its log; a caller's mistakes are only interesting when looked for.
fn note(identity: &Identity, method: &str, error: &RpcError) {
    let (who, code) = (&identity.name, error.code.name());
    match error.code {
        Code::Internal | Code::Corrupt => tracing::error!(method, who, "{code}: {error}"),
        Code::Full => tracing::warn!(method, who, "{code}: {error}"),
        _ => tracing::debug!(method, who, "{code}: {error}"),
    }
}
