"""The client of OpenAI-compatible servers, against a server in a thread here that answers as badly as it is told."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gazebench.core.errors import DataError
from gazebench.vlm.encoding import Encoding
from gazebench.vlm.messages import Decoding, EncodedImage, Failure, Message, Reply, Request, VLMError
from gazebench.vlm.openai_server import OpenAIServer
from gazebench.vlm.store import AnswerStore

ROOT = Path(__file__).resolve().parent.parent
SOON = {"retry-after-ms": "20"}
"""Spares the tests the client's own waits, which begin at half a second."""


def completion(text: str | None, reason: str = "stop", **fields) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage} | fields).encode()


def refusal(message: str, **fields) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error"} | fields}).encode()


def act(body: bytes = b"", status: int = 200, **more) -> dict:
    """What a ``FaultyServer`` does with a request."""
    return {"body": body, "status": status, **more}


@pytest.fixture
def serve(chat_servers):
    return lambda script=lambda key, nth: act(completion(f"answer to {key}")): chat_servers(script)


@pytest.fixture(autouse=True)
def _leaves_nothing(caplog):
    """No thread, no task that was not waited for, no complaint of the event loop."""
    gc.freeze()  # what was there before need not be looked through
    yield
    gc.collect()
    gc.unfreeze()
    assert not [thread for thread in threading.enumerate() if thread.name == "gazebench-vlm"]
    assert not [record for record in caplog.records if record.name == "asyncio"]


def questions(count: int) -> list[Request]:
    return [Request(f"k{number}", (Message("user", (f"k{number}",)),)) for number in range(count)]


def client(server: Any, **options) -> OpenAIServer:
    return OpenAIServer(server.url, "tiny", **{"api_key": "the-secret", "in_flight": 4, "max_retries": 2} | options)


def ask(server: Any, count: int, **options) -> dict[str, Reply | Failure]:
    answers = list(client(server, **options).ask(questions(count)))
    assert len({answer.key for answer in answers}) == len(answers) == count
    return {answer.key: answer for answer in answers}


def collected(answers: Iterator[Reply | Failure]) -> tuple[list[Reply | Failure], Exception]:
    """The answers that came, and the error that ended them."""
    seen: list[Reply | Failure] = []
    with pytest.raises((DataError, VLMError)) as caught:
        seen.extend(iter(lambda: next(answers), None))
    return seen, caught.value


def test_every_request_is_answered_once(serve):
    server = serve(lambda key, nth: act(completion(f"answer to {key}"), delay=0.01 + int(key[1:]) % 7 * 0.003))
    answers = ask(server, 60, in_flight=5)
    assert {key: answer.text for key, answer in answers.items()} == {f"k{n}": f"answer to k{n}" for n in range(60)}
    assert sorted(server.asked) == sorted(answers)
    assert server.most == 5, "in flight"
    first = answers["k0"]
    assert (first.finish_reason, first.tokens, first.seconds > 0) == ("stop", (7, 3), True)
    assert list(client(server).ask([])) == []
    assert len(server.asked) == 60


def test_what_is_sent(serve):
    server = serve()
    shown = Encoding().encode(np.full((20, 30, 3), 90, np.uint8))
    messages = (Message("system", ("Be “brief”.",)), Message("user", ("left\n", shown, 'k"0')))
    [answer] = client(server).ask([Request("a", messages, Decoding(17, 0.5, 0.9, 3))])
    assert answer.text == 'answer to k"0'
    [body] = server.bodies
    texts = [{"type": "text", "text": text} for text in ("left\n", 'k"0')]
    url = {"url": f"data:image/jpeg;base64,{shown.url.partition(',')[2]}"}
    assert body == {
        **{"model": "tiny", "max_tokens": 17, "temperature": 0.5, "top_p": 0.9, "seed": 3},
        "messages": [
            {"role": "system", "content": "Be “brief”."},
            {"role": "user", "content": [texts[0], {"type": "image_url", "image_url": url}, texts[1]]},
        ],
    }
    assert b64decode(url["url"].partition(",")[2]) == shown.data
    for line in ("post /v1/chat/completions", "content-type: application/json", "authorization: bearer the-secret"):
        assert line in server.heads[0]


YES_NO = {"type": "object", "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}}}


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        ("", ["response_format", "logprobs"]),
        ("'response_format' of type 'json_schema' is not supported", ["logprobs"]),
        ("top_logprobs is not permitted", ["response_format"]),
        ("bad request", []),
    ],
)
def test_what_a_server_refuses_is_left_out_from_then_on(serve, refused, sent):
    def script(key, nth):
        body = server.bodies[-1]
        extra = [name for name in ("response_format", "logprobs") if name in body]
        return act(refusal(refused), 400) if refused and set(extra) - set(sent) else act(completion('{"answer": "no"}'))

    server = serve(script)
    asked = [Request(f"k{n}", (Message("user", (f"k{n}",)),), schema=YES_NO, p_yes=True) for n in range(3)]
    replies = list(client(server, in_flight=1).ask(asked))
    assert [reply.text for reply in replies] == ['{"answer": "no"}'] * 3
    assert {reply.structured for reply in replies} == {"response_format" in sent}
    assert len(server.bodies) == 3 + bool(refused), "asked once too often, and remembered"
    assert [name for name in ("response_format", "logprobs") if name in server.bodies[-1]] == sent
    if "response_format" in sent:
        assert server.bodies[-1]["response_format"]["json_schema"]["schema"] == YES_NO


def test_the_probability_of_yes_is_that_of_the_token_after_the_thoughts(serve):
    def step(token, p, **others):
        top = [{"token": name, "logprob": float(np.log(q))} for name, q in {token: p, **others}.items()]
        return {"token": token, "logprob": float(np.log(p)), "top_logprobs": top}

    steps = [step("<think>", 1.0), step("Yes", 0.9, No=0.1), step("</think>", 1.0), step("\n", 1.0),
             step(" No", 0.6, Yes=0.2, yes=0.1, maybe=0.1)]  # fmt: skip
    text = "".join(one["token"] for one in steps)
    bodies = {}
    for name, content in {"k0": steps, "k1": steps[:4], "k2": None}.items():
        body = json.loads(completion(text))
        body["choices"][0]["logprobs"] = content and {"content": content}
        bodies[name] = json.dumps(body).encode()
    server = serve(lambda key, nth: act(bodies[key]))
    asked = [Request(name, (Message("user", (name,)),), p_yes=True) for name in bodies]
    found = {reply.key: reply.p_yes for reply in client(server).ask(asked)}
    assert found == {"k0": pytest.approx(0.3 / 0.9), "k1": None, "k2": None}


def test_a_refusal_of_the_server_is_its_answer(serve):
    body = json.loads(completion(None))
    body["choices"][0]["message"]["refusal"] = "I cannot help with that."
    [reply] = ask(serve(lambda key, nth: act(json.dumps(body).encode())), 1).values()
    assert (reply.text, reply.finish_reason) == ("I cannot help with that.", "refusal")


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    server = serve()
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
    ask(server, 1, api_key=None)
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(server, 1, api_key=None)
    assert ["from-outside" in head for head in server.heads] == [True, False]


def test_identity_has_no_place_and_settings_must_be_possible():
    server = OpenAIServer("http://10.0.0.7:8000/v1", "Qwen/Qwen3-VL-32B-Instruct", revision="abc")
    assert server.identity() == {"backend": "openai", "model": "Qwen/Qwen3-VL-32B-Instruct", "revision": "abc"}
    assert OpenAIServer("http://x/v1", "/data/me/tiny").identity()["model"] == "tiny"
    for option in ("in_flight", "max_retries", "give_up_after", "timeout"):
        with pytest.raises(ValueError, match=option):
            OpenAIServer("http://x/v1", "tiny", **{option: 0})
    with pytest.raises(VLMError, match="localhost:8000"):
        OpenAIServer("localhost:8000", "tiny")


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_requests_are_drawn_a_bounded_number_ahead(serve, delay):
    server = serve(lambda key, nth: act(completion(key), delay=delay))
    drawn = []

    def endless():
        for number in range(10**9):
            drawn.append(number)
            yield Request(f"k{number}", (Message("user", (f"k{number}",)),))

    answers = client(server, in_flight=3).ask(endless())
    for seen, _ in zip(range(30), answers, strict=False):
        time.sleep(0.001)  # a slow consumer must not be run over
        assert len(drawn) <= seen + 1 + 2 * 3
    answers.close()
    assert len(drawn) <= 31 + 2 * 3


@pytest.mark.parametrize("interrupted", [False, True])
def test_ending_early_drops_what_is_in_flight(serve, interrupted):
    server = serve(lambda key, nth: act(completion(key), delay=0 if key == "k0" else 600))
    answers = client(server).ask(questions(50))
    assert next(answers).key == "k0"
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            answers.throw(KeyboardInterrupt)
    else:
        answers.close()
    assert len(server.asked) <= 5


def test_an_exception_of_the_requests_comes_after_the_answers(serve):
    server = serve()

    def broken():
        yield from questions(10)
        time.sleep(0.3)  # long enough for all to be answered
        raise DataError("frame 10 is no image")

    seen, error = collected(client(server, in_flight=20).ask(broken()))
    assert str(error).startswith("frame 10")
    assert sorted(answer.key for answer in seen) == sorted(server.answered)


LIMITED = act(refusal("slow down"), 429, headers={"retry-after": "1"})


@pytest.mark.parametrize(
    ("fault", "failures"),
    [
        (act(refusal("overloaded"), 500, headers=SOON), 2),
        (act(refusal("overloaded"), 503, headers=SOON), 2),
        (LIMITED, 1),
        *((act(completion("cut"), sent=sent), 1) for sent in (0, 10, 150)),  # the connection is lost
    ],
)
def test_faults_that_pass_are_asked_again(serve, fault, failures):
    server = serve(lambda key, nth: fault if nth <= failures else act(completion(key)))
    assert {answer.text for answer in ask(server, 3).values()} == {"k0", "k1", "k2"}
    assert set(Counter(server.asked).values()) == {failures + 1}


def test_slow_answers_are_waited_for_and_too_slow_ones_given_up(serve):
    server = serve(lambda key, nth: act(completion(key), delay=600 if key == "k1" else 0.3))
    answers = ask(server, 3, timeout=1.0, max_retries=1)
    assert {answers["k0"].text, answers["k2"].text} == {"k0", "k2"}
    assert isinstance(answers["k1"], Failure)
    assert "1 s, asked 2 times" in answers["k1"].reason


def test_rubbish_is_no_answer_and_empty_and_cut_answers_are_some(serve):
    acts = [
        *(act(b"<html>the proxy is tired</html>", mime="text/html"), act(refusal("no capacity"))),
        *(act(body) for body in (b"\xff\xfe\x00", b"[]", b"", b'{"choices": [7]}', completion("cut")[:60])),
        act(completion(["a", "list"])),
        *(act(completion(None)), act(completion("x", choices=[])), act(completion("cut he", "length"))),
        act(completion("\ud83d lone", usage=None)),
    ]
    server = serve(lambda key, nth: acts[int(key[1:])])
    answers = list(ask(server, len(acts), in_flight=1, give_up_after=99).values())
    assert all(isinstance(answer, Failure) for answer in answers[:8])
    assert "the proxy is tired" in answers[0].reason
    assert "no capacity" in answers[1].reason
    assert [answer.text for answer in answers[8:]] == ["", "", "cut he", "\ud83d lone"]
    assert [answer.finish_reason for answer in answers[8:]] == ["stop", "", "length", "stop"]
    assert answers[-1].tokens is None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, refusal("Incorrect API key"), "401.*OPENAI_API_KEY"),
        (403, b"forbidden", "403: forbidden.*OPENAI_API_KEY"),
        (404, refusal("The model `tiny` does not exist."), "does not exist.*'tiny'"),
        (404, b'{"detail": "Not Found"}', "404: Not Found.*/v1"),
        (400, b"{\"detail\": \"Server is pinned to 'x'; requested 'tiny'.\"}", "pinned to 'x'.*'tiny'"),
        (400, refusal("no such model", code="model_not_found"), "no such model.*'tiny'"),
    ],
)
def test_refusals_of_everything(serve, status, body, said):
    server = serve(lambda key, nth: act(body, status))
    with pytest.raises(VLMError, match=said) as caught:
        list(client(server).ask(questions(30)))
    assert "the-secret" not in str(caught.value)
    assert len(server.asked) <= 8


def test_refusals_of_one_request(serve):
    acts = {
        "k1": act(refusal("This model's maximum context length is 4096 tokens, not tiny-ish."), 400),
        "k3": act(b"too large", 413),
        "k4": act(b'{"detail": [{"msg": "bad image"}]}', 422),
    }
    server = serve(lambda key, nth: acts.get(key, act(completion(key))))
    answers = ask(server, 30, give_up_after=1)
    failed = {key: answer.reason for key, answer in answers.items() if isinstance(answer, Failure)}
    assert set(failed) == set(acts)
    assert failed["k1"].startswith("status 400: This model's maximum context length")
    assert "bad image" in failed["k4"]
    assert set(Counter(server.asked).values()) == {1}


def test_a_server_that_dies(serve):
    server = serve()

    def dying():
        for number, request in enumerate(questions(100)):
            if number == 40:
                server.stop()
            yield request

    seen, error = collected(client(server, max_retries=1, give_up_after=3).ask(dying()))
    assert server.url in str(error)
    assert "3 requests in a row" in str(error)
    replies = [answer.key for answer in seen if isinstance(answer, Reply)]
    assert 30 <= len(replies) <= 40
    assert len(seen) - len(replies) < 3 + 4


def test_failures_between_answers_do_not_end_it(serve):
    server = serve(lambda key, nth: act(b"", 500, headers=SOON) if int(key[1:]) % 3 else act(completion(key)))
    answers = ask(server, 24, in_flight=1, max_retries=1, give_up_after=3)
    assert sum(isinstance(answer, Reply) for answer in answers.values()) == 8
    with pytest.raises(VLMError, match="2 requests in a row"):
        list(client(server, in_flight=1, max_retries=1, give_up_after=2).ask(questions(24)))


def test_check(serve):
    server = serve()
    assert client(server).check() == ("tiny",)
    for odd in (act(b"rubbish"), act(b"[]"), act(b"{}", 404), act(b"", 500, headers=SOON)):
        server.models = odd
        assert client(server).check() == ()
    server.models = act(refusal("who are you?"), 401)
    with pytest.raises(VLMError, match=r"who are you\?"):
        client(server).check()
    server.stop()
    with pytest.raises(VLMError, match=server.url):
        client(server).check()


DRIVER = """
import sys
from gazebench.vlm.ask import ask
from gazebench.vlm.messages import Message, Request
from gazebench.vlm.openai_server import OpenAIServer
from gazebench.vlm.store import AnswerStore

url, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
keys = [f"k{number}" for number in range(count)]
server = OpenAIServer(url, "tiny", api_key="x", in_flight=16)

def send(attempt, waiting):
    return server.ask(Request(key, (Message("user", (key,)),)) for key in keys if waiting(key))

assert not ask(AnswerStore(root, "tiny", {"model": "tiny"}), "test", keys, send).open
"""


def test_killed_and_resumed(serve, tmp_path):
    """kill -9 within 500 requests, Ctrl-C within the rest: none is lost, none asked again once its answer is stored."""
    held_from = 150  # what is asked later is not answered before the process ends

    def script(key, nth):
        return act(completion(f"answer to {key}"), delay=0.02 if len(server.asked) <= held_from else 600)

    server = serve(script)
    command = [sys.executable, "-c", DRIVER, server.url, str(tmp_path), "500"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    stored: set[str] = set()
    for sent in (signal.SIGKILL, signal.SIGINT, None):
        before = len(server.asked)
        held_from = before + 150 if sent else 10**9
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        if sent is not None:
            while len(server.asked) <= held_from and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(sent)
        errors = process.communicate()[1]
        assert process.returncode == (0 if sent is None else -sent), errors
        assert "Task was destroyed" not in errors
        assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
        assert not stored & set(server.asked[before:])
        assert Counter(server.asked[before:]).most_common(1)[0][1] == 1
        stored = set(AnswerStore(tmp_path, "tiny", {"model": "tiny"}).answers("test"))
        assert len(stored) < 500 if sent else len(stored) == 500
    again = [key for key, count in Counter(server.asked).items() if count > 1]
    assert len(again) <= 2 * 2 * 16
    assert stored == {f"k{number}" for number in range(500)}
    for key, [answer] in AnswerStore(tmp_path, "tiny", {"model": "tiny"}).answers("test").items():
        assert answer.reply.text == f"answer to {key}"


def textured(width: int, height: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def decoded(shown: EncodedImage) -> Image.Image:
    image = Image.open(BytesIO(shown.data))
    image.load()
    assert (image.format, image.mode, image.size) == (shown.mime.partition("/")[2].upper(), "RGB", shown.size)
    assert image.getexif().get(0x0112) is None
    return image


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (99, 33), (2000, 3)])
@pytest.mark.parametrize("fmt", ["jpeg", "png"])
def test_encoding_an_array(size, fmt):
    array = textured(*size)
    shown = Encoding(300, fmt).encode(array)
    image = decoded(shown)
    assert max(image.size) == min(300, max(size))
    assert abs(image.width / image.height - size[0] / size[1]) <= size[0] / size[1] / min(image.size)
    small = Image.fromarray(array).resize(image.size, Image.Resampling.LANCZOS)
    if fmt == "png":
        assert np.array_equal(np.asarray(image), np.asarray(small))
    else:  # colours are stored at half the resolution
        assert np.abs(np.asarray(image.convert("L")).astype(int) - np.asarray(small.convert("L"))).mean() < 4


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("a.bmp", "RGB"), ("a.webp", "RGB"), ("a.tif", "RGB"), ("a.jpg", "CMYK"), ("a.jpg", "L"), ("a.png", "P")),
        *(("a.png", "RGBA"), ("a.png", "LA"), ("a.png", "1"), ("a.gif", "P")),
    ],
)
def test_other_files_become_rgb(tmp_path, name, mode):
    original = Image.fromarray(textured(64, 48)).convert(mode)
    original.save(tmp_path / name)
    shown = Encoding(64, "png").encode(tmp_path / name)
    assert shown.data != (tmp_path / name).read_bytes()
    with Image.open(tmp_path / name) as stored:
        assert np.array_equal(np.asarray(decoded(shown)), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_files_that_fit_are_sent_as_they_are_but_for_an_orientation(tmp_path, name, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(textured(64, 48)).save(tmp_path / name, exif=exif)
    shown = Encoding(64, "png").encode(tmp_path / name)
    assert shown.size == (64, 48)
    if orientation == 6:
        with Image.open(tmp_path / name) as stored:
            assert np.array_equal(np.asarray(decoded(shown)), np.asarray(stored))
    else:
        assert shown.data == (tmp_path / name).read_bytes()
    assert decoded(Encoding(63).encode(tmp_path / name)).size == (63, 47)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("max_side", [64, 500])
def test_broken_files(tmp_path, name, max_side):
    path = tmp_path / name
    with pytest.raises(DataError, match=f"{name}: no such file"):
        Encoding(max_side).encode(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for data in (whole[:-2000], whole[:40], b"", b"rubbish"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: not a readable"):
            Encoding(max_side).encode(path)


def test_settings_of_an_encoding_and_what_is_no_image():
    assert Encoding().identity() == {"max_side": 1280, "format": "jpeg", "quality": 90}
    assert Encoding(640, "png").identity() == {"max_side": 640, "format": "png"}
    for wrong in ({"max_side": 0}, {"format": "webp"}, {"quality": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Encoding(**wrong)
    for array in (np.zeros((3, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 3))):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
            Encoding().encode(array)
