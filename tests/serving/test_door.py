"""Whoever guesses passwords waits, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import httpx
import pytest

from serving.visitors.door import Door
from serving.visitors.listeners import Listeners
from tests.served import came_from, served


class TestWrongPasswords:
    def test_each_waits_longer_than_the_one_before_up_to_a_limit(self):
        door = Door(lambda *_: None, Listeners())
        pauses = [door.pause(wrong) for wrong in range(200)]
        assert pauses[:7] == [0, 0, 0, 1, 2, 4, 8]
        assert set(pauses[7:]) == {door.LONGEST_PAUSE}
        assert sum(pauses) > 25 * 60  # 200 of them took 11 seconds

    @pytest.fixture(scope="class")
    @classmethod
    def address(cls, tmp_path_factory):
        with served(
            "toyland", tmp_path_factory.mktemp("outputs"), shared=True, auth=[("ann", "right"), ("bob", "his")]
        ) as url:
            yield url

    def login(self, address, password, who="198.51.100.7", name="ann", seconds=30):
        form = {"username": name, "password": password}
        return httpx.post(f"{address}login", data=form, headers=came_from(who), timeout=seconds)

    def test_who_guesses_waits_and_nobody_else_does(self, address, monkeypatch):
        assert self.login(address, "right", who="203.0.113.8").status_code == 200
        for _ in range(Door.FREE):
            assert self.login(address, "wrong").status_code == 400
        monkeypatch.setattr(Door, "FIRST_PAUSE", 3600.0)
        monkeypatch.setattr(Door, "LONGEST_PAUSE", 3600.0)

        def guess():
            with contextlib.suppress(httpx.HTTPError):  # the server ends first
                self.login(address, "wrong")

        guesses = [threading.Thread(target=guess, daemon=True) for _ in range(Door.AT_ONCE)]
        for one in guesses:
            one.start()
        while (refused := self.login_at_once(address)) is None:
            pass
        assert refused.status_code == 429
        assert "Too many tries at a password from your address" in refused.text
        assert self.login(address, "right", who="203.0.113.9").status_code == 200  # the owner, elsewhere
        assert httpx.get(address).status_code == 200

    def login_at_once(self, address):
        """The answer to one more guess; None where it has to wait as well."""
        try:
            return httpx.post(
                f"{address}login",
                data={"username": "ann", "password": "x"},
                headers=came_from("198.51.100.7"),
                timeout=1,
            )
        except httpx.TimeoutException:
            return None

    def test_a_right_password_makes_no_room_for_guesses(self, address, monkeypatch):
        slept = []
        sleep = asyncio.sleep

        async def noted(seconds, *more):
            if seconds and seconds in {Door.FIRST_PAUSE, Door.FIRST_PAUSE * 2}:
                slept.append(seconds)
                seconds = 0
            await sleep(seconds, *more)

        monkeypatch.setattr(Door, "FIRST_PAUSE", 1234.5)
        monkeypatch.setattr(Door, "LONGEST_PAUSE", 5000.0)
        monkeypatch.setattr("serving.visitors.door.asyncio.sleep", noted)
        guesser = "198.51.100.8"
        for _ in range(Door.FREE):
            assert self.login(address, "wrong", guesser).status_code == 400
            assert self.login(address, "his", guesser, name="bob").status_code == 200
        assert self.login(address, "wrong", guesser).status_code == 400
        assert slept[-1] == 1234.5

    def test_addresses_are_forgotten_after_a_while_and_never_too_many_known(self, monkeypatch):
        door = Door(lambda *_: None, Listeners())
        monkeypatch.setattr(Door, "MOST_KNOWN", 3)
        for number in range(9):
            door._tries_of(str(number)).wrong = 5
        assert list(door._tries) == ["6", "7", "8"]
        door._tries["6"].latest -= Door.FORGET_SECONDS
        assert door._tries_of("8").wrong == 5
        assert list(door._tries) == ["7", "8"]
