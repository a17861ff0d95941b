"""What the command lines of our clients have in common: options, and words for what goes wrong.

It is not part of the protocol: `__main__` and `echo_client.py` use it.
"""

import argparse
import ssl
import sys

from .handshake import printable
from .trace import Traced
from .trace_words import describe, wants_colour

INTERRUPTED = 130  # the exit status that shells give to a program ended by Ctrl+C: 128 + SIGINT
# How OpenSSL calls an answer that is not TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}
# OpenSSL's codes for a certificate that is fine but for who has issued it: the certificate itself,
# somebody unknown at the end of a chain, or somebody who is not in the chain (X509_V_ERR_...).
_UNKNOWN_ISSUER = {18, 19, 20, 21}


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Add --trace, which servers have, too."""
    parser.add_argument(
        "--trace",
        action="store_true",
        help="show on stderr what travels: each line of the opening handshakes, and each frame as "
        "bytes and in words. It shows all that people say, and cookies (default: do not)",
    )


def add_insecure(parser: argparse.ArgumentParser) -> None:
    """Add --insecure, which `make_ssl_context` obeys."""
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="connect to a wss: server whose certificate cannot be verified, such as one that you "
        "have made yourself for a test; nothing then proves who answers, and anyone on the way to "
        "the server can read and change what you send (default: check the certificate)",
    )


def make_ssl_context(*, insecure: bool) -> ssl.SSLContext:
    """How to check the certificate of a wss: server: as browsers do, or not at all."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def explain(url: str, error: Exception) -> str:
    """Why there is no connection, and what to do about that; fit for a terminal."""
    reason = _explain_tls(error) if isinstance(error, ssl.SSLError) else str(error)
    return printable(f"cannot connect to {url}: {reason}")


def _explain_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_ISSUER:
            advice = "to trust it, set the environment variable SSL_CERT_FILE to a file that has it"
        else:
            advice = "whoever runs the server can mend that, unless the URL is wrong"
        return (
            "the server's certificate cannot be verified: "
            f"{error.verify_message.rstrip('.')}; {advice}; --insecure connects all the same, but "
            "then nothing proves who answers"
        )
    reason = getattr(error, "reason", None) or str(error)
    if reason in _NO_TLS:
        return "the server does not speak TLS at this port; a URL that begins with ws: may work"
    return f"TLS failed: {reason.replace('_', ' ').lower()}"


def print_trace(traced: Traced) -> None:
    """Print a line for --trace. Any thread may call it; their lines do not mix."""
    if sys.stderr is not None:
        sys.stderr.write(describe(traced, colour=wants_colour(sys.stderr)) + "\n")
        sys.stderr.flush()
