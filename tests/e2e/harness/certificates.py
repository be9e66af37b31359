"""A certificate authority and its leaves, by the `openssl` command."""

import shutil
import ssl
import subprocess

OPENSSL = shutil.which("openssl")


def _run(*words):
    subprocess.run([OPENSSL] + [str(word) for word in words], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


class Authority:
    """Issues certificates with one subject alternative name each, all in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = folder / "ca.pem"
        _run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test-ca",
             "-keyout", folder / "ca.key", "-out", self.certificate)

    def issue(self, name, san):
        """(certificate, key) of a leaf with the subject alternative name `san`, such as "DNS:localhost"."""
        key, request, leaf = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\n")
        _run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _run("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key",
             "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", leaf)
        return leaf, key

    def server(self):
        """A listener's transport socket that asks for a client's certificate, and does without."""
        leaf, key = self.issue("server", "DNS:localhost")
        return {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": False,
            "common_tls_context": {
                "tls_certificates": [{"certificate_chain": {"filename": str(leaf)}, "private_key": {"filename": str(key)}}],
                "validation_context": {"trusted_ca": {"filename": str(self.certificate)}}}}}

    def client(self, leaf, key):
        """A TLS context that shows this leaf and trusts this authority."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.load_cert_chain(str(leaf), str(key))
        return context
