//! Tells the crate which commit it is built from: `SEALGATE_REVISION`, else what git says, else nothing.

#![expect(clippy::disallowed_methods, reason = "a build script is told things by its environment")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SEALGATE_REVISION");
    let named = std::env::var("SEALGATE_REVISION").ok().filter(|commit| !matches!(commit.as_str(), "" | "unknown"));
    let version = env!("CARGO_PKG_VERSION");
    match named.or_else(from_git) {
        Some(commit) => {
            println!("cargo:rustc-env=SEALGATE_VERSION={version} (commit {commit})");
            println!("cargo:rustc-env=SEALGATE_REVISION={commit}");
        }
        None => println!("cargo:rustc-env=SEALGATE_VERSION={version}"),
    }
}

/// The commit; `None` without git or outside of a checkout.
fn from_git() -> Option<String> {
    // A package that was unpacked inside somebody else's repository is not that repository's commit.
    if !Path::new(".git").exists() {
        return None;
    }
    for path in [".git/HEAD", ".git/logs/HEAD"] {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(text)
}
