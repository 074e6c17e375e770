"""One visitor among others: what she may ask for, whose turn it is, and that nobody keeps others from the page."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time

import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from serving.jobs import Failed, Stopped
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore
from serving.visitors.addresses import network_of
from serving.visitors.door import Door
from serving.visitors.folders import without_folders
from serving.visitors.limits import Limits
from serving.visitors.listeners import GRACE_SECONDS, Listeners
from tabs.parts.clip_source import LOOKS_AT_ONCE, showing_used_part
from tests.example_files import write_clip
from tests.media.clip_files import counting, written
from tests.served import served
from text2video_zero.errors import UserError
from text2video_zero.job import Job
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.requests import EdgeRequest, TextToVideoRequest

SOME_MODEL = Checkpoint("owner/name")
LIMITS = Limits()
SHORT = TextToVideoRequest(prompt="a fox", frames=2, steps=4, seed=3)
ENDPOINT = "/text-to-video"


class TestOfAJob:
    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ({"frames": 512}, "Frames is 512, but a shared page draws at most 128: ask for less."),
            (
                {"frames": 64, "fps": 1, "play_fps": 60},
                "Play at 60 makes 3840 frames, but a shared page writes at most",
            ),
            ({"size": "2048x2048"}, "Size is 2048x2048, but a shared page draws at most 1024x1024 or as many pixels."),
            ({"steps": 999}, "Steps is 999, but a shared page takes at most 100: ask for fewer."),
        ],
    )
    def test_what_is_too_much_is_told_with_the_value_and_the_most(self, asked, sentence):
        with pytest.raises(UserError) as told:
            Limits().check(Job(dataclasses.replace(SHORT, **asked), SOME_MODEL))
        assert sentence in str(told.value)

    @pytest.mark.parametrize("asked", [{}, {"frames": 128}, {"size": "1152x896"}, {"size": "1344x768"}, {"steps": 100}])
    def test_what_is_usual_passes(self, asked):
        Limits().check(Job(dataclasses.replace(SHORT, **asked), SOME_MODEL))

    def test_a_model_s_own_size_counts_where_none_is_given(self):
        with pytest.raises(UserError, match="Size is the model's own, but a shared page draws at most 256x256"):
            Limits(pixels=256 * 256).check(Job(dataclasses.replace(SHORT, size=None), SOME_MODEL))

    def test_the_owner_sets_them_by_name(self):
        assert Limits.read(["frames=8", "steps=20"]) == dataclasses.replace(Limits(), frames=8, steps=20)
        for wrong in ("frames", "frames=", "frames=0", "frames=-1", "frames=many", "__class__=1", "words=3"):
            with pytest.raises(
                UserError,
                match=r"The limit '.*' is none: give one of clip, decoded, events, frames, minute, neighbours",
            ):
                Limits.read([wrong])


class TestOfAClip:
    """A clip is opened, and what a run would use of it is measured; ten pictures of ten seconds each here."""

    @pytest.fixture(scope="class")
    @classmethod
    def clip(cls, tmp_path_factory):
        return written(tmp_path_factory.mktemp("clips") / "long.mp4", counting(10), "1/10")

    def look(self, clip, limits=LIMITS, **changes):
        request = EdgeRequest(**{"prompt": "a fox", "clip": str(clip), "frames": 128, "fps": 1} | changes)
        return list(limits.checking_clip(Job(request, SOME_MODEL)))

    def test_a_part_that_is_too_long_is_told_with_its_length_and_the_most(self, clip):
        with pytest.raises(UserError) as told:
            self.look(clip)
        assert str(told.value) == (
            "The part of the clip that is used lasts 100 seconds, but a shared page reads at most 60: "
            "ask for fewer Frames or more Frames per second, or cut the clip."
        )

    @pytest.mark.parametrize(
        "part", [{"frames": 60}, {"fps": 8}, {"first_frame": 40}, {"first_frame": 720, "fps": 8}, {"first_frame": 500}]
    )
    def test_of_a_long_clip_what_is_used_counts_alone(self, clip, part):
        self.look(clip, **part)

    def test_frames_that_lie_between_those_that_are_used_count(self, tmp_path):
        clip = written(tmp_path / "quick.mp4", np.zeros((90, 48, 64, 3), np.uint8), 60)
        with pytest.raises(UserError, match=r"that is used has 60 frames, but a shared page decodes at most 59:"):
            self.look(clip, Limits(decoded=59), frames=8, fps=8)
        self.look(clip, Limits(decoded=60), frames=8, fps=8)

    def test_pictures_without_times_are_as_many_as_are_asked_for(self, tmp_path):
        self.look(write_clip(tmp_path, "zip"), Limits(clip=1, decoded=1))

    def test_it_is_refused_before_a_model_is_loaded_and_the_page_says_so_at_once(self, clip, tmp_path):
        queue = JobQueue(LocalRunner(pytest.fail), JobStore(tmp_path / "jobs"), limits=LIMITS)
        entry = queue.submit(Job(EdgeRequest(prompt="a fox", clip=str(clip), frames=128, fps=1, steps=4), SOME_MODEL))
        assert queue._next() is entry
        with pytest.raises(UserError, match="lasts 100 seconds"):
            queue._run(entry)
        *_, shown = showing_used_part(0, 128, 1, {"path": str(clip)}, limits=LIMITS)
        assert "lasts 100 seconds, but a shared page reads at most 60" in shown
        *_, shown = showing_used_part(0, 128, 1, {"path": str(clip)})
        assert "Frames 0 to 99 are used" in shown


@pytest.fixture
def queue_with(manager, tmp_path):
    """A queue of given limits; nothing runs before it is opened."""
    made = []

    def make(**limits):
        made.append(JobQueue(LocalRunner(lambda: manager), JobStore(tmp_path / "jobs"), limits=Limits(**limits)))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def job(tiny_checkpoint):
    return lambda **changes: Job(dataclasses.replace(SHORT, **changes), Checkpoint(str(tiny_checkpoint)))


class TestOfAVisitor:
    def test_a_session_and_an_address_have_so_many_jobs_in_the_queue(self, queue_with, job):
        queue = queue_with(waiting=2, neighbours=2)
        for session in ("ann", "ann", "bob"):
            queue.submit(job(), session, address="198.51.100.7")
        with pytest.raises(UserError, match="The queue takes no more of yours now: wait a minute"):
            queue.submit(job(), "ann", address="203.0.113.9")
        assert queue.room("another name", "198.51.100.7") == 1
        queue.submit(job(), "another name", address="198.51.100.7")
        assert queue.room("one more name", "198.51.100.7") == 0
        assert queue.room("one more name", "203.0.113.9") == 2

    def test_and_so_many_within_a_minute_however_soon_they_are_over(self, queue_with, job):
        queue = queue_with(minute=2, neighbours=1)
        for _ in range(2):
            queue.stop(queue.submit(job(), "ann", address="198.51.100.7"))
        assert queue.room("ann", "203.0.113.9") == 0
        assert queue.room("bob", "198.51.100.7") == 0
        assert queue.room("bob", "203.0.113.9") == 2
        for moments in queue._asked._moments.values():
            moments.extend(moment - 61 for moment in [moments.popleft() for _ in range(len(moments))])
        assert queue.room("ann", "198.51.100.7") == 2
        queue.stop(queue.submit(job(), "bob", address="203.0.113.9"))
        assert "ann" not in queue._asked._moments

    def test_what_is_too_large_leaves_nothing_behind(self, queue_with, job, tmp_path):
        queue = queue_with(frames=1)
        with pytest.raises(UserError, match="Frames is 2"):
            queue.submit(job(), "ann")
        assert list((tmp_path / "jobs").iterdir()) == []

    def test_a_job_that_takes_too_long_ends_with_a_sentence(self, queue_with, job):
        queue = queue_with(seconds=0)
        queue.open()
        entry = queue.submit(job(steps=20), "ann")

        async def wait():
            return [standing async for standing, _ in queue.watched(entry)]

        assert asyncio.run(wait())[-1].state == Failed(
            "This took longer than the 0 seconds that a shared page gives to a video: "
            "ask for fewer frames or steps, or a smaller size."
        )


class TestTurns:
    def order(self, queue):
        made = []
        while queue._line.due():
            made.append(queue._next())
        return made

    def test_visitors_take_turns_and_the_page_says_so(self, queue_with, job):
        queue = queue_with()
        first, second, third = (queue.submit(job(), "ann", address="198.51.100.7") for _ in range(3))
        his = queue.submit(job(), "bob", address="203.0.113.9")
        last = queue.submit(job(), "bob", address="203.0.113.9")
        expected = [first, his, second, last, third]
        assert [queue.place(entry) for entry in expected] == [0, 1, 2, 3, 4]
        assert self.order(queue) == expected

    def test_a_new_name_from_the_same_address_is_no_new_visitor(self, queue_with, job):
        queue = queue_with()
        hers = [queue.submit(job(), f"name {number}", address="198.51.100.7") for number in range(3)]
        his = queue.submit(job(), "bob", address="203.0.113.9")
        assert self.order(queue) == [hers[0], his, *hers[1:]]

    def test_nobody_waits_for_ever_behind_those_who_come_later(self, queue_with, job):
        queue = queue_with()
        hers = [queue.submit(job(), "ann", address="198.51.100.7") for _ in range(2)]
        assert queue._next() is hers[0]
        strangers = [queue.submit(job(), name, address=f"203.0.113.{name}") for name in ("1", "2")]
        assert [queue._next(), queue._next(), queue._next()] == [*strangers, hers[1]]
        queue.submit(job(), "3", address="203.0.113.3")
        later = queue.submit(job(), "ann", address="198.51.100.7")
        assert queue.place(later) == 4 + 1  # behind what runs, and behind the newcomer

    def test_on_a_page_of_one_s_own_what_came_first_is_made_first(self, manager, tmp_path, job):
        queue = JobQueue(LocalRunner(lambda: manager), JobStore(tmp_path))
        asked = [queue.submit(job()) for _ in range(3)]
        assert self.order(queue) == asked

    def test_what_one_prefers_comes_next_of_hers_and_nobody_else_waits_for_it(self, queue_with, job):
        queue = queue_with()
        first, second, third = (queue.submit(job(), "ann", address="198.51.100.7") for _ in range(3))
        his = queue.submit(job(), "bob", address="203.0.113.9")
        queue.prefer(third)
        assert queue.waiting("ann") == [third, first, second]
        assert queue.place(his) == 1
        later = queue.submit(job(), "ann", address="198.51.100.7")
        assert self.order(queue) == [third, his, first, second, later]
        queue.prefer(third)  # it has begun, and nothing comes of it

    def test_who_pauses_makes_nobody_else_wait_and_goes_on_where_she_was(self, queue_with, job):
        queue = queue_with()
        hers = [queue.submit(job(), "ann", address="198.51.100.7") for _ in range(2)]
        his = queue.submit(job(), "bob", address="203.0.113.9")
        queue.pause("ann")
        assert [queue.place(entry) for entry in hers] == [None, None]
        assert self.order(queue) == [his]
        queue.resume("ann")
        assert self.order(queue) == hers

    def test_an_emptied_queue_is_not_paused_and_others_keep_theirs(self, queue_with, job):
        queue = queue_with()
        hers = [queue.submit(job(), "ann", address="198.51.100.7") for _ in range(2)]
        his = queue.submit(job(), "bob", address="203.0.113.9")
        queue.pause("ann")
        queue.empty("ann")
        assert all(isinstance(entry.standing.state, Stopped) for entry in hers)
        assert not queue.is_paused("ann")
        queue.pause("ann")  # nothing waits: there is nothing to pause
        assert not queue.is_paused("ann")
        assert self.order(queue) == [his]


def test_who_listens_is_told_from_who_does_not(monkeypatch):
    listeners = Listeners()
    now = time.monotonic()
    assert listeners.hears("ann", since=now)  # she has just asked
    assert not listeners.hears("ann", since=now - GRACE_SECONDS)
    with listeners.listening("ann"), listeners.listening("ann"):
        assert listeners.hears("ann", since=0)
    assert listeners.hears("ann", since=0)  # a connection that breaks is opened again
    monkeypatch.setattr("serving.visitors.listeners.GRACE_SECONDS", 0)
    assert not listeners.hears("ann", since=0)
    with listeners.listening("bob"):
        pass
    assert set(listeners._left) == {"bob"}
    assert listeners._open.total() == 0


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("/srv/out/text-1/a.mp4 cannot be written, no.", "a.mp4 cannot be written, no."),
        ("No. The frames are kept in /tmp/a-1.zip.", "No. The frames are kept in a-1.zip."),
        ("the disk has 2 MB left in /tmp: free some", "the disk has 2 MB left in tmp: free some"),
        (
            "It failed ('/a/b/c.py'), see https://example.com/a/b or half/half, 1 / 2.",
            "It failed ('c.py'), see https://example.com/a/b or half/half, 1 / 2.",
        ),
    ],
)
def test_sentences_name_no_folder(sentence, told):
    assert without_folders(sentence) == told


def test_addresses_stay_whole_where_home_or_the_present_folder_is_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    monkeypatch.chdir("/")
    sentence = "The Hub at https://example.com does not answer."
    assert without_folders(sentence) == sentence


def test_strangers_learn_no_folder_and_the_owner_does(queue_with, tmp_path, manager):
    own = JobQueue(LocalRunner(lambda: manager), JobStore(tmp_path / "own"))
    sentences = []
    for queue in (queue_with(), own):
        queue.open()
        entry = queue.submit(Job(SHORT, Checkpoint(str(tmp_path / "missing.safetensors"))), "ann")

        async def wait(queue=queue, entry=entry):
            return [standing async for standing, _ in queue.watched(entry)]

        sentences.append(asyncio.run(wait())[-1].state.sentence)
    own.close()
    assert "missing.safetensors" in sentences[0]
    assert [str(tmp_path) in sentence for sentence in sentences] == [False, True]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_stands_for_a_household(address, network):
    assert network_of(address) == network


def refuse():
    raise UserError("There is no clip.")


def came_from(address):
    """The header of a proxy on this machine, which is trusted."""
    return {"X-Forwarded-For": address}


class TestOnAServer:
    @pytest.fixture(scope="class")
    @classmethod
    def queues(cls):
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def address(cls, tmp_path_factory, queues):
        folder, limits = tmp_path_factory.mktemp("outputs"), Limits(waiting=3, neighbours=1)
        with served("toyland", folder, shared=True, limits=limits, patience=1.0, queues=queues) as url:
            yield url

    @pytest.fixture(scope="class")
    @classmethod
    def long_job(cls, address):
        """What to post for a job of many minutes."""
        config = httpx.get(f"{address}config").json()
        made = next(entry for entry in config["dependencies"] if entry["api_name"] == ENDPOINT[1:])
        asked = {"prompt": "a fox", "frames": 128, "steps": 100, "size": "128x128", "model": "toyland"}
        parameters = httpx.get(f"{address}gradio_api/info").json()["named_endpoints"][ENDPOINT]["parameters"]
        data = [asked.get(one["parameter_name"], one.get("parameter_default")) for one in parameters]
        return {"fn_index": made["id"], "data": data}

    @pytest.fixture
    def entries(self, queues):
        return lambda: list(queues[0]._entries.values())

    def post(self, address, job, session):
        headers = came_from("198.51.100.7")
        asked = {**job, "session_hash": session}
        return httpx.post(f"{address}gradio_api/queue/join", json=asked, headers=headers, timeout=60)

    def ended(self, entries):
        until = time.monotonic() + 120
        while not all(entry.standing.is_over for entry in entries()):
            assert time.monotonic() < until
            time.sleep(0.1)

    def test_seventeen_posts_of_one_visitor_keep_nobody_from_stop_previews_and_video(
        self, address, entries, long_job, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("serving.visitors.listeners.GRACE_SECONDS", 2)
        assert {self.post(address, long_job, f"nobody {number}").status_code for number in range(17)} == {200}
        assert sum(not entry.standing.is_over for entry in entries()) <= 3
        hers = Client(address, verbose=False, download_files=str(tmp_path / "hers"), headers=came_from("203.0.113.9"))
        stopped = hers.submit(prompt="a fox", frames=128, steps=100, api_name=ENDPOINT)
        next(iter(stopped))  # how it stands
        assert stopped.cancel()
        video, _, _ = hers.predict(prompt="a fox", frames=1, steps=4, api_name=ENDPOINT)
        assert video
        self.ended(entries)  # what nobody listens to ends by itself

    def test_what_one_address_posts_fills_gradio_s_queue_for_nobody_else(self, address, tmp_path, monkeypatch):
        """Looks at clips are taken few at a time; Gradio would take 256 of them from anybody."""
        looked = threading.Event()
        monkeypatch.setattr("tabs.parts.clip_source.reading", lambda *_, **__: looked.wait(60) and refuse())
        config = httpx.get(f"{address}config").json()
        look = next(one for one in config["dependencies"] if one["api_name"] == "shown")
        with write_clip(tmp_path, "gif").open("rb") as clip:
            (path,) = httpx.post(f"{address}gradio_api/upload", files={"files": clip}).json()
        data = [0, 8, 8, {"path": path, "meta": {"_type": "gradio.FileData"}}]

        def post(number, who):
            body = {"fn_index": look["id"], "data": data, "session_hash": f"{who} {number}"}
            return httpx.post(f"{address}gradio_api/queue/join", json=body, headers=came_from(who))

        answers = [post(number, "198.51.100.7") for number in range(40)]
        hers = post(0, "203.0.113.9")
        looked.set()
        refused = [answer for answer in answers if answer.status_code == 429]
        most = 40 - Limits().events
        assert most - LOOKS_AT_ONCE - 1 <= len(refused) <= most
        assert "Too much from your address waits" in refused[0].json()["detail"]
        assert hers.status_code == 200

    def test_a_connection_that_breaks_ends_the_job(self, address, entries, queues, long_job, monkeypatch):
        monkeypatch.setattr("serving.visitors.listeners.GRACE_SECONDS", 1)
        assert self.post(address, long_job, "left").status_code == 200
        with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash=left", timeout=60) as news:
            next(news.iter_lines())
            assert queues[0].listeners.hears("left", since=0)
        self.ended(entries)
        assert isinstance(entries()[-1].standing.state, Stopped)

    def test_what_is_too_large_is_refused_on_the_server(self, address):
        client = Client(address, verbose=False, download_files=False)
        for values in ({"frames": 512}, {"size": "2048x2048"}, {"steps": 999}):
            with pytest.raises(AppError, match="a shared page"):
                client.predict(**{"prompt": "a fox", "frames": 1, "steps": 4, **values}, api_name=ENDPOINT)


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
