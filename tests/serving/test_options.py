"""Who can reach the page, and what follows: by flags, by variables, by what others may not do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import app
from serving.options import build_parser, is_shared, known_hosts, read_options
from serving.visitors.guard import Guard
from text2video_zero.errors import UserError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("SPACE_ID", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("flags", "shared"),
    [
        ([], False),
        (["--host", "localhost"], False),
        (["--host", "0.0.0.0"], True),  # noqa: S104
        (["--host", "0.0.0.0", "--private"], False),  # noqa: S104
        (["--share"], True),
        (["--share", "--private"], True),
    ],
)
def test_whoever_lets_others_in_shares(flags, shared, monkeypatch):
    assert is_shared(read_options(flags)) is shared
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert is_shared(read_options(flags))


def test_where_others_come_a_password_is_given_or_printed(capsys, monkeypatch):
    for flags in (["--share"], ["--host", "0.0.0.0"]):  # noqa: S104
        ((name, password),) = app.credentials(read_options(flags))
        assert len(password) >= 12
        assert f"{name} with the password {password}" in capsys.readouterr().out
    given = read_options(["--share", "--auth", "ann:a:b", "--auth", "bob:c"])
    assert app.credentials(given) == [("ann", "a:b"), ("bob", "c")]
    assert app.credentials(read_options([])) is None
    for wrong in ("ann", ":secret", "ann:"):
        with pytest.raises(UserError, match="--auth wants a name and a password"):
            app.credentials(read_options(["--auth", wrong]))
    monkeypatch.setenv("SPACE_ID", "someone/space")  # whose visitors have no account here
    assert app.credentials(read_options([])) is None


def test_every_flag_has_a_variable_and_what_is_typed_goes_before_it(monkeypatch):
    for name, value in {
        "MODEL": "sd-1.5",
        "ANY_MODEL": "1",
        "SHARE": "no",
        "PRIVATE": "Yes",
        "SAFETY_CHECKER": "0",
        "AUTH": "ann:a bob:b",
        "OUTPUT_DIR": "made",
        "PORT": "7000",
        "NO_HISTORY": "",
    }.items():
        monkeypatch.setenv(f"TEXT2VIDEO_{name}", value)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")  # noqa: S104
    said = read_options(["--model", "toyland"])
    assert (said.model, said.any_model, said.share, said.private) == ("toyland", True, False, True)
    assert (said.safety_checker, said.auth, said.no_history) == (False, ["ann:a", "bob:b"], False)
    assert (said.output_dir, said.port, said.host) == (Path("made"), 7000, "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("TEXT2VIDEO_SHARE", "perhaps")
    with pytest.raises(UserError, match="TEXT2VIDEO_SHARE is 'perhaps': write 1 or 0"):
        read_options([])


def test_no_flag_s_variable_is_another_s():
    names = [action.dest for action in build_parser()._actions]
    assert len(names) == len(set(names))


def test_a_page_for_this_machine_is_called_by_its_names_alone():
    assert set(known_hosts(read_options([]))) == {"localhost", "127.0.0.1", "::1"}
    assert "lab.example" in known_hosts(read_options(["--allow-host", "lab.example"]))
    assert known_hosts(read_options(["--share"])) == ()
    public = read_options(["--host", "0.0.0.0", "--allow-host", "lab.example"])  # noqa: S104
    assert {"lab.example", "127.0.0.1"} < set(known_hosts(public))
    with pytest.raises(UserError, match="leave one of them out"):
        known_hosts(read_options(["--share", "--allow-host", "lab.example"]))
    with pytest.raises(UserError, match="is more than a name: write for example"):
        known_hosts(read_options(["--allow-host", "https://lab.example"]))


@pytest.mark.parametrize(
    ("flags", "called", "passes"),
    [
        ([], "localhost", True),
        ([], "192.168.1.5", True),
        ([], "[fd00::5]:7860", True),
        ([], socket.gethostname().upper(), True),
        ([], "evil.example", False),
        ([], "127.0.0.1.evil.example:7860", False),
        ([], "1.2.3", False),
        ([], "", False),
        (["--allow-host", "lab.example"], "lab.example", True),
        (["--allow-host", "lab.example"], "evil.example", False),
    ],
)
def test_a_private_page_answers_to_addresses_and_to_no_web_site_s_name(flags, called, passes):
    hosts = known_hosts(read_options(["--host", "0.0.0.0", "--private", *flags]))  # noqa: S104
    page = TestClient(Guard(PlainTextResponse("the page"), hosts))
    answer = page.get("/", headers={"Host": called})
    assert (answer.status_code, answer.text == "the page") == ((200, True) if passes else (403, False))
    assert passes or "start it with --allow-host" in answer.text


def test_by_an_address_comes_who_is_told_so_alone():
    for flags in ([], ["--private"], ["--host", "0.0.0.0", "--allow-host", "lab.example"]):  # noqa: S104
        assert "0.0.0.0/0" not in known_hosts(read_options(flags))
