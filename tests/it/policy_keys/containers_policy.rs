//! The keys of policy.json.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{ContainersPolicy, ContainersPolicyDocument, PolicySet, Settings, containers_policy_keys};
use sealgate::testing::openpgp::{FakeOpenPgpKey, OpenPgpFlaw, openpgp_material};
use sealgate::testing::sigstore::{FakeKey, FakeSigstore, Flaw, Identity};
use sealgate::verify::SignatureMaterial;
use serde_json::{Value, json};

use super::{Case, Expected, Outcome, all_hold, case, decide, now};

const REPOSITORY: &str = "quay.io/team/app";
const ISSUER: &str = "https://issuer.example";
const EMAIL: &str = "dev@example.com";
const NO: Expected = Expected::Deny("");

/// Signers, and the files that policies name.
struct Lab {
    sigstore: FakeSigstore,
    /// Another one, which nobody trusts.
    other: FakeSigstore,
    key: FakeKey,
    pgp: FakeOpenPgpKey,
    other_pgp: FakeOpenPgpKey,
    digest: Digest,
}

#[test]
fn t_15_every_key_of_policy_json_is_enforced() {
    let sigstore = FakeSigstore::from_seed(151, now());
    let lab = Lab {
        key: sigstore.key("ours"),
        other: FakeSigstore::from_seed(152, now()),
        pgp: FakeOpenPgpKey::from_seed(151, "ours", now()),
        other_pgp: FakeOpenPgpKey::from_seed(152, "theirs", now()),
        digest: Digest::sha256(b"an image"),
        sigstore,
    };
    let parts =
        [lab.top(), lab.fixed(), lab.keyed(), lab.rekor(), lab.fulcio(), lab.pki(), lab.signed_by(), lab.identities()];
    all_hold(containers_policy_keys(), &parts.into_iter().flatten().collect::<Vec<_>>());
}

impl Lab {
    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let text = match name {
            "key" => self.key.public_pem(),
            "other-key" => self.other.key("ours").public_pem(),
            "ca" => self.sigstore.fulcio_ca_pem(),
            "other-ca" => self.other.fulcio_ca_pem(),
            "rekor" => self.sigstore.rekor_pem(),
            "other-rekor" => self.other.rekor_pem(),
            "pki" => self.sigstore.pki_root_pem(),
            "other-pki" => self.other.pki_root_pem(),
            "intermediate" => self.sigstore.pki_intermediate_pem(),
            "other-intermediate" => self.other.pki_intermediate_pem(),
            "ring" => return Ok(self.pgp.ring()),
            "other-ring" => return Ok(self.other_pgp.ring()),
            _ => return Err("no such file".to_owned()),
        };
        Ok(text.into_bytes())
    }

    fn data(&self, name: &str) -> Value {
        STANDARD.encode(self.file(name).unwrap()).into()
    }

    fn document(&self, document: &Value, image: &str, candidates: Vec<SignatureMaterial>) -> Outcome {
        let parsed = match ContainersPolicyDocument::parse(document.to_string().as_bytes()) {
            Ok(parsed) => parsed,
            Err(error) => return Outcome::Unloadable(error.to_string()),
        };
        let policy = ContainersPolicy::resolve(parsed, &mut |name| self.file(name)).unwrap();
        let settings = Settings { containers_policy: Some(policy), ..Settings::default() };
        let image: ImageReference = image.parse().unwrap();
        decide(&PolicySet::new(settings).unwrap(), &image, &self.digest, candidates)
    }

    /// What one requirement says about one signature.
    #[expect(clippy::needless_pass_by_value, reason = "requirements are made where they are asked")]
    fn asks(&self, requirement: Value, candidate: SignatureMaterial) -> Outcome {
        let document = json!({"default": [{"type": "reject"}], "transports": {"docker": {REPOSITORY: [requirement]}}});
        self.document(&document, &format!("{REPOSITORY}:1"), vec![candidate])
    }

    fn by_key(&self, reference: &str) -> SignatureMaterial {
        self.sigstore.sign_keyed(&self.key, reference, &self.digest, Flaw::None).material()
    }

    fn top(&self) -> Vec<Case> {
        let answer = |document: Value| self.document(&document, &format!("{REPOSITORY}:1"), Vec::new());
        let (accept, reject) = (json!([{"type": "insecureAcceptAnything"}]), json!([{"type": "reject"}]));
        let scoped = |rules: &Value| json!({"default": reject, "transports": {"docker": {REPOSITORY: rules}}});
        vec![
            case(
                "default",
                answer(json!({"default": accept})),
                Expected::Deny("rejected by policy"),
                answer(json!({"default": reject})),
            ),
            case("transports", answer(scoped(&accept)), Expected::Deny("rejected by policy"), answer(scoped(&reject))),
        ]
    }

    fn fixed(&self) -> Vec<Case> {
        let of = |kind: &str| self.asks(json!({"type": kind}), self.by_key(REPOSITORY));
        let base = |requirement: Value| self.asks(requirement, self.by_key(REPOSITORY));
        let identity = json!({"type": "matchRepository"});
        let refuses = base(json!({"type": "signedBaseLayer", "baseLayerIdentity": identity}));
        let unknown = "Unknown policy requirement type";
        vec![
            case(
                "insecureAcceptAnything.type",
                of("insecureAcceptAnything"),
                Expected::Unloadable(unknown),
                of("acceptAnything"),
            ),
            case("reject.type", of("insecureAcceptAnything"), Expected::Deny("rejected by policy"), of("reject")),
            case(
                "signedBaseLayer.type",
                of("insecureAcceptAnything"),
                Expected::Deny("signedBaseLayer"),
                refuses.clone(),
            ),
            Case {
                key: "signedBaseLayer.baseLayerIdentity",
                first: (Expected::Deny("signedBaseLayer"), refuses),
                second: (
                    Expected::Unloadable("Unknown policy reference match type"),
                    base(json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "x"}})),
                ),
            },
        ]
    }

    /// A case of a key that names key material: our own is accepted, another one is not.
    fn material(
        &self,
        key: &'static str,
        candidate: &SignatureMaterial,
        requirement: impl Fn(&str) -> Value,
        (ours, theirs): (&str, &str),
    ) -> Case {
        let answer = |name: &str| self.asks(requirement(name), candidate.clone());
        case(key, answer(ours), NO, answer(theirs))
    }

    fn keyed(&self) -> Vec<Case> {
        let signature = self.by_key(REPOSITORY);
        let with = |key: &str, value: Value| json!({"type": "sigstoreSigned", key: value, "signedIdentity": {"type": "matchRepository"}});
        let pair = ("key", "other-key");
        let identity = |repository: &str| {
            let identity = json!({"type": "exactRepository", "dockerRepository": repository});
            self.asks(
                json!({"type": "sigstoreSigned", "keyPath": "key", "signedIdentity": identity}),
                signature.clone(),
            )
        };
        let mut other_type = with("keyPath", "key".into());
        other_type["type"] = "sigstoreSignd".into();
        vec![
            case(
                "sigstoreSigned.type",
                self.asks(with("keyPath", "key".into()), signature.clone()),
                Expected::Unloadable("Unknown policy requirement type"),
                self.asks(other_type, signature.clone()),
            ),
            self.material("sigstoreSigned.keyPath", &signature, |name| with("keyPath", name.into()), pair),
            self.material(
                "sigstoreSigned.keyPaths",
                &signature,
                |name| with("keyPaths", json!(["other-key", name])),
                pair,
            ),
            self.material("sigstoreSigned.keyData", &signature, |name| with("keyData", self.data(name)), pair),
            self.material(
                "sigstoreSigned.keyDatas",
                &signature,
                |name| with("keyDatas", json!([self.data("other-key"), self.data(name)])),
                pair,
            ),
            case(
                "sigstoreSigned.signedIdentity",
                identity(REPOSITORY),
                Expected::Deny("not accepted"),
                identity("quay.io/team/other"),
            ),
        ]
    }

    fn rekor(&self) -> Vec<Case> {
        let signature = self.by_key(REPOSITORY);
        let with = |key: &str, value: Value| json!({"type": "sigstoreSigned", "keyPath": "key", key: value, "signedIdentity": {"type": "matchRepository"}});
        let pair = ("rekor", "other-rekor");
        vec![
            self.material(
                "sigstoreSigned.rekorPublicKeyPath",
                &signature,
                |name| with("rekorPublicKeyPath", name.into()),
                pair,
            ),
            self.material(
                "sigstoreSigned.rekorPublicKeyPaths",
                &signature,
                |name| with("rekorPublicKeyPaths", json!(["other-rekor", name])),
                pair,
            ),
            self.material(
                "sigstoreSigned.rekorPublicKeyData",
                &signature,
                |name| with("rekorPublicKeyData", self.data(name)),
                pair,
            ),
            self.material(
                "sigstoreSigned.rekorPublicKeyDatas",
                &signature,
                |name| with("rekorPublicKeyDatas", json!([self.data("other-rekor"), self.data(name)])),
                pair,
            ),
        ]
    }

    fn fulcio(&self) -> Vec<Case> {
        let signature = self.sigstore.sign_keyless(REPOSITORY, &self.digest, EMAIL, ISSUER, Flaw::None).material();
        let with = |fulcio: Value| json!({"type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyPath": "rekor", "signedIdentity": {"type": "matchRepository"}});
        let by = |ca: &str, issuer: &str, email: &str| {
            with(json!({"caPath": ca, "oidcIssuer": issuer, "subjectEmail": email}))
        };
        let answer = |requirement: Value| self.asks(requirement, signature.clone());
        let data = |name: &str| with(json!({"caData": self.data(name), "oidcIssuer": ISSUER, "subjectEmail": EMAIL}));
        let pair = ("ca", "other-ca");
        // Without `fulcio` its certificate counts for nothing.
        let without = json!({"type": "sigstoreSigned", "keyPath": "key", "rekorPublicKeyPath": "rekor", "signedIdentity": {"type": "matchRepository"}});
        vec![
            case("sigstoreSigned.fulcio", answer(by("ca", ISSUER, EMAIL)), NO, answer(without)),
            self.material("sigstoreSigned.fulcio.caPath", &signature, |name| by(name, ISSUER, EMAIL), pair),
            self.material("sigstoreSigned.fulcio.caData", &signature, data, pair),
            case(
                "sigstoreSigned.fulcio.oidcIssuer",
                answer(by("ca", ISSUER, EMAIL)),
                Expected::Deny("Unexpected Fulcio OIDC issuer"),
                answer(by("ca", "https://issuer.example/", EMAIL)),
            ),
            case(
                "sigstoreSigned.fulcio.subjectEmail",
                answer(by("ca", ISSUER, EMAIL)),
                Expected::Deny("Required email"),
                answer(by("ca", ISSUER, "dev@example.co")),
            ),
        ]
    }

    fn pki(&self) -> Vec<Case> {
        let identity = Identity {
            emails: vec![EMAIL.to_owned()],
            hostnames: vec!["build.example.com".to_owned()],
            ..Identity::default()
        };
        let sign = |flaw| self.sigstore.sign_pki(REPOSITORY, &self.digest, &identity, flaw).material();
        let signature = sign(Flaw::None);
        let with =
            |pki: Value| json!({"type": "sigstoreSigned", "pki": pki, "signedIdentity": {"type": "matchRepository"}});
        let roots = |key: &str, value: Value| {
            with(json!({key: value, "caIntermediatesPath": "intermediate", "subjectEmail": EMAIL}))
        };
        let intermediates =
            |key: &str, value: Value| with(json!({"caRootsPath": "pki", key: value, "subjectEmail": EMAIL}));
        let subject = |key: &str, value: &str| {
            with(json!({"caRootsPath": "pki", "caIntermediatesPath": "intermediate", key: value}))
        };
        let answer = |requirement: Value| self.asks(requirement, signature.clone());
        let without =
            json!({"type": "sigstoreSigned", "keyPath": "key", "signedIdentity": {"type": "matchRepository"}});
        let bare = sign(Flaw::NoChain);
        let (pair, below) = (("pki", "other-pki"), ("intermediate", "other-intermediate"));
        vec![
            case("sigstoreSigned.pki", answer(subject("subjectEmail", EMAIL)), NO, answer(without)),
            self.material("sigstoreSigned.pki.caRootsPath", &signature, |name| roots("caRootsPath", name.into()), pair),
            self.material(
                "sigstoreSigned.pki.caRootsData",
                &signature,
                |name| roots("caRootsData", self.data(name)),
                pair,
            ),
            self.material(
                "sigstoreSigned.pki.caIntermediatesPath",
                &bare,
                |name| intermediates("caIntermediatesPath", name.into()),
                below,
            ),
            self.material(
                "sigstoreSigned.pki.caIntermediatesData",
                &bare,
                |name| intermediates("caIntermediatesData", self.data(name)),
                below,
            ),
            case(
                "sigstoreSigned.pki.subjectEmail",
                answer(subject("subjectEmail", EMAIL)),
                Expected::Deny("Required email"),
                answer(subject("subjectEmail", "a@b")),
            ),
            case(
                "sigstoreSigned.pki.subjectHostname",
                answer(subject("subjectHostname", "build.example.com")),
                Expected::Deny("Unexpected subject hostname"),
                answer(subject("subjectHostname", "example.com")),
            ),
        ]
    }

    fn signed_by(&self) -> Vec<Case> {
        let signature = openpgp_material(&self.pgp.sign(REPOSITORY, &self.digest, OpenPgpFlaw::None));
        let full = |kind: &str, key_type: &str, key: &str, value: Value, repository: &str| {
            let identity = json!({"type": "exactRepository", "dockerRepository": repository});
            json!({"type": kind, "keyType": key_type, key: value, "signedIdentity": identity})
        };
        let with = |key: &str, value: Value| full("signedBy", "GPGKeys", key, value, REPOSITORY);
        let answer = |requirement: Value| self.asks(requirement, signature.clone());
        let good = || answer(with("keyPath", "ring".into()));
        let pair = ("ring", "other-ring");
        vec![
            case(
                "signedBy.type",
                good(),
                Expected::Unloadable("Unknown policy requirement type"),
                answer(full("signedby", "GPGKeys", "keyPath", "ring".into(), REPOSITORY)),
            ),
            case(
                "signedBy.keyType",
                good(),
                Expected::Deny("Unimplemented \"keyType\" value"),
                answer(full("signedBy", "X509Certificates", "keyPath", "ring".into(), REPOSITORY)),
            ),
            self.material("signedBy.keyPath", &signature, |name| with("keyPath", name.into()), pair),
            self.material("signedBy.keyPaths", &signature, |name| with("keyPaths", json!(["other-ring", name])), pair),
            self.material("signedBy.keyData", &signature, |name| with("keyData", self.data(name)), pair),
            case(
                "signedBy.signedIdentity",
                good(),
                Expected::Deny("is not accepted"),
                answer(full("signedBy", "GPGKeys", "keyPath", "ring".into(), "quay.io/team/other")),
            ),
        ]
    }

    fn identities(&self) -> Vec<Case> {
        let asked_as = |image: &str, identity: Value, signed: &str| {
            let requirement = json!({"type": "sigstoreSigned", "keyPath": "key", "signedIdentity": identity});
            let document =
                json!({"default": [{"type": "reject"}], "transports": {"docker": {REPOSITORY: [requirement]}}});
            self.document(&document, image, vec![self.by_key(signed)])
        };
        let (tag, digest) = (format!("{REPOSITORY}:1"), format!("{REPOSITORY}@{}", self.digest));
        let asked = |identity: Value, signed: &str| asked_as(&tag, identity, signed);
        let exact = |reference: &str| json!({"type": "exactReference", "dockerReference": reference});
        let repository = |repository: &str| json!({"type": "exactRepository", "dockerRepository": repository});
        let of = |kind: &str| json!({"type": kind});
        let no = Expected::Deny("is not accepted");
        let (vendor, vendored) = ("vendor.example/team", "vendor.example/team/app:1");
        vec![
            case("matchExact.type", asked(of("matchExact"), &tag), no, asked(of("matchExact"), REPOSITORY)),
            case(
                "matchRepoDigestOrExact.type",
                asked_as(&digest, of("matchRepoDigestOrExact"), "quay.io/team/app:2"),
                no,
                asked(of("matchRepoDigestOrExact"), "quay.io/team/app:2"),
            ),
            case(
                "matchRepository.type",
                asked(of("matchRepository"), REPOSITORY),
                no,
                asked(of("matchRepository"), "quay.io/team/other"),
            ),
            case(
                "exactReference.type",
                asked(exact("a.example/b:9"), "a.example/b:9"),
                no,
                asked(exact("a.example/b:9"), &tag),
            ),
            case(
                "exactReference.dockerReference",
                asked(exact("a.example/b:9"), "a.example/b:9"),
                no,
                asked(exact("a.example/b:8"), "a.example/b:9"),
            ),
            case(
                "exactRepository.type",
                asked(repository("a.example/b"), "a.example/b"),
                no,
                asked(repository("a.example/b"), REPOSITORY),
            ),
            case(
                "exactRepository.dockerRepository",
                asked(repository("a.example/b"), "a.example/b"),
                no,
                asked(repository("a.example/c"), "a.example/b"),
            ),
            case(
                "remapIdentity.type",
                asked(remap_identity("quay.io/team", vendor), vendored),
                no,
                asked(remap_identity("quay.io/team", vendor), &tag),
            ),
            case(
                "remapIdentity.prefix",
                asked(remap_identity("quay.io/team", vendor), vendored),
                no,
                asked(remap_identity("quay.io/tea", vendor), vendored),
            ),
            case(
                "remapIdentity.signedPrefix",
                asked(remap_identity("quay.io/team", vendor), vendored),
                no,
                asked(remap_identity("quay.io/team", "vendor.example/other"), vendored),
            ),
        ]
    }
}

fn remap_identity(prefix: &str, signed_prefix: &str) -> Value {
    json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed_prefix})
}
