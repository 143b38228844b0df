use super::*;
use crate::oci::Digest;
use crate::testing::sigstore::FakeKey;
use crate::verify::{KeyHash, SctRule, TextPattern};

fn parse_with(text: &str, files: &[(&str, &str)]) -> Result<PolicyFile, CipError> {
    PolicyFile::parse("cip.yaml", text.as_bytes(), &mut |name| {
        let file = files.iter().find(|(known, _)| *known == name);
        file.map(|(_, content)| content.as_bytes().to_vec()).ok_or_else(|| "no such file".to_owned())
    })
}

fn parse(text: &str) -> Result<PolicyFile, CipError> {
    parse_with(text, &[])
}

/// A policy with these lines under `spec`, each indented by two.
fn policy(spec: &str) -> String {
    let head = "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: p\nspec:\n";
    let lines: Vec<String> = spec.lines().map(|line| format!("  {line}\n")).collect();
    head.to_owned() + &lines.concat()
}

/// A policy with one authority, given in flow style.
fn authority(authority: &str) -> String {
    policy(&format!("images: [{{glob: '**'}}]\nauthorities:\n- {authority}"))
}

fn parsed(authority: &str) -> AuthorityDocument {
    let mut file = parse(&self::authority(authority)).unwrap_or_else(|error| panic!("{authority}: {error}"));
    file.policies.remove(0).authorities.remove(0)
}

/// Field and problem of the error that an authority is.
fn refused(authority: &str) -> (String, String) {
    let error = parse(&self::authority(authority)).expect_err(authority);
    (error.field.replace("spec.authorities[0]", "A"), error.problem)
}

fn key() -> String {
    format!("{:?}", FakeKey::p256(1, "k").public_pem())
}

const IDENTITY: &str = "identities: [{issuer: i, subject: s}]";

#[test]
fn a_policy_is_read_with_its_defaults() {
    let text = authority(&format!("keyless: {{{IDENTITY}}}"));
    let policy = parse(&text).unwrap().policies.remove(0);
    assert_eq!((policy.name.as_str(), policy.origin.to_string().as_str()), ("p", "cip.yaml:1"));
    assert_eq!((policy.mode, policy.fetch_config_file, policy.policy), (CipMode::Enforce, false, None));
    let authority = &policy.authorities[0];
    assert_eq!(
        (authority.name.as_str(), authority.origin.line, authority.format),
        ("authority-0", 8, SignatureFormat::Legacy)
    );
    assert_eq!((&authority.source, &authority.ctlog, &authority.timestamp_root), (&None, &None, &None));
    let SignerDocument::Keyless { ca_cert: None, identities, trust_root: None, sct: SctRule::Required } =
        &authority.signer
    else {
        panic!("{:?}", authority.signer)
    };
    assert_eq!(identities[0].issuer, TextPattern::Exactly("i".to_owned()));
    assert_eq!(identities[0].subject, TextPattern::Exactly("s".to_owned()));
}

#[test]
fn every_field_of_an_authority_is_read() {
    let authority = parsed(&format!(
        "{{name: a, keyless: {{url: 'https://fulcio.example', insecureIgnoreSCT: true, trustRootRef: r, {IDENTITY}}}, \
         source: [{{oci: quay.io/s/signatures, tagPrefix: pre}}], ctlog: {{url: 'http://rekor.example', trustRootRef: l}}, \
         rfc3161timestamp: {{trustRootRef: t}}, signatureFormat: bundle, \
         attestations: [{{name: x, predicateType: vuln}}, {{name: z, predicateType: 'https://example.com/p'}}]}}"
    ));
    assert_eq!(authority.name, "a");
    assert!(matches!(
        authority.signer,
        SignerDocument::Keyless { ref trust_root, sct: SctRule::UnsafeIgnored, .. } if trust_root.as_deref() == Some("r")
    ));
    let source = authority.source.unwrap();
    assert_eq!(source.repository.unwrap().to_string(), "quay.io/s/signatures");
    assert_eq!(source.tag_prefix.unwrap().as_str(), "pre");
    let ctlog = authority.ctlog.unwrap();
    assert_eq!((ctlog.url.as_deref(), ctlog.trust_root.as_deref()), (Some("http://rekor.example"), Some("l")));
    assert_eq!((authority.timestamp_root.as_deref(), authority.format), (Some("t"), SignatureFormat::Bundle));
    let [short, uri] = authority.attestations.as_slice() else { panic!("{:?}", authority.attestations) };
    assert_eq!(
        (short.predicate_type.as_str(), short.short_name),
        ("https://cosign.sigstore.dev/attestation/vuln/v1", Some("vuln"))
    );
    assert_eq!((uri.predicate_type.as_str(), uri.short_name), ("https://example.com/p", None));
}

#[test]
fn several_keys_may_stand_in_one_text_and_the_hash_is_read() {
    let (a, b) = (FakeKey::p256(1, "a"), FakeKey::ed25519(1, "b"));
    let pems = format!("{:?}", a.public_pem() + &b.public_pem());
    let authority = parsed(&format!("key: {{data: {pems}, hashAlgorithm: sha512}}"));
    let SignerDocument::Key { keys, hash: KeyHash::Sha512 } = authority.signer else {
        panic!("{:?}", authority.signer)
    };
    assert_eq!(keys, [a.public(), b.public()]);
}

#[test]
fn a_static_authority_says_nothing_else() {
    let fail = parsed("static: {action: fail, message: not here}").signer;
    assert!(matches!(fail, SignerDocument::Static { action: StaticAction::Fail, message } if message == "not here"));
    assert!(matches!(
        parsed("static: {action: pass}").signer,
        SignerDocument::Static { action: StaticAction::Pass, .. }
    ));
    for other in [
        "source: [{tagPrefix: x}]",
        "ctlog: {}",
        "rfc3161timestamp: {trustRootRef: t}",
        "signatureFormat: bundle",
        "attestations: [{name: m, predicateType: vuln}]",
    ] {
        let (field, problem) = refused(&format!("{{static: {{action: pass}}, {other}}}"));
        assert_eq!(field, format!("A.{}", other.split(':').next().unwrap()), "{other}");
        assert_eq!(problem, "has no effect here; remove it");
    }
    assert_eq!(refused("static: {action: pass, message: m}").0, "A.static.message");
    assert_eq!(refused("static: {action: allow}").1, "unsupported value \"allow\"; use pass or fail");
}

#[test]
fn an_authority_names_exactly_one_signer_and_a_signer_exactly_one_of_each() {
    let key = key();
    for (authority, field, problem) in [
        ("name: m".to_owned(), "A", "exactly one of key, keyless and static, found none"),
        (format!("{{key: {{data: {key}}}, static: {{action: pass}}}}"), "A", "found several"),
        ("key: {}".to_owned(), "A.key", "expected exactly one key"),
        ("key: {data: '---somedata---'}".to_owned(), "A.key.data", "PEM"),
        ("key: {data: ''}".to_owned(), "A.key.data", "is empty"),
        (format!("key: {{data: {key}, hashAlgorithm: md5}}"), "A.key.hashAlgorithm", "use sha256 or sha384 or sha512"),
        ("keyless: {}".to_owned(), "A.keyless.identities", "anybody could sign"),
        ("keyless: {identities: []}".to_owned(), "A.keyless.identities", "empty list"),
        ("keyless: {identities: [{subject: s}]}".to_owned(), "A.keyless.identities[0].issuer", "issuerRegExp"),
        ("keyless: {identities: [{issuer: i}]}".to_owned(), "A.keyless.identities[0].subject", "subjectRegExp"),
        ("keyless: {identities: [{issuer: '', subject: s}]}".to_owned(), "A.keyless.identities[0].issuer", "is empty"),
        (
            "keyless: {identities: [{issuer: i, issuerRegExp: i, subject: s}]}".to_owned(),
            "A.keyless.identities[0]",
            "found both",
        ),
        (format!("keyless: {{url: 'https://f', ca-cert: {{data: x}}, {IDENTITY}}}"), "A.keyless", "found both"),
        (format!("keyless: {{url: 'fulcio', {IDENTITY}}}"), "A.keyless.url", "no http or https address"),
        (format!("keyless: {{ca-cert: {{data: x}}, {IDENTITY}}}"), "A.keyless.ca-cert.data", "certificate"),
        (
            format!("keyless: {{insecureIgnoreSCT: 'true', {IDENTITY}}}"),
            "A.keyless.insecureIgnoreSCT",
            "without quotes",
        ),
        (format!("{{key: {{data: {key}}}, source: [{{oci: a.io/b}}, {{oci: a.io/c}}]}}"), "A.source", "single source"),
        (format!("{{key: {{data: {key}}}, source: [{{}}]}}"), "A.source[0]", "names no source"),
        (format!("{{key: {{data: {key}}}, source: [{{oci: 'a.io/b:1'}}]}}"), "A.source[0].oci", "tag or digest"),
        (format!("{{key: {{data: {key}}}, source: [{{tagPrefix: '-x'}}]}}"), "A.source[0].tagPrefix", "start of a tag"),
        (format!("{{key: {{data: {key}}}, rfc3161timestamp: {{}}}}"), "A.rfc3161timestamp.trustRootRef", "missing"),
        (format!("{{key: {{data: {key}}}, signatureFormat: v3}}"), "A.signatureFormat", "use legacy or bundle"),
        (format!("{{key: {{data: {key}}}, ctlog: }}"), "A.ctlog", "has no value"),
        (format!("{{key: {{data: {key}}}, attestations: []}}"), "A.attestations", "empty list"),
        (
            format!("{{key: {{data: {key}}}, attestations: [{{name: m}}]}}"),
            "A.attestations[0].predicateType",
            "missing",
        ),
        (
            format!("{{key: {{data: {key}}}, attestations: [{{predicateType: vuln}}]}}"),
            "A.attestations[0].name",
            "missing",
        ),
        (
            format!(
                "{{key: {{data: {key}}}, attestations: [{{name: m, predicateType: a}}, {{name: m, predicateType: b}}]}}"
            ),
            "A.attestations[1]",
            "twice",
        ),
    ] {
        let found = refused(&authority);
        assert_eq!(found.0, field, "{authority}: {}", found.1);
        assert!(found.1.contains(problem), "{authority}: {}", found.1);
    }
}

#[test]
fn a_tag_prefix_leaves_room_for_the_digest_behind_it() {
    let with = |length: usize| format!("{{key: {{data: {}}}, source: [{{tagPrefix: {}}}]}}", key(), "p".repeat(length));
    assert!(parse(&authority(&with(53))).is_ok());
    assert!(refused(&with(54)).1.contains("no room"));
}

#[test]
fn t_15_every_key_that_is_not_enforced_is_refused_by_file_line_and_field() {
    for key in cluster_image_policy_keys().chain(trust_root_keys()) {
        let Some(instead) = key.refused else { continue };
        let (object, kind) = if key.object == "spec" && key.name.starts_with("re") {
            (key.object, "TrustRoot")
        } else {
            (key.object, "ClusterImagePolicy")
        };
        let text = document_with(kind, object, key.name);
        let error = parse(&text).expect_err(&text);
        assert_eq!(error.field.replace("[0]", "[]"), key.to_string(), "{text}\n{error}");
        assert_eq!(error.problem, format!("is not supported: {instead}"));
        let line = text.lines().position(|line| line.contains(key.name)).unwrap() + 1;
        assert_eq!((error.origin.file.as_str(), error.origin.line), ("cip.yaml", line), "{text}");
    }
}

/// A document whose object at that path holds one key.
fn document_with(kind: &str, object: &str, key: &str) -> String {
    let mut spec = format!("\n{key}: {{}}\n");
    let mut indent = 0;
    let mut lines = Vec::new();
    for part in object.split('.').filter(|part| !part.is_empty()) {
        let pad = " ".repeat(indent);
        if let Some(list) = part.strip_suffix("[]") {
            lines.push(format!("{pad}{list}:"));
            lines.push(format!("{pad}-"));
        } else {
            lines.push(format!("{pad}{part}:"));
        }
        // What must stand before it is given, so that the key itself is what is wrong.
        if part == "spec" && kind == "ClusterImagePolicy" && object != "spec" {
            lines.push("  images: [{glob: '**'}]".to_owned());
            if object.starts_with("spec.policy") {
                lines.push("  authorities: [{static: {action: pass}}]".to_owned());
            }
        }
        indent += 2;
        if part == "attestations[]" {
            lines.push(format!("{}name: m\n{}predicateType: vuln", " ".repeat(indent), " ".repeat(indent)));
        }
        if part == "authorities[]" && !object.contains("[].key") {
            lines.push(format!("{}key: {{data: {}}}", " ".repeat(indent), self::key()));
        }
        if part == "keyless" {
            lines.push(format!("{}{IDENTITY}", " ".repeat(indent)));
        }
    }
    spec.insert_str(1, &" ".repeat(indent));
    let version = if kind == "TrustRoot" { "v1alpha1" } else { "v1beta1" };
    format!(
        "apiVersion: policy.sigstore.dev/{version}\nkind: {kind}\nmetadata: {{name: p}}\n{}{spec}",
        lines.join("\n")
    )
}

#[test]
fn c_01_an_unknown_field_is_refused_and_the_one_that_is_meant_is_named() {
    let error = parse(&policy("images: [{glob: '**'}]\nauthority: []")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cip.yaml:7: spec.authority: unknown field; known here: images, mode, authorities, policy"
    );
    let (field, problem) = refused("keyless: {identities: [{issuer: i, subjectRegexp: s}]}");
    assert_eq!(
        (field.as_str(), problem.as_str()),
        ("A.keyless.identities[0].subjectRegexp", "unknown field; is subjectRegExp meant?")
    );
    let error = parse(&policy("images: []").replace("spec:", "Spec: {}\nspec:")).unwrap_err();
    assert_eq!(error.problem, "unknown field; is spec meant?");
}

#[test]
fn a_policy_without_authorities_admits_nothing() {
    for authorities in ["", "authorities: []", "authorities:"] {
        let error = parse(&policy(&format!("images: [{{glob: '**'}}]\n{authorities}"))).unwrap_err();
        assert_eq!(error.field, "spec.authorities", "{authorities}");
    }
    let error = parse(&policy("authorities: [{static: {action: pass}}]")).unwrap_err();
    assert_eq!((error.field.as_str(), error.problem.as_str()), ("spec.images", "missing"));
    let two =
        "images: [{glob: '**'}]\nauthorities: [{name: authority-1, static: {action: pass}}, {static: {action: pass}}]";
    assert!(parse(&policy(two)).unwrap_err().problem.contains("comes twice"));
}

#[test]
fn only_the_two_kinds_and_their_versions_are_read() {
    let good = authority("static: {action: pass}");
    assert!(parse(&good.replace("v1beta1", "v1alpha1")).is_ok());
    for (from, to, field) in [
        ("v1beta1", "v1", "apiVersion"),
        ("policy.sigstore.dev", "example.com", "apiVersion"),
        ("ClusterImagePolicy", "ConfigMap", "kind"),
        ("kind: ClusterImagePolicy\n", "", "the document"),
        ("metadata:\n  name: p\n", "", "metadata"),
        ("name: p", "labels: {a: b}", "metadata"),
        ("name: p", "name: 5", "metadata.name"),
        ("name: p", "name: ''", "metadata.name"),
        ("apiVersion: policy.sigstore.dev/v1beta1\n", "", "apiVersion"),
    ] {
        let error = parse(&good.replace(from, to)).expect_err(to);
        assert_eq!(error.field, field, "{to}: {error}");
    }
    for nothing in ["", "---\n---\n", "# only a comment\n"] {
        assert_eq!(parse(nothing).unwrap_err().field, "the file");
    }
    assert_eq!(parse("- a\n").unwrap_err().field, "the document");
    assert_eq!(parse("a: [").unwrap_err().field, "the file");
}

#[test]
fn what_a_cluster_writes_beside_the_policy_says_nothing_about_images() {
    let good = authority("static: {action: pass}");
    let lived = good.replace("  name: p\n", "  name: p\n  creationTimestamp: null\n  labels: {a: 1, b: [true]}\n")
        + "status: {conditions: []}\n";
    assert!(parse(&lived).is_ok());
}

#[test]
fn a_file_may_hold_several_documents_each_with_a_name_of_its_own() {
    let one = authority("static: {action: pass}");
    let other = one.replace("name: p", "name: q");
    let file = parse(&format!("---\n{one}---\n{other}---\n")).unwrap();
    assert_eq!(file.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(), ["p", "q"]);
    assert_eq!(file.policies[1].origin.line, 11);
    let error = parse(&format!("{one}---\n{one}")).unwrap_err();
    assert!(error.problem.contains("comes twice"), "{error}");
    let json = r#"{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"j"},
        "spec":{"images":[{"glob":"**"}],"authorities":[{"static":{"action":"fail"}}]}}"#;
    assert_eq!(parse(json).unwrap().policies[0].name, "j");
}

fn attested(policy: &str) -> String {
    format!("{{key: {{data: {}}}, attestations: [{{name: m, predicateType: vuln, policy: {policy}}}]}}", key())
}

#[test]
fn a_policy_is_written_in_rego() {
    let authority = parsed(&attested("{type: rego, data: 'package a'}"));
    assert_eq!(authority.attestations[0].policy.as_ref().unwrap().module, "package a");
    for (policy, field, problem) in [
        ("{type: cue, data: 'a: 1'}", "A.attestations[0].policy.type", "write the same rule in Rego"),
        ("{type: lua, data: x}", "A.attestations[0].policy.type", "use rego"),
        ("{data: x}", "A.attestations[0].policy.type", "missing"),
        ("{type: rego}", "A.attestations[0].policy", "found none"),
        ("{type: rego, data: x, remote: {url: 'https://e/x', sha256sum: a}}", "A.attestations[0].policy", "found both"),
        ("{type: rego, data: ''}", "A.attestations[0].policy.data", "is empty"),
    ] {
        let found = refused(&attested(policy));
        assert_eq!(found.0, field, "{policy}");
        assert!(found.1.contains(problem), "{policy}: {}", found.1);
    }
}

#[test]
fn a_remote_policy_is_read_from_beside_the_file_and_only_when_it_is_the_one_that_is_meant() {
    let module = "package vendored";
    let sum = Digest::sha256(module.as_bytes()).hex();
    let with = |url: &str, sum: &str| {
        policy(&format!(
            "images: [{{glob: '**'}}]\nauthorities: [{{static: {{action: pass}}}}]\n\
             policy: {{type: rego, fetchConfigFile: true, remote: {{url: '{url}', sha256sum: '{sum}'}}}}"
        ))
    };
    let url = "https://example.com/rules/image.rego";
    let policy = parse_with(&with(url, &sum), &[("image.rego", module)]).unwrap().policies.remove(0);
    assert_eq!((policy.policy.unwrap().module.as_str(), policy.fetch_config_file), (module, true));

    let other = "0".repeat(64);
    for (url, sum, files, field) in [
        (url, other.as_str(), &[("image.rego", module)][..], "spec.policy.remote.sha256sum"),
        (url, "abc", &[("image.rego", module)], "spec.policy.remote.sha256sum"),
        (url, &sum, &[], "spec.policy.remote.url"),
        ("ftp://example.com/image.rego", &sum, &[("image.rego", module)], "spec.policy.remote.url"),
        ("https://example.com/", &sum, &[("", module)], "spec.policy.remote.url"),
        ("https://example.com/..%2fimage.rego", &sum, &[("..%2fimage.rego", module)], "spec.policy.remote.url"),
        ("https://example.com/.image.rego", &sum, &[(".image.rego", module)], "spec.policy.remote.url"),
    ] {
        let error = parse_with(&with(url, sum), files).expect_err(url);
        assert_eq!(error.field, field, "{url}: {error}");
    }
}

#[test]
fn a_trust_root_becomes_a_trusted_root_json() {
    use base64::Engine as _;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (log, ct) = (FakeKey::p256(1, "log"), FakeKey::p256(1, "ct"));
    let text = format!(
        "apiVersion: policy.sigstore.dev/v1alpha1\nkind: TrustRoot\nmetadata: {{name: r}}\nspec:\n  sigstoreKeys:\n    \
         tLogs: [{{baseURL: 'https://rekor.example', hashAlgorithm: sha-256, publicKey: {}}}]\n    \
         ctLogs: [{{baseURL: 'https://ct.example', publicKey: {}}}]\n",
        base64(&log.public_pem()),
        base64(&ct.public_pem())
    );
    let root = parse(&text).unwrap().trust_roots.remove(0);
    let json: serde_json::Value = serde_json::from_slice(&root.trusted_root_json).unwrap();
    assert_eq!(root.name, "r");
    assert_eq!(json["tlogs"][0]["baseUrl"], "https://rekor.example");
    assert_eq!(json["tlogs"][0]["hashAlgorithm"], "SHA2_256");
    assert_eq!(json["tlogs"][0]["logId"]["keyId"], base64_bytes(log.public().fingerprint().as_bytes()));
    assert_eq!(json["ctlogs"][0]["logId"]["keyId"], base64_bytes(ct.public().fingerprint().as_bytes()));

    for (from, to, field) in [
        ("v1alpha1", "v1beta1", "apiVersion"),
        ("sha-256", "sha-1", "spec.sigstoreKeys.tLogs[0].hashAlgorithm"),
        ("publicKey: ", "publicKey: '-----' #", "spec.sigstoreKeys.tLogs[0].publicKey"),
        ("publicKey: ", "publicKey: bm8gUEVN #", "spec.sigstoreKeys.tLogs[0].publicKey"),
        ("https://rekor.example", "rekor", "spec.sigstoreKeys.tLogs[0].baseURL"),
    ] {
        let text = text.replacen(from, to, 1).replace('#', "}] #");
        let error = parse(&text).expect_err(&text);
        assert_eq!(error.field, field, "{error}");
    }
    let nothing =
        "apiVersion: policy.sigstore.dev/v1alpha1\nkind: TrustRoot\nmetadata: {name: r}\nspec: {sigstoreKeys: {}}";
    assert_eq!(parse(nothing).unwrap_err().field, "spec.sigstoreKeys");
}

fn base64_bytes(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
