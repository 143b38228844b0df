//! containerd: a `hosts.toml` whose `server` is the mirror, so that the upstream is not on the list at all.

use super::{ClientConfig, ClientFile, Mirror, Scheme, clear_text_note};

/// One file for all registries.
pub(super) fn config(mirror: &Mirror) -> ClientConfig {
    let mut notes = vec![
        "containerd asks the mirror for every registry and never the upstream itself: a refused image fails with the \
         reason, and so does every pull while the mirror is down."
            .to_owned(),
        "The file must parse: containerd logs a mistake in it and then pulls from the upstream. Afterwards try an \
         image that must be refused."
            .to_owned(),
        "The kubelet's containerd needs config_path = \"/etc/containerd/certs.d\" under its registry settings in \
         /etc/containerd/config.toml. ctr reads the file only with --hosts-dir /etc/containerd/certs.d."
            .to_owned(),
        "A registry that must be reached directly (an internal one, say) gets a directory of its own beside _default, \
         such as /etc/containerd/certs.d/registry.example:5000/. Remove other directories: they win over _default."
            .to_owned(),
    ];
    notes.extend(clear_text_note(mirror));
    ClientConfig {
        files: vec![ClientFile {
            path: "/etc/containerd/certs.d/_default/hosts.toml".to_owned(),
            content: hosts_toml(mirror, "/etc/containerd/sealgate-ca.crt"),
        }],
        notes,
    }
}

/// The tested `hosts.toml`: the `[host]` table is required, and `ca` is needed in both places.
pub(super) fn hosts_toml(mirror: &Mirror, ca: &str) -> String {
    let ca_line = |indent: &str| match mirror.scheme {
        Scheme::Http => String::new(),
        Scheme::Https => format!("{indent}ca = \"{ca}\"\n"),
    };
    format!(
        "server = \"{mirror}\"\n{}\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{}",
        ca_line(""),
        ca_line("  ")
    )
}
