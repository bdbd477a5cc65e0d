"""Commands as a person types them: exit codes, one line on stderr, one document on stdout."""

import json
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from engine.codec import encode_frame
from engine.serving.select import local_backends
from engine.streams.embedded import EmbeddedServer
from engine.streams.keys import line_keys
from engine.streams.reader import LineReader
from engine.types import Frame


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "train",
        "fuse",
        "eval",
        "explain",
        "protocol",
        "export",
        "serve",
        "push",
        "bench",
        "doctor",
        "triton",
        "publish",
        "rollback",
    ],
)
def test_every_command_explains_itself(run, command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout
    assert "--help" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "no-such-command"),
        (["serve", "--line", "a=/nonexistent", "--threads", "-1"], "runtime.threads"),
        (["train"], "argument"),
        (["eval", "a", "b", "--backend", "cuda"], "'cuda' is not one of"),
        (["serve"], "give --config FILE or --line NAME=BUNDLE"),
        (["serve", "--line", "a"], "expected NAME=BUNDLE"),
        (["serve", "--line", "a=/nonexistent"], "no bundle here"),
        (["serve", "--line", "a b=/nonexistent"], "line[0].name"),
        (["serve", "--config", "/nonexistent.toml"], "cannot be read"),
        (["eval", "/nonexistent", "/nonexistent"], "/nonexistent"),
        (["train", "/nonexistent", "--out", "/tmp/never"], "/nonexistent"),
        (["push", "/nonexistent", "--line", "a", "--camera", "b"], "/nonexistent"),
        (["push", ".", "--line", "a b", "--camera", "b"], "--line"),
        (["bench", "/nonexistent"], "no bundle here"),
        (["export", "/nonexistent", "--target", "onnx", "--out", "/tmp/never"], "no bundle here"),
        (
            ["export", "/nonexistent", "--target", "jar", "--out", "/tmp/never"],
            "choose one of onnx, openvino, tensorrt",
        ),
        (["protocol", "ablation", "/nonexistent", "--method", "none"], "none"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(run, arguments, said):
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("engine: error: ")
    assert said in lines[0]


def test_no_command_at_all_is_wrong_usage(run):
    done = run()
    assert (done.returncode, done.stderr) == (2, "engine: error: no command was given (see `engine --help`)\n")
    assert "serve" in done.stdout


def test_push_says_what_it_sent_and_leaves_unreadable_files_out(run, server, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 20), 9, np.uint8))
    (tmp_path / "b.png").write_bytes(b"no picture")
    done = run("push", tmp_path, "--line", "a", "--camera", "b", "--redis", server.url, "--prefix", "cli", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert (document["frames"], document["unreadable"], document["interruptions"]) == (1, 1, 0)
    assert "b.png" in done.stderr
    done = run("push", tmp_path / "b.png", "--line", "a", "--camera", "b", "--redis", server.url, "--prefix", "cli")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none of its 1 pictures can be read" in done.stderr


def test_doctor_says_what_there_is(run):
    document = json.loads(run("doctor", "--json").stdout)
    assert document["python"] == ".".join(map(str, sys.version_info[:3]))
    assert document["cores"] >= 1
    assert document["packages"]["onnxruntime"]
    assert document["backend"]["installed"] == list(local_backends())
    assert document["tensorrt"]["usable"] == ("tensorrt" in local_backends())
    assert document["gpu"] or document["tensorrt"]["why"] == "no NVIDIA GPU: nvidia-smi finds none"


def test_eval_prints_one_document(run, tiny, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "data" / ("test/good" if i % 2 else "test/spot")
        folder.mkdir(parents=True, exist_ok=True)
        image = rng.integers(90, 160, (64, 64, 3), dtype=np.uint8)
        if not i % 2:
            image[16:32, 16:32] = 255
        cv2.imwrite(str(folder / f"{i}.png"), image)
    (tmp_path / "data/train/good").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data/train/good/0.png"), rng.integers(90, 160, (64, 64, 3), dtype=np.uint8))
    done = run("eval", tiny.path, tmp_path / "data", "--out", tmp_path / "report", "--backend", "onnx", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["image_AUROC"] == 1.0
    assert (document["n_good"], document["n_defect"]) == (3, 3)
    assert document["pixel_AUROC"] is None
    assert document == json.loads((tmp_path / "report/evaluation.json").read_text())
    assert (tmp_path / "report/report.html").stat().st_size > 10_000
    assert list((tmp_path / "report/pictures").iterdir())
    toml = tmp_path / "engine.toml"
    region = 'camera = "a"\nunit = "share"\nignore = [[[0, 0], [0.8, 0], [0.8, 0.8], [0, 0.8]]]'
    toml.write_text(f'[[line]]\nname = "l"\nbundle = "x"\n[[line.region]]\n{region}\n')
    evaluated = ("eval", tiny.path, tmp_path / "data", "--backend", "onnx", "--json")
    recalls = [
        json.loads(run(*evaluated, "--config", toml, "--camera", camera).stdout)["per_defect"]["spot"]["recall"]
        for camera in ("a", "b")
    ]
    assert recalls == [0.0, 1.0]
    assert "give --config FILE" in run(*evaluated, "--camera", "a").stderr


def test_serve_says_ready_works_and_stops_cleanly(tiny, tmp_path):
    config = tmp_path / "engine.toml"
    with EmbeddedServer() as server, server.client() as client:
        config.write_text(
            f'[redis]\nurl = "{server.url}"\n[runtime]\nbackend = "onnx"\n'
            f'[[line]]\nname = "one"\nbundle = "{tiny.path}"\n[[line]]\nname = "two"\nbundle = "{tiny.path}"\n'
        )
        command = [sys.executable, "-m", "engine", "serve", "--config", str(config), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            log = ""
            while "ready" not in log:
                line = process.stderr.readline()
                assert line, log
                log += line
            process.send_signal(signal.SIGHUP)  # looks for new bundles, and finds none
            png = cv2.imencode(".png", np.full((64, 64, 3), 255, np.uint8))[1].tobytes()
            for name in ("one", "two"):
                for _ in range(20):
                    frame = Frame(camera="c", ts_ns=time.time_ns(), codec="png", data=png)
                    client.xadd(line_keys("engine", name).frames, encode_frame(frame))
            for name in ("one", "two"):
                reader, found = LineReader(client, line_keys("engine", name)), []
                while len(found) < 20:
                    found += reader.read(5000)
                assert {item.end.model for item in found} == {"tiny@1"}
                assert {item.end.decision for item in found} == {"reject"}
            process.send_signal(signal.SIGTERM)
            document = json.loads(process.communicate(timeout=20)[0])
            assert process.returncode == 0
            assert document == {"frames": 40, "lines": {"one": {"reject": 20}, "two": {"reject": 20}}}
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fuse", "nowhere", "--data", ".", "--out", "o"), "nowhere: no bundle here"),
        (("train", ".", "--out", "o", "--members", "fyd,ssae"), "options of --method ensemble only"),
        (("train", ".", "--out", "o", "--method", "ensemble", "--members", "fyd"), "at least two different methods"),
        (("serve", "--line", "a=b", "--cascade", "on"), "--cascade on: expected off, auto or a bound"),
    ],
)
def test_ensembles_that_cannot_be_are_refused_in_one_line(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(run, tiny):
    done = run("export", tiny.path, "--target", "onnx", "--out", "/proc/nowhere/at all")
    assert done.returncode == 1
    assert done.stderr.startswith("engine: error: /proc/nowhere: No such file or directory; check the path")
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_copied_is_one_line(run, tiny, tmp_path):
    shutil.copytree(tiny.path, tmp_path / "bundle")
    (tmp_path / "bundle/gone").symlink_to("nowhere")
    done = run("publish", tmp_path / "bundle", tmp_path / "live")
    assert done.returncode == 1
    assert "/gone: " in done.stderr
    assert "[(" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_a_reader_that_has_seen_enough_is_none():
    command = [sys.executable, "-m", "engine", "doctor", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("engine: error: reading or writing failed: No space left on device")
    assert done.stderr.count("\n") == 1
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_path_is_printed_whole_and_the_next_command_can_be_pasted(run, tiny, tmp_path):
    out = tmp_path / f"a [red]place[/red] with spaces {'and a long name ' * 6}" / "triton"
    done = run("export", tiny.path, "--target", "triton", "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{out}/detector/config.pbtxt" in done.stdout
    assert f"next: engine triton up '{out}'\n" in done.stdout


def test_a_section_that_is_no_table_is_refused_under_a_flag_too(run, tmp_path):
    config = tmp_path / "engine.toml"
    config.write_text('redis = "localhost"\n[[line]]\nname = "a"\nbundle = "b"\n')
    done = run("serve", "--config", config, "--redis", "embedded")
    assert done.returncode == 2
    assert "redis: expected" in done.stderr
