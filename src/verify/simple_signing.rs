//! The signed payload of cosign's and of OpenPGP's image signatures, read as strictly as `containers/image` reads it.
//!
//! Exactly `critical{type, image{docker-manifest-digest}, identity{docker-reference}}` and `optional`, an object; cosign
//! may write null there.

use serde_json::{Map, Value};

use super::error::{VerifyError, shown};
use crate::limits::IDENTITY_BYTES_MAX;
use crate::oci::json::JsonError;
use crate::oci::{Digest, DigestError, DockerReference, json};

/// What a payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SimpleSigning {
    /// The manifest that was signed.
    pub(super) digest: Digest,
    /// The reference that the signer wrote; `Err` holds the text when it is no Docker reference.
    pub(super) docker_reference: Result<DockerReference, String>,
}

/// Whose signatures have such a payload; a payload of the one is none of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadKind {
    /// cosign's.
    Cosign,
    /// OpenPGP simple signing (`atomic container signature`).
    Atomic,
}

impl PayloadKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cosign => "cosign container image signature",
            Self::Atomic => "atomic container signature",
        }
    }
}

impl SimpleSigning {
    /// Reads a payload.
    pub(super) fn parse(payload: &[u8], payload_kind: PayloadKind) -> Result<Self, VerifyError> {
        let document = json::parse(payload).map_err(payload_json)?;
        let [critical, optional] = members(&document, "payload", ["critical", "optional"])?;
        let [kind, image, identity] = members(critical, "critical", ["type", "image", "identity"])?;
        let [digest] = members(image, "critical.image", ["docker-manifest-digest"])?;
        let [reference] = members(identity, "critical.identity", ["docker-reference"])?;
        check_optional(optional, payload_kind)?;

        let kind = text(kind, "critical.type")?;
        if kind != payload_kind.as_str() {
            return Err(VerifyError::PayloadType { found: shown(kind) });
        }
        let digest = text(digest, "critical.image.docker-manifest-digest")?;
        let digest = digest
            .parse()
            .map_err(|why| VerifyError::PayloadDigest { found: shown(digest), why: DigestError::to_string(&why) })?;
        let reference = text(reference, "critical.identity.docker-reference")?;
        Ok(Self { digest, docker_reference: reference.parse().map_err(|_| reference.to_owned()) })
    }
}

fn payload_json(error: JsonError) -> VerifyError {
    VerifyError::PayloadJson(match error {
        JsonError::Syntax(text) => JsonError::Syntax(shown(&text)),
        other @ (JsonError::AmbiguousKey { .. } | JsonError::Shape(_)) => other,
    })
}

/// The values of exactly those keys: one less or one more is an error, whatever its case.
fn members<'a, const N: usize>(
    value: &'a Value,
    field: &'static str,
    keys: [&'static str; N],
) -> Result<[&'a Value; N], VerifyError> {
    let object = object(value, field)?;
    if let Some(key) = object.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(VerifyError::PayloadUnknownKey { key: shown(key) });
    }
    let mut values = [&Value::Null; N];
    for (slot, key) in values.iter_mut().zip(keys) {
        *slot = object.get(key).ok_or(VerifyError::PayloadMissingKey { key })?;
    }
    Ok(values)
}

/// `optional` decides nothing; only the two members that have a meaning elsewhere must be of their type.
fn check_optional(optional: &Value, payload_kind: PayloadKind) -> Result<(), VerifyError> {
    if optional.is_null() && payload_kind == PayloadKind::Cosign {
        return Ok(());
    }
    let optional = object(optional, "optional")?;
    if optional.get("creator").is_some_and(|creator| !creator.is_string() && !creator.is_null()) {
        return Err(VerifyError::PayloadField { field: "optional.creator", expected: "a string" });
    }
    let whole = |time: &Value| time.is_null() || time.is_i64() || time.as_f64().is_some_and(|time| time.fract() == 0.0);
    if optional.get("timestamp").is_some_and(|time| !whole(time)) {
        return Err(VerifyError::PayloadField { field: "optional.timestamp", expected: "an integer" });
    }
    Ok(())
}

fn object<'a>(value: &'a Value, field: &'static str) -> Result<&'a Map<String, Value>, VerifyError> {
    value.as_object().ok_or(VerifyError::PayloadObject { field })
}

fn text<'a>(value: &'a Value, field: &'static str) -> Result<&'a str, VerifyError> {
    let text = value.as_str().ok_or(VerifyError::PayloadField { field, expected: "a string" })?;
    if text.len() > IDENTITY_BYTES_MAX {
        return Err(VerifyError::IdentityTooLong { bytes: text.len(), max: IDENTITY_BYTES_MAX });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut payload = serde_json::json!({
            "critical": {
                "identity": {"docker-reference": "quay.io/team/app"},
                "image": {"docker-manifest-digest": Digest::sha256(b"manifest").to_string()},
                "type": PayloadKind::Cosign.as_str(),
            },
            "optional": null,
        });
        edit(&mut payload);
        payload.to_string().into_bytes()
    }

    fn cosign(payload: &[u8]) -> Result<SimpleSigning, VerifyError> {
        SimpleSigning::parse(payload, PayloadKind::Cosign)
    }

    fn refused(edit: impl FnOnce(&mut Value)) -> VerifyError {
        cosign(&payload(edit)).unwrap_err()
    }

    #[test]
    fn a_payload_of_cosign_is_read() {
        let read = cosign(&payload(|_| ())).unwrap();
        assert_eq!(read.digest, Digest::sha256(b"manifest"));
        assert_eq!(read.docker_reference.unwrap().to_string(), "quay.io/team/app");
        for optional in [
            serde_json::json!({}),
            serde_json::json!({"creator": "cosign", "timestamp": 1_700_000_000, "Creator": 1, "tag": ["x"]}),
            serde_json::json!({"creator": null, "timestamp": 2.0}),
        ] {
            assert!(cosign(&payload(|payload| payload["optional"] = optional)).is_ok());
        }
    }

    #[test]
    fn a_reference_that_is_none_is_kept_as_text() {
        let read = cosign(&payload(|payload| {
            payload["critical"]["identity"]["docker-reference"] = "Not A Reference".into();
        }));
        assert_eq!(read.unwrap().docker_reference, Err("Not A Reference".to_owned()));
    }

    /// Row 13 of the forgery matrix; V-03.
    #[test]
    fn v03_a_payload_with_other_keys_than_its_own_is_refused() {
        let unknown = |key: &str| VerifyError::PayloadUnknownKey { key: key.to_owned() };
        assert_eq!(refused(|payload| payload["Critical"] = Value::Null), unknown("Critical"));
        assert_eq!(
            refused(|payload| payload["critical"]["Type"] = PayloadKind::Cosign.as_str().into()),
            unknown("Type")
        );
        assert_eq!(refused(|payload| payload["critical"]["image"]["x"] = 1.into()), unknown("x"));
        let folded = "doc\u{212a}er-reference";
        assert_eq!(refused(|payload| payload["critical"]["identity"][folded] = "a/b".into()), unknown(folded));
        for (object, key) in [("", "critical"), ("", "optional"), ("/critical", "type"), ("/critical", "image")] {
            let error = refused(|payload| {
                payload.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(key);
            });
            assert_eq!(error, VerifyError::PayloadMissingKey { key }, "{object} {key}");
        }
    }

    #[test]
    fn v03_a_duplicate_key_is_refused_at_every_level() {
        let good = String::from_utf8(payload(|_| ())).unwrap();
        let doubled = [
            good.replacen("\"optional\":null", "\"optional\":null,\"critical\":{}", 1),
            good.replacen("\"type\"", "\"type\":\"x\",\"type\"", 1),
            good.replacen("\"docker-reference\"", "\"docker-reference\":\"a/b\",\"docker-reference\"", 1),
            good.replacen("null}", "{\"a\":1,\"\\u0061\":2}}", 1),
        ];
        for text in doubled {
            let error = cosign(text.as_bytes()).unwrap_err();
            assert!(matches!(error, VerifyError::PayloadJson(_)), "{text}: {error}");
        }
    }

    #[test]
    fn every_value_must_be_of_its_type() {
        assert_eq!(
            refused(|payload| payload["critical"]["type"] = "atomic container signature".into()),
            VerifyError::PayloadType { found: "atomic container signature".to_owned() }
        );
        assert!(matches!(
            refused(|payload| payload["critical"]["image"]["docker-manifest-digest"] = "sha256:00".into()),
            VerifyError::PayloadDigest { .. }
        ));
        for pointer in
            ["/critical/type", "/critical/image/docker-manifest-digest", "/critical/identity/docker-reference"]
        {
            let error = refused(|payload| *payload.pointer_mut(pointer).unwrap() = Value::Null);
            assert!(matches!(error, VerifyError::PayloadField { .. }), "{pointer}");
        }
        for pointer in ["", "/critical", "/critical/image", "/critical/identity", "/optional"] {
            let error = refused(|payload| *payload.pointer_mut(pointer).unwrap() = "x".into());
            assert!(matches!(error, VerifyError::PayloadObject { .. }), "{pointer}");
        }
        for optional in [serde_json::json!({"creator": 1}), serde_json::json!({"timestamp": 1.5})] {
            assert!(matches!(refused(|payload| payload["optional"] = optional), VerifyError::PayloadField { .. }));
        }
    }

    #[test]
    fn a_payload_of_the_one_kind_is_none_of_the_other() {
        let of = |kind: PayloadKind, optional: Value| {
            payload(|payload| {
                payload["critical"]["type"] = kind.as_str().into();
                payload["optional"] = optional;
            })
        };
        for (written, other) in [(PayloadKind::Cosign, PayloadKind::Atomic), (PayloadKind::Atomic, PayloadKind::Cosign)]
        {
            let payload = of(written, serde_json::json!({}));
            assert!(SimpleSigning::parse(&payload, written).is_ok());
            let error = SimpleSigning::parse(&payload, other).unwrap_err();
            assert_eq!(error, VerifyError::PayloadType { found: written.as_str().to_owned() });
        }
        let error = SimpleSigning::parse(&of(PayloadKind::Atomic, Value::Null), PayloadKind::Atomic).unwrap_err();
        assert_eq!(error, VerifyError::PayloadObject { field: "optional" });
    }

    #[test]
    fn a_reference_is_bounded_on_both_sides() {
        let long = |bytes: usize| {
            cosign(&payload(|payload| {
                payload["critical"]["identity"]["docker-reference"] = "a".repeat(bytes).into();
            }))
        };
        assert!(long(IDENTITY_BYTES_MAX).is_ok());
        assert!(matches!(long(IDENTITY_BYTES_MAX + 1), Err(VerifyError::IdentityTooLong { .. })));
    }
}
