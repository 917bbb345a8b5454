"""One thread asks for all who wait."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from api.waiting import Waiter
from shared.db.polling import News, Seen
from shared.errors import TooManyRequests

TENANT = "ten_1"
LONG = 30.0
"""More than any test takes: whoever comes back sooner was woken."""


class Ended:
    """Stands for the table of jobs; remembers what it was asked."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.news: dict[str, News] = {}
        """Of jobs that have not ended."""
        self.questions: list[list[str]] = []
        self.seen: dict[str, Seen] = {}
        self.asked = threading.Event()

    def __call__(self, asked: dict[str, Seen]) -> dict[str, News]:
        self.questions.append(sorted(asked))
        self.seen = asked
        self.asked.set()
        ended = {job_id: News(True, 9, 9) for job_id in asked if job_id in self.ids}
        return {job: news for job, news in self.news.items() if job in asked} | ended


def start_waiting(waiter: Waiter, *job_ids: str) -> list[threading.Thread]:
    threads = [threading.Thread(target=waiter.wait, args=(TENANT, job, LONG)) for job in job_ids]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(LONG / 2)
        assert not thread.is_alive()


def until(condition: object) -> None:
    deadline = time.monotonic() + LONG / 2
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_those_whose_job_ended_wake_and_one_query_serves_all() -> None:
    ended = Ended()
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=12)
    first, second, third = start_waiting(waiter, "a", "b", "b")
    until(lambda: ["a", "b"] in ended.questions)
    ended.ids.add("b")
    join([second, third])
    assert first.is_alive()
    ended.ids.add("a")
    join([first])
    waiter.close()


def test_a_wait_ends_with_its_time() -> None:
    waiter = Waiter(Ended(), poll_seconds=0.01, max_waiting=12)
    waiter.wait(TENANT, "a", 0.02)
    waiter.close()


def test_above_the_cap_nobody_waits() -> None:
    ended = Ended()
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=1)
    threads = start_waiting(waiter, "a")
    assert ended.asked.wait(LONG / 2)
    start = time.monotonic()
    waiter.wait(TENANT, "b", LONG)
    assert time.monotonic() - start < LONG / 2
    waiter.close()
    join(threads)


def test_a_process_that_stops_lets_everybody_go() -> None:
    ended = Ended()
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=12)
    threads = start_waiting(waiter, "a", "b")
    assert ended.asked.wait(LONG / 2)
    waiter.serve_while(lambda: False)
    join(threads)
    waiter.close()


def test_a_database_outage_does_not_end_the_thread() -> None:
    answers = iter([OperationalError("", {}, Exception("down")), None])

    def ask(asked: dict[str, Seen]) -> dict[str, News]:
        failure = next(answers, None)
        if failure is not None:
            raise failure
        return dict.fromkeys(asked, News(True, 1, 1))

    waiter = Waiter(ask, poll_seconds=0.01, max_waiting=12)
    join(start_waiting(waiter, "a"))
    waiter.close()


def test_nothing_is_asked_while_nobody_waits() -> None:
    ended = Ended()
    ended.ids.add("a")
    waiter = Waiter(ended, poll_seconds=0.001, max_waiting=12)
    waiter.wait(TENANT, "a", LONG)
    count = len(ended.questions)
    time.sleep(0.05)
    assert len(ended.questions) == count
    waiter.close()


def test_a_place_is_kept_for_its_holder_and_refused_when_there_is_none() -> None:
    ended = Ended()
    ended.ids.add("a")
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=1)
    with waiter.place(TENANT) as sleep:
        with pytest.raises(TooManyRequests), waiter.place(TENANT):
            pass
        waiter.wait(TENANT, "b", LONG)  # a long-poll answers at once
        sleep("a", LONG)
    with waiter.place(TENANT) as sleep:
        sleep("a", LONG)
    waiter.close()
    with pytest.raises(TooManyRequests), waiter.place(TENANT):
        pass


def test_one_tenant_leaves_places_to_the_others() -> None:
    waiter = Waiter(Ended(), max_waiting=4)
    with waiter.place(TENANT), waiter.place(TENANT), waiter.place(TENANT):
        with pytest.raises(TooManyRequests), waiter.place(TENANT):
            pass
        with waiter.place("ten_other"), pytest.raises(TooManyRequests), waiter.place("ten_third"):
            pass
    for _ in range(4):
        with waiter.place(TENANT), waiter.place(TENANT), waiter.place(TENANT):
            pass
    waiter.close()


def test_each_wakes_for_what_is_news_to_it() -> None:
    ended = Ended()
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=12)
    woken: list[str] = []

    def wait(name: str, seen: Seen) -> threading.Thread:
        def run() -> None:
            assert waiter.wait(TENANT, "a", LONG, seen=seen)
            woken.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [
        wait("end", Seen()),
        wait("version 2", Seen(version=2)),
        wait("version 5", Seen(version=5)),
        wait("event 7", Seen(event=7)),
    ]
    until(lambda: ended.seen == {"a": Seen(2, 7)} and waiter.waiting == 4)
    ended.news["a"] = News(False, 3, 7)
    until(lambda: woken == ["version 2"])
    ended.news["a"] = News(False, 5, 8)
    until(lambda: woken == ["version 2", "event 7"])
    ended.ids.add("a")
    join(threads)
    assert sorted(woken[2:]) == ["end", "version 5"]
    waiter.close()


def test_of_several_jobs_the_first_with_news_wakes() -> None:
    ended = Ended()
    ended.news["b"] = News(False, 2, 0)
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=12)
    assert waiter.wait(TENANT, {"a": Seen(1), "b": Seen(1)}, LONG)
    assert not waiter.wait(TENANT, {"a": Seen(1), "b": Seen(2)}, 0.05)
    assert not waiter.wait(TENANT, {}, LONG)
    waiter.close()


def test_letting_go_is_no_news() -> None:
    ended = Ended()
    waiter = Waiter(ended, poll_seconds=0.01, max_waiting=12)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(waiter.wait(TENANT, "a", LONG)))
    thread.start()
    assert ended.asked.wait(LONG / 2)
    waiter.serve_while(lambda: False)
    join([thread])
    assert told == [False]
    assert waiter.stopping
    waiter.close()
