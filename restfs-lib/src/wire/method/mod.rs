//! The methods: a type for each, with its name, params and result. Params refuse unknown members, results let a newer
//! server add some. `docs/rpc.md` describes them one by one.

mod admin;
mod block;
mod bucket;
mod gc;
mod object;
mod replication;
mod scrub;
mod verify;

pub use admin::*;
pub use block::*;
pub use bucket::*;
pub use gc::*;
pub use object::*;
pub use replication::*;
pub use scrub::*;
pub use verify::*;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub trait Method: Send + Sync + 'static {
    const NAME: &'static str;
    type Params: Serialize + DeserializeOwned + Send + Sync;
    type Result: Serialize + DeserializeOwned + Send + Sync;
}

/// `methods! { BucketInfo = "bucket.info": BucketName => Bucket; }`
macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident = $name:literal: $params:ty => $result:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $method;

            impl $crate::wire::method::Method for $method {
                const NAME: &'static str = $name;
                type Params = $params;
                type Result = $result;
            }
        )*
    };
}
pub(crate) use methods;

/// No params.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// Nothing to answer but that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}
