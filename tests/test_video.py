"""Videos: times, turns and errors of files; tracks, smoothing, dwell times and episodes; resumed; things by name."""

import json
import math
import struct
import weakref
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from gazebench.cli.main import main
from gazebench.core.boxes import BOX
from gazebench.core.errors import DataError, UserError
from gazebench.core.types import Prediction
from gazebench.data.head_tracks import HeadTracks
from gazebench.data.transforms import Preprocess
from gazebench.data.video import Video, VideoWriter
from gazebench.engine.attention import episodes, lasting, mutual, shared, summarise
from gazebench.engine.bulk import BoxFile
from gazebench.engine.method import Method, MethodCard
from gazebench.engine.model import Gaze, GazeModel, PictureGaze
from gazebench.engine.video import BETA, CUTOFF, DECAY, SPEED_CUTOFF, Smoother, analyse_video
from gazebench.report.video import save_overlay, save_timeline, tables

av = pytest.importorskip("av")


def picture(number, height=32, width=48):
    """A frame that says its number by its grey, brighter in the upper left quarter."""
    array = np.full((height, width, 3), 40 + 6 * (number % 25), np.uint8)
    array[: height // 2, : width // 2] += 60
    return array


def write(path, stamps, codec="ffv1", size=(32, 48), ticks=1000, format=None, pictures=True, sound=False):
    """A video with frames at the times (in ticks), in the order given."""
    with av.open(str(path), "w", format=format) as file:
        if pictures:
            stream = file.add_stream(codec, rate=25)
            stream.height, stream.width = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.time_base = Fraction(1, ticks)
            for number in range(len(stamps)):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, ticks)
                for packet in stream.encode(frame):
                    packet.pts, packet.dts = stamps[number], sorted(stamps)[number] - 80
                    packet.time_base = Fraction(1, ticks)
                    file.mux(packet)
            file.mux(stream.encode())
        if sound:
            audio = file.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            frame.rate, frame.pts = 8000, 0
            file.mux(audio.encode(frame))
            file.mux(audio.encode())
    return path


def clip(path, times):
    """A video by the suite's own writer: what people have, H.264 in MP4."""
    with VideoWriter(path, 48, 32) as file:
        for number, seconds in enumerate(times):
            file.write(picture(number), seconds)
    return path


class Right(Method):
    """The point is one head to the right of the head; in frame where the picture is bright enough."""

    card = MethodCard(title="Right", family="test")
    trains = False
    seen = 0

    def preprocess(self):
        return Preprocess((8, 8))

    def forward(self, batch):
        type(self).seen += len(batch.images)
        centre = (batch.head[:, :2] + batch.head[:, 2:]) / 2
        centre[:, 0] += batch.head[:, 2] - batch.head[:, 0]
        bright = batch.images.float().mean((1, 2, 3)) / 255
        return Prediction(point=centre, inout=bright.sqrt()[batch.image_index])


def detector(picture):
    """Three heads, side by side; they move with the grey of the picture."""
    left = np.array([0.1, 0.3, 0.5]) + picture[-1, -1, 0] / 2550
    return np.stack([left, left * 0 + 0.2, left + 0.15, left * 0 + 0.5], axis=1), np.array([0.9, 0.8, 0.7])


@pytest.fixture
def model():
    return GazeModel(Right(), lambda: detector, "cpu")


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("stamps", "ending", "codec", "expected", "mended"),
    [
        ([0, 40, 80, 120], "mkv", "ffv1", [0, 0.04, 0.08, 0.12], 0),
        ([0, 10, 300, 1300, 1310], "mkv", "ffv1", [0, 0.01, 0.3, 1.3, 1.31], 0),  # variable frame rate
        ([5000, 5040, 5080], "mkv", "ffv1", [0, 0.04, 0.08], 0),  # the file begins later
        ([0, 80, 40, 120], "mkv", "mjpeg", [0, 0.04, 0.08, 0.12], 0),  # stored out of order
        ([0, 40, 40, 120], "mkv", "mjpeg", [0, 0.04, 0.08, 0.12], 1),  # one time twice
    ],
)
def test_times_are_those_of_the_stream(tmp_path, stamps, ending, codec, expected, mended):
    video = Video(write(tmp_path / f"a.{ending}", stamps, codec))
    frames = [(frame.number, frame.time, frame.rgb()[0, 0, 0]) for frame in video]
    assert [number for number, *_ in frames] == list(range(len(stamps)))
    np.testing.assert_allclose([seconds for _, seconds, _ in frames], expected, atol=2e-3)
    order = np.argsort(stamps, kind="stable")
    np.testing.assert_allclose([grey for *_, grey in frames], [picture(n)[0, 0, 0] for n in order], atol=6)
    assert (video.mended, video.damaged) == (mended, 0)


class Stamped:
    """A frame of a decoder, by its time alone."""

    def __init__(self, time):
        self.time = time


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([None, None, None], [None, None, None]),
        ([0, 0.04, None, 0.12], [0, 0.04, None, 0.12]),
        ([7, 7.04, 0, 0.04, 0.08], [7, 7.04, 7.08, 7.12, 7.16]),  # two files joined
    ],
)
def test_times_that_are_missing_or_jump_back(tmp_path, monkeypatch, times, expected):
    video = Video(write(tmp_path / "a.mkv", [0, 40, 80]))
    video.step = 0.04
    monkeypatch.setattr(video, "_decoded", lambda *_: iter([Stamped(one) for one in times]))
    found = [stamp for stamp, _ in video._in_order(None, None, 0.0)]
    assert found == [one if one is None else pytest.approx(one) for one in expected]


def turned(path, degrees):
    """Writes a display matrix into the track header of an MP4: clockwise turns, as phones write them."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    sine, cosine = {90: (1, 0), 180: (0, -1), 270: (-1, 0)}[degrees]
    one = 1 << 16
    data[place : place + 36] = struct.pack(
        ">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_upright(tmp_path, degrees):
    path = clip(tmp_path / "a.mp4", [0, 0.04])
    turned(path, degrees)
    frame = next(iter(Video(path)))
    expected = np.rot90(picture(0), -degrees // 90)
    assert (frame.height, frame.width) == expected.shape[:2] == frame.rgb().shape[:2]
    np.testing.assert_allclose(frame.rgb().astype(int), expected, atol=25)


def test_pixels_that_are_not_square(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.sample_aspect_ratio = Fraction(4, 3)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        file.mux(stream.encode())
    (frame,) = Video(tmp_path / "a.mp4")
    assert (frame.width, frame.height, frame.rgb().shape) == (64, 32, (32, 64, 3))


def test_files_that_are_no_videos(tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video")
    cut = clip(tmp_path / "cut.mp4", [0, 0.04])
    cut.write_bytes(cut.read_bytes()[:-300])
    write(tmp_path / "sound.mkv", [], pictures=False, sound=True)
    with av.open(str(tmp_path / "empty.avi"), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        file.start_encoding()
    for name, why in (
        ("text.mp4", "ffmpeg -i"), ("cut.mp4", "ffmpeg -i"), ("sound.mkv", "no pictures"), ("empty.avi", "no frame"),
        ("missing.mp4", "no such file"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"{name}.*{why}"):
            list(Video(tmp_path / name))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r"gazebench\[video\]"):
        Video(tmp_path / "text.mp4")


def test_damaged_packets_are_left_out(tmp_path):
    path = write(tmp_path / "a.mkv", [40 * i for i in range(12)], "mjpeg", ticks=1000)
    whole = path.read_bytes()
    starts = [i for i in range(len(whole)) if whole.startswith(b"\xff\xd8\xff", i)]
    path.write_bytes(whole[: starts[4]] + b"\0" * (starts[5] - starts[4] - 16) + whole[starts[5] - 16 :])
    video = Video(path)
    times = [frame.time for frame in video]
    assert len(times) + video.damaged == 12
    assert video.damaged == 1
    assert 0.16 not in np.round(times, 3)


# ---------------------------------------------------------------------- tracks, smoothing


def test_tracks_follow_heads():
    def heads(*lefts):
        return np.array([[x, 0.2, x + 0.2, 0.5] for x in lefts]).reshape(-1, 4)

    tracks = HeadTracks(lost=1.0)
    assert tracks.update(0.0, heads(0.1, 0.6)) == [1, 2]
    assert tracks.update(0.1, heads(0.55, 0.15)) == [2, 1]  # another order
    assert tracks.update(0.2, heads(0.5)) == [2]
    assert tracks.update(0.3, heads()) == []
    assert tracks.update(1.0, heads(0.15, 0.5, 0.8)) == [1, 2, 3]  # 0.9 s later
    assert tracks.update(2.1, heads(0.15)) == [4]  # 1.1 s later
    # The sum of overlaps is largest, not each one by itself: 5 would be the nearest for both.
    tracks = HeadTracks()
    tracks.update(0, heads(0.10, 0.25))
    assert tracks.update(0.1, heads(0.20, 0.36)) == [1, 2]


def person(point, box=(0, 0, 0.1, 0.1), inout=1.0, name="1", **more):
    return Gaze(name, np.array(box, float), point, inout, **more)


def test_smoothing_has_its_closed_form():
    times, xs = np.cumsum([0, 0.04, 0.1, 0.02, 0.3]), [0.2, 0.8, 0.8, 0.5, 0.1]

    def run(kind, inouts=(1,) * 5):
        smoother = Smoother(kind)
        frames = zip(times, xs, inouts, strict=True)
        return [
            smoother(t, PictureGaze("", (1, 1), [person((x, 0.5), inout=i)])).people[0].point[0] for t, x, i in frames
        ]

    assert run("none") == xs
    # Exponential: weights exp(-age / DECAY), as a sum over all earlier values.
    expected = [xs[0]]
    for n in range(1, 5):
        kept = np.exp(-(times[n] - times[: n + 1]) / DECAY)
        shares = kept - np.append(0, kept[:-1])
        shares[0] = kept[0]
        expected.append(float(shares @ xs[: n + 1]))
    np.testing.assert_allclose(run("exponential"), expected)
    # One-euro, by the paper's pseudo code.
    value, speed, expected = xs[0], 0.0, [xs[0]]
    for n in range(1, 5):
        te = times[n] - times[n - 1]
        alpha = 1 / (1 + 1 / (2 * math.pi * SPEED_CUTOFF) / te)
        speed = alpha * (xs[n] - value) / te + (1 - alpha) * speed
        alpha = 1 / (1 + 1 / (2 * math.pi * (CUTOFF + BETA * abs(speed))) / te)
        value = alpha * xs[n] + (1 - alpha) * value
        expected.append(value)
    np.testing.assert_allclose(run("one-euro"), expected)
    # Who looks out of the picture keeps the point, and begins anew on return.
    outside = run("exponential", (1, 1, 0, 1, 1))
    assert outside[2:4] == xs[2:4]
    assert outside[4] == pytest.approx(0.5 + (1 - math.exp(-0.3 / DECAY)) * -0.4)


# ---------------------------------------------------------------------- relations, episodes


def test_relations_by_points_and_by_scores():
    heads = [(0, 0, 0.2, 0.2), (0.4, 0, 0.6, 0.2), (0.8, 0, 1, 0.2)]

    def scene(points, inouts=(1, 1, 1), socials=({},) * 3):
        people = [
            person(p, h, i, str(n), social=s)
            for n, (p, h, i, s) in enumerate(zip(points, heads, inouts, socials, strict=True))
        ]
        return Smoother("none")(0, PictureGaze("", (100, 100), people))

    first, second, third = (0.1, 0.1), (0.5, 0.1), (0.9, 0.1)
    assert mutual(scene([second, first, first])) == {(0, 1)}
    assert shared(scene([second, first, first])) == {(1, 2)}  # both at 0; 0 and 1 look at each other, not at one thing
    assert shared(scene([third, third, first])) == {(0, 1)}
    assert shared(scene([(0.5, 0.6), (0.5, 0.74), (0.5, 0.75)])) == {(0, 1), (1, 2)}  # .14 of 1.414 is NEAR, .15 is not
    assert shared(scene([third, third, first], (1, 0.2, 1))) == set()
    own = [{"laeo": {1: 0.7, 2: 0.1}, "sa": {2: 0.8}}, {"laeo": {}, "sa": {}}, {"laeo": {}, "sa": {}}]
    assert mutual(scene([third, third, first], socials=own)) == {(0, 1)}
    assert shared(scene([third, third, first], socials=own)) == {(0, 2)}


def test_episodes_of_a_sequence_written_by_hand():
    times = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 1.6, 1.7])
    seconds = lasting(times, 9)
    np.testing.assert_allclose(seconds, [0.1] * 5 + [1.0, 0.1, 0.1, 0.1])
    marks = np.array([1, 1, 0, 1, 0, 0, 0, 1, 1], bool)

    def found(shortest, bridge):
        return [
            (round(e["start"], 6), round(e["end"], 6), round(e["seconds"], 6))
            for e in episodes(marks, times, seconds, shortest, bridge)
        ]

    assert found(0, 0) == [(0, 0.2, 0.2), (0.3, 0.4, 0.1), (1.6, 1.8, 0.2)]
    assert found(0, 0.1) == [(0, 0.4, 0.4), (1.6, 1.8, 0.2)]
    assert found(0.2, 0) == [(0, 0.2, 0.2), (1.6, 1.8, 0.2)]
    assert found(0.3, 0.1) == [(0, 0.4, 0.4)]
    assert lasting(np.array([3.0]), 0.04).tolist() == [0.04]


def test_dwell_times_of_a_sequence_written_by_hand():
    rows = [
        (0.0, "1", "person 2", "2", ""), (0.0, "2", "person 1", "1", ""),
        (0.5, "1", "cup", "", "2"), (0.5, "2", "cup", "", "1"),
        (1.0, "1", "cup", "", ""),
        (3.0, "2", "out of the picture", "", ""),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["time", "track", "target", "mutual", "shared"])
    times = np.array([0, 0.5, 1.0, 2.0, 3.0])
    seconds = lasting(times, 1)
    table["seconds"] = seconds[np.searchsorted(times, table["time"])]
    found = summarise(table, times, seconds, shortest=0.5)
    one, two = found["tracks"]
    assert one["dwell"] == {"cup": 1.5, "person 2": 0.5}
    assert (one["from"], one["to"], one["seconds"], one["frames"]) == (0, 2, 2, 3)
    assert two["dwell"] == {"out of the picture": 0.75, "person 1": 0.5, "cup": 0.5}
    assert found["mutual"] == [{"tracks": ["1", "2"], "start": 0, "end": 0.5, "seconds": 0.5}]
    assert found["shared"] == [{"tracks": ["1", "2"], "start": 0.5, "end": 1.0, "seconds": 0.5}]


# ---------------------------------------------------------------------- a whole video


def test_a_video_of_variable_rate(tmp_path, model):
    times = [0, 0.04, 0.1, 0.5, 0.6, 0.64]
    path = clip(tmp_path / "a.mp4", times)
    result = analyse_video(path, model, tmp_path / "out", table="gaze.csv")
    table = pd.read_csv(tmp_path / "out" / "gaze.csv", keep_default_na=False)
    assert table["frame"].tolist() == [n for n in range(6) for _ in range(3)]
    np.testing.assert_allclose(table["time"], np.repeat(times, 3), atol=1e-4)
    np.testing.assert_allclose(table["seconds"], np.repeat([0.04, 0.06, 0.4, 0.1, 0.04, 0.06], 3), atol=1e-4)
    assert table["track"].tolist() == [1, 2, 3] * 6
    for number, frame in enumerate(Video(path)):
        boxes, scores = detector(frame.rgb())
        rows = table[table["frame"] == number]
        np.testing.assert_allclose(rows[BOX], boxes, atol=1e-9)
        np.testing.assert_allclose(rows["head_score"], scores)
        np.testing.assert_allclose(rows["x"], boxes[:, 0] + 0.225, atol=1e-6)
        np.testing.assert_allclose(rows["x_px"], 48 * rows["x"], atol=1e-6)
        np.testing.assert_allclose(rows["y_px"], 32 * 0.35, atol=1e-4)
        inside = (rows["inout"] > 0.5).tolist()
        assert inside == [np.sqrt(frame.rgb().mean() / 255) > 0.5] * 3
        # The next head to the right begins .2 from this one's: it holds the point. Nobody is right of the third.
        expected = ["person 2", "person 3", "elsewhere in the picture"] if inside[0] else ["out of the picture"] * 3
        assert rows["target"].tolist() == expected
    assert {"person 2", "out of the picture"} <= set(table["target"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["processed"], summary["width"], summary["height"]) == (6, 6, 48, 32)
    assert summary["seconds"] == pytest.approx(0.7, abs=1e-3)
    assert sum(summary["tracks"][0]["dwell"].values()) == pytest.approx(0.7, abs=1e-3)
    save_overlay(result, tmp_path / "overlay.mp4")
    overlay = list(Video(tmp_path / "overlay.mp4"))
    np.testing.assert_allclose([frame.time for frame in overlay], times, atol=1e-4)
    save_timeline(result, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 5000
    assert "| person 2" in tables(result)


def test_a_killed_video_goes_on(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", np.arange(40) / 25)
    model = GazeModel(Right(), lambda: detector, "cpu")
    options = {"smooth": "one-euro", "stride": 3, "batch_size": 4}
    whole = analyse_video(path, model, tmp_path / "whole", **options)
    assert whole.summary["processed"] == 14
    calls, predict = [], model.predict_prepared

    def killed(pictures):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(pictures)

    monkeypatch.setattr(model, "predict_prepared", killed)
    with pytest.raises(KeyboardInterrupt):
        analyse_video(path, model, tmp_path / "parts", **options)
    with (tmp_path / "parts" / "frames.jsonl").open("ab") as file:
        file.write(b'{"key": "12", "ti')  # the line that the kill cut
    calls.clear()
    calls.append(0)
    calls.append(0)
    parts = analyse_video(path, model, tmp_path / "parts", **options)
    assert sum(calls) == 14 - 4
    pd.testing.assert_frame_equal(parts.table, whole.table)
    assert parts.summary == whole.summary
    again = analyse_video(path, model, tmp_path / "parts", **{**options, "smooth": "none"})
    assert sum(calls) == 14 - 4  # another smoothing needs no new predictions
    np.testing.assert_allclose(again.table["x"], whole.table["x_raw"])
    with pytest.raises(DataError, match="stride"):
        analyse_video(path, model, tmp_path / "parts", stride=1)


def test_frames_in_memory_are_few(tmp_path, model, monkeypatch):
    """Of a hundred frames never are more than a few there at once."""
    alive, most = weakref.WeakSet(), []

    class Watched(Video):
        def __iter__(self):
            for frame in super().__iter__():
                alive.add(frame)
                most.append(len(alive))
                yield frame

    monkeypatch.setattr("gazebench.engine.video.Video", Watched)
    analyse_video(clip(tmp_path / "a.mp4", np.arange(100) / 25), model, tmp_path / "out", batch_size=2)
    assert len(most) == 100
    assert max(most) <= 10


def test_boxes_with_names_are_the_tracks(tmp_path, model):
    path = clip(tmp_path / "a.mp4", [0, 0.04, 0.08])
    rows = [("0", "ann", 0.1, 0.2, 0.3, 0.5), ("0", "bob", 0.5, 0.2, 0.7, 0.5), ("2", "ann", 0.6, 0.2, 0.8, 0.5)]
    pd.DataFrame(rows, columns=["image", "person_id", *BOX]).to_csv(tmp_path / "boxes.csv", index=False)
    table = analyse_video(path, model, tmp_path / "out", boxes=BoxFile(tmp_path / "boxes.csv", tracks=True)).table
    assert list(zip(table["frame"], table["track"], strict=True)) == [(0, "ann"), (0, "bob"), (2, "ann")]
    np.testing.assert_allclose(table[BOX], [row[2:] for row in rows])


def test_a_video_without_people(tmp_path):
    path = clip(tmp_path / "a.mp4", [0, 0.04])
    nobody = GazeModel(Right(), lambda: lambda picture: (np.zeros((0, 4)), np.zeros(0)), "cpu")
    result = analyse_video(path, nobody, tmp_path / "out")
    assert (len(result.table), result.summary["tracks"], result.summary["processed"]) == (0, [], 2)
    save_overlay(result, tmp_path / "o.mp4")
    save_timeline(result, tmp_path / "t.png")
    assert tables(result).count("none") == 3


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = clip(tmp_path / "a.mp4", [0, 0.04, 0.08])
    pd.DataFrame([("1", 0.1, 0.2, 0.3, 0.5)], columns=["image", *BOX]).to_csv("boxes.csv", index=False)
    command = ["video", str(path), "--weights", "center", "--boxes", "boxes.csv", "--table", "jsonl"]
    assert main(command) == 0
    assert {one.name for one in (tmp_path / "a-gaze").iterdir()} >= {
        "gaze.jsonl", "summary.json", "summary.md", "timeline.png", "overlay.mp4"
    }  # fmt: skip
    (row,) = map(json.loads, (tmp_path / "a-gaze" / "gaze.jsonl").read_text().splitlines())
    assert (row["frame"], row["track"], row["x"], row["target"]) == (1, "1", 0.5, "elsewhere in the picture")
    capsys.readouterr()
    for wrong, why in (
        (["video", "missing.mp4", "--weights", "center"], "missing.mp4"),
        (["video", str(path), "--weights", "center", "--detector", "none"], "--detector"),
        (["video", "0", "--weights", "center", "--boxes", "boxes.csv"], "--boxes"),
        (["video", "99", "--weights", "center"], "camera 99"),
    ):
        assert main(wrong) == 2
        assert why in capsys.readouterr().err
