"""The resumable loop: what is asked, asked again, left open, and never asked twice."""

import pytest

from gazebench.vlm.ask import Outcome, ask
from gazebench.vlm.messages import Failure, Reply, Unreadable, VLMError
from gazebench.vlm.store import AnswerStore

KEYS = ["a", "b", "c"]


class Script:
    """Says of every key what its list says, one entry an attempt; an exception is raised."""

    def __init__(self, **lines):
        self.lines, self.asked = lines, []

    def __call__(self, attempt, waiting):
        for key in KEYS:
            if waiting(key):
                self.asked.append((key, attempt))
                said = self.lines.get(key, ["yes"])[attempt]
                if isinstance(said, Exception):
                    raise said
                yield said if isinstance(said, Failure) else Reply(key, said)


@pytest.fixture
def store(tmp_path):
    return AnswerStore(tmp_path, "test", {"model": "script"})


def useful(key, reply):
    return reply.text == "yes"


def test_an_item_is_asked_once_and_any_answer_counts(store):
    script = Script(b=["", "never asked"])
    assert ask(store, "test", KEYS, script, attempts=2) == Outcome(3, 3, {})
    assert script.asked == [("a", 0), ("b", 0), ("c", 0)]
    assert ask(store, "test", KEYS, script) == Outcome(3, 0, {})
    assert len(script.asked) == 3
    assert ask(store, "test", KEYS, script, usable=useful).unusable == 1


def test_answers_of_no_use_are_asked_again_and_a_failure_is_not(store):
    script = Script(a=["?", "yes", "never"], b=["?", "?", "?"], c=[Failure("c", "too large")] * 3)
    outcome = ask(store, "test", KEYS, script, attempts=3, usable=useful)
    assert outcome == Outcome(3, 5, {"c": "too large"}, unusable=1)
    assert script.asked == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("b", 2)]
    again = Script()
    assert ask(store, "test", KEYS, again, attempts=3, usable=useful) == Outcome(3, 1, {}, unusable=1)
    assert again.asked == [("c", 0)]
    assert [answer.attempt for answer in store.answers("test")["b"]] == [0, 1, 2]


def test_a_missing_attempt_is_made_and_the_later_ones_are_kept(store):
    with store.writer("test") as writer:
        writer.append(Reply("a", "?"), 0)
        writer.append(Reply("a", "?"), 2)
    script = Script(a=["?", "?", "?", "yes"])
    ask(store, "test", ["a"], script, attempts=4, usable=useful)
    assert [attempt for key, attempt in script.asked if key == "a"] == [1, 3]


def test_unreadable_images_are_named_once(store):
    lost = [Unreadable(key, "1.jpg is broken") for key in "ab"]
    outcome = ask(store, "test", KEYS, Script(a=lost[:1], b=lost[1:], c=[Failure("c", "no answer")]))
    assert outcome.open == {"a": "1.jpg is broken", "b": "1.jpg is broken", "c": "no answer"}
    assert outcome.unreadable == ("1.jpg is broken",)


def test_whoever_nothing_was_said_about_is_open(store):
    assert ask(store, "test", KEYS, lambda attempt, waiting: []) == Outcome(3, 0, dict.fromkeys(KEYS, "not answered"))


def test_what_was_answered_before_the_model_was_gone_is_kept(store):
    with pytest.raises(VLMError):
        ask(store, "test", KEYS, Script(c=[VLMError("gone")]))
    script = Script()
    ask(store, "test", KEYS, script)
    assert script.asked == [("c", 0)]


def test_shards_write_files_of_their_own_and_other_answers_count_for_none(store):
    ask(store, "test", ["a"], Script(), shard=(1, 2))
    assert ask(store, "test", ["b"], Script(), shard=(2, 2)) == Outcome(1, 1, {})
    assert sorted(path.name for path in store.folder.glob("*.jsonl")) == [
        "test.shard-1-of-2.jsonl", "test.shard-2-of-2.jsonl",
    ]  # fmt: skip
    assert list(store.answers("test")) == ["a", "b"]


def test_a_progress_bar_counts_what_is_done_and_what_is_of_no_use(store, capsys):
    ask(store, "test", ["a"], Script(), usable=useful)
    assert not capsys.readouterr().err
    ask(store, "test", KEYS, Script(b=["?"]), usable=useful, progress="people")
    shown = capsys.readouterr().err
    assert "2/3" in shown
    assert "1 without use" in shown
    assert "people" in shown
