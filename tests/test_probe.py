"""Probing: who is asked, what is stored and asked again, and the split that comes of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.data import saliency_splits as subsets
from gazebench.engine.registry import load_dataset
from gazebench.probe import asking, audit, build
from gazebench.probe.probers import ModelProber, Oracle, SpectralResidual, prompt, prompts, saliency
from gazebench.vlm.messages import Backend, Failure, EncodedImage, Reply, VLMError
from gazebench.vlm.store import AnswerStore

WORLD = load_dataset("gazeworld")
GOOD = '{"regions": [{"bbox_2d": [0, 0, 999, 999]}]}'


class Scripted(Backend):
    """Answers by a function of (key, how often it was asked)."""

    def __init__(self, say=lambda key, time: GOOD, die_after=None):
        self.say, self.die_after, self.requests = say, die_after, []

    def identity(self):
        return {"backend": "scripted", "model": "org/Scripted 1.0"}

    def ask(self, requests):
        for request in requests:
            if self.die_after is not None and len(self.requests) >= self.die_after:
                raise VLMError("the server is gone")
            times = sum(request.key == earlier.key for earlier in self.requests)
            self.requests.append(request)
            said = self.say(request.key, times)
            yield said if isinstance(said, Failure) else Reply(request.key, said, "stop")


@pytest.fixture
def world():
    dataset = WORLD(train=2, val=2, test=6)
    return dataset, dataset.records("test")


def probe(world, tmp_path, backend, **options):
    dataset, records = world
    prober = ModelProber(backend, prompt("regions-1"))
    store = AnswerStore(tmp_path, prober.name, prober.identity())
    return prober, store, asking.ask(dataset, records, prober, store, asking.plan(records), **options)


def test_a_prompt_asks_for_regions_and_never_for_the_gaze():
    for name, entry in prompts().items():
        system, user = entry.messages(np.array([0.1, 0.2, 0.3, 0.45]), EncodedImage(b"", "image/png", (1, 1)))
        text = user.parts[1]
        assert "[100, 200, 300, 450]" in text, name
        assert '{"regions": [{"bbox_2d": [x0, y0, x1, y1]' in text
        assert "not asked where the person looks" in text
        assert (system.role, user.role) == ("system", "user")


def test_everybody_is_asked_once_with_one_picture_a_frame(world, tmp_path):
    backend = Scripted()
    prober, _, outcome = probe(world, tmp_path, backend)
    records = world[1]
    assert prober.name == "scripted-1.0"
    assert [request.key for request in backend.requests] == [str(person) for person in records.person_id]
    pictures = {id(request.messages[1].parts[0]) for request in backend.requests}
    assert len(pictures) == len(records)
    assert (outcome.asked, outcome.answered, outcome.unusable, dict(outcome.open)) == (
        records.people, records.people, 0, {}
    )  # fmt: skip
    again = Scripted()
    _, _, repeated = probe(world, tmp_path, again)
    assert not again.requests
    assert repeated.answered == 0


def test_rubbish_is_asked_again_with_another_draw_and_then_kept_as_unparsed(world, tmp_path):
    dataset, records = world
    ids = [str(person) for person in records.person_id]
    late, never = ids[1], ids[2]

    def say(key, time):
        return "no idea" if key == never or (key == late and time == 0) else GOOD

    backend = Scripted(say)
    prober, store, outcome = probe(world, tmp_path, backend)
    asked = {key: [r.decoding for r in backend.requests if r.key == key] for key in ids}
    assert [len(asked[key]) for key in (ids[0], late, never)] == [1, 2, 3]
    assert [d.temperature for d in asked[never]] == [0.0, 0.7, 0.7]
    assert len({d.seed for d in asked[never]}) == 3
    assert outcome.unusable == 1
    verdicts = {v.person_id: v for v in build.verdicts(dataset, records, prober, store, asking.plan(records))}
    expected = "unparsed" if records.inout[2] else "out_of_frame"
    assert (verdicts[never].subset, verdicts[never].origin) == ("", expected)
    assert [answer.reply.text for answer in store.answers("test")[never]] == ["no idea"] * 3


def test_who_got_no_answer_stays_open_and_is_asked_the_next_time(world, tmp_path):
    dataset, records = world
    key = str(records.person_id[0])
    backend = Scripted(lambda asked, time: Failure(asked, "too large") if asked == key else GOOD)
    prober, store, outcome = probe(world, tmp_path, backend)
    assert dict(outcome.open) == {key: "too large"}
    with pytest.raises(DataError, match=r"1 of .* have no answer yet.*--partial"):
        build.write(tmp_path / "s", dataset, records, prober, store, asking.plan(records))
    path, card = build.write(tmp_path / "s", dataset, records, prober, store, asking.plan(records), partial=True)
    assert not card["complete"]
    assert any("not everybody was probed" in text for text in defects(path, records))
    again = Scripted()
    probe(world, tmp_path, again)
    assert [request.key for request in again.requests] == [key]


def defects(path, records):
    split = subsets.read(path)
    return subsets.defects(subsets.identity(split, subsets.attach(records, split)[1]))


def test_a_server_that_dies_loses_nothing(world, tmp_path):
    with pytest.raises(VLMError, match="gone"):
        probe(world, tmp_path, Scripted(die_after=4))
    backend = Scripted()
    probe(world, tmp_path, backend)
    assert len(backend.requests) == world[1].people - 4


@pytest.mark.parametrize("kept", [0, 400], ids=["no header", "cut"])
@pytest.mark.parametrize("saliency", [False, True], ids=["model", "saliency"])
def test_people_of_an_unreadable_picture_stay_open_and_the_others_are_asked(tmp_path, kept, saliency):
    dataset = load_dataset("vat").fake(tmp_path / "vat", people=40)
    records = dataset.records("test")
    image = int(records.person_image[0])
    path = dataset.path(records, image)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    lost = [str(person) for person in records.person_id[records.person_image == image]]
    backend, who = Scripted(), asking.plan(records)
    prober = SpectralResidual() if saliency else ModelProber(backend, prompt("regions-1"))
    store = AnswerStore(tmp_path / "raw", prober.name, prober.identity())
    outcome = asking.ask(dataset, records, prober, store, who)
    assert sorted(outcome.open) == sorted(lost)
    assert outcome.answered == records.people - len(lost)
    assert [path.name in reason for reason in outcome.unreadable] == [True], "named once, however many people"
    assert not any("bad_images" in reason for reason in outcome.unreadable), "no option of probing"
    with pytest.raises(DataError, match="have no answer yet"):
        build.write(tmp_path / "s", dataset, records, prober, store, who)
    _, card = build.write(tmp_path / "s", dataset, records, prober, store, who, partial=True)
    assert card["counts"]["unanswered"] == len(lost)
    assert not card["complete"]
    found = build.verdicts(dataset, records, prober, store, who)
    audit._sheet(dataset, records, found, [0, 1], tmp_path / "sheet.png")
    path.write_bytes(whole)
    repeated = asking.ask(load_dataset("vat")(tmp_path / "vat"), records, prober, store, who)
    assert (repeated.answered, dict(repeated.open), repeated.unreadable) == (len(lost), {}, ())


def test_the_command_names_unreadable_pictures_and_fails(tmp_path, capsys):
    root = tmp_path / "vat"
    dataset = load_dataset("vat").fake(root, people=12)
    path = dataset.path(dataset.records("test"), 0)
    path.write_bytes(b"")
    places = [f"--dataset.root={root}", f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'splits'}"]
    assert main(["probe", "vat", "--prober=saliency", *places]) == 1
    error = capsys.readouterr().err
    assert f"{path}: not a readable picture" in error
    assert "--partial" in error
    assert not list(tmp_path.rglob("*.tsv"))
    assert main(["probe", "vat", "--prober=saliency", "--partial", *places]) == 1
    assert len(list(tmp_path.rglob("*.tsv"))) == 1


def test_shards_make_the_split_of_one_run(world, tmp_path):
    dataset, records = world
    backends = [Scripted() for _ in range(3)]
    for index, backend in enumerate(backends, start=1):
        prober, store, _ = probe(world, tmp_path / "shards", backend, shard=(index, 3))
    keys = [request.key for backend in backends for request in backend.requests]
    assert sorted(keys) == sorted(map(str, records.person_id))
    assert len({id(r.messages[1].parts[0]) for b in backends for r in b.requests}) == len(records)
    who = asking.plan(records)
    sharded, one = build.write(tmp_path / "a", dataset, records, prober, store, who)
    prober, store, _ = probe(world, tmp_path / "whole", Scripted())
    whole, other = build.write(tmp_path / "b", dataset, records, prober, store, who)
    assert sharded.read_bytes() == whole.read_bytes()
    assert one["sha256"] == other["sha256"]


def test_another_prompt_starts_anew(world, tmp_path):
    from dataclasses import replace

    dataset, records = world
    probe(world, tmp_path, Scripted())
    backend = Scripted()
    changed = ModelProber(backend, replace(prompt("regions-1"), user=prompt("regions-1").user + " Be brief."))
    store = AnswerStore(tmp_path, changed.name, changed.identity())
    assert [sibling.answers for sibling in store.other_identities()] == [records.people]
    assert "prompt.user" in store.other_identities()[0].differs
    asking.ask(dataset, records, changed, store, asking.plan(records))
    assert len(backend.requests) == records.people


def test_strides_take_the_regions_of_the_nearest_frame(tmp_path):
    dataset = load_dataset("vat").fake(tmp_path / "vat", people=40)
    records = dataset.records("test")
    who = asking.plan(records, 3)
    assert 0 < len(who.asked) < records.people
    groups = records.groups[records.person_image]
    for person in range(records.people):
        source = who.source[person]
        assert groups[source] == groups[person]
        name = [str(records.person_id[row]).rpartition("#")[2] for row in (person, source)]
        assert name[0] == name[1]
        mine = [row for row in range(records.people)
                if groups[row] == groups[person] and str(records.person_id[row]).endswith(f"#{name[0]}")]  # fmt: skip
        gaps = [abs(mine.index(person) - mine.index(asked)) for asked in mine[::3]]
        assert abs(mine.index(person) - mine.index(int(source))) == min(gaps)
    backend = Scripted()
    prober = ModelProber(backend, prompt("regions-1"))
    store = AnswerStore(tmp_path / "raw", prober.name, prober.identity())
    asking.ask(dataset, records, prober, store, who)
    assert len(backend.requests) == len(who.asked)
    _, card = build.write(tmp_path / "s", dataset, records, prober, store, who)
    assert card["stride"] == 3
    assert card["counts"]["propagated"] > 0
    assert card["complete"]
    with pytest.raises(DataError, match="--stride 0"):
        asking.plan(records, 0)


def test_the_shipped_oracle_split_can_be_made_again(tmp_path):
    dataset = WORLD()
    records = dataset.records("test")
    records = records.select(records.person_image < 80)
    store = AnswerStore(tmp_path, "oracle", Oracle().identity())
    who = asking.plan(records)
    asking.ask(dataset, records, Oracle(), store, who)
    shipped = subsets.read(subsets.locate(Path("oracle"), "gazeworld", "test"))
    for made in build.verdicts(dataset, records, Oracle(), store, who):
        assert shipped.rows[made.person_id] == (made.subset, made.inside, made.points, made.origin)
    assert shipped.card["prober_digest"] == store.digest_of_identity


def test_the_oracle_knows_only_drawn_scenes(tmp_path):
    dataset = load_dataset("vat").fake(tmp_path / "vat", people=4)
    records = dataset.records("test")
    store = AnswerStore(tmp_path / "raw", "oracle", Oracle().identity())
    with pytest.raises(DataError, match="no oracle; use --prober saliency"):
        asking.ask(dataset, records, Oracle(), store, asking.plan(records))


def test_saliency_finds_the_odd_one_and_leaves_the_own_head_out():
    rng = np.random.default_rng(0)
    grey = 100 + rng.normal(0, 1, (40, 64))
    grey[10:14, 40:44] += 120
    peak = np.unravel_index(saliency(grey, 2.5).argmax(), grey.shape)
    assert abs(peak[0] - 11.5) <= 2
    assert abs(peak[1] - 41.5) <= 2

    class Dot(WORLD):
        def picture(self, records, image, *options):
            return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)

    dataset = Dot(train=1, val=1, test=1)
    records = dataset.records("test")
    spot = np.array([40 / 64, 10 / 40, 44 / 64, 14 / 40])
    for head, covered in ((np.array([0.0, 0.0, 0.1, 0.1]), True), (spot + np.array([-0.1, -0.1, 0.1, 0.1]), False)):
        regions = SpectralResidual().regions(dataset, records, asking.Job("a", 0, 0, head))
        assert bool(subsets.inside(np.array([[(40 + 2) / 64, 12 / 40]]), regions)[0]) is covered


def test_agreement_and_sensitivity_against_counting():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(1)
    names = np.array(["consistent", "inconsistent"])
    one = {str(i): str(names[v]) for i, v in enumerate(rng.integers(0, 2, 60))}
    other = {key: (value if rng.random() < 0.7 else "") for key, value in one.items()}
    other |= {str(i): "consistent" for i in range(10)}
    result = audit.agreement(one, other)
    both = [key for key in one if other[key]]
    assert result["people"] == len(both) == result["confusion"].to_numpy().sum()
    assert result["accuracy"] == pytest.approx(np.mean([one[key] == other[key] for key in both]))
    assert result["kappa"] == pytest.approx(cohen_kappa_score([one[k] for k in both], [other[k] for k in both]))
    verdicts = [build.Verdict(str(i), subsets.verdict(i, 10), i, 10, "answer", np.zeros((0, 4))) for i in range(11)]
    table = audit.sensitivity(verdicts).set_index("more than")
    assert table.loc[0.5, "changed"] == 0
    assert table.loc[0.8, "consistent"] == pytest.approx(2 / 11)  # 9 and 10 of 10
    assert table.loc[0.8, "changed"] == 3  # 6, 7 and 8


# The command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """Says that everything is salient, and remembers what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.reply({"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": ""}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            message = {"role": "assistant", "content": GOOD}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.reply({"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]})

        def reply(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1", asked
    running.shutdown()


def run(tmp_path, *arguments):
    places = [f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'splits'}"]
    return main(["probe", "gazeworld", "--dataset.test=4", *places, *arguments])


def test_the_command_asks_a_server_and_builds_a_split(tmp_path, server, capsys):
    url, asked = server
    model = ["--prober=openai", f"--url={url}", "--model=tiny"]
    assert run(tmp_path, *model, "--dry-run") == 0
    assert not asked
    assert run(tmp_path, *model, "--limit=2") == 0
    assert len(asked) == 2
    assert not list(tmp_path.rglob("*.tsv"))
    assert run(tmp_path, *model) == 0
    people = WORLD(test=4).records("test").people
    assert len(asked) == people
    assert "100.0% consistent" in capsys.readouterr().out
    record = WORLD(test=4, subsets=tmp_path / "splits" / "gazeworld" / "tiny").identity("test")["subsets"]
    assert record["name"] == "tiny"
    assert record["prober"]["prompt"]["name"] == "regions-1"
    assert "127.0.0.1" not in json.dumps(record)
    assert run(tmp_path, *model, "--audit", "--against=oracle") == 0
    page = next(tmp_path.rglob("audit.md"))
    assert "Against oracle" in page.read_text()
    assert {path.name for path in page.parent.glob("*.png")} == {"sheet-1.png", "threshold.png"}
    assert len(asked) == people, "neither building nor auditing asks"
    assert run(tmp_path, "--prober=openai", f"--url={url}", "--model=other") == 2
    assert "serves tiny, not other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prober=oracle", "--shard=4/3"], "--shard 4/3"),
        (["--prober=oracle", "--shard=x"], "--shard x"),
        (["--prober=oracle", "--nonsense"], "--nonsense makes no sense"),
        (["--prober=openai", "--prompt=regions-0"], "no prompt 'regions-0'; .* has regions-1"),
        (["--prober=openai", "--url=localhost:1"], "not the address of a server"),
        (["--prober=openai", "--attempts=0"], "--attempts 0"),
        (["--prober=oracle", "--build"], "have no answer yet"),
        (["--prober=oracle", "--audit"], "ask first"),
        (["--prober=saliency", "--stride=0"], "--stride 0"),
    ],
)
def test_bad_options_are_named(tmp_path, capsys, arguments, message):
    import re

    assert run(tmp_path, *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
