//! From the configuration to what the listeners want.

use std::sync::Arc;

use super::Reloads;
use crate::admin::{self, UpstreamFacts};
use crate::config::{Config, Secret};
use crate::pull::{Puller, TagTtl, Withdrawn};

/// Who may come in at the admin listener.
pub(super) fn access(config: &Config) -> admin::Access {
    let token = config.server.admin_token.as_ref().map(Secret::reveal).map(str::to_owned);
    admin::Access { token, hosts: config.server.admin_hosts.clone() }
}

/// How the endpoints of upstreams stand, by the upstream's name.
pub(super) fn standings(puller: &Puller) -> admin::Standings {
    let puller = puller.clone();
    Arc::new(move |host| {
        let standings = host.parse().map(|host| puller.standings(&host)).unwrap_or_default();
        standings.into_iter().map(|(endpoint, standing)| (endpoint.to_string(), standing)).collect()
    })
}

/// What the admin API shows of the upstreams.
pub(super) fn facts(config: &Config) -> Vec<UpstreamFacts> {
    let facts = |upstream: &crate::config::UpstreamConfig| UpstreamFacts {
        host: upstream.host().to_string(),
        aliases: upstream.aliases.iter().map(ToString::to_string).collect(),
        endpoint: upstream.settings.endpoint.to_string(),
        fallback_endpoints: upstream.fallbacks.iter().map(|fallback| fallback.settings.endpoint.to_string()).collect(),
        default: upstream.default,
        tag_ttl_seconds: match upstream.tags.life.ttl {
            TagTtl::For(ttl) => Some(ttl.as_secs()),
            TagTtl::Immutable => None,
        },
        stale_while_revalidate_seconds: upstream.tags.life.stale_while_revalidate.as_secs(),
        stale_if_error_seconds: upstream.tags.stale_if_error.as_secs(),
        on_upstream_404: match upstream.tags.on_upstream_404 {
            Withdrawn::Deny => "deny",
            Withdrawn::ServeStale => "serve-stale",
        },
    };
    config.upstreams.iter().map(facts).collect()
}

/// What `POST /api/v1/reload` does.
pub(super) fn reload(reloads: &Reloads) -> admin::Reload {
    let reloads = reloads.clone();
    Arc::new(move || {
        let reloads = reloads.clone();
        Box::pin(async move {
            let changes = reloads.reload().await?;
            Ok(admin::Reloaded {
                policy_changed: changes.policy_changed,
                trust_root_changed: changes.trust_root_changed,
                restart_needed: changes.restart_needed,
                warnings: changes.warnings,
            })
        })
    })
}
