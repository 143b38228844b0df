//! Container runtimes seen from outside: pure text. May import: `oci`, `limits`.
//!
//! [`client_config`] writes what makes a runtime pull through the mirror, in the form that leaves the least way round
//! it. Each text says what it cannot close.

mod buildkit;
mod containerd;
mod docker;
mod k3s;
mod mirror;
mod podman;

pub use mirror::{Mirror, MirrorError, Scheme};

use crate::oci::Host;

/// A container runtime that can be pointed at a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// dockerd.
    Docker,
    /// containerd, with `ctr`, nerdctl or a kubelet in front.
    Containerd,
    /// podman, skopeo and buildah.
    Podman,
    /// CRI-O.
    Crio,
    /// k3s and RKE2.
    K3s,
    /// `BuildKit` with its own daemon.
    Buildkit,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Docker, Self::Containerd, Self::Podman, Self::Crio, Self::K3s, Self::Buildkit];

    /// As on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::K3s => "k3s",
            Self::Buildkit => "buildkit",
        }
    }
}

/// One file to put on a machine that runs containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFile {
    /// Where it goes.
    pub path: String,
    /// Its content, whole and valid on its own.
    pub content: String,
}

/// What makes a runtime pull through the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// The files.
    pub files: Vec<ClientFile>,
    /// What to do besides, and what stays open; one sentence or two each.
    pub notes: Vec<String>,
}

/// What makes `runtime` pull images of `upstreams` through `mirror`.
pub fn client_config(runtime: Runtime, mirror: &Mirror, upstreams: &[Host]) -> ClientConfig {
    match runtime {
        Runtime::Docker => docker::config(mirror, upstreams),
        Runtime::Containerd => containerd::config(mirror),
        Runtime::Podman => podman::config(mirror, upstreams, &podman::PODMAN),
        Runtime::Crio => podman::config(mirror, upstreams, &podman::CRIO),
        Runtime::K3s => k3s::config(mirror),
        Runtime::Buildkit => buildkit::config(mirror, upstreams),
    }
}

impl ClientConfig {
    /// The whole as one text. With one file, the text is that file: all else stands in comments.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            for line in wrapped(note) {
                text.push_str(&line);
            }
        }
        for file in &self.files {
            text.push_str("#\n# ---- ");
            text.push_str(&file.path);
            text.push_str(" ----\n");
            text.push_str(&file.content);
        }
        text
    }
}

/// What to say when traffic to the mirror would cross a network in the clear.
fn clear_text_note(mirror: &Mirror) -> Option<String> {
    mirror.is_clear_text_off_loopback().then(|| {
        "Plain http to another machine: whoever sits between can answer in the mirror's place. Use https there."
            .to_owned()
    })
}

/// A note as comment lines of at most 100 characters.
fn wrapped(note: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::from("# *");
    for word in note.split_whitespace() {
        if line.len() + 1 + word.len() > 100 {
            lines.push(std::mem::replace(&mut line, "#  ".to_owned()) + "\n");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line + "\n");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_file_printed_as_text_is_that_file_with_comments_before_it() {
        let config = ClientConfig {
            files: vec![ClientFile { path: "/etc/x".to_owned(), content: "a = 1\n".to_owned() }],
            notes: vec!["first ".repeat(30)],
        };
        let text = config.to_text();
        assert!(text.lines().all(|line| line.starts_with('#') || line == "a = 1"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
