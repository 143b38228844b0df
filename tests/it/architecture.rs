//! Arrows point down only, and each third-party crate has a home.
//!
//! The map is in `docs/architecture.md`. The checker looks at text, not at types: a line that names a module or a crate
//! counts, wherever it stands. Tests at the end of a file (from `#[cfg(test)]` on) may name anything.

use std::fs;
use std::path::{Path, PathBuf};

/// A module may name only those after it.
const ORDER: &[&str] = &[
    "main",
    "cli",
    "app",
    "config",
    "runtimes",
    "admin",
    "http",
    "pull",
    "trust",
    "upstream",
    "store",
    "net",
    "telemetry",
    "policy",
    "verify",
    "oci",
    "limits",
    "clock",
];

/// The order would allow these; we do not.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("admin", &["http", "upstream", "net"]),
    ("http", &["net", "verify"]),
    ("trust", &["upstream"]),
    ("upstream", &["store", "policy", "verify"]),
    ("store", &["net"]),
    ("net", &["policy", "verify"]),
    (
        "runtimes",
        &["admin", "http", "pull", "trust", "upstream", "store", "net", "telemetry", "policy", "verify", "clock"],
    ),
];

/// Where a crate may be named: a module, or one file.
const HOMES: &[(&str, &[&str])] = &[
    ("arc_swap", &["app", "config", "admin", "http", "pull"]),
    ("aws_lc_rs", &["oci", "store", "upstream", "verify"]),
    ("axum", &["admin"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("http_body", &["http", "net"]),
    ("http_body_util", &["http", "net"]),
    ("hyper", &["http", "admin", "net"]),
    ("hyper_util", &["http", "admin"]),
    ("jiff", &["clock", "verify", "trust", "upstream"]),
    ("libc", &["store"]),
    ("moka", &["store", "upstream", "pull"]),
    ("pgp", &["verify"]),
    ("prometheus", &["telemetry"]),
    ("rand", &[]),
    ("rcgen", &[]),
    ("psl", &["upstream"]),
    ("regex", &["verify"]),
    ("regorus", &["policy"]),
    ("reqwest", &["net"]),
    ("memmap2", &["store"]),
    ("rustix", &["pull", "store"]),
    ("rustls", &["http", "net", "verify"]),
    ("rustls_native_certs", &["net"]),
    ("saphyr_parser", &["policy"]),
    ("serde", &["config", "oci", "verify", "upstream", "trust", "cli"]),
    ("sigstore_tuf", &["trust"]),
    ("sigstore_verify", &["verify", "trust"]),
    ("sled", &["store"]),
    ("tempfile", &[]),
    ("tokio_rustls", &["http"]),
    ("toml", &["config", "cli"]),
    ("tower_service", &["admin"]),
    ("tracing_subscriber", &["cli"]),
    ("webpki", &["verify"]),
    ("webpki_root_certs", &["net"]),
    ("x509_cert", &["verify"]),
];

/// Crates that any module may name: they are words, not machinery. The pure cores are held to less, below.
const ANYWHERE: &[&str] = &[
    "base64",
    "bytes",
    "futures_util",
    "hex",
    "http",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio_util",
    "tracing",
    "url",
];

/// The pure cores: bytes and `now` in, values out.
const PURE: &[&str] = &["policy", "verify", "oci", "limits"];
/// What they may not name: I/O, tasks, logs, the clock on the wall.
const IMPURE: &[&str] =
    &["tokio::", "tokio_util::", "tracing::", "std::fs", "std::net::Tcp", "SystemTime", "Instant::now", "Clock::"];

#[test]
fn modules_name_only_what_lies_below_them() {
    let offences: Vec<String> = sources().iter().flat_map(|(path, text)| offences(path, text)).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_dependency_has_a_home_or_is_free_to_all() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let dependencies = manifest.get("dependencies").unwrap().as_table().unwrap();
    for name in dependencies.keys().map(|name| name.replace('-', "_")) {
        let homes = HOMES.iter().filter(|(krate, _)| *krate == name).count();
        let free = ANYWHERE.iter().filter(|krate| **krate == name).count();
        assert_eq!(homes + free, 1, "{name} needs one line in HOMES or ANYWHERE");
    }
    for name in HOMES.iter().map(|(krate, _)| krate).chain(ANYWHERE) {
        let known = dependencies.contains_key(*name) || dependencies.contains_key(&name.replace('_', "-"));
        assert!(known, "{name} is no dependency any more");
    }
}

#[test]
fn every_module_has_a_place_in_the_order() {
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(ORDER.contains(&module) || ["lib", "testing"].contains(&module), "{module} has no place in ORDER");
    }
}

#[test]
fn the_checker_catches_bad_lines() {
    let bad = [
        ("src/oci/digest.rs", "use crate::policy::Verdict;"),
        ("src/oci/digest.rs", "    let x = crate::store::Store::open();"),
        ("src/policy/mod.rs", "pub use crate::telemetry::Telemetry;"),
        ("src/pull/mod.rs", "use crate::http::error;"),
        ("src/admin/mod.rs", "use crate::http::route;"),
        ("src/http/mod.rs", "use crate::net::HttpClient;"),
        ("src/trust/mod.rs", "use crate::upstream::Upstream;"),
        ("src/runtimes/docker.rs", "use crate::store::Store;"),
        ("src/store/mod.rs", "use crate::testing::FakeRegistry;"),
        ("src/store/mod.rs", "use crate::{oci::Digest, pull::Puller};"),
        ("src/store/mod.rs", "use crate::{"),
        ("src/store/mod.rs", "use crate::*;"),
        ("src/store/mod.rs", "use super::pull::Puller;"),
        ("src/store/blobs.rs", "use super::super::pull::Puller;"),
        ("src/http/error/from.rs", "use super::super::super::cli;"),
        ("src/pull/admit.rs", "use sled::Db;"),
        ("src/pull/admit.rs", "let x = ::reqwest::Client::new();"),
        ("src/policy/mod.rs", "use sigstore_verify as other;"),
        ("src/http/mod.rs", "use prometheus::IntCounter;"),
        ("src/store/blobs.rs", "extern crate reqwest;"),
        ("src/verify/mod.rs", "tracing::info!(\"x\");"),
        ("src/policy/mod.rs", "let text = std::fs::read(path);"),
        ("src/verify/mod.rs", "let now = crate::clock::Clock::System.now();"),
    ];
    for (path, line) in bad {
        assert_eq!(offences(path, line).len(), 1, "{path}: {line}");
    }
}

#[test]
fn the_checker_lets_good_lines_pass() {
    let good = [
        ("src/pull/admit.rs", "use crate::policy::Verdict;"),
        ("src/pull/admit.rs", "use crate::pull::resolve::Resolved;"),
        ("src/http/mod.rs", "use crate::pull::Puller;"),
        ("src/store/ledger.rs", "let db = sled::open(path);"),
        ("src/pull/admit.rs", "// sled:: keeps it, and crate::http shows it"),
        ("src/pull/admit.rs", "use axum_like::x; let y = crate::VERSION;"),
        ("src/verify/mod.rs", "use crate::clock::Timestamp;"),
        ("src/store/blobs.rs", "use super::Layout;"),
        ("src/http/error/from.rs", "use super::super::route::RouteError;"),
        ("src/store/mod.rs", "#[cfg(test)]\nmod tests { use crate::http::server; use reqwest::Client; }"),
        ("src/testing/registry.rs", "use crate::http::server; use axum::Router;"),
    ];
    for (path, text) in good {
        assert_eq!(offences(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

/// What is wrong in one file, one line a fault.
fn offences(path: &str, text: &str) -> Vec<String> {
    let module = module_of(path);
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/testing.rs");
    if module == "testing" || module == "lib" || is_test {
        return Vec::new();
    }
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter_map(|(number, line)| {
            fault(path, line).map(|why| format!("{path}:{}: {why}: {}", number + 1, line.trim()))
        })
        .collect()
}

fn fault(path: &str, line: &str) -> Option<String> {
    let module = module_of(path);
    if line.contains("crate::{") || line.contains("crate::*") {
        return Some("a grouped import hides its targets; write one `use` each".to_owned());
    }
    if line.contains(&"super::".repeat(depth(path))) {
        return Some("this climbs out of the module; write `crate::`".to_owned());
    }
    if PURE.contains(&module)
        && let Some(word) = IMPURE.iter().find(|word| line.contains(**word))
    {
        return Some(format!("{module} is pure and may not name {word}"));
    }
    targets(line).find_map(|target| wrong_target(module, target)).or_else(|| {
        let (krate, homes) =
            HOMES.iter().find(|(krate, homes)| names_crate(line, krate) && !homes.contains(&module))?;
        Some(format!("{krate} is at home in {homes:?}, not in {module}"))
    })
}

/// The modules that a line names by `crate::`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter_map(|(at, found)| {
        let rest = &line[at + found.len()..];
        let end = rest.find(|char: char| !char.is_ascii_lowercase() && char != '_').unwrap_or(rest.len());
        (end > 0).then(|| &rest[..end])
    })
}

fn wrong_target(module: &str, target: &str) -> Option<String> {
    if target == "testing" {
        return Some("testing is named by tests alone".to_owned());
    }
    let rank = |name: &str| ORDER.iter().position(|other| *other == name);
    let (from, to) = (rank(module), rank(target)?);
    let forbidden = FORBIDDEN.iter().any(|(source, targets)| *source == module && targets.contains(&target));
    match from {
        None => Some(format!("{module} has no place in ORDER")),
        Some(from) if to < from => Some(format!("{target} lies above {module}")),
        Some(_) if forbidden => Some(format!("{module} may not name {target}")),
        Some(_) => None,
    }
}

/// Whether the line names the crate as the start of a path, in a `use`, or in an `extern crate`.
fn names_crate(line: &str, krate: &str) -> bool {
    let in_word = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(krate).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + krate.len()..]);
        let whole_word = !before.ends_with(in_word) && !after.starts_with(in_word);
        let inside_path = before.strip_suffix("::").is_some_and(|path| path.ends_with(in_word));
        let imported = before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
        whole_word && !inside_path && (after.starts_with("::") || imported)
    })
}

fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// How many steps up lead to the crate's root.
fn depth(path: &str) -> usize {
    path.trim_start_matches("src/").trim_end_matches(".rs").split('/').filter(|step| *step != "mod").count()
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join("src"), &mut found);
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
