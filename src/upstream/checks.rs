//! What the headers of an answer must say before its body is used. Pure; an error is the reason of [`UpstreamError::Bad`].
//!
//! [`UpstreamError::Bad`]: super::UpstreamError::Bad

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LINK};
use http::{HeaderMap, HeaderValue};

use crate::oci::{Digest, MediaType};

/// `Docker-Content-Digest`
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The only value of a header; `Err` when there are several or it is not text.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The body is what it is: no encoding but identity.
pub(super) fn identity_encoding(headers: &HeaderMap) -> Result<(), &'static str> {
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(identity) { Ok(()) } else { Err("content_encoding") }
}

/// `Content-Length`, where there is one.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    match single(headers, &CONTENT_LENGTH) {
        Ok(None) => Ok(None),
        Ok(Some(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map(Some).map_err(|_| "protocol")
        }
        Ok(Some(_)) | Err(()) => Err("protocol"),
    }
}

/// The one `Content-Type`, which must be that of a manifest or index; a parameter is tolerated.
pub(super) fn manifest_type(headers: &HeaderMap) -> Result<&str, &'static str> {
    let text = single(headers, &CONTENT_TYPE).ok().flatten().ok_or("media_type")?;
    text.parse::<MediaType>().map_err(|_| "media_type")?;
    Ok(text)
}

/// What `Docker-Content-Digest` says. Two of them, or one that is no digest, is a mismatch with whatever comes.
pub(super) fn stated_digest(headers: &HeaderMap) -> Result<Option<Digest>, &'static str> {
    match single(headers, &DIGEST) {
        Ok(None) => Ok(None),
        Ok(Some(text)) => text.parse().map(Some).map_err(|_| "digest_mismatch"),
        Err(()) => Err("digest_mismatch"),
    }
}

/// What a 206 holds (RFC 9110, 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Bytes of the whole, where that is said.
    pub(super) total: Option<u64>,
}

/// The one, consistent `Content-Range`.
pub(super) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let text = single(headers, &CONTENT_RANGE).ok()??.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let total_fits = total.is_none_or(|total| last < total);
    (first <= last && total_fits).then_some(ContentRange { first, last, total })
}

/// The one entity tag, if it is a strong one (RFC 9110, 8.8.3): two answers that bear it have the same bytes.
pub(super) fn strong_tag(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = single(headers, &ETAG).ok()??;
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let fits = text.len() <= ETAG_BYTES_MAX && inner.bytes().all(|byte| byte != b'"' && byte.is_ascii_graphic());
    if fits { HeaderValue::from_str(text).ok() } else { None }
}

/// Bytes of an entity tag that is sent back; real ones have fewer than a hundred.
const ETAG_BYTES_MAX: usize = 256;

/// The target of the `Link` to the next page (RFC 8288): `<target>; rel="next"`.
pub(super) fn next_link(headers: &HeaderMap) -> Option<&str> {
    let is_next = |parameters: &str| {
        parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(|(key, value)| {
            key.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        })
    };
    let texts = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    // A target holds no angle bracket, so each one begins a link.
    let links = texts.flat_map(|text| text.split('<').skip(1)).filter_map(|link| link.split_once('>'));
    links.into_iter().find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn only_the_identity_encoding_passes() {
        assert!(identity_encoding(&headers(&[])).is_ok());
        assert!(identity_encoding(&headers(&[("content-encoding", "Identity")])).is_ok());
        for rows in
            [&[("content-encoding", "gzip")][..], &[("content-encoding", "identity"), ("content-encoding", "br")]]
        {
            assert_eq!(identity_encoding(&headers(rows)), Err("content_encoding"));
        }
    }

    #[test]
    fn a_manifest_has_one_known_type() {
        let oci = MediaType::OciManifest.as_str();
        assert!(manifest_type(&headers(&[("content-type", oci)])).is_ok());
        assert!(manifest_type(&headers(&[("content-type", &format!("{oci}; charset=utf-8"))])).is_ok());
        for rows in [&[][..], &[("content-type", "text/html")], &[("content-type", oci), ("content-type", oci)]] {
            assert_eq!(manifest_type(&headers(rows)), Err("media_type"));
        }
    }

    #[test]
    fn a_stated_digest_is_one_or_none() {
        let digest = Digest::sha256(b"").to_string();
        let name = "docker-content-digest";
        assert_eq!(stated_digest(&headers(&[])), Ok(None));
        assert_eq!(stated_digest(&headers(&[(name, &digest)])), Ok(Some(Digest::sha256(b""))));
        assert_eq!(stated_digest(&headers(&[(name, "sha256:00")])), Err("digest_mismatch"));
        assert_eq!(stated_digest(&headers(&[(name, &digest), (name, &digest)])), Err("digest_mismatch"));
    }

    #[test]
    fn a_content_range_must_be_consistent() {
        let range = |text: &str| content_range(&headers(&[("content-range", text)]));
        let nine = |total| Some(ContentRange { first: 5, last: 9, total });
        assert_eq!(range("bytes 5-9/10"), nine(Some(10)));
        assert_eq!(range("bytes 5-9/*"), nine(None));
        for bad in
            ["bytes 5-9", "bytes 9-5/10", "bytes 5-10/10", "bytes */10", "bytes +5-9/10", "lines 5-9/10", "bytes 5-/10"]
        {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_one_strong_entity_tag_vouches_for_bytes() {
        let tag = |rows: &[(&'static str, &str)]| strong_tag(&headers(rows));
        assert_eq!(tag(&[("etag", "\"a-1\"")]).unwrap(), "\"a-1\"");
        let long = format!("\"{}\"", "a".repeat(ETAG_BYTES_MAX - 2));
        assert!(tag(&[("etag", &long)]).is_some());
        let longer = format!("\"{}\"", "a".repeat(ETAG_BYTES_MAX - 1));
        for bad in ["W/\"a\"", "a", "\"a", "\"", "\"a\"b\"", "\"a b\"", &longer] {
            assert_eq!(tag(&[("etag", bad)]), None, "{bad}");
        }
        assert_eq!(tag(&[("etag", "\"a\""), ("etag", "\"a\"")]), None, "two of them");
        assert_eq!(tag(&[]), None);
    }

    #[test]
    fn the_next_page_is_found_among_other_links() {
        let link = |text: &str| next_link(&headers(&[("link", text)])).map(str::to_owned);
        assert_eq!(link(r#"</v2/a/tags/list?n=1&last=b>; rel="next""#).as_deref(), Some("/v2/a/tags/list?n=1&last=b"));
        assert_eq!(link("</x>; rel=next").as_deref(), Some("/x"));
        assert_eq!(link(r#"</first>; rel="first", </second>; title="a"; rel="next""#).as_deref(), Some("/second"));
        assert_eq!(link(r#"</x>; rel="prev""#), None);
        assert_eq!(link("/x; rel=next"), None);
        assert_eq!(link("<"), None);
        let two = headers(&[("link", "</a>; rel=first"), ("link", "</b>; rel=next")]);
        assert_eq!(next_link(&two), Some("/b"));
    }

    #[test]
    fn lengths_are_plain_numbers() {
        assert_eq!(length(&headers(&[])), Ok(None));
        assert_eq!(length(&headers(&[("content-length", "12")])), Ok(Some(12)));
        for bad in ["+12", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(length(&headers(&[("content-length", bad)])), Err("protocol"), "{bad}");
        }
    }
}
