//! The comparison of an answer with what the model allows and demands.

use sealgate::oci::Digest;
use sealgate::testing::http::Answer;
use serde_json::Value;

use super::driver::Simulation;
use super::model::{ImageId, RepositoryId};
use super::request::{Ask, Range, Request};
use super::world::{TAGS, catalogue};

impl Simulation<'_> {
    /// Whether the answer is right; else why not.
    pub(super) fn check(&mut self, request: Request, answer: Option<&Answer>) -> Result<(), String> {
        let excused = self.model.is_troubled();
        let Some(answer) = answer else {
            self.outcome(request, "none");
            // As one that ends short, when the head had not left yet.
            let is_cut = matches!(request.ask, Ask::Blob(_, blob, _) if catalogue().blobs[blob].1.len() > HELD_BACK);
            return if excused || self.model.is_damaged() && is_cut {
                Ok(())
            } else {
                Err(format!("{request:?}: the connection ends without an answer"))
            };
        };
        self.count_answer(request, answer);
        let wrong = |why: &str| Err(format!("{request:?}: {} {}: {why}", answer.status, answer.reason));
        let undecided = answer.status == 503 && self.model.is_clock_behind();
        if !excused && !undecided && !matches!(answer.status, 200 | 206 | 304 | 403 | 404) {
            return wrong("upstream is well");
        }
        if !excused && is_stale(answer) {
            return wrong("upstream is well, and the answer is stale");
        }
        match request.ask {
            Ask::Tag(repository, tag) => {
                let must = self.model.must_name(repository, tag);
                if answer.status == 404 && !excused {
                    self.model.refused(repository, tag);
                }
                let Some(image) = self.served_image(request, answer)? else {
                    return if must.is_some() { wrong("it is allowed, and must be served") } else { Ok(()) };
                };
                if !self.model.may_name(repository, tag, image) {
                    return wrong(&format!("the tag does not name image {image}, nor did it lately"));
                }
                if must.is_some_and(|must| must != image) {
                    return wrong(&format!("the tag names another image than {image} all the time"));
                }
                if self.model.may_allow(repository, image) { Ok(()) } else { wrong("policy does not allow it") }
            }
            Ask::Image(repository, image) => match self.served_image(request, answer)? {
                None if self.model.must_allow(repository, image) => wrong("it is allowed, and must be served"),
                None => Ok(()),
                Some(served) if served != image => wrong(&format!("that is image {served}")),
                Some(_) if self.model.may_allow(repository, image) => Ok(()),
                Some(_) => wrong("policy does not allow it"),
            },
            Ask::Blob(repository, blob, range) => self.check_blob(request, answer, repository, blob, range),
            Ask::Referrers(_, image) => self.check_referrers(request, answer, image),
            Ask::Tags(repository) => self.check_tags(request, answer, repository),
            Ask::Signatures(..) if answer.status == 200 && !request.head => {
                let stated: Option<Digest> = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
                let right = answer.complete && stated.is_some_and(|stated| stated.matches(&answer.body));
                if right { Ok(()) } else { wrong("the bytes are not what their digest says") }
            }
            Ask::Signatures(..) => Ok(()),
        }
    }

    /// The image that was served, or that the client has; `None`: none was.
    fn served_image(&self, request: Request, answer: &Answer) -> Result<Option<ImageId>, String> {
        let stated: Option<Digest> = if answer.status == 304 {
            let etag = answer.header("etag").and_then(|text| text.trim_matches('"').parse().ok());
            etag.filter(|etag| request.known == Some(*etag))
        } else {
            answer.header("docker-content-digest").and_then(|text| text.parse().ok())
        };
        match answer.status {
            304 => {
                let image = catalogue().images.iter().position(|image| Some(image.digest()) == stated);
                return image.map(Some).ok_or_else(|| format!("{request:?}: 304 for what the client does not have"));
            }
            200 if request.known.is_some() && request.known == stated => {
                return Err(format!("{request:?}: the client has that"));
            }
            200 => {}
            _ => return Ok(None),
        }
        let image = catalogue().images.iter().position(|image| Some(image.digest()) == stated);
        let whole = request.head || (answer.complete && stated.is_some_and(|stated| stated.matches(&answer.body)));
        match image {
            Some(image) if whole => Ok(Some(image)),
            _ => Err(format!("{request:?}: bytes that are no image were served as {stated:?}")),
        }
    }

    fn check_blob(
        &self,
        request: Request,
        answer: &Answer,
        repository: RepositoryId,
        blob: usize,
        range: Range,
    ) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("{request:?}: {} {}: {why}", answer.status, answer.reason));
        if !matches!(answer.status, 200 | 206 | 304) {
            return Ok(());
        }
        if !self.model.may_have(repository, blob) {
            return wrong("no allowed image lists it");
        }
        if request.known.is_some() {
            // Only its very digest is given here.
            return if answer.status == 304 { Ok(()) } else { wrong("the client has that") };
        }
        let (_, bytes) = &catalogue().blobs[blob];
        let (first, end) = match range {
            Range::Whole => (0, bytes.len()),
            Range::Part(first, last) => (first, last + 1),
            Range::Last(count) => (bytes.len().saturating_sub(count), bytes.len()),
        };
        if answer.status != if range == Range::Whole { 200 } else { 206 } {
            return wrong("the range is not what was asked for");
        }
        let expected = &bytes[first..end];
        if answer.header("content-length") != Some(&expected.len().to_string()) {
            return wrong("the length is wrong");
        }
        if request.head {
            return Ok(());
        }
        // The stated exception: a range that starts later may be handed on before the whole is verified.
        if answer.complete && answer.body != expected && !(self.model.is_troubled() && first > 0) {
            return wrong("whole, and wrong");
        }
        // Damage that is found when a part has gone out costs this answer.
        let excused = self.model.is_troubled() || (self.model.is_damaged() && bytes.len() > HELD_BACK);
        if answer.complete || excused { Ok(()) } else { wrong("upstream is well, and it ends short") }
    }

    fn check_referrers(&self, request: Request, answer: &Answer, image: ImageId) -> Result<(), String> {
        if answer.status != 200 {
            return Ok(());
        }
        let list: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let list = list.as_ref().and_then(|list| list["manifests"].as_array());
        let known: Vec<String> = self.bundles_ever(image);
        match list {
            Some(list) if answer.complete => {
                let unknown = list.iter().find(|entry| !known.iter().any(|known| entry["digest"] == **known));
                unknown.map_or(Ok(()), |entry| Err(format!("{request:?} lists {entry}, which never was there")))
            }
            _ => Err(format!("{request:?}: no index")),
        }
    }

    fn bundles_ever(&self, image: ImageId) -> Vec<String> {
        self.run
            .lock()
            .unwrap()
            .steps
            .iter()
            .filter_map(|step| {
                let rest = step.strip_prefix(&format!("a bundle: image {image} "))?;
                Some(rest.split_once("sha256:")?.1.chars().take(64).collect::<String>())
            })
            .map(|hex| format!("sha256:{hex}"))
            .collect()
    }

    fn check_tags(&self, request: Request, answer: &Answer, repository: RepositoryId) -> Result<(), String> {
        if answer.status != 200 {
            return Ok(());
        }
        let list: Option<Value> = serde_json::from_slice(&answer.body).ok();
        match list.as_ref().and_then(|list| list["tags"].as_array()) {
            Some(list) if answer.complete => {
                let is_known = |tag: &Value| {
                    let text = tag.as_str().unwrap_or_default();
                    text.starts_with("sha256-")
                        || (0..TAGS.len()).any(|known| TAGS[known] == text && self.model.was_ever(repository, known))
                };
                list.iter().find(|tag| !is_known(tag)).map_or(Ok(()), |tag| Err(format!("{request:?} lists {tag}")))
            }
            _ => Err(format!("{request:?}: no list")),
        }
    }

    // ---- what is told ----

    fn count_answer(&self, request: Request, answer: &Answer) {
        let stale = is_stale(answer);
        let more = match (request.ask, answer.status) {
            _ if request.head => " to HEAD",
            (Ask::Tag(..) | Ask::Image(..), 200) if stale => " stale",
            (Ask::Blob(..), 200 | 206) if answer.complete => " whole",
            (Ask::Blob(..), 200 | 206) => " cut",
            _ => "",
        };
        self.outcome(request, &format!("{}{more}", answer.status));
    }

    fn outcome(&self, request: Request, outcome: &str) {
        let kind = match request.ask {
            Ask::Tag(..) | Ask::Image(..) => "manifest",
            Ask::Blob(..) => "blob",
            Ask::Referrers(..) => "referrers",
            Ask::Tags(_) => "tags",
            Ask::Signatures(..) => "signatures",
        };
        self.count(format!("answer: {kind} {outcome}"));
        self.say(format!("  {request:?}: {outcome}"));
    }
}

fn is_stale(answer: &Answer) -> bool {
    answer.header("cache-status").is_some_and(|text| text.contains("detail=stale"))
}

/// So much is held back until the whole is verified.
const HELD_BACK: usize = 64 * 1024;
