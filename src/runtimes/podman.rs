//! podman, skopeo, buildah and CRI-O: one library, one file. `blocked` plus a mirror means: only the mirror.

use std::fmt::Write as _;

use super::{ClientConfig, ClientFile, Mirror, Scheme, clear_text_note};
use crate::oci::Host;

/// What differs between the programs that read the file.
#[derive(Debug)]
pub(super) struct Program {
    name: &'static str,
    after: &'static str,
}

/// podman, skopeo, buildah: they read the file at each start.
pub(super) const PODMAN: Program =
    Program { name: "podman, skopeo and buildah", after: "Nothing needs to be restarted." };
/// CRI-O: a daemon.
pub(super) const CRIO: Program = Program {
    name: "CRI-O (and podman on the same machine)",
    after: "Then: systemctl reload crio. An ImagePolicy or policy.json of the node is checked as before, behind the mirror.",
};

/// One `[[registry]]` for each upstream.
pub(super) fn config(mirror: &Mirror, upstreams: &[Host], program: &Program) -> ClientConfig {
    let mut content = String::new();
    for upstream in upstreams {
        let insecure = match mirror.scheme {
            Scheme::Http => "insecure = true\n",
            Scheme::Https => "",
        };
        let _infallible = write!(
            content,
            "[[registry]]\nprefix = \"{upstream}\"\nlocation = \"{upstream}\"\nblocked = true\n\n\
             [[registry.mirror]]\nlocation = \"{}/{upstream}\"\n{insecure}\n",
            mirror.host
        );
    }
    let mut notes = vec![
        format!(
            "{} pull these registries through the mirror alone. A refused image fails with the reason, and so does \
             every pull while the mirror is down.",
            program.name
        ),
        "blocked also forbids pushing to these registries from this machine; where that is needed, write location = \
         \"MIRROR/REGISTRY\" instead of blocked and the mirror table (pushes then go to the mirror, which refuses them)."
            .to_owned(),
        "Registries that are not listed are still pulled directly, unverified. To close them, make \"default\" in \
         /etc/containers/policy.json \"reject\" and allow the listed ones there."
            .to_owned(),
        "Do not use mirror-by-digest-only or pull-from-mirror: they skip the mirror for the other kind of pull."
            .to_owned(),
        program.after.to_owned(),
    ];
    if mirror.scheme == Scheme::Https {
        notes.push(format!("A private certificate authority goes to /etc/containers/certs.d/{}/ca.crt.", mirror.host));
    }
    notes.extend(clear_text_note(mirror));
    let path = "/etc/containers/registries.conf.d/50-sealgate.conf".to_owned();
    ClientConfig { files: vec![ClientFile { path, content }], notes }
}
