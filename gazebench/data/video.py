"""Frames of a video, one at a time, in the order of their times and upright; and recordings of a camera."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gazebench.core.errors import DataError
from gazebench.core.extras import needs

REORDERED = 8
"""Frames that wait so that one which comes late still finds its place."""
CLOCK = 60_000
"""Ticks a second of the videos written here; MPEG-4 allows no more than 65,535."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video.

    Attributes:
        number: its place in the order of times, from 0.
        time: seconds from the start of the file, larger than that of the frame before.
        turn: quarter turns counterclockwise that make it upright.
        width, height: in pixels, upright, of square pixels.
        decoded: PyAV's frame.
    """

    number: int
    time: float
    turn: int
    width: int
    height: int
    decoded: Any

    def rgb(self, scale: float = 1) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8, upright; scaled if wanted."""
        size = max(2, round(self.width * scale)), max(2, round(self.height * scale))
        width, height = size[::-1] if self.turn % 2 else size
        array = self.decoded.to_ndarray(format="rgb24", width=width, height=height)
        return np.ascontiguousarray(np.rot90(array, self.turn))


class Video:
    """A video file; iterating decodes it from the start, and only a few frames are in memory at a time.

    Times are those of the stream, from the start of the file. Where a frame has none, or one that is not later than the
    frame before, it comes one frame's duration after that. Where the times jump back (joined files), they go on from
    there. Packets that cannot be decoded are left out.

    Args:
        path: the file.

    Attributes:
        expected: how many frames the file says that it has; 0 where it does not say.
        seconds: how long the file says that it lasts; 0 where it does not say.
        mended: frames of the last pass whose time was made up.
        damaged: packets of the last pass that could not be decoded.

    Raises:
        DataError: PyAV is missing, or the file is missing, no video, or one without pictures.
    """

    def __init__(self, path: Path) -> None:
        self._av = needs("av", "video")
        self.path, self.mended, self.damaged = Path(path), 0, 0
        with self._open() as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or 25
            self.seconds = (container.duration or 0) / self._av.time_base
            self.expected, self.step = stream.frames or round(self.seconds * rate), float(1 / rate)

    def __iter__(self) -> Iterator[Frame]:
        self.mended = self.damaged = 0
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = (container.start_time or 0) / self._av.time_base
            last, number = -1.0, -1
            for number, (stamp, frame) in enumerate(self._in_order(container, stream, start)):
                later = stamp is not None and stamp > last
                self.mended += not later
                last = stamp if stamp is not None and later else max(last, -self.step) + self.step
                turn, width = round(frame.rotation / 90) % 4, round(frame.width * (stream.sample_aspect_ratio or 1))
                size = (frame.height, width) if turn % 2 else (width, frame.height)
                yield Frame(number, last, turn, *size, frame)
        if number < 0:
            raise DataError(f"{self.path}: no frame of this video can be decoded; {_REMEDY}")

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self.path))
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file; give a video, or the number of a camera") from None
        except (self._av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self.path}: not a video that can be read ({reason}); {_REMEDY}") from error
        if not container.streams.video:
            container.close()
            raise DataError(f"{self.path}: this file has sound but no pictures; give a video")
        return container

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except self._av.InvalidDataError:
                self.damaged += 1
                continue
            yield from frames

    def _in_order(self, container: Any, stream: Any, start: float) -> Iterator[tuple[float | None, Any]]:
        """Frames with their times (None for none), the earliest of ``REORDERED`` first."""
        waiting: list[tuple[float, int, float | None, Any]] = []
        newest, offset = -self.step, 0.0
        for count, frame in enumerate(self._decoded(container, stream)):
            stamp = None if frame.time is None else frame.time - start + offset
            if stamp is not None and stamp < newest - REORDERED * self.step - 1:
                offset += newest + self.step - stamp
                stamp = newest + self.step
            key = newest + self.step if stamp is None else stamp
            newest = max(newest, key)
            heapq.heappush(waiting, (key, count, stamp, frame))
            if len(waiting) > REORDERED:
                yield heapq.heappop(waiting)[2:]
        while waiting:
            yield heapq.heappop(waiting)[2:]


_REMEDY = "convert it, such as with `ffmpeg -i FILE -c:v libx264 clip.mp4`, and give that"


class VideoWriter:
    """Writes frames with their times as an MP4 without sound: H.264 where this FFmpeg can, else MPEG-4.

    Args:
        path: the file.
        width, height: of the frames, in pixels; both even.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._av = needs("av", "video")
        self._file = self._av.open(str(path), "w", format="mp4")
        codec = next(name for name in ("libx264", "libopenh264", "mpeg4") if name in self._av.codecs_available)
        options = {"crf": "23", "preset": "veryfast"} if codec == "libx264" else {"qscale": "5"}
        self._stream = self._file.add_stream(codec, rate=30, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, CLOCK)
        self._last = -1

    def write(self, picture: npt.NDArray[np.uint8], seconds: float) -> None:
        """One frame (H, W, 3) uint8 RGB at its time, which is later than the last one's."""
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._last = max(self._last + 1, round(seconds * CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._file.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None and self._last >= 0:
            self._file.mux(self._stream.encode())
        self._file.close()


def record(camera: int, path: Path, seconds: float | None = None) -> None:
    """Records a camera without sound, for some seconds or until Ctrl-C.

    Args:
        camera: its number, from 0.
        path: the MP4 to write.
        seconds: how long; None until interrupted.

    Raises:
        DataError: PyAV is missing, or there is no such camera.
    """
    av = needs("av", "video")
    try:
        if sys.platform == "darwin":
            source = av.open(str(camera), format="avfoundation", options={"framerate": "30"})
        elif sys.platform == "win32":
            cameras = [one.name for one in av.enumerate_input_devices("dshow") if "video" in one.media_types]
            source = av.open(f"video={cameras[camera]}", format="dshow")
        else:
            source = av.open(f"/dev/video{camera}", format="v4l2")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DataError(f"camera {camera} cannot be opened ({error}); is it there, and free?") from error
    begin, writer = time.monotonic(), None
    try:
        for frame in source.decode(video=0):
            now = time.monotonic() - begin
            if seconds is not None and now > seconds:
                break
            width, height = frame.width // 2 * 2, frame.height // 2 * 2
            writer = writer or VideoWriter(path, width, height)
            writer.write(frame.to_ndarray(format="rgb24", width=width, height=height), now)
    except KeyboardInterrupt:
        print("recorded; analysing", file=sys.stderr)
    finally:
        source.close()
        if writer is not None:
            writer.__exit__(None)
