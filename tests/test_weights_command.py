"""``gazebench weights``, and what stays of a file when its writer is killed or is not alone."""

import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from gazebench.cli.main import main
from gazebench.core import known_weights
from gazebench.core.files import file_digest
from gazebench.datasets.gazeworld import GazeWorld
from gazebench.engine.record import read_files
from gazebench.report.page import ASSETS

WORLD = {"train": 2, "val": 1, "test": 3}
PEOPLE = GazeWorld(**WORLD).records("test")


@pytest.fixture(autouse=True)
def own_table(tmp_path, monkeypatch):
    monkeypatch.setenv("GAZEBENCH_CONFIG", str(tmp_path / "config"))


def written(folder: Path, name: str) -> Path:
    """A file of weights: any bytes do."""
    path = folder / f"{name}.pt"
    path.write_text(name)
    return path


def test_add_list_check(tmp_path, capsys):
    file = written(tmp_path, "mine")
    assert main(["weights", "check", str(file)]) == 1
    assert main(["weights", "add", str(file), "--name=resnet", "--standing=own", "--source=made by hand"]) == 0
    capsys.readouterr()
    assert main(["weights", "check", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"sha256 {file_digest(file)}  resnet  made by hand", "own: by user table",
    ]  # fmt: skip
    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(known_weights.packaged()) + 1
    assert listed[-1].split()[:4] == [file_digest(file)[:16], "own", "user", "resnet"]


def test_a_folder_is_known_by_its_shards(tmp_path):
    for name in ("model-1", "model-2"):
        written(tmp_path, name).rename(tmp_path / f"{name}.safetensors")
    assert main(["weights", "add", str(tmp_path), "--name=Qwen3-VL"]) == 0
    assert [entry.name for entry in known_weights.users()] == [
        "Qwen3-VL/model-1.safetensors", "Qwen3-VL/model-2.safetensors",
    ]  # fmt: skip
    assert main(["weights", "check", str(tmp_path)]) == 0


def test_a_damaged_table_is_named(tmp_path, capsys):
    path = known_weights.user_table()
    path.parent.mkdir()
    path.write_text('[{"name": 1}]')
    assert main(["weights", "list"]) == 2
    assert str(path) in capsys.readouterr().err


# Killed, and two at once ---------------------------------------------------------------------------------------------

DRIVER = """
import json, os, random, shutil, sys, time
os.environ["GAZEBENCH_CONFIG"] = {config!r}
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
from gazebench.cli.main import main

chance, dealings, moment, delay = random.Random(7), 0, 0, 0.0

def hook(event, arguments):
    # SIGKILL from another process, at one dealing with a file of the work folder or shortly after it.
    global dealings
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.chmod"):
        if any({work!r} in str(argument) for argument in arguments):
            dealings += 1
            if dealings == moment and os.fork() == 0:
                time.sleep(delay)
                os.kill(os.getppid(), 9)
                os._exit(0)

def start(command, *killed):
    global dealings, moment, delay
    process = os.fork()
    if not process:
        dealings, (moment, delay) = 0, killed or (0, 0.0)
        os._exit(main(command))
    return process

sys.addaudithook(hook)
first, *others = {commands!r}
codes = [main(first)]  # which imports what the others need
if {at_once!r}:
    started = [start(command) for command in others]
    codes += [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
else:
    each = dealings
    for number, command in enumerate(others):
        process = start(command, chance.randint(1, each), chance.choice([0, 0, 1e-4, 1e-3]))
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        shutil.copytree({work!r}, f"{work}-{{number}}", ignore=shutil.ignore_patterns(".*"))
    codes.append(main(command))
with open({codes!r}, "w") as file:
    json.dump(codes, file)
"""


@pytest.fixture
def driven(forked, tmp_path):
    """Runs commands, each in a process of its own: one after another and killed, or all at once; their exit codes."""

    def run(commands: list[list[str]], *, at_once: bool) -> list[int]:
        places = {"config": tmp_path / "work" / "config", "work": tmp_path / "work", "codes": tmp_path / "codes"}
        values = {name: str(path) for name, path in places.items()}
        process = forked(DRIVER.format(commands=commands, at_once=at_once, **values))
        process.join()
        return json.loads(places["codes"].read_text())

    return run


def predictions(folder: Path, number: int) -> Path:
    path = folder / f"method{number}.csv"
    rows = (f"{person},{0.1 + 0.01 * number},0.5\n" for person in PEOPLE.person_id)
    path.write_text("person_id,x,y\n" + "".join(rows))
    return path


def score(folder: Path, number: int) -> list[str]:
    options = [f"--dataset.{split}={count}" for split, count in WORLD.items()]
    return ["score", str(predictions(folder, number)), "gazeworld", *options, f"--boards={folder / 'work' / 'boards'}"]


def leaderboard(folder: Path, number: int) -> list[str]:
    if not number:
        assert main(score(folder, 0)) == 0
    return ["leaderboard", f"--boards={folder / 'work' / 'boards'}", f"--runs={folder / 'runs'}"]


def add(folder: Path, number: int) -> list[str]:
    return ["weights", "add", str(written(folder, f"weights{number}")), f"--name=weights{number}"]


def sound(work: Path) -> tuple[set[str], set[str]]:
    """The methods that have a record and the weights in the table, after a look at every file that a reader lists."""
    for path in work.rglob("*"):
        if path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        if path.parent.name == "assets" and path.suffix in (".js", ".css"):
            assert path.read_bytes() == (ASSETS / path.name).read_bytes()
        if path.name in ("README.md", "leaderboard.csv"):
            assert path.read_text().endswith("\n")
    records = read_files(work / "boards", "gazeworld").values()
    table = work / "config" / "known_weights.json"
    weights = json.loads(table.read_text()) if table.is_file() else []
    return {str(record["method"]["name"]) for record in records}, {entry["name"] for entry in weights}


@pytest.mark.slow
@pytest.mark.parametrize("command", [score, leaderboard, add])
def test_killed_at_ten_random_moments(tmp_path, driven, command):
    """SIGKILL: no half file appears, nothing that was there is lost, and the same command then finishes."""
    codes = driven([command(tmp_path, number) for number in range(11)], at_once=False)
    assert (codes[0], codes[-1]) == (0, 0)
    assert codes.count(-signal.SIGKILL) >= 3, "those whose last dealings with files were chosen may have finished first"
    states = [sound(tmp_path / f"work-{number}") for number in range(10)] + [sound(tmp_path / "work")]
    for before, after in pairwise(states):
        assert all(one <= other for one, other in zip(before, after, strict=True))
    all_there(tmp_path / "work", command, "0", "10")


@pytest.mark.parametrize("command", [score, add])
def test_of_four_at_once_nothing_is_lost(tmp_path, driven, command):
    assert driven([command(tmp_path, number) for number in range(5)], at_once=True) == [0] * 5
    all_there(tmp_path / "work", command, "0", "1", "2", "3", "4")


def all_there(work: Path, command, *numbers: str) -> None:
    records, weights = sound(work)
    if command is add:
        assert {f"weights{number}" for number in numbers} <= weights
    else:
        assert command is leaderboard or {f"method{number}" for number in numbers} <= records
        readme = (work / "boards" / "gazeworld" / "README.md").read_text()
        assert all(name in readme for name in records)


def test_two_records_of_one_name_at_once_are_both_kept(tmp_path, forked):
    assert main(score(tmp_path, 0)) == 0
    (one,) = read_files(tmp_path / "work" / "boards", "gazeworld").values()
    name = next(iter(one["metrics"]))
    code = "import json\nfrom pathlib import Path\nfrom gazebench.engine.record import write_record\n"
    processes = []
    for number in range(4):
        one["metrics"][name]["all"]["value"] = 0.1 + number % 2
        processes.append(
            forked(f"{code}write_record(json.loads({json.dumps(one)!r}), Path({str(tmp_path / 'new')!r}))")
        )
    for process in processes:
        process.join()
    found = read_files(tmp_path / "new", "gazeworld").values()
    assert sorted(record["metrics"][name]["all"]["value"] for record in found) == [0.1, 1.1]
