"""Reading a server's certificate and key: what is taken, and how each failure is told."""

import errno
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from certificate import CertificateError, certificate_reader, read_certificate
from peers import PATIENCE
from programs import ROOT, run
from tls import Certificate, make_certificate, run_openssl


@pytest.fixture
def folder(
    certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Certificate:
    """A folder of files, good and bad, that the test runs in; and the good certificate there."""
    good = certificate.copy_to(tmp_path)
    pem = good.certificate.read_text()
    key = good.key.read_text()
    (tmp_path / "both.pem").write_text(key + pem)
    (tmp_path / "chain.pem").write_text(pem + pem)
    (tmp_path / "cut.pem").write_text(pem[:300])
    (tmp_path / "cut-key.pem").write_text(key[:100])
    (tmp_path / "text.pem").write_text("hello\n")
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "binary.der").write_bytes(ssl.PEM_cert_to_DER_cert(pem))
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop.pem").symlink_to("loop.pem")  # nobody can read it, not even root
    (tmp_path / "other").mkdir()
    shutil.copy(make_certificate(tmp_path / "other").key, tmp_path / "other-key.pem")
    encrypted = ("-aes256", "-passout", "pass:secret", "-out", str(tmp_path / "encrypted.pem"))
    run_openssl("pkey", "-in", str(good.key), *encrypted)
    monkeypatch.chdir(tmp_path)
    return good


@pytest.mark.parametrize(
    ("certificate_file", "key_file"),
    [("certificate.pem", "key.pem"), ("both.pem", None), ("chain.pem", "key.pem")],
)
def test_certificate_and_key_are_read_from_two_files_or_one(
    folder: Certificate, certificate_file: str, key_file: str | None
) -> None:
    context = read_certificate(certificate_file, key_file)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_NONE  # no certificate is asked of clients


def test_server_without_a_certificate_has_nothing_to_read() -> None:
    assert certificate_reader(None, None) is None


NOT_WHOLE = "does not begin with a whole certificate in PEM format"
NO_KEY = "holds no whole private key in PEM format"
NO_FILE = "No such file or directory"
LOOP = os.strerror(errno.ELOOP)
MISMATCH = "the key in other-key.pem does not belong to the first certificate in certificate.pem"
ENCRYPTED = (
    "the key in encrypted.pem is encrypted with a password; "
    "openssl pkey -in encrypted.pem -out FILE writes one without"
)
BAD_FILES = [
    ("none.pem", "key.pem", f"the file of the certificate cannot be read: none.pem: {NO_FILE}"),
    ("certificate.pem", "none.pem", f"the file of the key cannot be read: none.pem: {NO_FILE}"),
    ("certificate.pem", "loop.pem", f"the file of the key cannot be read: loop.pem: {LOOP}"),
    ("directory", None, "the file of the certificate cannot be read: directory: Is a directory"),
    ("certificate.pem", "other-key.pem", MISMATCH),
    ("certificate.pem", "encrypted.pem", ENCRYPTED),
    ("certificate.pem", None, f"certificate.pem {NO_KEY}"),
    ("certificate.pem", "text.pem", f"text.pem {NO_KEY}"),
    ("certificate.pem", "cut-key.pem", f"cut-key.pem {NO_KEY}"),
    ("certificate.pem", "certificate.pem", f"certificate.pem {NO_KEY}"),
    ("key.pem", "certificate.pem", f"key.pem {NOT_WHOLE}"),
    ("text.pem", "key.pem", f"text.pem {NOT_WHOLE}"),
    ("empty.pem", "key.pem", f"empty.pem {NOT_WHOLE}"),
    ("cut.pem", "key.pem", f"cut.pem {NOT_WHOLE}"),
    ("binary.der", "key.pem", f"binary.der {NOT_WHOLE}"),
]


@pytest.mark.parametrize(("certificate_file", "key_file", "words"), BAD_FILES)
def test_failure_is_told_in_words(
    folder: Certificate, certificate_file: str, key_file: str | None, words: str
) -> None:
    with pytest.raises(CertificateError) as failure:
        read_certificate(certificate_file, key_file)
    assert str(failure.value) == words


def test_key_that_is_too_short_is_told_in_words(tmp_path: Path) -> None:
    short = make_certificate(tmp_path, key=("-newkey", "rsa:1024"))
    with pytest.raises(CertificateError, match=r"OpenSSL refuses .*: ee key too small"):
        read_certificate(str(short.certificate), str(short.key))


# The programs


@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
@pytest.mark.parametrize(
    ("certificate_file", "key_file", "words"),
    [
        ("none.pem", "key.pem", f"the file of the certificate cannot be read: none.pem: {NO_FILE}"),
        ("certificate.pem", "other-key.pem", MISMATCH),
        ("certificate.pem", "encrypted.pem", ENCRYPTED),
    ],
)
def test_server_does_not_start_and_says_why_in_one_line(
    folder: Certificate, script: str, certificate_file: str, key_file: str, words: str
) -> None:
    ended = run(script, "--port", "0", "--cert", certificate_file, "--key", key_file)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.decode() == f"cannot serve 127.0.0.1:0: {words}\n"


@pytest.mark.parametrize("script", ["chat_server.py", "echo_server.py"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--key", "key.pem"], "--key needs --cert, the file with the certificate"),
        (["--cert", ""], "argument --cert: the name of the file is empty"),
        (["--cert", "certificate.pem", "--key", ""], "argument --key: the name of the file is"),
    ],
)
def test_server_says_which_option_is_wrong(script: str, options: list[str], words: str) -> None:
    ended = run(script, "--port", "0", *options)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert words in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


# Runs a command on a terminal of its own, and ends with the exit status of the command.
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_server_asks_for_no_password_on_its_terminal(folder: Certificate) -> None:
    options = ["--port", "0", "--cert", "certificate.pem", "--key", "encrypted.pem"]
    server = [sys.executable, str(ROOT / "echo_server.py"), *options]
    ended = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL, *server],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout.decode() == f"cannot serve 127.0.0.1:0: {ENCRYPTED}\r\n"
