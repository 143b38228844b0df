//! `BuildKit`: mirrors come first, the upstream is always appended; there is no switch that removes it.

use std::fmt::Write as _;

use super::{ClientConfig, ClientFile, Mirror, Scheme, clear_text_note};
use crate::oci::Host;

/// `buildkitd.toml` with one table for each upstream.
pub(super) fn config(mirror: &Mirror, upstreams: &[Host]) -> ClientConfig {
    let mut content = String::new();
    for upstream in upstreams {
        let _infallible = write!(content, "[registry.\"{upstream}\"]\n  mirrors = [\"{}\"]\n\n", mirror.host);
    }
    let transport = match mirror.scheme {
        Scheme::Http => "http = true".to_owned(),
        Scheme::Https => "ca = [\"/etc/buildkit/sealgate-ca.crt\"]".to_owned(),
    };
    let _infallible = writeln!(content, "[registry.\"{}\"]\n  {transport}", mirror.host);
    let mut notes = vec![
        "BuildKit cannot be closed: it always keeps the upstream as its last resort. What stops it from going round a \
         refusal is the mirror's hard stop (refusal.hard_stop = \"auto\"), which relies on how BuildKit reads status \
         codes. Where that is not enough, deny BuildKit the network to everything but the mirror."
            .to_owned(),
        "While the mirror is down, BuildKit pulls from the upstream, unverified. Registries that are not listed are \
         always pulled directly."
            .to_owned(),
        "Builders of docker buildx get the file with: docker buildx create --config buildkitd.toml.".to_owned(),
    ];
    notes.extend(clear_text_note(mirror));
    ClientConfig { files: vec![ClientFile { path: "/etc/buildkit/buildkitd.toml".to_owned(), content }], notes }
}
