//! A listing that is fetched page by page.

use crate::site::Site;
use crate::source::ChangeSource;
use crate::trouble::Trouble;
use futures_util::future::BoxFuture;
use restfs_lib::model::{Digest, RowKey};
use std::collections::VecDeque;

/// Keys of one page: some hundred KiB on the wire.
const PAGE: usize = 4096;

type Page<K> = Result<Vec<(K, Digest)>, Trouble>;
type Fetch<'a, K> = Box<dyn Fn(Option<K>) -> BoxFuture<'a, Page<K>> + Send + Sync + 'a>;

pub(crate) struct Pager<'a, K> {
    fetch: Fetch<'a, K>,
    page: VecDeque<(K, Digest)>,
    last: Option<K>,
    ended: bool,
}

impl<'a, K: Clone> Pager<'a, K> {
    /// The next key, which stays.
    pub(crate) async fn peek(&mut self) -> Result<Option<&(K, Digest)>, Trouble> {
        if self.page.is_empty() && !self.ended {
            let page = (self.fetch)(self.last.take()).await?;
            self.ended = page.len() < PAGE;
            self.last = page.last().map(|(key, _)| key.clone());
            self.page = page.into();
        }
        Ok(self.page.front())
    }

    /// The key that was peeked at.
    pub(crate) fn pop(&mut self) -> Option<(K, Digest)> {
        self.page.pop_front()
    }

    fn new(fetch: impl Fn(Option<K>) -> BoxFuture<'a, Page<K>> + Send + Sync + 'a) -> Self {
        Self {
            fetch: Box::new(fetch),
            page: VecDeque::new(),
            last: None,
            ended: false,
        }
    }
}

impl<'a> Pager<'a, u64> {
    pub(crate) fn groups_of_source(source: &'a dyn ChangeSource) -> Self {
        Self::new(move |after| Box::pin(async move { Ok(source.groups(after, PAGE).await?) }))
    }

    pub(crate) fn groups_of_site(site: &'a dyn Site) -> Self {
        Self::new(move |after| Box::pin(async move { Ok(site.groups(after, PAGE).await?) }))
    }
}

impl<'a> Pager<'a, RowKey> {
    pub(crate) fn rows_of_source(source: &'a dyn ChangeSource, group: u64) -> Self {
        Self::new(move |after| Box::pin(async move { Ok(source.rows(group, after, PAGE).await?) }))
    }

    pub(crate) fn rows_of_site(site: &'a dyn Site, group: u64) -> Self {
        Self::new(move |after| Box::pin(async move { Ok(site.rows(group, after, PAGE).await?) }))
    }
}
