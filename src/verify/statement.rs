//! in-toto statements: which subject they are about, and what they say of it.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::VerifiedSignature;
use super::envelope::{Envelope, IN_TOTO};
use super::error::{VerifyError, shown};
use crate::limits::{IDENTITY_BYTES_MAX, STATEMENT_SUBJECTS_MAX, SUBJECT_DIGESTS_MAX};
use crate::oci::json::JsonError;
use crate::oci::{Algorithm, Digest, json};

/// The predicate type of a plain signature in a bundle.
pub(super) const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// An in-toto statement about the subject that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Its `predicateType`.
    pub predicate_type: String,
    /// The whole statement.
    pub json: Value,
    /// The bytes that were signed.
    pub payload: Bytes,
    /// Which of its subjects has the digest, from 0.
    pub subject: usize,
}

/// A statement with who signed it. Its signature binds no reference.
#[derive(Debug, Clone)]
pub struct VerifiedStatement {
    /// What was said.
    pub statement: Statement,
    /// By whom; `signed_reference` is absent.
    pub signature: VerifiedSignature,
}

impl Statement {
    /// Reads the statement in an envelope and finds `subject` among its subjects: any of them counts, by its `sha256`
    /// alone. Names of subjects decide nothing; they are free text.
    pub(super) fn parse(envelope: &Envelope, subject: &Digest) -> Result<Self, VerifyError> {
        if subject.algorithm() != Algorithm::Sha256 {
            return Err(VerifyError::SubjectAlgorithm { subject: *subject });
        }
        if envelope.payload_type != IN_TOTO {
            return Err(VerifyError::EnvelopeType { found: shown(&envelope.payload_type) });
        }
        let document = json::parse(&envelope.payload).map_err(statement_json)?;
        let statement = document.as_object().ok_or(malformed("no object"))?;
        json::check_keys(statement, &["_type", "subject", "predicateType", "predicate"]).map_err(statement_json)?;
        let version = text(statement, "_type").ok_or(malformed("no _type"))?;
        if !TYPES.contains(&version) {
            return Err(VerifyError::StatementType { found: shown(version) });
        }
        let predicate_type = text(statement, "predicateType").unwrap_or_default();
        if predicate_type.is_empty() || predicate_type.len() > IDENTITY_BYTES_MAX {
            return Err(malformed("no predicateType, or one of more than 4096 bytes"));
        }
        let found = find_subject(statement, subject)?;
        Ok(Self {
            predicate_type: predicate_type.to_owned(),
            payload: envelope.payload.clone(),
            subject: found,
            json: document,
        })
    }
}

fn find_subject(statement: &Map<String, Value>, wanted: &Digest) -> Result<usize, VerifyError> {
    let subjects = statement.get("subject").and_then(Value::as_array).ok_or(malformed("no list of subjects"))?;
    let (found, max) = (subjects.len(), STATEMENT_SUBJECTS_MAX);
    if found > max {
        return Err(VerifyError::TooMany { what: "subjects in one statement", found, max });
    }
    let hex = wanted.hex();
    let mut place = None;
    // All are looked at, so that a statement is good or bad whatever is asked of it.
    for (number, subject) in subjects.iter().enumerate() {
        let subject = subject.as_object().ok_or(malformed("a subject is no object"))?;
        json::check_keys(subject, &["name", "digest"]).map_err(statement_json)?;
        let digests = subject.get("digest").and_then(Value::as_object).ok_or(malformed("a subject has no digest"))?;
        json::check_keys(digests, &["sha256"]).map_err(statement_json)?;
        let (found, max) = (digests.len(), SUBJECT_DIGESTS_MAX);
        if found > max {
            return Err(VerifyError::TooMany { what: "digests of one subject", found, max });
        }
        if place.is_none() && text(digests, "sha256") == Some(&hex) {
            place = Some(number);
        }
    }
    place.ok_or(VerifyError::OtherSubject { subject: *wanted, subjects: subjects.len() })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn statement_json(error: JsonError) -> VerifyError {
    VerifyError::StatementJson(match error {
        JsonError::Syntax(text) => JsonError::Syntax(shown(&text)),
        JsonError::AmbiguousKey { found, known } => JsonError::AmbiguousKey { found: shown(&found), known },
        JsonError::Shape(text) => JsonError::Shape(shown(&text)),
    })
}

const fn malformed(why: &'static str) -> VerifyError {
    VerifyError::StatementMalformed { why }
}

/// v0.1 and v1 differ in what subjects may leave out, nothing that is looked at here.
const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Digest {
        Digest::sha256(b"manifest")
    }

    fn parse_bytes(payload: &[u8]) -> Result<Statement, VerifyError> {
        let payload = payload.to_vec().into();
        let envelope = Envelope { payload_type: IN_TOTO.to_owned(), payload, signature: Vec::new() };
        Statement::parse(&envelope, &wanted())
    }

    fn parse(edit: impl FnOnce(&mut Value)) -> Result<Statement, VerifyError> {
        let mut statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.com/p/v1", "predicate": {},
            "subject": [{"name": "image", "digest": {"sha256": wanted().hex()}}],
        });
        edit(&mut statement);
        parse_bytes(statement.to_string().as_bytes())
    }

    fn missing(subjects: usize) -> VerifyError {
        VerifyError::OtherSubject { subject: wanted(), subjects }
    }

    #[test]
    fn a_statement_is_read_with_the_place_of_its_subject() {
        let statement = parse(|_| ()).unwrap();
        assert_eq!((statement.predicate_type.as_str(), statement.subject), ("https://example.com/p/v1", 0));
        assert_eq!(statement.json["predicate"], json!({}));
        assert!(parse(|statement| statement["_type"] = "https://in-toto.io/Statement/v0.1".into()).is_ok());
        assert!(parse(|statement| drop(statement.as_object_mut().unwrap().remove("predicate"))).is_ok());
    }

    #[test]
    fn v_17_any_subject_counts_by_its_sha256_and_by_nothing_else() {
        let other = json!({"name": "other", "digest": {"sha256": Digest::sha256(b"other").hex()}});
        let second = parse(|statement| statement["subject"].as_array_mut().unwrap().insert(0, other.clone()));
        assert_eq!(second.unwrap().subject, 1);

        let hex = wanted().hex();
        let others = [
            json!({"sha512": hex}),
            json!({"sha256": hex.to_uppercase()}),
            json!({"sha256": format!("sha256:{hex}")}),
            json!({"sha256": [hex]}),
            json!({"sha384": hex, "gitCommit": hex}),
            json!({}),
        ];
        for digest in others {
            let found = parse(|statement| statement["subject"][0]["digest"] = digest.clone());
            assert_eq!(found, Err(missing(1)), "{digest}");
        }
        let by_name = parse(|statement| {
            statement["subject"][0] =
                json!({"name": format!("sha256:{hex}"), "digest": {"sha256": Digest::sha256(b"other").hex()}});
        });
        assert_eq!(by_name, Err(missing(1)));
        assert_eq!(parse(|statement| statement["subject"] = json!([])), Err(missing(0)));
    }

    #[test]
    fn v_17_subjects_and_their_digests_are_bounded_on_both_sides() {
        let subjects = |count: usize| {
            parse(|statement| {
                let subject = statement["subject"][0].clone();
                let other = json!({"digest": {"sha256": "00"}});
                let mut subjects = vec![other; count - 1];
                subjects.push(subject);
                statement["subject"] = subjects.into();
            })
        };
        assert_eq!(subjects(STATEMENT_SUBJECTS_MAX).unwrap().subject, STATEMENT_SUBJECTS_MAX - 1);
        let (found, max) = (STATEMENT_SUBJECTS_MAX + 1, STATEMENT_SUBJECTS_MAX);
        assert_eq!(subjects(found), Err(VerifyError::TooMany { what: "subjects in one statement", found, max }));

        let digests = |count: usize| {
            parse(|statement| {
                for number in 1..count {
                    statement["subject"][0]["digest"][format!("x{number}")] = "00".into();
                }
            })
        };
        assert!(digests(SUBJECT_DIGESTS_MAX).is_ok());
        let (found, max) = (SUBJECT_DIGESTS_MAX + 1, SUBJECT_DIGESTS_MAX);
        assert_eq!(digests(found), Err(VerifyError::TooMany { what: "digests of one subject", found, max }));
    }

    #[test]
    fn v_16_a_statement_that_cannot_be_read_in_one_way_is_refused() {
        for payload in ["", "not JSON", "{\"_type\": 1, \"_type\": 2}", "\u{feff}{}"] {
            let error = parse_bytes(payload.as_bytes()).unwrap_err();
            assert!(matches!(error, VerifyError::StatementJson(_)), "{payload}: {error:?}");
        }
        let edits: [fn(&mut Value); 4] = [
            |statement| statement["Subject"] = json!([]),
            |statement| statement["predicatetype"] = "x".into(),
            |statement| statement["subject"][0]["Digest"] = json!({}),
            |statement| statement["subject"][0]["digest"]["SHA256"] = "00".into(),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let error = parse(edit).unwrap_err();
            assert!(matches!(error, VerifyError::StatementJson(JsonError::AmbiguousKey { .. })), "{number}: {error:?}");
        }
    }

    #[test]
    fn v_16_a_statement_of_another_shape_or_type_is_refused() {
        let edits: [fn(&mut Value); 8] = [
            |statement| *statement = json!([]),
            |statement| drop(statement.as_object_mut().unwrap().remove("_type")),
            |statement| statement["predicateType"] = "".into(),
            |statement| statement["predicateType"] = 1.into(),
            |statement| statement["predicateType"] = "a".repeat(IDENTITY_BYTES_MAX + 1).into(),
            |statement| statement["subject"] = json!({}),
            |statement| statement["subject"][0] = "sha256".into(),
            |statement| statement["subject"][0] = json!({"name": "image"}),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let error = parse(edit).unwrap_err();
            assert!(matches!(error, VerifyError::StatementMalformed { .. }), "{number}: {error:?}");
        }
        assert!(parse(|statement| statement["predicateType"] = "a".repeat(IDENTITY_BYTES_MAX).into()).is_ok());
        let newer = "https://in-toto.io/Statement/v2".to_owned();
        let error = parse(|statement| statement["_type"] = newer.clone().into());
        assert_eq!(error, Err(VerifyError::StatementType { found: newer }));
        let envelope = Envelope {
            payload_type: "application/json".to_owned(),
            payload: Bytes::from_static(b"{}"),
            signature: Vec::new(),
        };
        let found = "application/json".to_owned();
        assert_eq!(Statement::parse(&envelope, &wanted()), Err(VerifyError::EnvelopeType { found }));
    }

    #[test]
    fn statements_bind_sha256_alone() {
        let envelope = Envelope { payload_type: IN_TOTO.to_owned(), payload: Bytes::new(), signature: Vec::new() };
        let subject = Digest::of(Algorithm::Sha512, b"manifest");
        assert_eq!(Statement::parse(&envelope, &subject), Err(VerifyError::SubjectAlgorithm { subject }));
    }
}
