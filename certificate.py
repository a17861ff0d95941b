"""The certificate and the key with which a server speaks TLS: read at the start, and again later.

Every failure is told in words, because OpenSSL's own are "PEM lib" for most of them. Left out:
several certificates for several names, certificates of clients, and asking for a key's password,
which nobody would be there to answer when the server restarts.
"""

import functools
import shlex
import ssl
from collections.abc import Callable


class CertificateError(OSError):
    """The certificate or its key cannot be used; the text is for the user.

    It is an OSError, as is whatever else keeps a server from starting.
    """


class _EncryptedKeyError(Exception):
    """OpenSSL has asked for the password of a key."""


def certificate_reader(
    certificate: str | None, key: str | None
) -> Callable[[], ssl.SSLContext] | None:
    """A function that reads these two files, at the start and when they were renewed.

    None without a certificate. Without a `key` it is in the certificate's file, too.
    """
    if certificate is None:
        return None
    return functools.partial(read_certificate, certificate, key)


def read_certificate(certificate: str, key: str | None) -> ssl.SSLContext:
    """What a server needs for TLS, from files in PEM format. Raises CertificateError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # This is Python's default, which the system's configuration of OpenSSL may have lowered.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 lets a client begin the handshake again, and each one costs the server much more.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # With a function for the password OpenSSL does not ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _EncryptedKeyError:
        raise CertificateError(
            f"the key in {key or certificate} is encrypted with a password; "
            f"openssl pkey -in {shlex.quote(key or certificate)} -out FILE writes one without"
        ) from None
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(_explain(error, certificate, key)) from None
    return context


def _refuse_password() -> str:
    raise _EncryptedKeyError


def _explain(error: OSError, certificate: str, key: str | None) -> str:
    """Why these files cannot be used, where OpenSSL has failed with this error."""
    key_file = key or certificate
    for what, file in (("certificate", certificate), ("key", key_file)):
        try:
            with open(file, "rb"):
                pass
        except OSError as unreadable:
            return f"the file of the {what} cannot be read: {file}: {unreadable.strerror}"
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key_file} does not belong to the first certificate in {certificate}"
    if reason:  # such as EE_KEY_TOO_SMALL
        words = str(reason).replace("_", " ").lower()
        return f"OpenSSL refuses the certificate in {certificate} or its key: {words}"
    if not _holds_certificate(certificate):
        return f"{certificate} does not begin with a whole certificate in PEM format"
    return f"{key_file} holds no whole private key in PEM format"


def _holds_certificate(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError:
        return False
    return True
