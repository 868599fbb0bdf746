//! Every method, asked for by every role.

use crate::common::*;
use restfs_lib::client::Client;
use restfs_lib::wire::Code;
use restfs_lib::wire::method::{Done, Method, NoParams};
use restfs_lib::wire::values::Role;

/// Calls the method without any params: whether it may be called is said before what is missing.
async fn ask<M: Method<Params = NoParams>>(client: &Client) -> Option<Code> {
    client.call::<M>(&NoParams {}).await.err().and_then(|e| e.code())
}

macro_rules! methods {
    ($($type:ident $name:literal $($role:ident)*;)*) => {
        $(struct $type;
        impl Method for $type {
            const NAME: &'static str = $name;
            type Params = NoParams;
            type Result = Done;
        })*

        async fn check(client: &Client, role: Role) {
            $(let refused = ask::<$type>(client).await;
            let may = [$(Role::$role),*].contains(&role);
            assert_eq!(refused != Some(Code::Forbidden), may, "{role} {}: {refused:?}", $name);
            assert_ne!(refused, Some(Code::MethodNotFound), "{}", $name);)*
        }
    };
}

methods! {
    A1 "server.info" Admin Replicator Writer Reader;
    A2 "auth.whoami" Admin Replicator Writer Reader;
    A3 "token.create" Admin;
    A4 "token.list" Admin;
    A5 "token.revoke" Admin;
    B1 "bucket.create" Admin;
    B2 "bucket.list" Admin Replicator Writer Reader;
    B3 "bucket.info" Admin Replicator Writer Reader;
    B4 "bucket.set" Admin;
    B5 "bucket.delete" Admin;
    B6 "bucket.apply" Admin Writer;
    B7 "commit.list" Admin Replicator Writer Reader;
    B8 "point.resolve" Admin Replicator Writer Reader;
    B9 "bucket.purge" Admin;
    O1 "object.stat" Admin Replicator Writer Reader;
    O2 "object.lookup" Admin Replicator Writer Reader;
    O3 "object.list" Admin Replicator Writer Reader;
    O4 "object.log" Admin Replicator Writer Reader;
    O5 "object.read" Admin Replicator Writer Reader;
    O6 "object.segments" Admin Replicator Writer Reader;
    O7 "object.attribute.set" Admin Writer;
    O8 "object.attribute.get" Admin Replicator Writer Reader;
    O9 "object.attribute.list" Admin Replicator Writer Reader;
    O10 "object.attribute.delete" Admin Writer;
    K1 "block.missing" Admin Replicator;
    K2 "block.put" Admin Replicator;
    K3 "block.patch" Admin Replicator;
    K4 "block.get" Admin Replicator Writer Reader;
    K5 "block.check" Admin Replicator;
    K6 "block.wanted" Admin Replicator;
    S1 "scrub.start" Admin;
    S2 "scrub.status" Admin;
    G1 "gc.start" Admin;
    G2 "gc.status" Admin;
    R1 "replication.position" Admin Replicator;
    R2 "replication.commit" Admin Replicator;
    T1 "tree.digest" Admin Replicator Writer Reader;
    T2 "tree.groups" Admin Replicator Writer Reader;
    T3 "tree.rows" Admin Replicator Writer Reader;
    T4 "tree.recount" Admin Replicator Writer Reader;
}

#[tokio::test]
async fn each_method_is_for_the_roles_that_it_was_decided_for() {
    let site = Site::start().await;
    for role in Role::ALL {
        check(&site.client(role).await, role).await;
    }
}

struct NoSuch;
impl Method for NoSuch {
    const NAME: &'static str = "bucket.burn";
    type Params = NoParams;
    type Result = Done;
}

#[tokio::test]
async fn a_method_that_nobody_decided_about_is_none_even_for_an_administrator() {
    let site = Site::start().await;
    assert_eq!(
        ask::<NoSuch>(&site.admin().await).await,
        Some(Code::MethodNotFound)
    );
}
