#!/usr/bin/env python3
"""Plays every real upstream registry, and writes down who came.

A CONNECT proxy that ends TLS with certificates of its own authority and then serves what the given registry has, whatever
host was asked for. A client that goes round the mirror therefore gets its image here and leaves a line in the log.

    interceptor.py --port PORT --registry HOST:PORT --dir DIR

DIR/ca.crt is the authority that clients must trust; DIR/contacts.log gets one line a CONNECT and one line a request.
"""
import argparse
import http.client
import http.server
import os
import re
import socket
import ssl
import subprocess
import threading


class Interceptor:
    def __init__(self, port, registry, folder):
        self.port, self.registry, self.folder = port, registry, folder
        self.lock = threading.Lock()
        self.contexts = {}
        os.makedirs(folder, exist_ok=True)
        self.log_file = open(os.path.join(folder, "contacts.log"), "a", buffering=1)
        self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=interceptor",
                     "-keyout", self.path("ca.key"), "-out", self.path("ca.crt.new"))
        os.rename(self.path("ca.crt.new"), self.path("ca.crt"))

    def path(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def log(self, line):
        with self.lock:
            self.log_file.write(line + "\n")

    def context(self, host):
        """TLS as that host, with a certificate made at the first call."""
        with self.lock:
            if host not in self.contexts:
                name = re.sub(r"[^a-z0-9.-]", "_", host.lower())
                key, request, certificate = self.path(name + ".key"), self.path(name + ".csr"), self.path(name + ".crt")
                kind = "IP" if re.fullmatch(r"[0-9.]+", host) else "DNS"
                with open(self.path(name + ".ext"), "w") as file:
                    file.write(f"subjectAltName={kind}:{host}\n")
                self.openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-keyout", key, "-out", request)
                self.openssl("x509", "-req", "-in", request, "-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key"),
                             "-CAcreateserial", "-days", "2", "-extfile", self.path(name + ".ext"), "-out", certificate)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, key)
                self.contexts[host] = context
            return self.contexts[host]

    def serve(self):
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.connection, args=(connection,), daemon=True).start()

    def connection(self, connection):
        try:
            with connection, connection.makefile("rb", 0) as reader:
                request = reader.readline(4096).decode("latin-1").strip()
                while reader.readline(4096).strip():
                    pass
                asked = re.match(r"CONNECT ([^:\s]+):(\d+) ", request)
                if not asked:
                    self.log(f"PLAIN {request}")
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    return
                host = asked.group(1)
                self.log(f"CONNECT {host}")
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with self.context(host).wrap_socket(connection, server_side=True) as secured:
                    handler = type("Handler", (Upstream,), {"interceptor": self, "host": host})
                    handler(secured, None, None)
        except (OSError, ssl.SSLError) as error:
            self.log(f"BROKEN {error}")


class Upstream(http.server.BaseHTTPRequestHandler):
    """Any registry host: what the registry behind has."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.interceptor.log(f"REQUEST {self.host} {self.command} {self.path}")
        registry = http.client.HTTPConnection(self.interceptor.registry, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() in ("range", "accept-encoding")}
        headers["Accept"] = ", ".join(self.headers.get_all("Accept") or ["*/*"])
        registry.request(self.command, self.path, headers=headers)
        answer = registry.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--dir", required=True)
    arguments = parser.parse_args()
    Interceptor(arguments.port, arguments.registry, arguments.dir).serve()


if __name__ == "__main__":
    main()
