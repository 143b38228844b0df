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
fn the_sct_is_skipped_for_the_fulcio_of_a_policy_json_and_nowhere_else() {
    let uses = lines_with("skip_sct");
    let expected = "let policy = VerificationPolicy::any_identity().skip_sct();";
    assert_eq!(uses, [("verify/sigstore.rs".to_owned(), expected.to_owned())]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verify/sigstore.rs");
    let text = std::fs::read_to_string(file).unwrap();
    let before = text.split("skip_sct").next().unwrap();
    let function = before.rsplit("fn ").next().unwrap();
    assert!(function.starts_with("verify_fulcio("), "{function}");
}

#[test]
fn the_library_is_named_in_its_own_places_only() {
    for (file, line) in lines_with("sigstore_verify") {
        let home = file == "verify/sigstore.rs" || file.starts_with("trust/") || file.starts_with("testing/");
        assert!(home, "{file}: {line}");
    }
}
