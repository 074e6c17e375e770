"""What docs/DEPLOY.md, compose.yaml, Dockerfile and the audit say fits together and fits the app."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from serving.options import PREFIX, build_parser, read_options, trusted_proxies
from serving.visitors.limits import Limits
from text2video_zero.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "DEPLOY.md").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SECURITY = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
STEPS = runpy.run_path(str(ROOT / ".ci" / "docker_steps.py"))


def given_to(instruction):
    return [rest for name, rest in STEPS["read_dockerfile"]() if name == instruction]


class TestPage:
    def test_its_table_has_every_flag_and_no_other(self):
        told = dict(re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \|", PAGE, re.MULTILINE))
        flags = {action.option_strings[0]: PREFIX + action.dest.upper() for action in build_parser()._actions}
        del flags["-h"]
        assert told == flags

    def test_its_limits_are_the_usual_ones(self):
        told = {name: int(usual) for name, usual in re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE)}
        assert told == {one.name: getattr(Limits(), one.name) for one in fields(Limits)}

    def test_its_commands_are_understood(self):
        commands = re.findall(r"^\.venv/bin/python app\.py (.*)$", PAGE, re.MULTILINE)
        assert commands
        for command in commands:
            options = read_options(command.split())
            assert options.auth == ["ann:her-password"]
            assert trusted_proxies(options) == ("10.0.0.5",)
        for flags in re.findall(r"`((?:--(?:limit|offer) [\w.=-]+ ?)+)`", PAGE):
            Limits.read(read_options(flags.split()).limit or ())


class TestProxies:
    def test_a_proxy_is_an_address_or_a_network(self):
        assert trusted_proxies(read_options(["--trust-proxy", "10.0.0.0/8"])) == ("10.0.0.0/8",)
        with pytest.raises(UserError, match=r"--trust-proxy 'proxy\.example' is no address"):
            trusted_proxies(read_options(["--trust-proxy", "proxy.example"]))

    def test_a_space_s_own_are_trusted(self, monkeypatch):
        assert trusted_proxies(read_options([])) == ()
        monkeypatch.setenv("SPACE_ID", "someone/space")
        assert "10.0.0.0/8" in trusted_proxies(read_options([]))


@pytest.mark.parametrize("service", COMPOSE["services"])
class TestCompose:
    def test_it_names_what_the_dockerfile_has(self, service):
        one = COMPOSE["services"][service]
        arguments = {line.partition("=")[0] for line in given_to("ARG")}
        assert set(one["build"]["args"]) <= arguments
        (port,) = given_to("EXPOSE")
        assert one["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert [volume.split(":")[1] for volume in one["volumes"]] == json.loads(given_to("VOLUME")[0])
        assert {volume.split(":")[0] for volume in one["volumes"]} == set(COMPOSE["volumes"])
        assert one["user"].split(":")[0] == given_to("USER")[-1]

    def test_its_variables_are_flags_of_the_app(self, service, monkeypatch):
        flags = {PREFIX + action.dest.upper() for action in build_parser()._actions}
        environment = COMPOSE["services"][service]["environment"]
        assert set(environment) <= flags
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert read_options([]).private

    def test_it_is_reached_by_its_owner_alone(self, service):
        one = COMPOSE["services"][service]
        assert all(port.startswith("127.0.0.1:") for port in one["ports"])
        assert (one["cap_drop"], one["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert not one.get("privileged")

    def test_the_page_names_how_it_is_started(self, service):
        assert re.search(rf"docker compose .*up --build{'' if service == 'cpu' else f' {service}'}\b", PAGE)


class TestDockerSteps:
    @pytest.mark.parametrize(
        ("pattern", "out", "kept"),
        [
            ("outputs", "outputs", "tabs/outputs"),
            ("**/__pycache__", "tabs/look/__pycache__", "tabs/look"),
            ("**/*.pyc", "app.pyc", "app.py"),
            ("docs/*.md", "docs/DEPLOY.md", "docs/more/DEPLOY.md"),
            (".env", ".env", "xenv"),
        ],
    )
    def test_what_is_kept_out_of_the_build_is_docker_s_choice(self, pattern, out, kept):
        assert STEPS["ignored"]([pattern]).fullmatch(out)
        assert not STEPS["ignored"]([pattern]).fullmatch(kept)

    @pytest.mark.slow
    def test_they_make_what_runs_and_ends_as_a_container_does(self):
        command = [sys.executable, ".ci/docker_steps.py", "--installed"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ran.returncode == STEPS["SKIPPED"]:
            pytest.skip(ran.stdout.strip())
        assert ran.returncode == 0, ran.stdout + ran.stderr


class TestAudit:
    """A pip-audit that answers in every way there is."""

    def told(self, folder, answer):
        (folder / "uvx").write_text(f"#!/bin/sh\n{answer}\n")
        (folder / "uvx").chmod(0o755)
        variables = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
        ran = subprocess.run(
            [sys.executable, ROOT / ".ci" / "audit.py"], env=variables, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def test_holes_are_named(self, tmp_path):
        packages = [
            {"name": "pillow", "version": "1.0", "vulns": [{"id": "CVE-1"}]},
            {"name": "numpy", "version": "2.0", "vulns": []},
            {"name": "torch", "skip_reason": "not known"},
        ]
        told = self.told(tmp_path, f"echo '{json.dumps({'dependencies': packages})}'; exit 1")
        assert "2 of 3 locked packages were looked up: 1 known holes." in told
        assert "pillow 1.0: CVE-1" in told

    @pytest.mark.parametrize(
        ("answer", "sentence"),
        [
            ('echo \'{"dependencies": [{"name": "torch", "skip_reason": "not found"}]}\'', "cannot be reached"),
            ("exit 1", "pip-audit cannot be run (JSONDecodeError)"),
            ("echo '{}'", "pip-audit cannot be run (KeyError)"),
        ],
    )
    def test_where_nobody_answers_a_sentence_says_so(self, tmp_path, answer, sentence):
        assert sentence in self.told(tmp_path, answer)


@pytest.mark.parametrize(("heads", "least"), [("promise", 20), ("fault | what follows", 8)])
def test_no_promise_is_without_a_test(heads, least):
    """tests/test_readme.py looks whether they exist."""
    head = re.escape(f"| {heads} | held by |")
    (table,) = re.findall(rf"^{head}\n[|-]+\n((?:\|.*\n)+)", SECURITY, re.MULTILINE)
    promises = table.splitlines()
    assert len(promises) > least
    assert [promise for promise in promises if not re.search(r"\| `tests/\S+\.py::test_\w+`", promise)] == []
