"""Words to classes: exact first, then by CLIP, with a small random CLIP built here."""

import json
import pickle

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image

from gazebench.cli.main import main
from gazebench.core.errors import DataError
from gazebench.core.files import file_digest
from gazebench.core.known_weights import KnownWeights, add
from gazebench.core.types import Prediction
from gazebench.datasets.gazehoi import GazeHOI
from gazebench.engine.model import Gaze, PictureGaze
from gazebench.engine.score import score
from gazebench.engine.things import Things, things_of
from gazebench.metrics import vocabulary
from gazebench.metrics.protocol import Protocol, ProtocolMetric
from gazebench.metrics.scoring import Scorer
from gazebench.metrics.semantic import ClassAccuracy
from gazebench.metrics.vocabulary import Vocabulary, read_classes

WORDS = ["cup", "book", "fish bowl", "Cup", "laptop", "bicycle"]
MODEL = "gazebench-test-tiny"
TOWER = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The weights of a CLIP drawn at random, of an architecture of our own."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{MODEL}.json").write_text(json.dumps(TOWER))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    torch.manual_seed(3)
    model = open_clip.create_model(MODEL)
    for name, parameter in model.named_parameters():
        if "bias" not in name and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # as it is drawn, all texts look alike to it
    torch.save(model.state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


@pytest.fixture
def classes(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "vocab2id.json"
    path.write_text(json.dumps({name: number for number, name in enumerate(WORDS)}))
    return path


def reference(weights, texts):
    """The closest class by cosine similarity of open_clip's own outputs, one pair at a time."""
    model = open_clip.create_model(MODEL, pretrained=str(weights)).eval()
    tokenize = open_clip.get_tokenizer(MODEL)

    @torch.no_grad()
    def unit(word):
        vector = model.encode_text(tokenize([f"a photo of {word}"]))[0].double()
        return vector / vector.norm()

    known = {word: unit(word) for word in WORDS}
    return [max(WORDS, key=lambda word: float(one @ known[word])) for one in map(unit, texts)]


def test_words_go_to_the_nearest_class(weights, classes, monkeypatch):
    texts = ["mug", "a red book", "phone", "notebook computer", "bike", "aquarium", "CUP", "dog", "cups", "books"]
    expected = reference(weights, texts)
    assert len(set(expected)) > 2, "a CLIP that gives one class to everything would prove nothing"
    words = Vocabulary(classes, MODEL, weights)
    assert words.nearest(texts) == expected
    monkeypatch.setattr(vocabulary, "CHUNK", 4)
    assert Vocabulary(classes, MODEL, weights).nearest(texts) == expected
    sent = pickle.dumps(words)  # another process gets it without its weights
    assert len(sent) < 2000
    assert (pickle.loads(sent), pickle.loads(sent).nearest(texts)) == (words, expected)


def test_a_class_is_itself_and_no_answer_stays_none(weights, classes):
    """No CLIP is asked for them: an embedding of a class is nearest to itself only up to rounding."""
    words = Vocabulary(classes, MODEL, weights.with_name("none.pt"))
    assert words.nearest([*WORDS, "", "  cup \n"]) == [*WORDS, "", "cup"]
    with pytest.raises(DataError, match=r"none\.pt"):
        words.nearest(["mug"])


def test_embeddings_of_classes_are_kept(weights, classes, monkeypatch, tmp_path):
    texts = ["mug", "bike"]
    expected = Vocabulary(classes, MODEL, weights).nearest(texts)
    (kept,) = (tmp_path / "cache").rglob("output.pkl*")
    embedded = []
    real = Vocabulary.texts
    monkeypatch.setattr(Vocabulary, "texts", lambda self, texts: embedded.append(list(texts)) or real(self, texts))
    words = Vocabulary(classes, MODEL, weights)
    assert (words.nearest(texts * 3), words.nearest(texts)) == (expected * 3, expected)
    assert embedded == [texts], "the classes come from the cache, a text is embedded once"
    kept.write_bytes(b"damaged")
    assert Vocabulary(classes, MODEL, weights).nearest(texts) == expected
    assert list(WORDS) in embedded
    classes.write_text(json.dumps({"cup": 0, "book": 1}))
    assert set(Vocabulary(classes, MODEL, weights).nearest(texts)) <= {"cup", "book"}, "other classes, another file"


@pytest.mark.parametrize(("model", "named"), [("ViT-B-23", "ViT-B-23"), ("ViT-B-32", r"weights\.pt")])
def test_weights_that_do_not_fit_are_named(weights, classes, model, named):
    with pytest.raises(DataError, match=named):
        Vocabulary(classes, model, weights).nearest(["mug"])


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"cup": "one"}', "7", "{}"])
def test_a_vocabulary_that_is_none_is_refused(weights, classes, content):
    classes.write_text(content)
    with pytest.raises(DataError, match=r"vocab2id\.json"):
        Vocabulary(classes, MODEL, weights).nearest(["mug"])
    classes.unlink()
    with pytest.raises(DataError, match=r"vocab2id\.json"):
        read_classes(classes)


def test_a_protocol_describes_its_vocabulary(weights, classes):
    words = Vocabulary(classes, MODEL, weights)
    metrics = (ProtocolMetric("acc_1", ClassAccuracy),)
    about = json.loads(json.dumps(Protocol("some", 1, "person", metrics, "acc_1", vocabulary=words).describe()))
    about = about["vocabulary"]
    assert about == words.describe()
    assert (about["clip"], about["template"], about["classes"]) == (MODEL, "a photo of {}", len(WORDS))
    assert len(about["weights_sha256"]) == 64


def test_free_text_scores_by_its_class_and_exact_words_by_themselves(weights, tmp_path, monkeypatch):
    """Of GazeHOI, where a user gave CLIP weights and where not."""
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))
    GazeHOI.fake(tmp_path / "data", people=20)
    with_clip = GazeHOI(tmp_path / "data", clip_weights=weights, clip_model=MODEL)
    without = GazeHOI(tmp_path / "data")
    assert without.protocol is GazeHOI.protocol
    assert without.protocol.vocabulary is None
    truth = without.records("test").columns["label"].tolist()
    named = [word if person % 3 else f"some {word}" for person, word in enumerate(truth)]
    nearest = with_clip.protocol.vocabulary.nearest(named)
    scores = {}
    for name, dataset in (("clip", with_clip), ("none", without)):
        records = dataset.records("test")
        records.columns["label"][0] = nearest[0]  # one that only CLIP gets right
        scorer = Scorer(dataset.protocol, records)
        scorer.update(np.arange(len(records)), Prediction(label=named))
        scores[name] = scorer.compute()
        truth = records.columns["label"].tolist()
    right, exact = (np.mean([a == b for a, b in zip(some, truth, strict=True)]) for some in (nearest, named))
    assert right > exact
    assert (scores["none"].keys(), scores["clip"].keys()) == ({"acc_1_exact"}, {"acc_1", "acc_1_exact"})
    assert scores["clip"]["acc_1"]["all"].value == pytest.approx(right)
    assert scores["none"]["acc_1_exact"] == scores["clip"]["acc_1_exact"]
    assert scores["none"]["acc_1_exact"]["all"].value == pytest.approx(exact)


def test_a_known_digest_decides_the_activation(weights, tmp_path, monkeypatch):
    """QuickGELU and GELU take the same state dict; only a digest can tell which of them is right."""
    monkeypatch.setenv("GAZEBENCH_CONFIG", str(tmp_path / "config"))
    other = f"{MODEL}-quickgelu"
    (tmp_path / f"{other}.json").write_text(json.dumps(TOWER | {"quick_gelu": True}))
    open_clip.add_model_config(tmp_path / f"{other}.json")
    cosines = [Vocabulary(None, model, weights).similarity(["mug"], ["bicycle"])[0] for model in (MODEL, other)]
    assert abs(cosines[0] - cosines[1]) > 1e-5, "other numbers, and no error"
    add(KnownWeights("tiny clip", file_digest(weights), "published", clip=(MODEL,)))
    assert Vocabulary(None, MODEL, weights).similarity(["mug"], ["bicycle"]) == cosines[:1]
    with pytest.raises(DataError, match=f"tiny clip.* {MODEL} .*{other}"):
        Vocabulary(None, other, weights).similarity(["mug"], ["bicycle"])


@pytest.mark.parametrize("digest_known", [False, True])
def test_the_record_says_how_far_the_clip_is_known(weights, tmp_path, monkeypatch, digest_known):
    monkeypatch.setenv("GAZEBENCH_CONFIG", str(tmp_path / "config"))
    if digest_known:
        add(KnownWeights("tiny clip", file_digest(weights), "published", clip=(MODEL,)))
    GazeHOI.fake(tmp_path / "data")
    data = GazeHOI(tmp_path / "data", clip_weights=weights, clip_model=MODEL)
    people = data.records("test").person_id
    (tmp_path / "mine.csv").write_text("person_id,x,y,label\n" + "".join(f"{one},0.5,0.5,mug\n" for one in people))
    parts = {part["part"]: part for part in score(tmp_path / "mine.csv", data)["weights"]["parts"]}
    assert parts["clip"]["standing"] == ("published" if digest_known else "unverified")
    assert (parts["clip"]["name"], parts["clip"]["sha256"]) == (MODEL, file_digest(weights))


def test_things_are_named_by_word_or_by_what_the_point_lies_on(weights):
    things = Things(("cup", "book", "laptop"), Vocabulary(None, MODEL, weights))
    array = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    array[20:50, 60:90] //= 4
    head = np.array([0.1, 0.1, 0.2, 0.35])  # 12 x 20 pixels: a square of 30
    people = [
        Gaze("crop", head, (75 / 120, 35 / 80), 0.9),
        Gaze("word", head, (0.5, 0.5), None, label="notebook computer"),
        Gaze("out", head, (0.5, 0.5), 0.2, label="cup"),
        Gaze("corner", head, (1.0, 1.0), 0.9, label=""),
        Gaze("beyond", head, (1.2, 0.5), None),
    ]
    found = {one.id: one for one in things(array, PictureGaze("p", (120, 80), people)).people}

    clip, _, prepare = open_clip.create_model_and_transforms(MODEL, pretrained=str(weights))
    clip.eval()
    tokenize = open_clip.get_tokenizer(MODEL)
    crops = torch.stack([prepare(Image.fromarray(array[20:50, 60:90])), prepare(Image.fromarray(array[50:80, 90:120]))])
    with torch.no_grad():
        texts = clip.encode_text(tokenize([f"a photo of {name}" for name in things.classes]), normalize=True)
        word = clip.encode_text(tokenize(["a photo of notebook computer"]), normalize=True)
        seen = torch.cat([clip.encode_image(crops, normalize=True), word])
        expected = (clip.logit_scale.exp() * seen @ texts.T).softmax(dim=1)
    for name, values in zip(("crop", "corner", "word"), expected, strict=True):
        assert found[name].label == things.classes[int(values.argmax())]
        assert found[name].label_probability == pytest.approx(float(values.max()), abs=1e-4)
    assert [(found[name].label, found[name].label_probability) for name in ("out", "beyond")] == [("", 0.0)] * 2
    row = PictureGaze("p", (120, 80), [found["crop"]]).rows()[0]
    assert (row["label"], row["label_probability"]) == (found["crop"].label, found["crop"].label_probability)
    assert f"the {row['label']} (probability {row['label_probability']:.2f})" in row["answer"]


def test_classes_of_a_command(weights, tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    command = ["predict", str(tmp_path / "a.png"), "--weights", "center", "--box", "0.1,0.1,0.3,0.4", "--out", "-"]
    command += ["--clip-model", MODEL]
    assert main([*command, "--classes", "cup, book", "--clip", str(weights)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["label"] in ("cup", "book")
    assert 0.5 <= row["label_probability"] <= 1
    command[-3] = str(tmp_path / "a.parquet")
    assert main([*command, "--classes", "cup, book", "--clip", str(weights)]) == 0
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert table["label_probability"].tolist() == pytest.approx([row["label_probability"]])
    capsys.readouterr()
    for classes, clip, why in (("cup", str(weights), "two or more"), ("cup,book", "missing.pt", "missing.pt")):
        assert main([*command, "--classes", classes, "--clip", clip]) == 2
        assert why in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(open_clip, "download_pretrained", lambda cfg: (_ for _ in ()).throw(OSError("no network")))
        with pytest.raises(DataError, match="--clip FILE"):
            things_of("cup,book")
