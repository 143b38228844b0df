//! k3s and RKE2: `registries.yaml`, from which they write containerd's files at start.

use super::{ClientConfig, ClientFile, Mirror, Scheme, clear_text_note};

/// Two files: the mirror, and the switch that removes the upstream.
pub(super) fn config(mirror: &Mirror) -> ClientConfig {
    let tls = match mirror.scheme {
        Scheme::Http => String::new(),
        Scheme::Https => {
            format!("configs:\n  \"{}\":\n    tls:\n      ca_file: \"/etc/rancher/k3s/sealgate-ca.crt\"\n", mirror.host)
        }
    };
    let mut notes = vec![
        "k3s asks the mirror for every registry. Both files are needed: without disable-default-registry-endpoint \
         (k3s 1.29 and later) a refused image is pulled from the upstream."
            .to_owned(),
        "For RKE2 the directory is /etc/rancher/rke2. Then restart k3s, and try an image that must be refused. This form \
         was written from k3s' documentation and not yet run against a cluster."
            .to_owned(),
    ];
    notes.extend(clear_text_note(mirror));
    ClientConfig {
        files: vec![
            ClientFile {
                path: "/etc/rancher/k3s/registries.yaml".to_owned(),
                content: format!("mirrors:\n  \"*\":\n    endpoint:\n      - \"{mirror}\"\n{tls}"),
            },
            ClientFile {
                path: "/etc/rancher/k3s/config.yaml.d/50-sealgate.yaml".to_owned(),
                content: "disable-default-registry-endpoint: true\n".to_owned(),
            },
        ],
        notes,
    }
}
