"""Whose turn it is where visitors wait for one another."""

from __future__ import annotations

from serving.jobs import Stopped
from serving.queue import JobQueue
from serving.runners.local import LocalRunner
from serving.store import JobStore


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
