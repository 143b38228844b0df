//! The parts of a trust root that policy.json names itself.

use serde_json::Value;

use crate::verify::RekorKeys;

/// Certificates and log keys as files hold them.
#[derive(Debug)]
pub(in crate::cli) struct Trust {
    pub(super) authorities_pem: String,
    /// Those that policy.json takes.
    pub(super) logs_pem: Vec<String>,
}

impl Trust {
    /// Out of a `trusted_root.json`.
    pub(in crate::cli) fn of(document: &[u8]) -> Self {
        let root: Value = serde_json::from_slice(document).unwrap_or_default();
        let raw = |value: &Value| value.get("rawBytes").and_then(Value::as_str).map(str::to_owned);
        let items = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let certificates = items(&root, "certificateAuthorities").into_iter().flat_map(|authority| {
            authority.get("certChain").map(|chain| items(chain, "certificates")).unwrap_or_default()
        });
        let authorities = certificates.filter_map(|certificate| Some(pem("CERTIFICATE", &raw(&certificate)?)));
        let logs =
            items(&root, "tlogs").into_iter().filter_map(|log| Some(pem("PUBLIC KEY", &raw(log.get("publicKey")?)?)));
        // policy.json takes ECDSA logs alone.
        let usable = |pem: &String| RekorKeys::from_pems(&[pem.clone().into_bytes()]).is_ok();
        Self { authorities_pem: authorities.collect(), logs_pem: logs.filter(usable).collect() }
    }
}

fn pem(label: &str, base64: &str) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    let text: Vec<char> = base64.chars().filter(|char| !char.is_whitespace()).collect();
    for line in text.chunks(64) {
        pem.extend(line);
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}
