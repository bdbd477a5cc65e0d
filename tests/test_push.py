"""The producer against real servers, real files and a network that breaks at the worst moment."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import msgpack
import numpy as np
import pytest

from engine.config import Redis
from engine.errors import DataError, StreamError, UsageError
from engine.producer.buffer import Buffer, Parcel
from engine.producer.journal import read_journal
from engine.producer.schedule import Schedule, Thinner
from engine.producer.sender import Sender
from engine.producer.sources import find_source, redacted
from engine.push import PushOptions, PushReport, frame_id, push
from engine.streams.embedded import EmbeddedServer, free_port
from engine.streams.keys import line_keys
from engine.streams.link import Link

MS = 1_000_000
S = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures whose name order is not their writing order, one of them below the top."""
    pictures = tmp_path / "pictures"
    (pictures / "b").mkdir(parents=True)
    for name in ("c.jpg", "a.png", "b/x.jpg"):
        assert cv2.imwrite(str(pictures / name), picture(len(name)))
    return pictures


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (4, 5, 3))
    return cv2.resize(coarse, (50, 40)).astype(np.uint8)


def options(line, source: Path | str, /, **changes: object) -> PushOptions:
    settings: dict[str, object] = {
        "line": line.name,
        "camera": "cam1",
        "redis": Redis(url=line.url, prefix=line.prefix),
    }
    return PushOptions(source=str(source), **(settings | changes))


def entries(line) -> list[tuple[str, dict, bytes]]:
    return [
        (entry.decode(), msgpack.unpackb(fields[b"meta"]), fields[b"data"])
        for entry, fields in line.client.xrange(line.keys.frames)
    ]


def test_folder_is_sent_untouched_in_name_order(line, folder):
    before = time.time_ns()
    report = push(options(line, folder))
    sent = entries(line)
    assert [meta["id"] for _, meta, _ in sent] == ["a.png", "b/x.jpg", "c.jpg"]
    assert [data for *_, data in sent] == [(folder / meta["id"]).read_bytes() for _, meta, _ in sent]
    assert [meta["codec"] for _, meta, _ in sent] == ["png", "jpeg", "jpeg"]
    assert all(before <= meta["ts_ns"] <= time.time_ns() for _, meta, _ in sent)
    assert all(meta["camera"] == "cam1" and meta["v"] == 1 for _, meta, _ in sent)
    assert (report.frames, report.unreadable, report.interruptions) == (3, 0, 0)


def test_codec_follows_the_bytes_and_not_the_name(line, folder):
    (folder / "a.png").write_bytes((folder / "c.jpg").read_bytes())
    push(options(line, folder / "a.png"))
    [(_, meta, data)] = entries(line)
    assert (meta["codec"], data) == ("jpeg", (folder / "c.jpg").read_bytes())


def test_raw_frames_hold_the_pixels(line, folder):
    push(options(line, folder / "a.png", codec="raw"))
    [(_, meta, data)] = entries(line)
    assert (meta["codec"], meta["shape"], meta["pixel_format"]) == ("raw", [40, 50, 3], "BGR8")
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(40, 50, 3), cv2.imread(str(folder / "a.png")))


@pytest.mark.parametrize(("codec", "tolerance"), [("png", 0), ("jpeg", 12)])
def test_another_codec_is_encoded(line, tmp_path, codec, tolerance):
    assert cv2.imwrite(str(tmp_path / "x.bmp"), picture(1))
    push(options(line, tmp_path / "x.bmp", codec=codec))
    [(_, meta, data)] = entries(line)
    assert meta["codec"] == codec
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - picture(1)).mean() <= tolerance


def test_unreadable_file_is_counted_and_the_rest_is_sent(line, folder, caplog):
    (folder / "b.bmp").write_bytes(b"BM no picture")
    report = push(options(line, folder))
    assert (report.frames, report.unreadable) == (3, 1)
    assert "b.bmp" in caplog.text


def test_video_frames_in_order(line, tmp_path):
    file = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in range(0, 250, 50):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    push(options(line, file, codec="raw"))
    sent = entries(line)
    assert [meta["id"] for _, meta, _ in sent] == [f"belt.avi:{i}" for i in range(5)]
    assert [round(np.frombuffer(data, np.uint8).mean() / 50) for *_, data in sent] == [0, 1, 2, 3, 4]


def test_loop_goes_on_until_the_frame_limit(line, folder):
    report = push(options(line, folder, loop=True, frames=7))
    assert report.frames == 7
    ids = [meta["id"] for _, meta, _ in entries(line)]
    assert ids == ["a.png", "b/x.jpg", "c.jpg", "a.png#1", "b/x.jpg#1", "c.jpg#1", "a.png#2"]


def test_stop_ends_a_loop(line, folder):
    stop = threading.Event()
    reports: list[int] = []

    def on_progress(report: PushReport) -> None:
        reports.append(report.frames)
        stop.set()

    report = push(options(line, folder, loop=True, fps=200), stop, on_progress)
    assert reports[0] <= report.frames == line.left()


def test_capture_times_follow_the_schedule(line, folder):
    report = push(options(line, folder, loop=True, fps=100, frames=12))
    times = [meta["ts_ns"] for _, meta, _ in entries(line)]
    np.testing.assert_allclose(np.diff(times), 10 * MS, atol=MS)
    assert report.seconds >= 0.11


def test_journal_names_every_accepted_frame(line, folder, tmp_path):
    journal = tmp_path / "journal.tsv"
    push(options(line, folder, journal=journal))
    push(options(line, folder, journal=journal))
    assert list(read_journal(journal)) == [(entry, meta["id"]) for entry, meta, _ in entries(line)]
    assert len(list(read_journal(journal))) == 6


def test_backlog_limit_makes_the_producer_wait(server, line, folder):
    done = threading.Event()
    lengths: list[int] = []

    def consume() -> None:
        with server.client() as consumer:
            frames = line.keys.frames
            while not done.is_set() or consumer.xlen(frames):
                lengths.append(consumer.xlen(frames))
                for entry, _ in consumer.xrange(frames, count=2):
                    consumer.xdel(frames, entry)
                time.sleep(0.01)

    consumer = threading.Thread(target=consume)
    consumer.start()
    report = push(options(line, folder, loop=True, frames=40, max_backlog=5))
    done.set()
    consumer.join()
    assert report.frames == line.client.xinfo_stream(line.keys.frames)["entries-added"] == 40
    assert max(lengths) <= 5
    assert report.backlog_wait_s > 0.02


def test_kept_frames_are_no_backlog(line, folder, make_config, run_burst):
    """A stream full of frames that have ended and were kept is no reason to wait; frames still to end are."""
    push(options(line, folder, loop=True, frames=6))
    run_burst(make_config(line, keep_frames=True))
    assert (line.left(), len(line.ends())) == (6, 6)
    assert push(options(line, folder, loop=True, frames=5, max_backlog=5)).backlog_wait_s < 0.004  # shorter than a poll
    pushing = threading.Thread(target=push, args=[options(line, folder, frames=3, max_backlog=5)])
    pushing.start()
    pushing.join(0.2)
    assert pushing.is_alive()
    run_burst(make_config(line, keep_frames=True))
    pushing.join(10)
    assert (line.left(), pushing.is_alive()) == (14, False)


def test_frames_survive_a_server_restart(make_line, folder, tmp_path):
    """Frames sent before, during and after an outage: all there, once each, in order."""
    directory = tmp_path / "server"
    directory.mkdir()
    durable = {"appendonly": "yes", "appendfsync": "always"}
    with EmbeddedServer(port=free_port(), directory=directory, settings=durable) as server:
        outage = threading.Timer(0.15, lambda: (server.kill(), time.sleep(0.3), server.start()))
        outage.start()
        line = make_line(server)
        report = push(options(line, folder, loop=True, fps=100, frames=80))
        outage.join()
        ids = [meta["id"] for _, meta, _ in entries(line)]
    assert ids == [name + (f"#{i}" if i else "") for i in range(27) for name in ("a.png", "b/x.jpg", "c.jpg")][:80]
    assert report.interruptions >= 1


def test_lost_reply_sends_no_frame_twice(make_line, folder, tmp_path):
    """The server did the work and the connection broke before the reply: nobody knows. Every third time, here."""
    with EmbeddedServer(port=free_port()) as server, proxy(server, lose_every=3) as port:
        line = make_line(server)
        where = Redis(url=f"redis://127.0.0.1:{port}/0", prefix=line.prefix)
        journal = tmp_path / "journal.tsv"
        report = push(options(line, folder, redis=where, loop=True, fps=200, frames=60, journal=journal))
        sent = entries(line)
    assert report.frames == len(sent) == 60
    assert list(read_journal(journal)) == [(entry, meta["id"]) for entry, meta, _ in sent]


@contextmanager
def proxy(server: EmbeddedServer, lose_every: int) -> Iterator[int]:
    """A port in front of the server that hangs up instead of passing on some of the replies to EVALSHA."""
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    calls = itertools.count(1)

    class Relay(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection(("127.0.0.1", port)) as far:
                lose = threading.Event()
                back = threading.Thread(target=pump, args=(far, self.request, lambda _: lose.is_set()))
                back.start()
                pump(self.request, far, lambda request: self.choose(request, lose))
                back.join()

        @staticmethod
        def choose(request: bytes, lose: threading.Event) -> bool:
            if b"EVALSHA" in request and next(calls) % lose_every == 0:
                lose.set()
            return False

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relays:
        thread = threading.Thread(target=relays.serve_forever)
        thread.start()
        yield relays.server_address[1]
        relays.shutdown()
        thread.join()


def pump(source: socket.socket, sink: socket.socket, drop: Callable[[bytes], bool]) -> None:
    """Pass bytes on until the source ends or `drop` says so of what came, then hang up on both sides."""
    with contextlib.suppress(OSError):
        while (received := source.recv(1 << 20)) and not drop(received):
            sink.sendall(received)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_full_server_makes_the_producer_wait(make_line, tmp_path):
    """At maxmemory the server refuses writes until somebody consumes: no frame is lost, none is doubled."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "noise.png"), noise)
    with EmbeddedServer(maxmemory_bytes=12 << 20) as server:
        line = make_line(server)
        pushing = threading.Thread(
            target=lambda: reports.append(push(options(line, tmp_path / "noise.png", loop=True, frames=60)))
        )
        reports: list[PushReport] = []
        seen: list[str] = []
        pushing.start()
        while pushing.is_alive() or line.left():
            for entry, meta, _ in entries(line):
                seen.append(meta["id"])
                line.client.xdel(line.keys.frames, entry)
            time.sleep(0.3)
        pushing.join()
    assert seen == ["noise.png"] + [f"noise.png#{i}" for i in range(1, 60)]
    assert reports[0].interruptions >= 1


def test_cluster(make_line, folder):
    bus = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with EmbeddedServer(port=free_port(), settings=bus) as server:
        line = make_line(server)
        line.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        assert push(options(line, folder, loop=True, frames=10)).frames == line.left() == 10


def test_refusal_for_good_is_an_error(line, folder):
    line.client.set(line.keys.frames, "not a stream")
    with pytest.raises(StreamError, match=r"cannot be sent.*WRONGTYPE"):
        push(options(line, folder))


def test_unsent_frames_are_counted_when_the_wait_is_given_up(tmp_path):
    stop = threading.Event()
    nobody = Link(Redis(url=f"redis://127.0.0.1:{free_port()}/0"), None, "test")
    sender = Sender(nobody, line_keys("engine", "line1"), max_backlog=0)
    for _ in range(3):
        assert sender.put(Parcel("x", b"meta", b"data"), stop)
    stop.set()
    with pytest.raises(StreamError, match="3 frames were not sent"):
        sender.close(stop, grace_s=0.1)


def test_network_camera_is_opened_again(line):
    """An HTTP camera that hangs up after four pictures: the producer comes back for more."""
    with mjpeg_camera(pictures=4) as url:
        report = push(options(line, url, frames=7))
    assert report.frames == line.left() == 7
    assert {meta["codec"] for _, meta, _ in entries(line)} == {"jpeg"}


@contextmanager
def mjpeg_camera(pictures: int) -> Iterator[str]:
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(pictures):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as camera:
        thread = threading.Thread(target=camera.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{camera.server_address[1]}/video.mjpg"
        camera.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"line": "line 1"}, "--line"),
        ({"camera": ""}, "--camera"),
        ({"redis": Redis(prefix="a b")}, "--prefix"),
        ({"fps": -1.0}, "zero or more"),
        ({"source": "/nowhere"}, "no such folder or file"),
        ({"source": "gopher://x/y"}, "scheme 'gopher'"),
        ({"source": "rtsp://cam/1", "loop": True}, "live source"),
    ],
)
def test_wrong_usage_is_refused(line, changes, message):
    with pytest.raises(UsageError, match=message):
        push(options(line, changes.pop("source", "/tmp"), **changes))


def test_empty_folder_and_broken_video_are_refused(line, tmp_path):
    with pytest.raises(DataError, match="no pictures here"):
        push(options(line, tmp_path))
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot read it as a video"):
        push(options(line, tmp_path / "clip.mp4"))


def test_a_webcam_that_is_not_there_is_refused(line):
    with pytest.raises(DataError, match="webcam 63: OpenCV cannot open it"):
        push(options(line, "63"))


def test_sources_are_told_apart(tmp_path):
    (tmp_path / "v.mp4").touch()
    assert find_source(str(tmp_path)).kind == "pictures"
    assert find_source(str(tmp_path / "v.mp4")).kind == "video"
    assert find_source("0").kind == "webcam"
    assert find_source("rtsp://user:secret@cam:554/1").kind == "url"
    assert redacted("rtsp://user:secret@cam:554/1?x=2") == "rtsp://cam:554/1?x=2"


def test_frame_ids_fit_the_contract():
    assert frame_id("a/b.png") == "a/b.png"
    assert frame_id("x" * 200 + "end") == "x" * 125 + "end"
    assert frame_id("tab\there\udcff") == "tab here\ufffd"


def test_schedule_is_open_loop():
    schedule = Schedule(start_ns=1000 * S, fps=30)
    assert [schedule.due_ns(i) - 1000 * S for i in (0, 1, 3, 30)] == [0, 33333333, 100 * MS, S]
    assert schedule.wait_s(3, 1000 * S + 40 * MS) == pytest.approx(0.06)
    assert schedule.wait_s(3, 1000 * S + 140 * MS) == 0
    assert schedule.late_ns(3, 1000 * S + 140 * MS) == 40 * MS
    assert schedule.late_ns(3, 1000 * S) == 0


@pytest.mark.parametrize("fps", [0.3, 1, 7, 29.97, 1000])
@pytest.mark.parametrize("now_ns", [0, 1, 33333333, 3 * S, 3 * S + 1, 10**15])
def test_index_after_is_the_first_later_one(fps, now_ns):
    schedule = Schedule(0, fps)
    index = schedule.index_after(now_ns)
    assert schedule.due_ns(index) > now_ns
    assert index == 0 or schedule.due_ns(index - 1) <= now_ns


def test_thinner_keeps_the_wanted_rate():
    thinner = Thinner(Schedule(0, fps=10))
    kept = [t for t in range(0, 1000, 33) if thinner.keep(t * MS)]  # a camera with 30 frames/s
    assert kept == [0, 132, 231, 330, 429, 528, 627, 726, 825, 924]


def test_buffer_bounds_frames_and_bytes():
    buffer = Buffer(max_frames=3, max_bytes=10)
    assert buffer.put(Parcel("", b"", b"x" * 50), 0)  # one always fits
    assert not buffer.put(Parcel("", b"", b"x"), 0)
    assert len(buffer.take()) == 1
    assert [buffer.put(Parcel("", b"", b"x"), 0) for _ in range(4)] == [True, True, True, False]
    buffer.close()
    assert (len(buffer.take()), buffer.take()) == (3, [])
