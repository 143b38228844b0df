//! `[[upstream]]`: from the document to clients' settings.

use std::collections::BTreeMap;

use super::Span;
use super::document::{OnUpstream404, TagLifeSpan, Upstream};
use super::endpoints::{DOCKER_HUB, Place, has_credentials};
use super::error::{ConfigError, Source};
use super::files::Files;
use crate::limits::{FALLBACKS_MAX, TAG_PATTERNS_MAX};
use crate::oci::Host;
use crate::pull::{TagLife, TagRules, TagTtl, Withdrawn};
use crate::upstream::{Content, Fallback, Settings};

/// One upstream, checked.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// How to reach it.
    pub settings: Settings,
    /// Where else, in this order.
    pub fallbacks: Vec<Fallback>,
    /// Other names that clients may use for it.
    pub aliases: Vec<Host>,
    /// Whether clients that name no registry mean it.
    pub default: bool,
    /// How long what it says about a tag counts.
    pub tags: TagRules,
    /// Whether clients without certificates may use its credentials from other machines.
    pub anonymous_clients: bool,
}

impl UpstreamConfig {
    /// Its canonical name.
    pub fn host(&self) -> &Host {
        &self.settings.host
    }

    /// Whether it is asked with credentials of ours, at any endpoint, so that its answers are not for everybody.
    pub fn has_credentials(&self) -> bool {
        has_credentials(&self.settings) || self.fallbacks.iter().any(|fallback| has_credentials(&fallback.settings))
    }
}

/// All upstreams. Without any `[[upstream]]` there is docker.io.
pub(super) fn check(
    source: &Source,
    files: &mut Files,
    warnings: &mut Vec<String>,
    documents: &[Upstream],
) -> Result<Vec<UpstreamConfig>, ConfigError> {
    let implied = [Upstream { default: true, ..Upstream::named("docker.io") }];
    let documents = if documents.is_empty() { implied.as_slice() } else { documents };
    let mut checked = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let key = |name: &str| format!("upstream[{index}].{name}");
        checked.push(Checker { source, key: &key, document }.check(files, warnings)?);
    }
    names_are_unique(source, &checked)?;
    Ok(checked)
}

struct Checker<'a> {
    source: &'a Source,
    key: &'a dyn Fn(&str) -> String,
    document: &'a Upstream,
}

impl Checker<'_> {
    fn check(&self, files: &mut Files, warnings: &mut Vec<String>) -> Result<UpstreamConfig, ConfigError> {
        let document = self.document;
        let host = self.host("host", &document.host)?;
        let first = document.first();
        let settings =
            Place { source: self.source, key: self.key, host: &host, document: &first }.check(files, warnings)?;
        Ok(UpstreamConfig {
            aliases: self.aliases(&host)?,
            default: document.default,
            tags: self.tags()?,
            anonymous_clients: document.anonymous_clients,
            fallbacks: self.fallbacks(files, warnings, &settings)?,
            settings,
        })
    }

    /// Each has what it needs in its own table: no credential of one endpoint goes to another.
    fn fallbacks(
        &self,
        files: &mut Files,
        warnings: &mut Vec<String>,
        first: &Settings,
    ) -> Result<Vec<Fallback>, ConfigError> {
        let documents = &self.document.fallback;
        if documents.len() > FALLBACKS_MAX {
            return Err(self.error("fallback", format!("more than {FALLBACKS_MAX} endpoints"), ""));
        }
        let mut fallbacks: Vec<Fallback> = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            let key = |name: &str| (self.key)(&format!("fallback[{index}].{name}"));
            let place = Place { source: self.source, key: &key, host: &first.host, document };
            if document.endpoint.is_empty() {
                return Err(place.error("endpoint", "empty", "write for example \"https://mirror.example\""));
            }
            let settings = place.check(files, warnings)?;
            let known = std::iter::once(first).chain(fallbacks.iter().map(|fallback| &fallback.settings));
            if known.into_iter().any(|known| known.endpoint == settings.endpoint) {
                return Err(place.error("endpoint", "an endpoint that was named before", "remove one of them"));
            }
            let content = if document.partial { Content::Partial } else { Content::Complete };
            fallbacks.push(Fallback { settings, content });
        }
        Ok(fallbacks)
    }

    fn tags(&self) -> Result<TagRules, ConfigError> {
        let document = self.document;
        let of = |ttl, while_revalidate: Span| TagLife { ttl, stale_while_revalidate: while_revalidate.0 };
        let life = of(TagTtl::For(document.tag_ttl.0), document.stale_while_revalidate);
        let mut patterns = Vec::new();
        for (index, tags) in document.tags.iter().enumerate() {
            let pattern = tags.pattern.parse().map_err(|error| {
                self.error(&format!("tags[{index}].pattern"), format!("\"{}\" is {error}", tags.pattern), "")
            })?;
            let ttl = match tags.tag_ttl {
                None => life.ttl,
                Some(TagLifeSpan::For(span)) => TagTtl::For(span.0),
                Some(TagLifeSpan::Immutable) => TagTtl::Immutable,
            };
            let while_revalidate = tags.stale_while_revalidate.unwrap_or(document.stale_while_revalidate);
            patterns.push((pattern, of(ttl, while_revalidate)));
        }
        if patterns.len() > TAG_PATTERNS_MAX {
            return Err(self.error("tags", format!("more than {TAG_PATTERNS_MAX} patterns"), "join some with *"));
        }
        let on_upstream_404 = match document.on_upstream_404 {
            OnUpstream404::Deny => Withdrawn::Deny,
            OnUpstream404::ServeStale => Withdrawn::ServeStale,
        };
        Ok(TagRules { life, patterns: patterns.into(), stale_if_error: document.stale_if_error.0, on_upstream_404 })
    }

    fn host(&self, key: &str, text: &str) -> Result<Host, ConfigError> {
        text.parse().map_err(|error| self.error(key, format!("\"{text}\" is {error}"), ""))
    }

    fn aliases(&self, host: &Host) -> Result<Vec<Host>, ConfigError> {
        if self.document.aliases.is_empty() && host.as_str() == DOCKER_HUB {
            return DOCKER_HUB_ALIASES.iter().map(|alias| self.host("aliases", alias)).collect();
        }
        self.document.aliases.iter().map(|alias| self.host("aliases", alias)).collect()
    }

    fn error(&self, key: &str, problem: impl std::fmt::Display, hint: &str) -> ConfigError {
        self.source.at(&(self.key)(key), problem, hint)
    }
}

/// A name must lead to one upstream, and at most one is the default.
fn names_are_unique(source: &Source, upstreams: &[UpstreamConfig]) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<&Host, usize> = BTreeMap::new();
    for (index, upstream) in upstreams.iter().enumerate() {
        let names = std::iter::once((upstream.host(), "host")).chain(upstream.aliases.iter().map(|a| (a, "aliases")));
        for (name, key) in names {
            if let Some(other) = owners.insert(name, index) {
                let problem = format!("\"{name}\" already names upstream[{other}]");
                return Err(source.at(&format!("upstream[{index}].{key}"), problem, "remove one of them"));
            }
        }
    }
    let mut defaults = upstreams.iter().enumerate().filter(|(_, upstream)| upstream.default);
    if let (Some((first, _)), Some((second, _))) = (defaults.next(), defaults.next()) {
        let problem = format!("upstream[{first}] is the default already");
        return Err(source.at(&format!("upstream[{second}].default"), problem, "keep one"));
    }
    Ok(())
}

const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
