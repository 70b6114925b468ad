"""An agent that is asked from elsewhere: over TCP only by who may, and through ssh as if one were there."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

import netlab
from netlab.agent import delegation, remote, ways
from netlab.cli import main
from tests.support.agents import running
from tests.support.programs import wait_until

TOKEN = "correct-horse-battery-staple"  # noqa: S105 - opens the agents of these tests
REFUSED = {
    "nobody to serve": (["--listen", "127.0.0.1:9400"], "would serve everybody"),
    "no port": (["--listen", "127.0.0.1", "--token-file", "{token}"], "is no address and port"),
    "in the clear": (
        ["--listen", "192.0.2.1:9400", "--token-file", "{token}"],
        "send the token in the clear",
    ),
    "a token that others may read": (
        ["--listen", "127.0.0.1:9400", "--token-file", "{open}"],
        "others may read the token",
    ),
    "a token that is too short": (["--listen", "127.0.0.1:9400", "--token-file", "{short}"], "has no token"),
    "half a certificate": (
        ["--listen", "127.0.0.1:9400", "--token-file", "{token}", "--tls-cert", "{token}"],
        "a certificate and its key",
    ),
    "client certificates without TLS": (
        ["--listen", "127.0.0.1:9400", "--client-ca", "{token}"],
        "a certificate and its key",
    ),
    "a token for nothing": (["--token-file", "{token}"], "Give --listen"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokens; an authority, and certificates of it for the agent and for who asks."""
    place = tmp_path_factory.mktemp("files")
    found = {name: place / name for name in ("token", "open", "short")}
    for name, path in found.items():
        path.write_text("short" if name == "short" else f"{TOKEN}\n", encoding="ascii")
        path.chmod(0o644 if name == "open" else 0o600)
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name in ("ca", "agent", "asking"):
        signed = [] if name == "ca" else ["-CA", place / "ca.pem", "-CAkey", place / "ca.key"]
        names = ["-addext", "subjectAltName=IP:127.0.0.1"] if name == "agent" else []
        out = ["-subj", f"/CN={name}", "-out", place / f"{name}.pem", "-keyout", place / f"{name}.key"]
        command = ["openssl", "req", "-x509", *made, *signed, *names, *out]
        subprocess.run(command, check=True, capture_output=True)
        found |= {f"{name}.pem": place / f"{name}.pem", f"{name}.key": place / f"{name}.key"}
    return found


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED)
def test_what_would_serve_strangers_is_refused_before_it_listens(
    options: list[str], says: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        option.format(**{name: path for name, path in files.items() if "." not in name}) for option in options
    ]

    assert main(["agent", *given]) == 2
    assert says in capsys.readouterr().err


def test_a_certificate_with_another_key_is_refused_before_the_agent_listens(files: dict[str, Path]) -> None:
    with pytest.raises(netlab.BadInput, match=r"key values mismatch.*Give --tls-cert and its --tls-key"):
        remote.Remote.of(
            "127.0.0.1:9400",
            token_file=files["token"],
            tls_cert=files["agent.pem"],
            tls_key=files["asking.key"],
        )


def test_a_token_is_in_no_traceback(files: dict[str, Path]) -> None:
    served = remote.Remote.of("127.0.0.1:9400", token_file=files["token"])
    asked = ways.way_to("http://127.0.0.1:9400", token=TOKEN, ca=None, certificate=None, ssh_options=())

    assert TOKEN not in repr(served) + repr(asked)


@pytest.mark.parametrize("said", ["", " ", "two words", "a\nb", "ü" * 40])
def test_what_can_be_no_token_is_refused_and_not_repeated(said: str) -> None:
    with pytest.raises(netlab.BadInput, match=r"this is no token. Give what the agent's --token-file has"):
        netlab.connect("http://127.0.0.1:9400", token=said)


def test_a_port_beyond_the_last_is_no_other_one() -> None:
    with pytest.raises(netlab.BadInput, match="names no port"):
        netlab.connect("http://127.0.0.1:74936", token=TOKEN)


def test_a_token_is_compared_as_a_whole(files: dict[str, Path]) -> None:
    away = remote.Remote.of("127.0.0.1:9400", token_file=files["token"])

    def admitted(header: str) -> bool:
        return away.admit({"headers": [(b"authorization", header.encode())]}) is None

    assert admitted(f"Bearer {TOKEN}")
    assert not any(map(admitted, ["", "Bearer ", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"]))


@pytest.mark.parametrize("url", ["http://192.0.2.1:9400", "http://db.example:9400"])
def test_nothing_is_asked_in_the_clear_over_a_network(url: str) -> None:
    with pytest.raises(netlab.BadInput, match="in the clear"):
        netlab.connect(url, token=TOKEN)


@contextlib.contextmanager
def away(place: Path, *options: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with running(place, "--listen", f"127.0.0.1:{port}", *options):
        yield port


@pytest.mark.privileged
def test_over_tcp_the_right_token_is_served_and_no_other(tmp_path: Path, files: dict[str, Path]) -> None:
    with away(tmp_path, "--token-file", str(files["token"])) as port:
        url = f"http://127.0.0.1:{port}"
        with netlab.connect(url, token=f"{TOKEN}\n") as host:  # as it is read from a file
            assert_frame_equal(host.routes(), netlab.routes())
        for wrong in (None, "another-horse-battery-staple"):
            with pytest.raises(netlab.CapabilityError, match="takes a token over TCP"):
                netlab.connect(url, token=wrong)


@pytest.mark.privileged
def test_with_client_certificates_only_who_has_one_is_served(tmp_path: Path, files: dict[str, Path]) -> None:
    tls = ("--tls-cert", str(files["agent.pem"]), "--tls-key", str(files["agent.key"]))
    shown = (files["asking.pem"], files["asking.key"])
    with away(tmp_path, *tls, "--client-ca", str(files["ca.pem"])) as port:
        url = f"https://127.0.0.1:{port}"
        with netlab.connect(url, ca=files["ca.pem"], certificate=shown) as host:
            assert_frame_equal(host.routes(), netlab.routes())
        with pytest.raises(netlab.CapabilityError, match="no agent answers"):
            netlab.connect(url, ca=files["ca.pem"])
        with pytest.raises(netlab.CapabilityError, match="certificate verify failed"):
            netlab.connect(url, certificate=shown)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Run a real sshd on loopback that lets root in with a key of this test's."""
    place = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (place / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {place}/user.pub\nPermitRootLogin yes\nUsePAM no\n",
        encoding="ascii",
    )
    known = (place / "host.pub").read_text(encoding="ascii")
    (place / "known").write_text(f"[127.0.0.1]:{port} {known}", encoding="ascii")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = (place / "log").open("wb")
    with log, subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", place / "config"], stderr=log) as daemon:
        wait_until(lambda: b"listening" in (place / "log").read_bytes())
        known_hosts = f"UserKnownHostsFile={place}/known"
        options = ["-F", "none", "-i", str(place / "user"), "-o", known_hosts, "-o", "IdentitiesOnly=yes"]
        yield {"to": f"ssh://root@127.0.0.1:{port}", "options": options}
        daemon.terminate()


@pytest.mark.privileged
def test_through_ssh_an_agent_answers_as_if_one_were_there(agent: Path, sshd: dict[str, Any]) -> None:
    with netlab.connect(f"{sshd['to']}{agent}", ssh_options=sshd["options"]) as host:
        assert_frame_equal(host.routes(), netlab.routes())
        host.register("over ssh")
        assert host.delta("over ssh").attrs["schema"] == "deltas"
        tunnel = host._way
        assert isinstance(tunnel, ways.Tunnel)

    assert tunnel._ssh.returncode is not None
    assert not tunnel._place.exists()


@pytest.mark.privileged
def test_what_ssh_cannot_do_is_told_in_its_words(tmp_path: Path, sshd: dict[str, Any]) -> None:
    with pytest.raises(netlab.CapabilityError, match=r"no agent answers at .*none\.sock on ssh://"):
        netlab.connect(f"{sshd['to']}{tmp_path}/none.sock", ssh_options=sshd["options"])
    with pytest.raises(netlab.CapabilityError, match="Permission denied"):
        netlab.connect(f"{sshd['to']}/none.sock", ssh_options=[*sshd["options"][:2], *sshd["options"][4:]])


@pytest.mark.parametrize(
    ("where", "options", "problem"),
    [
        ("ssh://db1:70000", [], "names no port"),
        ("ssh://db1:http", [], "names no port"),
        ("ssh://db1", "-i key", "ssh_options '-i key' is no list"),
    ],
)
def test_what_ssh_cannot_be_given_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, options: Any, problem: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(netlab.BadInput, match=problem):
        netlab.connect(where, ssh_options=options)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.privileged
def test_a_full_disk_is_told_and_keeps_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room_for_one = ["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "none", str(tmp_path)]
    subprocess.run(room_for_one, check=True)
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with pytest.raises(netlab.CapabilityError, match=r"No space left on device.*TMPDIR"):
            netlab.connect("ssh://db1")

        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("where", ["/run/" + 200 * "a", "/dev/null/agent.sock"])
def test_where_no_socket_can_be_there_is_no_agent(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLAB_AGENT", where)

    assert not delegation.reachable()
    with pytest.raises(netlab.CapabilityError, match="no agent at /"):
        netlab.connect()


def test_an_environment_that_says_nothing_means_the_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLAB_AGENT", "")

    assert delegation.usual_socket() == delegation.SOCKET


def test_the_environment_says_where_the_agent_is_whenever_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETLAB_AGENT", str(tmp_path / "other.sock"))
    with pytest.raises(netlab.CapabilityError, match=r"other\.sock"):
        netlab.connect()
