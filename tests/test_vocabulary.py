"""Words to classes: exact first, then by CLIP, with a small random CLIP built here."""

import json
import pickle

import numpy as np
import open_clip
import pytest
import torch

from gazebench.core.errors import DataError
from gazebench.core.types import Prediction
from gazebench.data.datamodule import ImageSamples, collate
from gazebench.data.transforms import Preprocess
from gazebench.datasets.gazehoi import GazeHOI
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

    def look(word):
        with torch.no_grad():
            return model.encode_text(tokenize([f"a photo of {word}"]))[0].double().numpy()

    known, found = {word: look(word) for word in WORDS}, []
    for text in texts:
        one = look(text)
        cosine = {word: one @ other / np.linalg.norm(one) / np.linalg.norm(other) for word, other in known.items()}
        found.append(max(WORDS, key=lambda word: cosine[word]))
    return found


def test_words_go_to_the_nearest_class(weights, classes):
    texts = ["mug", "a red book", "phone", "notebook computer", "bike", "aquarium", "CUP", "dog", "cups", "books"]
    expected = reference(weights, texts)
    assert len(set(expected)) > 2, "a CLIP that says one thing of everything would prove nothing"
    assert Vocabulary(classes, MODEL, weights).nearest(texts) == expected


def test_a_class_is_itself_and_no_answer_stays_none(weights, classes):
    """No CLIP is asked for them: an embedding of a class is nearest to itself only up to rounding."""
    words = Vocabulary(classes, MODEL, weights.with_name("none.pt"))
    assert words.nearest([*WORDS, "", "  cup \n"]) == [*WORDS, "", "cup"]
    with pytest.raises(DataError, match=r"none\.pt: no CLIP weights there"):
        words.nearest(["mug"])


def test_embeddings_of_classes_are_kept(weights, classes, monkeypatch, tmp_path):
    texts = ["mug", "bike"]
    expected = Vocabulary(classes, MODEL, weights).nearest(texts)
    (kept,) = (tmp_path / "cache").glob("vocabulary-*.npz")
    embedded = []
    real = Vocabulary._embedded
    monkeypatch.setattr(Vocabulary, "_embedded", lambda self, texts: embedded.append(list(texts)) or real(self, texts))
    words = Vocabulary(classes, MODEL, weights)
    assert words.nearest(texts * 3) == expected * 3
    assert words.nearest(texts) == expected
    assert embedded == [texts], "the classes come from the cache, a text is embedded once"
    kept.write_bytes(b"damaged")
    assert Vocabulary(classes, MODEL, weights).nearest(texts) == expected
    assert list(WORDS) in embedded
    classes.write_text(json.dumps({"cup": 0, "book": 1}))
    assert set(Vocabulary(classes, MODEL, weights).nearest(texts)) <= {"cup", "book"}, "other classes, another file"


def test_many_texts_are_embedded_in_chunks(weights, classes, monkeypatch):
    texts = [f"thing {number}" for number in range(23)]
    expected = Vocabulary(classes, MODEL, weights).nearest(texts)
    monkeypatch.setattr(vocabulary, "CHUNK", 4)
    assert Vocabulary(classes, MODEL, weights).nearest(texts) == expected


def test_another_process_gets_it_without_its_weights(weights, classes):
    words = Vocabulary(classes, MODEL, weights)
    before = words.nearest(["mug", "dog"])
    sent = pickle.dumps(words)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert again == words
    assert again.nearest(["mug", "dog"]) == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ViT-B-23", r"open_clip knows no model 'ViT-B-23'; did you mean .*ViT-B-32"),
        ("ViT-B-32", r"weights\.pt: not the weights of ViT-B-32 \(\w+: .*give those of the model named"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, classes, model, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(classes, model, weights).nearest(["mug"])


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"cup": "one"}', "7", "{}"])
def test_a_vocabulary_that_is_none_is_refused(weights, classes, content):
    classes.write_text(content)
    with pytest.raises(DataError, match=r"vocab2id\.json: .*take the file of the release"):
        Vocabulary(classes, MODEL, weights).nearest(["mug"])
    classes.unlink()
    with pytest.raises(DataError, match=r"vocab2id\.json: no such file"):
        read_classes(classes)


def test_what_a_record_says_of_it(weights, classes):
    said = Vocabulary(classes, MODEL, weights).describe()
    assert (said["clip"], said["template"], said["classes"]) == (MODEL, "a photo of {}", len(WORDS))
    assert len(said["weights_sha256"]) == 64
    protocol = Protocol("some", 1, "person", (ProtocolMetric("acc_1", ClassAccuracy),), "acc_1",
                        vocabulary=Vocabulary(classes, MODEL, weights))  # fmt: skip
    assert protocol.describe()["vocabulary"] == said
    json.dumps(protocol.describe())


def test_free_text_scores_by_its_class_and_exact_words_by_themselves(weights, tmp_path, monkeypatch):
    """Of GazeHOI, where a user gave CLIP weights and where not."""
    monkeypatch.setenv("GAZEBENCH_CACHE", str(tmp_path / "cache"))
    GazeHOI.fake(tmp_path / "data", people=20)
    with_clip = GazeHOI(tmp_path / "data", clip_weights=weights, clip_model=MODEL)
    without = GazeHOI(tmp_path / "data")
    assert without.protocol is GazeHOI.protocol
    assert without.protocol.vocabulary is None
    records = with_clip.records("test")
    samples = ImageSamples(
        with_clip, records, Preprocess(), augment=False, sees_images=False, bad_images="error", seed=0
    )
    batch = collate([samples[image] for image in range(len(samples))])
    said = [word if k % 3 else f"some {word}" for k, word in enumerate(records.columns["label"].tolist())]
    nearest = with_clip.protocol.vocabulary.nearest(said)
    truth = batch.targets.extra["label"] = np.array([nearest[0], *records.columns["label"][1:]])
    scores = {}
    for name, data in (("clip", with_clip), ("none", without)):
        evaluator = Scorer(data.protocol)
        evaluator.update(Prediction(extra={"label": said}), batch)
        scores[name] = evaluator.compute()
    right, exact = (np.mean([one == other for one, other in zip(some, truth, strict=True)]) for some in (nearest, said))
    assert right > exact
    assert scores["none"].keys() == {"acc_1_exact"}
    assert scores["clip"].keys() == {"acc_1", "acc_1_exact"}
    assert scores["clip"]["acc_1"]["all"].value == pytest.approx(right)
    assert (
        scores["none"]["acc_1_exact"]["all"].value == scores["clip"]["acc_1_exact"]["all"].value == pytest.approx(exact)
    )
