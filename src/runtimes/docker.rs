//! dockerd: `registry-mirrors` covers docker.io alone and falls back; the egress lock closes the rest.

use super::containerd::hosts_toml;
use super::{ClientConfig, ClientFile, Mirror, clear_text_note};
use crate::oci::Host;

/// `daemon.json`, the egress lock, and the files that Docker 29 and later reads.
pub(super) fn config(mirror: &Mirror, upstreams: &[Host]) -> ClientConfig {
    let daemon = format!("{{\n  \"registry-mirrors\": [\"{mirror}\"]\n}}\n");
    let bypass = mirror.host.without_port().trim_matches(['[', ']']);
    let lock = format!(
        "[Service]\nEnvironment=HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 NO_PROXY={bypass}\n"
    );
    let mut files = vec![
        ClientFile { path: "/etc/docker/daemon.json".to_owned(), content: daemon },
        ClientFile { path: "/etc/systemd/system/docker.service.d/50-sealgate-egress.conf".to_owned(), content: lock },
    ];
    files.extend(upstreams.iter().map(|upstream| ClientFile {
        path: format!("/etc/docker/certs.d/{upstream}/hosts.toml"),
        content: hosts_toml(mirror, &format!("/etc/docker/certs.d/{}/ca.crt", mirror.host)),
    }));
    let mut notes = vec![
        "daemon.json alone cannot close dockerd: registry-mirrors is asked for docker.io only, and dockerd falls back to \
         the upstream when the mirror fails. The mirror's hard stop (refusal.hard_stop = \"auto\") keeps it from doing so \
         for refused images, but not when the mirror is down and not for other registries."
            .to_owned(),
        "The egress lock closes that: with a dead proxy dockerd reaches nothing but the mirror. Images of other \
         registries are then pulled as MIRROR/quay.io/NAME, and docker push, login and build need another way out."
            .to_owned(),
        "The hosts.toml files are for Docker 29 and later with the containerd image store, where they close all listed \
         registries; older versions ignore them. That form was read in Docker's source and not yet run."
            .to_owned(),
        "Merge daemon.json into what is there, then: systemctl daemon-reload && systemctl restart docker.".to_owned(),
        format!("A private certificate authority goes to /etc/docker/certs.d/{}/ca.crt.", mirror.host),
    ];
    notes.extend(clear_text_note(mirror));
    ClientConfig { files, notes }
}
