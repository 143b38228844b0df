//! The ways to weaken verification that the library offers are not used, save one in its one place.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every line of `src` that contains `word`, as (file below `src`, line).
fn lines_with(word: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 10, "the sources are where they are expected");
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        found
            .extend(text.lines().filter(|line| line.contains(word)).map(|line| (name.clone(), line.trim().to_owned())));
    }
    found
}

#[test]
fn no_code_skips_the_transparency_log_or_the_certificate_chain() {
    for word in ["skip_tlog_unsafe", "skip_certificate_chain", "CertificatePolicy::Skip"] {
        assert_eq!(lines_with(word), [], "{word}");
    }
}

#[test]
fn the_sct_is_skipped_where_the_policy_itself_says_so_and_nowhere_else() {
    let uses = lines_with("skip_sct");
    let (file, start) = ("verify/sigstore/verifier.rs", "VerificationPolicy::any_identity().skip_sct()");
    let ignored = format!("SctRule::UnsafeIgnored => {start},");
    let fulcio = format!("let policy = {start};");
    assert_eq!(uses, [(file.to_owned(), ignored), (file.to_owned(), fulcio)]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let functions: Vec<&str> = text
        .match_indices("skip_sct")
        .map(|(at, _)| text[..at].rsplit("fn ").next().unwrap().split('(').next().unwrap())
        .collect();
    assert_eq!(functions, ["verify_certificate", "verify_fulcio"]);
    // `insecureIgnoreSCT` of a ClusterImagePolicy is the only source of that rule.
    for (file, line) in lines_with("UnsafeIgnored") {
        assert!(file.starts_with("verify/") || file.starts_with("policy/cluster_image_policy/"), "{file}: {line}");
    }
}

#[test]
fn the_library_is_named_in_its_own_places_only() {
    for (file, line) in lines_with("sigstore_verify") {
        let home = file.starts_with("verify/sigstore/") || file.starts_with("trust/") || file.starts_with("testing/");
        assert!(home, "{file}: {line}");
    }
}
