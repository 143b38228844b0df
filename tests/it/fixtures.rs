//! Recorded signatures: those in `tests/data`, and the larger collection that `SEALGATE_FIXTURES` points to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::oci::Digest;
use sealgate::verify::{LegacySignature, Place, SignatureMaterial, Source};
use serde_json::Value;

/// The collection's folder, or `None` with a line that says so.
#[expect(clippy::disallowed_methods, reason = "the one place where tests ask the environment")]
pub(crate) fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var("SEALGATE_FIXTURES").ok().map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: SEALGATE_FIXTURES is not set");
    }
    folder
}

/// A file or folder of `tests/data`.
pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// One signature as the `dir:` transport of containers/image stores it: `\0sigstore-json\n{mimeType,payload,annotations}`.
pub(crate) fn recorded_signature(file: &Path) -> SignatureMaterial {
    let bytes = std::fs::read(file).unwrap();
    let json = bytes.strip_prefix(b"\0sigstore-json\n").unwrap_or_else(|| panic!("{} is no such file", file.display()));
    let recorded: Value = serde_json::from_slice(json).unwrap();
    let annotations = recorded["annotations"].as_object().cloned().unwrap_or_default();
    let annotations: BTreeMap<String, String> =
        annotations.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect();
    SignatureMaterial::Legacy(LegacySignature {
        payload: STANDARD.decode(recorded["payload"].as_str().unwrap()).unwrap().into(),
        annotations,
        source: Source {
            repository: None,
            manifest: Digest::sha256(json),
            place: Place::Tag("recorded".to_owned()),
            layer: 0,
        },
    })
}

/// All signatures of a `dir:` image whose MIME type is cosign's, in their order.
pub(crate) fn recorded_signatures(image: &Path) -> Vec<SignatureMaterial> {
    let files = (1..).map(|number| image.join(format!("signature-{number}"))).take_while(|file| file.exists());
    files.filter(|file| is_simple_signing(file)).map(|file| recorded_signature(&file)).collect()
}

fn is_simple_signing(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap();
    let json = bytes.strip_prefix(b"\0sigstore-json\n").unwrap_or_default();
    let recorded: Value = serde_json::from_slice(json).unwrap_or_default();
    recorded["mimeType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
}
