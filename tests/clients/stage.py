"""The stage for the clients: upstream registry, interceptor, Sealgate, dockerd, containerd. Everything is started by us, on sockets, ports and
folders of its own, and ended by process id."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))


class Stage:
    def __init__(self, folder, sealgate, push, cri):
        self.folder, self.sealgate, self.push, self.cri = folder, sealgate, push, cri
        self.registry_port, self.mirror_port, self.admin_port, self.proxy_port = free_ports(4)
        self.registry = f"127.0.0.1:{self.registry_port}"
        self.mirror = f"http://127.0.0.1:{self.mirror_port}"
        self.docker_socket = "unix://" + self.path("docker.sock")
        self.containerd_socket = self.path("containerd.sock")
        self.certs_d = self.path("certs.d")
        self.processes = []
        # Every real upstream is reached through the interceptor; the mirror is not.
        self.client_env = dict(
            os.environ, HTTPS_PROXY=f"http://127.0.0.1:{self.proxy_port}", HTTP_PROXY=f"http://127.0.0.1:{self.proxy_port}",
            SSL_CERT_FILE=self.path("interceptor/ca.crt"), NO_PROXY="127.0.0.1,localhost")

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path

    # ---- processes ----

    def start(self, name, command, env=None):
        log = open(self.path(name + ".log"), "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.folder)
        self.processes.append((name, process))
        return process

    def wait(self, name, ready, seconds=60):
        process = dict(self.processes)[name]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if ready():
                return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        with open(self.path(name + ".log"), errors="replace") as log:
            sys.exit(f"{name} did not start:\n" + "".join(log.readlines()[-30:]))

    def stop(self):
        """Ends what was started, last first, each by its own process id."""
        for name, process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.processes.clear()

    def remove(self):
        with open("/proc/mounts") as mounts:
            inside = [line.split()[1] for line in mounts if line.split()[1].startswith(self.folder + "/")]
        for mount in sorted(inside, reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- parts ----

    def start_upstream(self):
        config = self.write("registry.yml", f"""version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {self.path("registry")}}}}}
http: {{addr: "{self.registry}"}}
""")
        self.start("docker-registry", ["docker-registry", "serve", config])
        self.wait("docker-registry", lambda: answers(f"http://{self.registry}/v2/"))
        self.start("interceptor", [sys.executable, os.path.join(HERE, "interceptor.py"), "--port", str(self.proxy_port),
                                   "--registry", self.registry, "--dir", self.path("interceptor")])
        self.wait("interceptor", lambda: listens(self.proxy_port) and os.path.exists(self.path("interceptor/ca.crt")))

    def push_images(self, wanted):
        """Pushes all images and writes the policy; gives reference → digest."""
        specs = [f"{image}={how}" for image, how in wanted]
        command = [self.push, f"http://{self.registry}", "--as", "docker.io", "--policy", self.path("policy.json"), *specs]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")
        return dict(line.split(" ") for line in lines if line)

    def start_mirror(self):
        self.write("sealgate.toml", f"""[server]
listen = "127.0.0.1:{self.mirror_port}"
admin_listen = "127.0.0.1:{self.admin_port}"
data_dir = "data"

[policy]
containers_policy = "policy.json"
mode = "enforce"

[[upstream]]
host = "docker.io"
endpoint = "http://{self.registry}"
default = true

[cache]
min_free_bytes = "0"
""")
        self.start("sealgate", [self.sealgate, "serve", "--config", self.path("sealgate.toml")])
        self.wait("sealgate", lambda: answers(self.mirror + "/v2/"))

    def client_config(self, runtime):
        """The files that `sealgate client-config` prints: path → content."""
        command = [self.sealgate, "client-config", runtime, "--mirror", self.mirror, "--output", "json",
                   "--config", self.path("sealgate.toml")]
        printed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        return {file["path"]: file["content"] for file in printed["files"]}

    def start_containerd(self):
        config = self.write("containerd.toml", f"""version = 2
root = "{self.path("containerd/root")}"
state = "{self.path("containerd/state")}"
[grpc]
  address = "{self.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{self.certs_d}"
""")
        os.makedirs(self.certs_d, exist_ok=True)
        self.start("containerd", ["containerd", "-c", config], self.client_env)
        self.wait("containerd", lambda: os.path.exists(self.containerd_socket) and self.run(["ctr", "-a", self.containerd_socket, "version"])[0] == 0)

    def start_dockerd(self):
        files = self.client_config("docker")
        daemon_json = next(content for path, content in files.items() if path.endswith("daemon.json"))
        config = self.write("daemon.json", daemon_json)
        self.start("dockerd", [
            "dockerd", "--config-file", config, "--data-root", self.path("docker/data"), "--exec-root", self.path("docker/exec"),
            "--host", self.docker_socket, "--pidfile", self.path("docker.pid"), "--containerd", self.containerd_socket,
            "--storage-driver=vfs", "--iptables=false", "--bridge=none"], self.client_env)
        self.wait("dockerd", lambda: self.run(["docker", "-H", self.docker_socket, "version"])[0] == 0)

    # ---- looking ----

    def run(self, command, seconds=180, env=None):
        """Status and everything that a client prints."""
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=seconds, env={**self.client_env, **(env or {})})
            return done.returncode, done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            return "time-out", (error.stdout or b"").decode(errors="replace")

    def contacts(self):
        """What the interceptor saw so far."""
        with open(self.path("interceptor/contacts.log")) as log:
            return log.read().splitlines()

    def upstream_bytes(self, repository, kind, digest):
        """Bytes as the upstream registry has them: what every client must end up with."""
        accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        request = urllib.request.Request(f"http://{self.registry}/v2/{repository}/{kind}/{digest}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
