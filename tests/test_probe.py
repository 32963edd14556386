"""Probing: who is asked, what is stored and asked again, and the split that comes of it."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.data import saliency_splits
from gazebench.engine.registry import load_dataset
from gazebench.probe import asking, audit, build
from gazebench.probe.probers import SCHEMA, Job, ModelProber, Oracle, SpectralResidual, prompt, prompts, saliency
from gazebench.vlm.messages import Backend, EncodedImage, Failure, Reply
from gazebench.vlm.store import AnswerStore

WORLD = load_dataset("gazeworld")
GOOD = '{"regions": [{"bbox_2d": [0, 0, 999, 999]}]}'


class Scripted(Backend):
    """Answers by a function of (key, how often it was asked before)."""

    def __init__(self, say=lambda key, time: GOOD):
        self.say, self.requests = say, []

    def identity(self):
        return {"backend": "scripted", "model": "org/Scripted 1.0"}

    def ask(self, requests):
        for request in requests:
            said = self.say(request.key, self.keys.count(request.key))
            self.requests.append(request)
            yield said if isinstance(said, Failure) else Reply(request.key, said, "stop")

    @property
    def keys(self):
        return [request.key for request in self.requests]

    @property
    def images(self):
        return {id(request.messages[1].parts[0]) for request in self.requests}


@pytest.fixture
def world():
    return WORLD(train=2, val=2, test=6)


@pytest.fixture
def vat(tmp_path):
    return load_dataset("vat").fake(tmp_path / "vat", people=40)


def probe_of(dataset, folder, prober, stride=1):
    if isinstance(prober, Backend):
        prober = ModelProber(prober, prompt("regions-1"))
    store = AnswerStore(folder / "raw", prober.name, prober.identity())
    return asking.Probe(dataset, dataset.records("test"), prober, store, stride)


def probed(dataset, folder, prober, stride=1, **options):
    probe = probe_of(dataset, folder, prober, stride)
    return probe, asking.ask(probe, **options)


def test_a_prompt_asks_for_regions_and_never_for_the_gaze():
    for name, entry in prompts().items():
        system, user = entry.messages(np.array([0.1, 0.2, 0.3, 0.45]), EncodedImage(b"", "image/png", (1, 1)))
        text = user.parts[1]
        assert "[100, 200, 300, 450]" in text, name
        assert '{"regions": [{"bbox_2d": [x0, y0, x1, y1]' in text
        assert "not asked where the person looks" in text
        assert (system.role, user.role) == ("system", "user")


def test_everybody_is_asked_once_with_one_image_a_frame(world, tmp_path):
    backend, again = Scripted(), Scripted()
    probe, outcome = probed(world, tmp_path, backend)
    people = probe.records.people
    assert probe.prober.name == "scripted-1.0"
    assert backend.keys == [str(person) for person in probe.records.person_id]
    assert len(backend.images) == len(probe.records)
    assert (outcome.asked, outcome.answered, outcome.unusable, outcome.open) == (people, people, 0, {})
    assert probed(world, tmp_path, again)[1].answered == len(again.requests) == 0


def test_rubbish_is_asked_again_with_another_draw_and_then_kept_as_unparsed(world, tmp_path):
    first, late, never = map(str, world.records("test").person_id[:3])
    backend = Scripted(lambda key, time: "no idea" if key == never or (key == late and time == 0) else GOOD)
    probe, outcome = probed(world, tmp_path, backend)
    assert [backend.keys.count(key) for key in (first, late, never)] == [1, 2, 3]
    decodings = [request.decoding for request in backend.requests if request.key == never]
    assert [decoding.temperature for decoding in decodings] == [0.0, 0.7, 0.7]
    assert (len({decoding.seed for decoding in decodings}), outcome.unusable) == (3, 1)
    verdict = build.verdicts(probe)[2]
    expected = "unparsed" if probe.records.inout[2] else "out_of_frame"
    assert (verdict.person_id, verdict.subset, verdict.origin) == (never, "", expected)
    assert [answer.reply.text for answer in probe.store.answers("test")[never]] == ["no idea"] * 3


def test_who_got_no_answer_stays_open_and_is_asked_the_next_time(world, tmp_path):
    key = str(world.records("test").person_id[0])
    backend = Scripted(lambda asked, time: Failure(asked, "too large") if asked == key else GOOD)
    probe, outcome = probed(world, tmp_path, backend)
    assert outcome.open == {key: "too large"}
    with pytest.raises(DataError, match="--partial"):
        build.write(tmp_path / "s", probe)
    path, card = build.write(tmp_path / "s", probe, partial=True)
    assert (card["counts"]["unanswered"], card["complete"]) == (1, False)
    assert saliency_splits.defects(saliency_splits.attach(probe.records, saliency_splits.read(path))[1])
    again = Scripted()
    probed(world, tmp_path, again)
    assert again.keys == [key]


@pytest.mark.parametrize(("kept", "kind"), [(0, Scripted), (400, SpectralResidual)])
def test_people_of_an_unreadable_image_stay_open_and_the_others_are_asked(vat, tmp_path, kept, kind):
    records = vat.records("test")
    path = vat.path(records, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    lost = [str(person) for person in records.person_id[records.person_image == 0]]
    probe, outcome = probed(load_dataset("vat")(vat.root), tmp_path, kind())
    assert (sorted(outcome.open), outcome.answered) == (sorted(lost), records.people - len(lost))
    assert [path.name in reason for reason in outcome.unreadable] == [True], "named once, however many people"
    with pytest.raises(DataError, match="--partial"):
        build.write(tmp_path / "s", probe)
    _, card = build.write(tmp_path / "s", probe, partial=True)
    assert (card["counts"]["unanswered"], card["complete"]) == (len(lost), False)
    audit.sheet(probe, build.verdicts(probe), [0, 1], tmp_path / "sheet.png")
    path.write_bytes(whole)
    _, repeated = probed(load_dataset("vat")(vat.root), tmp_path, kind())
    assert (repeated.answered, repeated.open, repeated.unreadable) == (len(lost), {}, ())


def test_an_answer_about_an_image_that_was_lost_since_does_not_count(vat, tmp_path):
    probe, _ = probed(vat, tmp_path, Scripted())
    lost = [str(person) for person in probe.records.person_id[probe.records.person_image == 0]]
    vat.path(probe.records, 0).unlink()
    vat.path(probe.records, 0).write_bytes(b"")
    again = probe_of(load_dataset("vat")(vat.root), tmp_path, Scripted())
    assert list(asking.ask(again).open) == lost
    assert [one.person_id for one in build.verdicts(again) if one.origin == "unanswered"] == lost


def test_shards_make_the_split_of_one_run(world, tmp_path):
    backends = [Scripted() for _ in range(3)]
    for index, backend in enumerate(backends, start=1):
        probe, _ = probed(world, tmp_path / "shards", backend, shard=(index, 3))
    assert sorted(key for backend in backends for key in backend.keys) == sorted(map(str, probe.records.person_id))
    assert len(set.union(*(backend.images for backend in backends))) == len(probe.records)
    sharded, one = build.write(tmp_path / "a", probe)
    whole, other = build.write(tmp_path / "b", probed(world, tmp_path / "whole", Scripted())[0])
    assert (sharded.read_bytes(), one["sha256"]) == (whole.read_bytes(), other["sha256"])


def test_another_prompt_starts_anew(world, tmp_path):
    probe, _ = probed(world, tmp_path, Scripted())
    backend, asked = Scripted(), prompt("regions-1")
    changed, _ = probed(world, tmp_path, ModelProber(backend, replace(asked, user=f"{asked.user} Be brief.")))
    [sibling] = changed.store.other_identities()
    assert sibling.answers == probe.records.people == len(backend.requests)
    assert "prompt.user" in sibling.differs


def test_strides_take_the_regions_of_the_nearest_frame(vat, tmp_path):
    backend = Scripted()
    probe, _ = probed(vat, tmp_path, backend, 3)
    records = probe.records
    assert 0 < len(probe.asked) == len(backend.requests) < records.people
    groups = records.groups[records.person_image]
    names = records.columns["track"]
    assert len(set(names)) < records.people, "people who appear several times"
    for person, source in enumerate(probe.source):
        assert (groups[source], names[source]) == (groups[person], names[person])
        mine = [r for r in range(records.people) if (groups[r], names[r]) == (groups[person], names[person])]
        gaps = [abs(mine.index(person) - mine.index(asked)) for asked in mine[::3]]
        assert abs(mine.index(person) - mine.index(int(source))) == min(gaps)
    _, card = build.write(tmp_path / "s", probe)
    assert (card["stride"], card["complete"]) == (3, True)
    assert card["counts"]["propagated"] > 0
    with pytest.raises(DataError, match="--stride 0"):
        probe_of(vat, tmp_path, Scripted(), 0)


def test_the_shipped_oracle_split_can_be_made_again(tmp_path):
    probe = probe_of(WORLD(test=80), tmp_path, Oracle())
    asking.ask(probe)
    shipped = saliency_splits.read(saliency_splits.locate(Path("oracle"), "gazeworld", "test"))
    for made in build.verdicts(probe):
        assert tuple(shipped.rows.loc[made.person_id]) == (made.subset, made.inside, made.points, made.origin)
    assert shipped.card["prober_digest"] == probe.store.digest_of_identity


def test_saliency_finds_the_odd_one_and_leaves_the_own_head_out():
    rng = np.random.default_rng(0)
    grey = 100 + rng.normal(0, 1, (40, 64))
    grey[10:14, 40:44] += 120
    peak = np.unravel_index(saliency(grey, 2.5).argmax(), grey.shape)
    assert np.abs(np.array(peak) - (11.5, 41.5)).max() <= 2

    class Dot(WORLD):
        def image(self, records, image, *options):
            return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)

    dataset = Dot(train=1, val=1, test=1)
    spot = np.array([40 / 64, 10 / 40, 44 / 64, 14 / 40])
    for head, covered in ((np.array([0.0, 0.0, 0.1, 0.1]), True), (spot + np.array([-0.1, -0.1, 0.1, 0.1]), False)):
        regions = SpectralResidual().regions(dataset, dataset.records("test"), Job("a", 0, head))
        assert saliency_splits.inside(np.array([[42 / 64, 12 / 40]]), regions).tolist() == [covered]


def test_agreement_and_sensitivity_against_counting():
    rng = np.random.default_rng(1)
    names = np.array(["consistent", "inconsistent"])
    one = {str(i): str(names[v]) for i, v in enumerate(rng.integers(0, 2, 60))}
    other = {key: (value if rng.random() < 0.7 else "") for key, value in one.items()}
    other |= {str(i): "consistent" for i in range(10)}
    result = audit.agreement(one, other)
    both = [key for key in one if other[key]]
    assert result["people"] == len(both) == result["confusion"].to_numpy().sum()
    assert result["confusion"].loc["inconsistent", "consistent"] == sum(
        (one[key], other[key]) == ("inconsistent", "consistent") for key in both
    )
    assert result["accuracy"] == pytest.approx(np.mean([one[key] == other[key] for key in both]))
    assert result["kappa"] == pytest.approx(cohen_kappa_score([one[k] for k in both], [other[k] for k in both]))
    verdicts = [
        build.Verdict(str(i), saliency_splits.verdict(i, 10), i, 10, "answer", np.zeros((0, 4))) for i in range(11)
    ]
    table = audit.sensitivity(verdicts).set_index("more than")
    assert table.loc[0.5, "changed"] == 0
    assert table.loc[0.8, "consistent"] == pytest.approx(2 / 11)  # 9 and 10 of 10
    assert table.loc[0.8, "changed"] == 3  # 6, 7 and 8
    nobody = audit.agreement({"a": ""}, {})
    assert (nobody["people"], nobody["confusion"].to_numpy().sum()) == (0, 0)


@pytest.fixture
def run(tmp_path):
    def run(*arguments, dataset=("gazeworld", "--dataset.test=4")):
        return main(["probe", *dataset, f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'splits'}", *arguments])

    return run


def test_the_command_asks_a_server_and_builds_a_split(tmp_path, run, chat_server, capsys):
    url, asked = chat_server(lambda text: GOOD)
    model = ["--prober=openai", f"--url={url}", "--model=tiny"]
    people = WORLD(test=4).records("test").people
    for options, count, splits in (["--dry-run"], 0, 0), (["--limit=2"], 2, 0), ([], people, 1):
        assert run(*model, *options) == 0
        assert (len(asked), len(list(tmp_path.rglob("*.tsv")))) == (count, splits)
    assert "100.0% consistent" in capsys.readouterr().out
    record = WORLD(test=4, subsets=tmp_path / "splits" / "gazeworld" / "tiny").identity("test")["subsets"]
    assert (record["name"], record["prober"]["prompt"]["name"]) == ("tiny", "regions-1")
    assert "127.0.0.1" not in json.dumps(record)
    assert run(*model, "--audit", "--against=oracle") == 0
    page = next(tmp_path.rglob("audit.md"))
    assert "Against oracle" in page.read_text()
    assert {path.name for path in page.parent.glob("*.png")} == {"sheet-1.png", "threshold.png"}
    assert len(asked) == people, "neither building nor auditing asks"
    assert run("--prober=openai", f"--url={url}", "--model=other") == 2
    assert "tiny, not other" in capsys.readouterr().err


def test_the_command_names_unreadable_images_and_fails(vat, tmp_path, run, capsys):
    path = vat.path(vat.records("test"), 0)
    path.write_bytes(b"")
    for options, splits in ([], 0), (["--partial"], 1):
        assert run("--prober=saliency", *options, dataset=("vat", f"--dataset.root={vat.root}")) == 1
        assert f"  {path}: " in capsys.readouterr().err
        assert len(list(tmp_path.rglob("*.tsv"))) == splits
    assert run("--prober=oracle", dataset=("vat", f"--dataset.root={vat.root}")) == 2
    assert "--prober saliency" in capsys.readouterr().err, "the oracle knows only drawn scenes"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--prober=oracle", "--shard=4/3"], "--shard 4/3"),
        (["--prober=oracle", "--shard=x"], "--shard x"),
        (["--prober=oracle", "--nonsense"], "--nonsense"),
        (["--prober=oracle", "--model.lr=1"], "model.lr"),
        (["--prober=oracle", "--split=some"], "some"),
        (["--prober=openai", "--prompt=regions-0"], "regions-1"),
        (["--prober=openai", "--url=localhost:1"], "localhost:1"),
        (["--prober=openai", "--attempts=0"], "--attempts 0"),
        (["--prober=oracle", "--build"], "--partial"),
        (["--prober=oracle", "--audit"], "ask first"),
        (["--prober=oracle", "--against=none", "--audit"], "ask first"),
        (["--prober=saliency", "--stride=0"], "--stride 0"),
    ],
)
def test_bad_options_are_named(run, capsys, arguments, named):
    assert run(*arguments) == 2
    assert named in capsys.readouterr().err


def test_a_server_is_asked_for_regions_by_a_schema_and_they_are_read_by_the_models_convention(world, tmp_path):
    class Gemini(Scripted):
        def identity(self):
            return {"backend": "scripted", "model": "gemini-2.5-pro"}

    answer = json.dumps({"regions": [{"bbox_2d": [500, 250, 999, 750], "label": "cup"}]})
    jsonschema.validate(json.loads(answer), SCHEMA)
    prober = ModelProber(Gemini(lambda key, attempt: answer), prompt("regions-1"), structured=True)
    found, _ = probed(world, tmp_path, prober)
    assert {request.schema == SCHEMA for request in prober.backend.requests} == {True}
    person = int(found.asked[0])
    [region] = found.parse(person, Reply("", answer, "stop")).regions.tolist()
    assert region == pytest.approx([250 / 999, 500 / 999, 750 / 999, 1])
    assert build.describe(found, build.verdicts(found))["coordinates"] == "thousand-yx"
    plain = ModelProber(Gemini(), prompt("regions-1"), coordinates="pixels")
    assert (plain.convention.name, "structured" in plain.identity()) == ("pixels", False)
