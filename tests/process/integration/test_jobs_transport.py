"""Messages of jobs when the message transport hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from redis.connection import AbstractConnection

from snakepit.pools import jobs
from snakepit.pools.cli import project
from snakepit.pools.diagnostics import transport_watch
from snakepit.pools.jobs import messages, reconciler
from snakepit.pools.jobs.bounded_thread import BoundedThread, Hangs
from snakepit.pools.models import Job, Pool
from tests import services

REAL_QUESTION = transport_watch.ask_transport  # the fixtures replace it
WITHIN = 60.0  # a bound, never a wait
pytestmark = pytest.mark.django_db


@pytest.fixture
def pool(db: None) -> Pool:
    return Pool.objects.create(name="digits", adapter="digits", size=1)


@pytest.fixture
def own_sender(monkeypatch: pytest.MonkeyPatch) -> BoundedThread:
    """A sender whose thread may hang, as it is thrown away with the test. It waits as long as it takes, at first."""
    made = BoundedThread("test-send", "message transport", WITHIN)
    monkeypatch.setattr(messages, "sender", made)
    return made


@pytest.fixture
def frozen(valkey_url: str) -> Iterator[services.Valkey]:
    # `valkey_url` decides about skipping; the server that is frozen here is this test's own.
    with services.restartable_valkey() as server:
        yield server


def within(work: Callable[[], Any]) -> Any:
    """The result of `work` in a thread; fails if it has none in time."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(WITHIN)
    assert found, "it hangs"
    return found[0]


def test_a_message_to_a_frozen_transport_does_not_block_its_sender(
    frozen: services.Valkey, monkeypatch: pytest.MonkeyPatch, own_sender: BoundedThread
) -> None:
    app = Celery("test", broker=frozen.url)
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    monkeypatch.setattr(messages, "WINDOW", 0.0)
    assert within(lambda: messages.send("first", "queue")) is True
    frozen.freeze()
    own_sender.patience = messages.PATIENCE
    assert within(lambda: messages.send("second", "queue")) is False
    frozen.thaw()
    # The second message arrives now, late. A third one, which finds the sender busy with it, is refused until then.
    assert any(within(lambda: messages.send("third", "queue")) or time.sleep(0.05) for _ in range(400))


@pytest.fixture
def hints(own_sender: BoundedThread, monkeypatch: pytest.MonkeyPatch) -> messages.Hints:
    made = messages.Hints()
    monkeypatch.setattr(messages, "hints", made)
    return made


def test_many_jobs_have_one_message_and_a_frozen_transport_blocks_no_longer_than_for_one(
    frozen: services.Valkey, monkeypatch: pytest.MonkeyPatch, hints: messages.Hints, own_sender: BoundedThread
) -> None:
    app = Celery("test", broker=frozen.url)
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    sent = within(lambda: messages.send_many(["a", "b"], "snakepit.digits"))
    assert sent == messages.Sent(("a", "b"))
    with app.connection_or_acquire() as connection:
        message = connection.default_channel.basic_get("snakepit.digits", no_ack=True)
        assert connection.default_channel.basic_get("snakepit.digits", no_ack=True) is None
    assert message.headers["task"] == messages.TASK
    assert message.decode()[0] == ["a", "digits"]
    frozen.freeze()
    own_sender.patience = messages.PATIENCE
    assert within(lambda: messages.send_many(["c", "d"], "snakepit.other")) == messages.Sent((), away=True)
    frozen.thaw()


def test_what_is_submitted_within_a_window_shares_one_message_at_its_end(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, hints: messages.Hints
) -> None:
    app = Celery("test", broker=valkey_url)
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    monkeypatch.setattr(messages, "WINDOW", WITHIN)
    assert all(messages.send(one, "snakepit.shared") for one in ("a", "b", "c"))
    messages.pass_on("shared")
    hints.flush()  # what the timer does, and the end of a process
    with app.connection_or_acquire() as connection:
        channel = connection.default_channel
        got = [channel.basic_get("snakepit.shared", no_ack=True) for _ in range(3)]
    assert [one and one.decode()[0] for one in got] == [["a", "shared"], ["b", "shared"], None]


def test_jobs_whose_shared_message_was_not_sent_are_sent_by_the_next_reconcile(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, hints: messages.Hints,
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:  # fmt: skip
    app = Celery("test", broker="redis+socket:///nowhere")
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    monkeypatch.setattr(messages, "WINDOW", WITHIN)
    monkeypatch.setattr(messages, "publish", lambda *_: None)
    with django_capture_on_commit_callbacks(execute=True):
        made = [jobs.submit(pool.name, "classify", {"pixels": [n]}) for n in range(3)]
    monkeypatch.undo()

    def refuse(*_: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(messages, "publish", refuse)
    hints.flush()
    assert [job.pk for job in Job.objects.filter(sent_at=None).order_by("id")] == [job.pk for job in made[1:]]


def test_while_one_send_hangs_the_others_do_not_wait(own_sender: BoundedThread) -> None:
    own_sender.patience = 0.05
    release, done, ran = threading.Event(), threading.Event(), []
    with pytest.raises(Hangs):
        own_sender.run(lambda: release.wait(WITHIN))
    own_sender.patience = 0.01
    for _ in range(3):
        with pytest.raises(Hangs):
            own_sender.run(lambda: ran.append("refused"))
    release.set()
    own_sender.patience = WITHIN
    own_sender.run(done.set)
    assert done.is_set()
    assert ran == []


def test_the_error_of_a_send_is_raised_in_its_caller(own_sender: BoundedThread) -> None:
    def fail(error: Exception) -> None:
        raise error

    for error in (OSError("refused"), TimeoutError("slow")):
        with pytest.raises(type(error), match=str(error)):
            own_sender.run(lambda error=error: fail(error))  # type: ignore[misc]


def test_a_job_whose_message_was_not_sent_is_sent_by_the_next_reconcile(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    monkeypatch.setattr(messages, "send", lambda *_: False)
    with django_capture_on_commit_callbacks(execute=True):
        job = jobs.submit(pool.name, "classify", {"pixels": [1]})
    monkeypatch.setattr(messages, "send_many", lambda ids, *_: messages.Sent(tuple(ids)))
    assert reconciler.reconcile()["sent"] == 1
    assert reconciler.reconcile()["sent"] == 0
    job.refresh_from_db()
    assert job.state == "queued"


def test_a_frozen_or_absent_transport_is_noticed_and_forgotten_when_it_answers(
    frozen: services.Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery("test", broker=frozen.url)
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    asker = BoundedThread("test-watch", "message transport", WITHIN)
    monkeypatch.setattr(transport_watch, "asker", asker)
    assert REAL_QUESTION() == ""
    frozen.freeze()
    asker.patience = 1.0
    assert "did not answer within 1 s" in within(REAL_QUESTION)
    frozen.thaw()
    frozen.kill()
    monkeypatch.setattr(transport_watch, "asker", BoundedThread("test-watch", "message transport", WITHIN))
    assert "onnect" in within(REAL_QUESTION)


def test_a_page_reads_the_last_answer_of_the_transport_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, answers = threading.Event(), ["refused", "refused", ""]

    def ask() -> str:
        assert go_on.wait(WITHIN)
        return answers.pop(0)

    monkeypatch.setattr(transport_watch, "ask_transport", ask)
    monkeypatch.setattr(transport_watch, "EVERY", 0.0)
    watch = transport_watch.TransportWatch()
    assert watch.sample() is None  # it is asked, and the page does not wait
    go_on.set()
    watch.wait(WITHIN)
    first = watch.sample()
    watch.wait(WITHIN)
    second = watch.sample()
    assert first is not None
    assert first == second, "since the first failure"
    watch.wait(WITHIN)
    monkeypatch.setattr(transport_watch, "EVERY", WITHIN)
    assert watch.sample() is None


def test_a_second_thread_waits_until_the_celery_app_is_configured() -> None:
    app = Celery("test", set_as_current=False)
    entered, go_on, read = threading.Event(), threading.Event(), threading.Event()
    found: list[Any] = []

    def complete(sender: Any, **_: Any) -> None:
        entered.set()
        assert go_on.wait(WITHIN)
        sender.conf.beat_schedule = {"ours": {}}

    def read_schedule() -> None:
        found.append(messages.configured(app).conf.beat_schedule)
        read.set()

    app.on_after_configure.connect(complete, weak=False)
    threads = [threading.Thread(target=work, daemon=True) for work in (lambda: messages.configured(app), read_schedule)]
    threads[0].start()
    assert entered.wait(WITHIN)
    threads[1].start()
    assert not read.wait(0.2)  # without the lock it has read by now
    go_on.set()
    assert read.wait(WITHIN)
    threads[0].join(WITHIN)
    assert found == [{"ours": {}}]


def test_a_command_of_the_shell_gives_the_transport_more_time_than_a_web_request(own_sender: BoundedThread) -> None:
    project.start_jobs()
    assert own_sender.patience == project.TRANSPORT_PATIENCE > messages.PATIENCE


@pytest.mark.usefixtures("own_sender")
def test_a_connection_that_the_transport_ends_costs_no_message(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery("test", broker=valkey_url)
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    monkeypatch.setattr(messages, "WINDOW", 0.0)
    send_command = AbstractConnection.send_command
    with app.connection_for_write() as other:
        client = other.default_channel.client
        client.ping()
        kill = iter([False, True, False])

        def ended(self: AbstractConnection, *words: Any, **more: Any) -> Any:
            """Have the server end the connection between the library's look at it and the command."""
            if words[0] == "LPUSH" and next(kill, False):
                client.client_kill_filter(skipme=True)
            return send_command(self, *words, **more)

        monkeypatch.setattr(AbstractConnection, "send_command", ended)
        assert [messages.send(name, "snakepit.ended") for name in ("before", "during")] == [True, True]
        assert client.llen("snakepit.ended") == 2
        assert next(kill, None) is None, "it was sent again"
