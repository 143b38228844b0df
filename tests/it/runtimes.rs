//! The configurations that `client-config` writes, as files: what was tested with real clients, word for word.

use sealgate::oci::Host;
use sealgate::runtimes::{Mirror, Runtime, client_config};

fn upstreams() -> Vec<Host> {
    ["docker.io", "quay.io"].map(|host| host.parse().unwrap()).to_vec()
}

fn text(runtime: Runtime, mirror: &str) -> String {
    client_config(runtime, &mirror.parse::<Mirror>().unwrap(), &upstreams()).to_text()
}

#[test]
fn every_runtime_is_configured_for_a_mirror_behind_tls() {
    for runtime in Runtime::ALL {
        insta::assert_snapshot!(format!("{}_https", runtime.as_str()), text(runtime, "https://mirror.example:5443"));
    }
}

#[test]
fn every_runtime_is_configured_for_a_plain_mirror_on_loopback() {
    for runtime in Runtime::ALL {
        insta::assert_snapshot!(format!("{}_http", runtime.as_str()), text(runtime, "http://127.0.0.1:5000"));
    }
}

#[test]
fn plain_http_to_another_machine_is_warned_about_and_https_is_not() {
    let warned = |runtime, mirror: &str| {
        let config = client_config(runtime, &mirror.parse().unwrap(), &upstreams());
        config.notes.iter().any(|note| note.starts_with("Plain http to another machine"))
    };
    for runtime in Runtime::ALL {
        assert!(warned(runtime, "http://mirror.example:5000"), "{runtime:?}");
        assert!(!warned(runtime, "https://mirror.example:5000"), "{runtime:?}");
        assert!(!warned(runtime, "http://127.0.0.1:5000"), "{runtime:?}");
    }
}

#[test]
fn files_are_valid_in_their_formats() {
    for mirror in ["https://mirror.example:5443", "http://[::1]:5000"] {
        let mirror: Mirror = mirror.parse().unwrap();
        for runtime in Runtime::ALL {
            let config = client_config(runtime, &mirror, &upstreams());
            for file in config.files {
                let (_, kind) = file.path.rsplit_once('.').unwrap();
                match kind {
                    "toml" => drop(file.content.parse::<toml::Table>().unwrap()),
                    "json" => drop(serde_json::from_str::<serde_json::Value>(&file.content).unwrap()),
                    "conf" if file.path.contains("registries") => drop(file.content.parse::<toml::Table>().unwrap()),
                    "conf" | "yaml" => assert!(!file.content.contains('\t'), "{}", file.content),
                    other => panic!("{other}"),
                }
            }
        }
    }
}

/// The texts that were run with real clients, less what names machines.
#[test]
fn closed_configurations_are_the_tested_ones() {
    let containerd = text(Runtime::Containerd, "https://mirror.example:5443");
    for line in [
        "server = \"https://mirror.example:5443\"",
        "[host.\"https://mirror.example:5443\"]",
        "  capabilities = [\"pull\", \"resolve\"]",
    ] {
        assert!(containerd.lines().any(|known| known == line), "{line}\n{containerd}");
    }
    assert_eq!(containerd.matches("ca = \"").count(), 2, "`ca` is needed for the server and for the host");
    let podman = text(Runtime::Podman, "https://mirror.example:5443");
    for host in ["docker.io", "quay.io"] {
        let block = format!(
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\nblocked = true\n\n\
             [[registry.mirror]]\nlocation = \"mirror.example:5443/{host}\"\n"
        );
        assert!(podman.contains(&block), "{podman}");
    }
    assert!(!podman.contains("\npull-from-mirror"), "it skips the mirror for one kind of pull");
}
