"""Weights by address, and runs on the Hugging Face hub: written, uploaded, fetched and used, without a network."""

import json
import shutil
import types

import httpx2
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import errors
from safetensors.torch import load_file

from gazebench.cli.main import main
from gazebench.core import known_weights, weights
from gazebench.core.errors import DataError
from gazebench.core.known_weights import KnownWeights
from gazebench.core.weights import WeightsError, hub_address, local_file, present, read_weights
from gazebench.engine.contract import small_config
from gazebench.engine.run import Places, bench
from gazebench.report import hub

LITTLE = ["--model.image_size=112", "--model.dim=32", "--model.layers=1", "--model.heads=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run of Gaze-LLE on a few scenes."""
    folder = tmp_path_factory.mktemp("run")
    return bench(small_config("gazelle", "gazeworld", *LITTLE), Places(folder / "runs", folder / "boards")).folder


def heatmap(model):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return model.predict(picture, [[0.1, 0.1, 0.3, 0.4]]).people[0].heatmap


class Api:
    """Stands in for ``HfApi``: a hub of one repository in a folder."""

    def __init__(self, folder):
        self.folder, self.repos = folder, []

    def create_repo(self, repo, private, exist_ok):
        self.repos.append((repo, private, exist_ok))

    def upload_folder(self, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.folder / repo_id)


def refusing(kind):
    def refuse(*args, **kwargs):
        response = httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co/x"))
        raise kind("no", response=response) if issubclass(kind, errors.HfHubHTTPError) else kind("no route")

    return refuse


def test_an_export_says_what_the_record_says_and_predicts_the_same(run, tmp_path):
    assert main(["weights", "export", str(run), str(tmp_path / "out")]) == 0
    folder, record = tmp_path / "out", json.loads((run / "record.json").read_text())
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.yaml", "record.json", "README.md"}
    trained = read_weights(run / "weights.pt")
    assert all(torch.equal(value, trained[name]) for name, value in load_file(folder / "model.safetensors").items())
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    results = {one["type"]: one["value"] for one in head["model-index"][0]["results"][0]["metrics"]}
    expected = {name: by["all"]["value"] for name, by in record["metrics"].items() if by["all"]["value"] is not None}
    assert results == {name: round(value, 4) for name, value in expected.items()}
    assert all(word in card for word in (record["run"], "class **smoke**", *record["status"]["reasons"]))
    assert not any(
        str(run.parents[3]) in path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"
    )
    assert np.array_equal(heatmap(hub.from_pretrained(folder)), heatmap(hub.from_pretrained(run / "weights.pt")))


def test_a_trusted_run_s_export_is_known(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CONFIG", str(tmp_path / "config"))
    hub.export(run, tmp_path / "smoke")
    assert known_weights.users() == ()
    trusted = shutil.copytree(run, tmp_path / "trusted")
    record = json.loads((trusted / "record.json").read_text())
    record["status"] = {"class": "synthetic", "reasons": []}
    (trusted / "record.json").write_text(json.dumps(record))
    hub.export(trusted, tmp_path / "out")
    assert main(["weights", "check", str(tmp_path / "out" / "model.safetensors")]) == 0


def test_pushed_and_fetched_again(run, tmp_path, monkeypatch):
    api, asked = Api(tmp_path), []
    assert hub.push_to_hub(run, "me/gaze", private=True, api=api) == "https://huggingface.co/me/gaze"
    assert api.repos == [("me/gaze", True, True)]

    def fetch(repo, file, revision):
        asked.append((repo, file, revision))
        return str(tmp_path / repo / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    for place in ("me/gaze", "hf:me/gaze"):
        assert np.array_equal(heatmap(hub.from_pretrained(place)), heatmap(hub.from_pretrained(run / "weights.pt")))
    assert set(asked) == {("me/gaze", name, None) for name in ("model.safetensors", "config.yaml", "record.json")}
    assert "hf:me/gaze" in (tmp_path / "me" / "gaze" / "README.md").read_text()


def test_what_cannot_be_exported_or_uploaded(run, tmp_path):
    with pytest.raises(DataError, match=r"record\.json"):
        hub.export(tmp_path, tmp_path / "out")
    (tmp_path / "record.json").write_text((run / "record.json").read_text())
    with pytest.raises(DataError, match=r"weights\.pt"):
        hub.export(tmp_path, tmp_path / "out")
    api = types.SimpleNamespace(create_repo=refusing(errors.HfHubHTTPError))
    with pytest.raises(DataError, match="hf auth login"):
        hub.push_to_hub(run, "me/gaze", api=api)


@pytest.mark.parametrize(("kind", "match"), [
    (errors.GatedRepoError, "accept the licence on https://huggingface.co/a/b and log in"),
    (errors.RepositoryNotFoundError, "no such repository"), (errors.RemoteEntryNotFoundError, "no such repository"),
    (errors.OfflineModeIsEnabled, "a/b/c.pt into the folder GAZEBENCH_WEIGHTS"),
    (errors.LocalEntryNotFoundError, "a/b/c.pt into the folder GAZEBENCH_WEIGHTS"),
])  # fmt: skip
def test_each_reason_of_a_failed_download_has_its_remedy(monkeypatch, kind, match):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refusing(kind))
    with pytest.raises(WeightsError, match=match):
        local_file("hf:a/b/c.pt")


def test_addresses_of_the_hub():
    assert hub_address("hf:a/b/c/d.pt") == ("a/b", "c/d.pt", None)
    assert hub_address("hf:a/b@v1") == ("a/b", "model.safetensors", "v1")
    for wrong in ("hf:a", "hf:a/", "hf:"):
        with pytest.raises(WeightsError, match="owner/repository"):
            hub_address(wrong)


def test_a_folder_of_weights_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x.pth", "a/b/c.pt"):
        (tmp_path / name).write_bytes(b"")
    assert present("https://some.where/x.pth?download=true") == tmp_path / "x.pth"
    assert present("hf:a/b/c.pt") == tmp_path / "a" / "b" / "c.pt"


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_is_read_only_where_it_is_known(tmp_path, monkeypatch):
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=r"clip\.pt.*gazebench weights add"):
        read_weights(tmp_path / "clip.pt")
    monkeypatch.setattr(weights, "known", lambda digest: KnownWeights("clip.pt", digest))
    assert {name: tuple(value.shape) for name, value in read_weights(tmp_path / "clip.pt").items()} == {
        "weight": (3, 2), "bias": (3,),
    }  # fmt: skip
