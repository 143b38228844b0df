//! Tag lists: upstream's pages, sorted and bounded (distribution-spec v1.1, "Listing Tags").

use super::cold::Novelty;
use super::{PullError, Puller};
use crate::limits::TAGS_PAGE_MAX;
use crate::oci::{Repository, Tag};
use crate::telemetry::{CacheKind, CacheResult};
use crate::upstream::{TagsPage, UpstreamError};

/// A page of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList {
    /// Sorted bytewise.
    pub tags: Vec<Tag>,
    /// There are more.
    pub more: bool,
}

impl Puller {
    /// A page of tags: at most `n` (and never more than [`TAGS_PAGE_MAX`]), after `last`. Costs one upstream call, none
    /// for `n` = 0. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::RepositoryUnknown`] on upstream's clean 404; [`PullError::Upstream`] when it gave no usable answer.
    pub async fn tags(&self, repository: &Repository, n: usize, last: Option<&Tag>) -> Result<TagList, PullError> {
        let source = self.source(repository)?;
        let n = n.min(TAGS_PAGE_MAX);
        if n == 0 {
            return Ok(TagList { tags: Vec::new(), more: false });
        }
        let _place = self.cold_place(repository.host(), Novelty::New).await?;
        self.parts.telemetry.cache_asked(CacheKind::Tags, CacheResult::Bypass);
        match source.upstream.tags(repository.name(), n, last.map(Tag::as_str)).await {
            Ok(page) => Ok(page_of(page, n, last)),
            Err(UpstreamError::NotFound { .. }) => Err(PullError::RepositoryUnknown),
            Err(error) => Err(error.into()),
        }
    }
}

fn page_of(page: TagsPage, n: usize, last: Option<&Tag>) -> TagList {
    let TagsPage { mut tags, mut more } = page;
    // An upstream that ignores `last` starts over; without this the client would get the same page for ever.
    if let Some(last) = last
        && tags.contains(last)
    {
        tags.retain(|tag| tag > last);
    }
    tags.sort();
    tags.dedup();
    if tags.len() > n {
        tags.truncate(n);
        more = true;
    }
    // Without a tag there is nothing to go on from.
    more &= !tags.is_empty();
    TagList { tags, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn page(names: &[&str], more: bool, n: usize, last: Option<&str>) -> TagList {
        let last = last.map(|last| last.parse().unwrap());
        page_of(TagsPage { tags: tags(names), more }, n, last.as_ref())
    }

    #[test]
    fn a_page_is_sorted_bytewise_and_cut() {
        assert_eq!(page(&["b", "a", "B"], false, 3, None), TagList { tags: tags(&["B", "a", "b"]), more: false });
        assert_eq!(page(&["b", "a", "B"], false, 2, None), TagList { tags: tags(&["B", "a"]), more: true });
        assert_eq!(page(&["a"], true, 1, None), TagList { tags: tags(&["a"]), more: true });
    }

    #[test]
    fn an_upstream_that_ignores_last_does_not_make_a_loop() {
        assert_eq!(page(&["a", "b", "c"], false, 3, Some("b")), TagList { tags: tags(&["c"]), more: false });
        assert_eq!(page(&["a", "b"], true, 2, Some("b")), TagList { tags: Vec::new(), more: false });
        assert_eq!(page(&["c"], false, 2, Some("b")), TagList { tags: tags(&["c"]), more: false });
    }
}
