#!/usr/bin/env python3
"""Real clients against Sealgate: allowed images arrive byte for byte, refused ones are refused with their reason, and nobody goes round.

    drive.py --sealgate BINARY --push BINARY --cri BINARY [--keep] [client…]

Needs root, Debian's dockerd, containerd, podman, skopeo, docker-registry and openssl. One line a case, then "N passed, N failed".
"""
import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass

import clients
from stage import Stage

NO_SIGNATURE = "A signature was required, but no signature exists"
OTHER_IDENTITY = 'Required email "release@example.com" not found (got ["somebody@example.net"])'

# What is pulled: name of the case, how the image is built and signed, the reason if it must be refused.
CASES = (
    ("an allowed image", "single,keyed", None),
    ("an allowed index", "index,keyless", None),
    ("an unsigned image", "single,unsigned", NO_SIGNATURE),
    ("a wrong identity", "single,stranger", OTHER_IDENTITY),
    ("an unsigned index", "index,unsigned", NO_SIGNATURE),
)


@dataclass
class Expected:
    """The digests that a client must hold after it pulled an image for this machine."""
    digest: str
    manifest: str
    config: str
    layers: list


class Report:
    def __init__(self):
        self.passed = self.failed = 0

    def case(self, title, faults, text):
        if faults:
            self.failed += 1
            print(f"FAIL {title}: {'; '.join(faults)}")
            print("".join(f"     | {line}\n" for line in text.strip().split("\n")[-12:]), end="")
        else:
            self.passed += 1
            print(f"ok   {title}")
        sys.stdout.flush()


def repository(client, layout, number):
    # A client never sees an image twice: dockerd keeps manifests by digest, and would measure its own memory.
    return f"library/{client.name}-{layout}-{number}".lower()


def runs(chosen):
    return [(client, layout) for client in chosen for layout in client.layouts]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sealgate", required=True)
    parser.add_argument("--push", required=True)
    parser.add_argument("--cri", required=True)
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    parser.add_argument("clients", nargs="*", help="dockerd, ctr, CRI, podman, skopeo; all by default")
    arguments = parser.parse_args()
    chosen = [client for client in clients.ALL if not arguments.clients or client.name in arguments.clients]
    stage = Stage(tempfile.mkdtemp(prefix="sealgate-clients-"), *map(os.path.abspath, (arguments.sealgate, arguments.push, arguments.cri)))
    report = Report()
    try:
        play(stage, chosen, report)
    finally:
        stage.stop()
        if arguments.keep or report.failed:
            print(f"logs and data: {stage.folder}")
        else:
            stage.remove()
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed or not report.passed else 0)


def play(stage, chosen, report):
    stage.start_upstream()
    wanted = [(f"{repository(client, layout, number)}:1", how)
              for client, layout in runs(chosen) for number, (_, how, _) in enumerate(CASES)]
    wanted += [(f"{repository(client, 'control', 0)}:1", "single,unsigned") for client in chosen]
    digests = stage.push_images(wanted)
    stage.start_mirror()
    if any(client in (clients.Docker, clients.Ctr, clients.Cri) for client in chosen):
        stage.start_containerd()
    if clients.Docker in chosen:
        stage.start_dockerd()
    for kind in chosen:
        client = kind(stage)
        control(stage, client, report)
        for layout in client.layouts:
            client.configure(layout)
            for number, (name, _, reason) in enumerate(CASES):
                path = repository(client, layout, number)
                reference = f"docker.io/{path}:1"
                pull(stage, client, f"{client.name} ({layout}): {name}", path, reference, digests[reference], reason, report)


def control(stage, client, report):
    """Nobody is stopped from reaching an upstream that no mirror stands for: the interceptor can see a contact, and serves."""
    client.configure("open")
    before = len(stage.contacts())
    status, text = client.pull(f"elsewhere.example/{repository(client, 'control', 0)}:1")
    faults = [] if status == 0 else [f"status {status}"]
    if "CONNECT elsewhere.example" not in stage.contacts()[before:]:
        faults.append("the interceptor saw nothing")
    report.case(f"{client.name}: the interceptor sees and serves what goes past the mirror", faults, text)


def pull(stage, client, title, path, reference, digest, reason, report):
    before = len(stage.contacts())
    status, text = client.pull(reference)
    faults = []
    if reason is None:
        if status != 0:
            faults.append(f"not pulled, status {status}")
        else:
            wrong = client.wrong_bytes(reference, expectation(stage, path, digest))
            if wrong:
                faults.append(f"other bytes than upstream's: {wrong}")
    else:
        if status == 0:
            faults.append("pulled, although it must be refused")
        if status == "time-out":
            faults.append("the client hung")
        if reason not in text and reason.replace('"', '\\"') not in text:
            faults.append(f"the reason is not in what it printed: {reason}")
    contacts = stage.contacts()[before:]
    if contacts:
        faults.append(f"it went round the mirror: {contacts[:3]}")
    report.case(title, faults, text)


def expectation(stage, path, digest):
    top = json.loads(stage.upstream_bytes(path, "manifests", digest))
    manifest = digest
    if "manifests" in top:
        manifest = next(child["digest"] for child in top["manifests"] if child["platform"]["architecture"] == machine())
        top = json.loads(stage.upstream_bytes(path, "manifests", manifest))
    return Expected(digest, manifest, top["config"]["digest"], [layer["digest"] for layer in top["layers"]])


def machine():
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


if __name__ == "__main__":
    main()
