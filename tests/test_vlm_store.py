"""The store of raw answers: whole lines, merged shards, one writer a file, one folder an identity."""

import json
import multiprocessing
import os
import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazebench.core.errors import DataError
from gazebench.vlm.messages import Reply
from gazebench.vlm.store import AnswerStore, shard_of

IDENTITY = {"model": {"backend": "openai", "model": "tiny"}, "prompt": {"version": 3}, "max_side": 1280}


@pytest.fixture
def store(tmp_path):
    return AnswerStore(tmp_path, "tiny", IDENTITY)


def write(store, *keys, split="test", shard=None, attempt=0, text="answer to {}"):
    with store.writer(split, shard) as writer:
        for key in keys:
            writer.append(Reply(key, text.format(key), "stop", random.random(), (9, 3)), attempt)


def test_answers_come_back_word_for_word(store, tmp_path):
    assert (store.answers("test"), store.other_identities(), list(tmp_path.iterdir())) == ({}, [], [])
    texts = ["", "[[1, 2]]\n```", "“ä” \u2028 \x00 😀", "\ud83d lone", "x" * 100_000]
    with store.writer("test") as writer:
        for number, text in enumerate(texts):
            writer.append(Reply(f"k{number}", text, "length", 1.23456, None), number)
            assert len(store.answers("test")) == number + 1, "an answer is there at once"
    answers = store.answers("test")
    assert [answer.reply.text for [answer] in answers.values()] == texts
    assert [answer.attempt for [answer] in answers.values()] == list(range(len(texts)))
    [first] = answers["k0"]
    assert first.reply == Reply("k0", "", "length", 1.235, None)
    assert len(writer.path.read_bytes().splitlines()) == len(texts)
    with store.writer("val") as writer:
        writer.append(Reply("yes", "Yes", structured=True, p_yes=0.75))
    assert store.answers("val")["yes"][0].reply == Reply("yes", "Yes", structured=True, p_yes=0.75)


def test_shards_splits_and_attempts_merge(store):
    write(store, "b", "a", shard=(3, 16))
    write(store, "c", shard=(10, 16))
    write(store, "d", "a")
    write(store, "a", attempt=1, shard=(3, 16))
    write(store, "z", split="test_small")
    write(store, "y", split="val")
    answers = store.answers("test")
    assert (list(answers), [answer.attempt for answer in answers["a"]]) == (["a", "b", "c", "d"], [0, 1])
    assert set(store.answers("test_small")) == {"z"}
    write(store, "a", text="another", shard=(1, 2))
    assert answers == store.answers("test"), "of two answers to one attempt the first counts"
    names = {path.name for path in store.folder.glob("*.jsonl")}
    assert {"test.jsonl", "test.shard-3-of-16.jsonl", "test.shard-10-of-16.jsonl"} < names


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_cut_at_any_byte_costs_one_answer_at_most(tmp_path_factory, cut):
    store = AnswerStore(tmp_path_factory.mktemp("store"), "tiny", IDENTITY)
    write(store, "a", "b", "c", "d")
    path = store.folder / "test.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    left = list(store.answers("test"))
    assert whole[:cut].count(b"\n") <= len(left) <= whole[:cut].count(b"\n") + 1
    write(store, "e")
    assert (list(store.answers("test")), path.read_bytes().count(b"\n")) == ([*left, "e"], len(left) + 1)


@pytest.mark.parametrize(
    "line",
    [
        "rubbish",
        "",
        "[]",
        '{"key": "a"}',
        '{"key": 1, "attempt": 0, "text": "", "finish_reason": "", "seconds": 0, "tokens": null}',
        '{"key": "a", "attempt": true, "text": "", "finish_reason": "", "seconds": 0, "tokens": null}',
        '{"key": "a", "attempt": 0, "text": null, "finish_reason": "", "seconds": 0, "tokens": null}',
        '{"key": "a", "attempt": 0, "text": "", "finish_reason": "", "seconds": 0, "tokens": 5}',
        "\x00\x00",
        "\udcff",
    ],
)
def test_rubbish_within_is_named(store, line):
    write(store, "a", "b")
    path = store.folder / "test.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line.encode(errors="surrogateescape"), second, b""]))
    with pytest.raises(DataError, match=r"test\.jsonl:2"):
        store.answers("test")


def test_the_digest_is_of_the_answers_alone(tmp_path):
    keys = list("abcdefgh")
    digests = set()
    for number in range(3):
        store = AnswerStore(tmp_path / str(number), "tiny", IDENTITY)
        random.Random(number).shuffle(keys)
        for index in range(number + 1):
            write(store, *keys[index :: number + 1], shard=(index + 1, number + 1) if number else None)
        digests.add(store.digest("test"))
    assert len(digests) == 1
    write(store, "a", attempt=1)
    assert store.digest("test") not in digests


def _hold(root, ready, end):
    with AnswerStore(root, "tiny", IDENTITY).writer("test", (1, 2)):
        ready.set()
        end.wait()


def test_two_processes_never_write_one_file(store, tmp_path):
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, end))
    process.start()
    ready.wait()
    with pytest.raises(DataError, match=r"shard-1-of-2\.jsonl"):
        write(store, "a", shard=(1, 2))
    write(store, "b", shard=(2, 2))
    end.set()
    process.join()
    write(store, "a", shard=(1, 2))
    assert set(store.answers("test")) == {"a", "b"}
    with pytest.raises(KeyError), store.writer("test"):
        raise KeyError
    write(store, "c")


def test_another_identity_is_another_folder(store, tmp_path):
    changed = AnswerStore(tmp_path, "tiny", IDENTITY | {"prompt": {"version": 4}, "note": "x" * 90})
    write(store, "a", "b", split="val")
    write(store, "c")
    assert changed.folder != store.folder
    assert changed.answers("test") == {}
    [other] = changed.other_identities()
    assert (other.folder, other.answers) == (store.folder, 3)
    assert other.differs.startswith('note absent (here "xxx')
    assert other.differs.endswith("prompt.version 3 (here 4)")
    assert len(other.differs) < 200
    assert AnswerStore(tmp_path, "tin", IDENTITY).other_identities() == []
    one, two = (AnswerStore(tmp_path, "late", {"prompt": "a" * 500 + end}) for end in "xy")
    write(one, "a")
    theirs, mine = two.other_identities()[0].differs.split(" (here ")
    assert theirs.removeprefix("prompt ") != mine.removesuffix(")"), "long texts that differ late"


def test_the_identity_is_stored_whatever_the_order_of_its_fields(store, tmp_path):
    write(store, "a")
    assert json.loads((store.folder / "identity.json").read_text()) == IDENTITY
    assert store.folder.name == f"tiny-{store.digest_of_identity[:12]}"
    assert AnswerStore(tmp_path, "tiny", dict(reversed(IDENTITY.items()))).folder == store.folder


@pytest.mark.parametrize("text", ["{}", "rubbish", "[1]"])
def test_a_folder_of_another_identity_is_refused(store, tmp_path, text):
    write(store, "a")
    (store.folder / "identity.json").write_text(text)
    for use in (lambda: AnswerStore(tmp_path, "tiny", IDENTITY), lambda: store.answers("test"), lambda: write(store)):
        with pytest.raises(DataError, match=r"identity\.json"):
            use()
    assert len(AnswerStore(tmp_path, "tiny", {"other": 1}).other_identities()) == 1


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b"])
def test_names_that_are_no_file_names(tmp_path, store, name):
    with pytest.raises(ValueError, match="name of a store"):
        AnswerStore(tmp_path, name, IDENTITY)
    with pytest.raises(ValueError, match="name of a split"):
        store.answers(name)


@pytest.mark.parametrize("shard", [(0, 4), (5, 4), (1, 0)])
def test_shards_that_are_none(store, shard):
    with pytest.raises(ValueError, match="runs from 1"):
        write(store, "a", shard=shard)
    with pytest.raises(ValueError, match="runs from 1"):
        shard_of(["a"], *shard)


@settings(max_examples=200, deadline=None)
@given(groups=st.lists(st.sampled_from(string.ascii_letters), max_size=200), count=st.integers(1, 20))
def test_shards_part_the_people(groups, count):
    shards = [shard_of(groups, index, count) for index in range(1, count + 1)]
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(groups)))
    images = [{groups[position] for position in shard} for shard in shards]
    assert sum(map(len, images)) == len(set(groups)), "nobody's image is in two shards"
    assert shard_of([f"image {number // 3}" for number in range(100)], 2, 16).tolist() == [6, 7, 8, 9, 10, 11]
    largest = max(map(groups.count, set(groups)), default=0)
    assert all(abs(len(shard) - len(groups) / count) <= largest for shard in shards)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")  # noqa: PTH110
def test_a_full_disk_is_an_error(store):
    write(store, "a")
    (store.folder / "val.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write(store, "b", split="val")
