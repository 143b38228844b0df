"""One class a client: how it is pointed at the mirror, how it pulls, and what it holds afterwards."""
import hashlib
import json
import os
import shutil


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Docker:
    """dockerd with the output of `sealgate client-config docker`. It falls back by itself on ordinary refusals: only the hard stop holds it."""
    name = "dockerd"
    layouts = ("open",)

    def __init__(self, stage):
        self.stage = stage

    def configure(self, layout):
        pass

    def pull(self, reference):
        return self.stage.run(["docker", "-H", self.stage.docker_socket, "pull", reference])

    def wrong_bytes(self, reference, expected):
        status, text = self.stage.run(["docker", "-H", self.stage.docker_socket, "image", "inspect", reference])
        if status != 0:
            return text
        image = json.loads(text)[0]
        # The daemon hashed what it got: the id is the config's digest, and the layers are not compressed.
        return differences({
            "digest": (image["RepoDigests"][0].rpartition("@")[2], expected.digest),
            "config": (image["Id"], expected.config),
            "layers": (image["RootFS"]["Layers"], expected.layers),
        })


class Containerd:
    """containerd's content store, shared by ctr and CRI."""
    layouts = ("open", "closed")

    def __init__(self, stage):
        self.stage = stage

    def configure(self, layout):
        shutil.rmtree(self.stage.certs_d, ignore_errors=True)
        if layout == "open":
            mirror = self.stage.mirror
            self.stage.write("certs.d/docker.io/hosts.toml", f"""server = "https://registry-1.docker.io"

[host."{mirror}"]
  capabilities = ["pull", "resolve"]
""")
        else:
            for path, content in self.stage.client_config("containerd").items():
                self.stage.write("certs.d/" + path.partition("/certs.d/")[2], content)

    def wrong_bytes(self, reference, expected):
        wanted = {expected.digest, expected.manifest, expected.config, *expected.layers}
        for digest in wanted:
            path = self.stage.path("containerd/root/io.containerd.content.v1.content/blobs/sha256", digest.partition(":")[2])
            try:
                with open(path, "rb") as file:
                    found = sha256(file.read())
            except FileNotFoundError:
                found = "nothing"
            if found != digest:
                return f"{digest}: {found} is there"
        return ""


class Ctr(Containerd):
    name = "ctr"

    def pull(self, reference):
        return self.stage.run(["ctr", "-a", self.stage.containerd_socket, "images", "pull", "--snapshotter", "native",
                               "--hosts-dir", self.stage.certs_d, reference])


class Cri(Containerd):
    name = "CRI"

    def pull(self, reference):
        return self.stage.run([self.stage.cri, self.stage.containerd_socket, reference])


class ContainersImage:
    """podman and skopeo: no answer of a mirror stops them, so they have the closed configuration only."""
    layouts = ("closed",)

    def __init__(self, stage):
        self.stage = stage

    def configure(self, layout):
        text = "" if layout == "open" else "".join(self.stage.client_config("podman").values())
        self.stage.write("registries.conf", text)


class Podman(ContainersImage):
    name = "podman"

    def command(self, *arguments):
        base = ["podman", "--root", self.stage.path("podman/root"), "--runroot", self.stage.path("podman/run"),
                "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return self.stage.run([*base, *arguments], env={"CONTAINERS_REGISTRIES_CONF": self.stage.path("registries.conf")})

    def pull(self, reference):
        return self.command("pull", reference)

    def wrong_bytes(self, reference, expected):
        status, text = self.command("image", "inspect", reference)
        if status != 0:
            return text
        image = json.loads(text)[0]
        digests = [one.rpartition("@")[2] for one in image["RepoDigests"]]
        return differences({
            "digest": (expected.digest in digests, True),
            "config": ("sha256:" + image["Id"], expected.config),
            "layers": (image["RootFS"]["Layers"], expected.layers),
        })


class Skopeo(ContainersImage):
    name = "skopeo"

    def pull(self, reference):
        self.folder = self.stage.path("skopeo")
        shutil.rmtree(self.folder, ignore_errors=True)
        # This skopeo does not read CONTAINERS_REGISTRIES_CONF; the option names the same file.
        options = ["--insecure-policy", "--registries-conf", self.stage.path("registries.conf")]
        return self.stage.run(["skopeo", *options, "copy", "--all", "docker://" + reference, "dir:" + self.folder])

    def wrong_bytes(self, reference, expected):
        found = set()
        for name in os.listdir(self.folder):
            with open(os.path.join(self.folder, name), "rb") as file:
                found.add(sha256(file.read()))
        missing = {expected.digest, expected.manifest, expected.config, *expected.layers} - found
        return f"not among the files: {missing}" if missing else ""


def differences(pairs):
    return "; ".join(f"{name} is {found}, not {wanted}" for name, (found, wanted) in pairs.items() if found != wanted)


ALL = (Docker, Ctr, Cri, Podman, Skopeo)
