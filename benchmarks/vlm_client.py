"""Cost of requests on the client: people per second against a server in another process that answers at once.

1280 x 720 frames, encoded once each, several people a frame. Beside our client the official one as it is usually
called, with typed messages. Run: python benchmarks/vlm_client.py [--people 2000] [--per-frame 3] [--in-flight 64]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import openai
from PIL import Image

from gazebench.vlm.encoding import Encoding
from gazebench.vlm.messages import EncodedImage, Message, Reply, Request
from gazebench.vlm.openai_server import OpenAIServer

TEXT = "Which regions of this image would attract the attention of the person in the box [412, 180, 466, 251]? " * 8
REPLY = {"role": "assistant", "content": '[{"bbox_2d": [1, 2, 3, 4], "label": "a ball"}]' * 4}
ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": REPLY}],
        "usage": {"prompt_tokens": 1400, "completion_tokens": 90, "total_tokens": 1490},
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
FRAMES = 16


class Instant(asyncio.BufferedProtocol):
    """Counts a request's bytes and answers; as little work as can be, for it shares the cores with the client."""

    def __init__(self) -> None:
        self.buffer, self.head, self.left = bytearray(1 << 20), b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        if self.left:
            self.left -= count
        else:
            self.head += bytes(self.buffer[:count])
            head, found, body = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            self.left, self.head = length - len(body), b""
        if not self.left:
            self.transport.write(RESPONSE)


def serve(pipe: Connection) -> None:
    """Tells its port, and the CPU time it took whenever it is asked to."""

    def tell() -> None:
        pipe.recv()
        pipe.send(time.process_time())

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Instant, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        loop.add_reader(pipe.fileno(), tell)
        await server.serve_forever()

    asyncio.run(run())


def frame(seed: int) -> np.ndarray:
    """Smooth areas, hard edges and noise: at quality 90 as large as a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (18, 32, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((1280, 720), Image.Resampling.BICUBIC)).astype(int)
    for _ in range(60):
        x, y = int(rng.integers(1280)), int(rng.integers(720))
        image[y : y + 80, x : x + 90] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def questions(people: int, per_frame: int, image: Callable[[int], EncodedImage]) -> Iterator[Request]:
    for person in range(people):
        if person % per_frame == 0:
            shown = image(person // per_frame)
        yield Request(f"{person}", (Message("system", ("Answer in JSON.",)), Message("user", (shown, TEXT))))


def ours(url: str, in_flight: int, requests: Iterator[Request]) -> int:
    server = OpenAIServer(url, "instant", api_key="EMPTY", in_flight=in_flight)
    return sum(isinstance(answer, Reply) for answer in server.ask(requests))


def usual(url: str, in_flight: int, requests: Iterator[Request]) -> int:
    """The official client with typed messages and answers, as many workers as requests in flight."""

    async def worker(client: openai.AsyncOpenAI) -> int:
        count = 0
        for request in requests:
            system, user = request.messages
            shown = {"type": "image_url", "image_url": {"url": user.parts[0].url}}
            messages = [
                {"role": "system", "content": str(system.parts[0])},
                {"role": "user", "content": [shown, {"type": "text", "text": user.parts[1]}]},
            ]
            answer = await client.chat.completions.create(
                model="instant", max_tokens=512, temperature=0, top_p=1, seed=0, messages=messages
            )
            count += bool(answer.choices[0].message.content)
        return count

    async def run() -> int:
        async with openai.AsyncOpenAI(base_url=url, api_key="EMPTY") as client:
            return sum(await asyncio.gather(*(worker(client) for _ in range(in_flight))))

    return asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--per-frame", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    setting = Encoding()
    frames = [frame(seed) for seed in range(FRAMES)]
    made = [setting.encode(array) for array in frames]
    encodes = 0

    def encoded(number: int) -> EncodedImage:
        nonlocal encodes
        encodes += 1
        return setting.encode(frames[number % FRAMES])

    ours_end, its_end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(its_end,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{ours_end.recv()}/v1"

    def server_time() -> float:
        ours_end.send("how long?")
        return ours_end.recv()

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.jpg" for number in range(FRAMES)]
        for file, image in zip(files, made, strict=True):
            file.write_bytes(image.data)

        def read(number: int) -> EncodedImage:
            return setting.encode(files[number % FRAMES])

        def kept(number: int) -> EncodedImage:
            return made[number % FRAMES]

        ways = {
            "images encoded": (ours, encoded),
            "files sent as they are": (ours, read),
            "images made before": (ours, kept),
            "usual client, made before": (usual, kept),
        }
        runs: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in ways}
        for _ in range(args.rounds):  # the ways take turns, for other tenants of the cores come and go
            for name, (client, image) in ways.items():
                encodes, server, wall, cpu = 0, server_time(), time.perf_counter(), time.process_time()
                answered = client(url, args.in_flight, questions(args.people, args.per_frame, image))
                assert answered == args.people, f"{answered} of {args.people} answered"
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                runs[name].append((wall, cpu, server_time() - server, encodes))
    process.terminate()

    megabytes = float(np.mean([len(image.url) for image in made])) / 1e6
    sizes = [len(image.data) // 1000 for image in made]
    print(f"{args.people} people, {args.per_frame} a frame, frames of {min(sizes)} to {max(sizes)} kB as JPEG;")
    print(f"median of {args.rounds} runs, {args.in_flight} requests in flight\n")
    print("| | people/s | / made before | MB/s sent | encodes | client CPU s | CPU ms a person | server's |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    base = float(np.median([wall for wall, *_ in runs["images made before"]]))
    for name, measured in runs.items():
        wall, cpu, its, count = (float(np.median(values)) for values in zip(*measured, strict=True))
        speed = args.people / wall
        print(
            f"| {name} | {speed:.0f} | {base / wall:.2f} | {speed * megabytes:.0f} | {count:.0f} | {cpu:.1f}"
            f" | {1e3 * cpu / args.people:.2f} | {1e3 * its / args.people:.2f} |"
        )


if __name__ == "__main__":
    main()
