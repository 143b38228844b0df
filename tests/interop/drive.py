"""Signs images with cosign in each format that it writes, and pulls them with skopeo through Sealgate under both policy formats."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))
from stage import Stage, free_ports  # noqa: E402

COSIGN = os.environ["COSIGN"]
OFFLINE = ["--tlog-upload=false", "--use-signing-config=false", "--allow-insecure-registry", "--yes"]
LEGACY = ["--new-bundle-format=false"]
BUILD = "https://example.com/build/v1"


def main(sealgate):
    with tempfile.TemporaryDirectory(prefix="sealgate-interop-") as folder:
        stage = Stage(folder, os.path.abspath(sealgate), None, None)
        try:
            return Interop(stage).run()
        finally:
            stage.stop()


class Interop:
    def __init__(self, stage):
        self.stage, self.passed, self.failed = stage, 0, 0
        self.digests = {}

    def run(self):
        stage = self.stage
        start_registry(stage)
        for key in ("ours", "theirs"):
            self.cosign("generate-key-pair", "--output-key-prefix", stage.path(key))
        for name in ("bundle", "legacy", "attested", "attested-legacy", "attested-other", "theirs", "unsigned"):
            self.push(name)
        self.sign("bundle", "ours")
        self.sign("legacy", "ours", *LEGACY)
        self.sign("theirs", "theirs")
        self.sign("theirs", "theirs", *LEGACY)
        self.attest("attested", BUILD)
        self.attest("attested-legacy", BUILD, *LEGACY)
        self.attest("attested-other", "https://example.com/test/v1")

        mirror = self.mirror("policies", "cluster_image_policies = [\"policies.yaml\"]\ncontainers_policy = \"\"", policies(stage))
        self.pulls(mirror, "ClusterImagePolicy", {
            "bundle": None, "legacy": None, "attested": None, "attested-legacy": None,
            "attested-other": "failed policy", "theirs": "failed policy", "unsigned": "failed policy",
        })
        strict = self.mirror("strict", 'containers_policy = "policy.json"', policy_json(stage))
        self.pulls(strict, "policy.json", {
            "legacy": None, "bundle": "bundle signature carries no docker-reference", "attested": "no signature exists",
            "theirs": "", "unsigned": "A signature was required, but no signature exists",
        })
        by_digest = '\n[[policy.override]]\nscope = "registry.test"\nbundles_without_identity = true\n'
        lenient = self.mirror("lenient", 'containers_policy = "policy.json"' + by_digest, policy_json(stage))
        self.pulls(lenient, "policy.json, by digest", {"legacy": None, "bundle": None, "attested": "", "theirs": ""})
        # cosign verifies what it signed, through the mirror.
        self.check("cosign verifies the bundle behind the mirror", lambda: self.cosign(
            "verify", "--key", stage.path("ours.pub"), "--insecure-ignore-tlog=true", "--allow-insecure-registry",
            f"127.0.0.1:{mirror}/registry.test/interop/bundle:1"))
        self.check("cosign verifies the legacy signature behind the mirror", lambda: self.cosign(
            "verify", "--key", stage.path("ours.pub"), "--insecure-ignore-tlog=true", "--allow-insecure-registry",
            "--new-bundle-format=false", f"127.0.0.1:{mirror}/registry.test/interop/legacy:1"))
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0

    # ---- signing ----

    def cosign(self, *arguments):
        environment = dict(os.environ, COSIGN_PASSWORD="interop", HOME=self.stage.folder)
        run([COSIGN, *arguments], environment)

    def push(self, name):
        layout = self.stage.path("images", name)
        self.digests[name] = image(layout, name)
        run(["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}",
             f"docker://{self.stage.registry}/interop/{name}:1"])

    def reference(self, name):
        return f"{self.stage.registry}/interop/{name}@{self.digests[name]}"

    def sign(self, name, key, *more):
        self.cosign("sign", "--key", self.stage.path(f"{key}.key"), *OFFLINE, *more, self.reference(name))

    def attest(self, name, kind, *more):
        predicate = self.stage.write("predicate.json", json.dumps({"builder": "interop"}))
        self.cosign("attest", "--key", self.stage.path("ours.key"), "--type", kind, "--predicate", predicate, *OFFLINE, *more,
                    self.reference(name))

    # ---- pulling ----

    def mirror(self, name, policy, files):
        port, admin = free_ports(2)
        for file, text in files.items():
            self.stage.write(f"{name}/{file}", text)
        config = self.stage.write(f"{name}/sealgate.toml", f"""
[server]
listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin}"
data_dir = "data"
[policy]
mode = "enforce"
{policy}
[[upstream]]
host = "registry.test"
endpoint = "http://{self.stage.registry}"
""")
        self.stage.start(f"sealgate-{name}", [self.stage.sealgate, "serve", "--config", config])
        self.stage.wait(f"sealgate-{name}", lambda: answers(f"http://127.0.0.1:{port}/v2/"))
        return port

    def pulls(self, mirror, under, expected):
        for name, refusal in expected.items():
            outcome = "is pulled" if refusal is None else "is refused"
            self.check(f"{under}: {name} {outcome}", lambda: self.pull(mirror, name, refusal))

    def pull(self, mirror, name, refusal):
        target = tempfile.mkdtemp(dir=self.stage.folder)
        command = ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--preserve-digests",
                   f"docker://127.0.0.1:{mirror}/registry.test/interop/{name}:1", f"dir:{target}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if refusal is None:
            assert done.returncode == 0, done.stderr
            with open(os.path.join(target, "manifest.json"), "rb") as manifest:
                assert "sha256:" + hashlib.sha256(manifest.read()).hexdigest() == self.digests[name]
        else:
            assert done.returncode != 0, "it was pulled"
            # What the client printed says why, in the mirror's own words.
            said = head(f"http://127.0.0.1:{mirror}/v2/registry.test/interop/{name}/manifests/1")
            assert "SignatureValidationFailed" in said and refusal in said, said

    def check(self, name, work):
        try:
            work()
        except (AssertionError, subprocess.CalledProcessError) as error:
            self.failed += 1
            print(f"FAIL {name}: {getattr(error, 'stderr', None) or error}")
        else:
            self.passed += 1
            print(f"ok   {name}")


def policies(stage):
    with open(stage.path("ours.pub")) as file:
        key = "".join("        " + line for line in file)
    policies = [policy(name, key, authority) for name, authority in {
        "bundle": "    signatureFormat: bundle\n",
        "legacy": "",
        "attested": "    signatureFormat: bundle\n" + attestation(),
        "attested-legacy": attestation(),
        "attested-other": "    signatureFormat: bundle\n" + attestation(),
        "theirs": "    signatureFormat: bundle\n",
        "unsigned": "",
    }.items()]
    return {"policies.yaml": "---\n".join(policies)}


def attestation():
    return f"    attestations:\n    - name: build\n      predicateType: {BUILD}\n"


def policy(name, key, authority):
    return f"""apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: {name}
spec:
  images:
  - glob: "registry.test/interop/{name}:**"
  authorities:
  - name: ours
    key:
      data: |
{key}{authority}"""


def policy_json(stage):
    requirement = lambda name: {
        "type": "sigstoreSigned", "keyPath": stage.path("ours.pub"),
        "signedIdentity": {"type": "exactRepository", "dockerRepository": f"{stage.registry}/interop/{name}"}}
    names = ("bundle", "legacy", "attested", "theirs", "unsigned")
    scopes = {f"registry.test/interop/{name}": [requirement(name)] for name in names}
    return {"policy.json": json.dumps({"default": [{"type": "reject"}], "transports": {"docker": scopes}})}


def start_registry(stage):
    config = stage.write("registry.yml", json.dumps({
        "version": "0.1", "log": {"level": "error"}, "http": {"addr": stage.registry},
        "storage": {"filesystem": {"rootdirectory": stage.path("registry")}}}))
    stage.start("registry", ["docker-registry", "serve", config])
    stage.wait("registry", lambda: answers(f"http://{stage.registry}/v2/"))


def image(layout, name):
    """An OCI layout of a small image; its digest."""
    blobs = os.path.join(layout, "blobs", "sha256")
    os.makedirs(blobs)

    def put(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(name)
        archive.addfile(entry, io.BytesIO(name.encode()))
    layer = put(gzip.compress(tar.getvalue(), mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
    config = put(json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar.getvalue()).hexdigest()]},
    }).encode(), "application/vnd.oci.image.config.v1+json")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode(), kind)
    for file, text in {"index.json": {"schemaVersion": 2, "manifests": [manifest]}, "oci-layout": {"imageLayoutVersion": "1.0.0"}}.items():
        with open(os.path.join(layout, file), "w") as out:
            json.dump(text, out)
    return manifest["digest"]


def head(url):
    """The reason phrase of what is refused."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
            return f"{answer.status} {answer.reason}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.reason}"


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def run(command, environment=None):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
