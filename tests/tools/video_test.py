"""Videos as users meet them: asked about, indexed (and killed at it), watched live from a real sender."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import unittest

import program

FFMPEG = "ffmpeg"
FOLDER = program.temporary_folder("videos")


def make_video(name, seconds, *flags, size="64x48", rate=10):
    path = FOLDER / name
    if not path.exists():
        subprocess.run([FFMPEG, "-loglevel", "error", "-f", "lavfi", "-i",
                        f"testsrc=size={size}:rate={rate}:duration={seconds}", "-pix_fmt", "yuv420p", *flags, path],
                       check=True, timeout=60)
    return path


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sender(*target):
    """A live camera: real time, MPEG-TS."""
    return subprocess.Popen([FFMPEG, "-loglevel", "quiet", "-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10",
                             "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10",
                             "-pix_fmt", "yuv420p", "-f", "mpegts", *target])


def kill(process):
    process.kill()
    process.wait()


class Base(unittest.TestCase):
    def run_ok(self, *arguments, **options):
        done = program.run(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done


class Asking(Base):
    def test_answer_plan_and_report(self):
        video = make_video("ten.mp4", 10)
        done = self.run_ok("ask", "-m", program.model(), "--video", video, "-n", "6", "--json", "What happens?")
        answer = json.loads(done.stdout)
        self.assertEqual(answer["vision_tokens"], 10)
        self.assertEqual(answer["video"]["facts"]["frames"], 100)
        self.assertEqual(answer["video"]["report"]["frames"], 10)
        plan = [line for line in done.stderr.splitlines() if "10 frames, about" in line]
        self.assertEqual(len(plan), 1, done.stderr)
        self.assertIn("MiB of memory", plan[0])
        text = self.run_ok("ask", "-m", program.model(), "--video", video, "-n", "6", "What happens?").stdout
        self.assertEqual(text, answer["answer"] + "\n")

    def test_standard_input_and_http(self):
        video = make_video("ten.ts", 10)
        arguments = [program.PROGRAM, "ask", "-m", program.model(), "--max-frames", "4", "-n", "2", "--json", "What?"]
        with open(video, "rb") as file:
            piped = subprocess.run([*map(str, arguments), "--video", "-"], stdin=file, capture_output=True,
                                   env=program.environment(), timeout=60, check=True)
        self.assertEqual(json.loads(piped.stdout)["vision_tokens"], 4)
        port = free_port()
        server = subprocess.Popen(["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", FOLDER,
                                   str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            make_video("ten.mp4", 10)
            done = self.run_ok("ask", "-m", program.model(), "-n", "2", "--json", "--video",
                               f"http://127.0.0.1:{port}/ten.mp4", "What?")
            self.assertEqual(json.loads(done.stdout)["vision_tokens"], 10)
        finally:
            kill(server)

    def test_look_again(self):
        video, index = make_video("ten.mp4", 10), FOLDER / "ten.index"
        self.run_ok("index", video, "-o", index, "-m", program.model(), "--fusion-frames", "2")
        for source in (("--video", video), ("--index", index)):
            done = self.run_ok("ask", "-m", program.model(), *source, "--look-again", "3", "-n", "4", "--json",
                               "--evidence", FOLDER / "sheet.png", "What happens?")
            answer = json.loads(done.stdout)
            shares = [frame["share"] for frame in answer["looked_again"]]
            self.assertEqual(len(shares), 3)
            self.assertEqual(shares, sorted(shares, reverse=True))
            self.assertEqual(len(answer["evidence"]), 10)
            self.assertEqual(answer["vision_tokens"], 10)
            self.assertGreater(answer["seconds"]["look_again"], 0)
            self.assertIn("looked again at 0:0", done.stderr)
        done = self.run_ok("chat", "-m", program.model(), "--index", index, "--look-again", "20", "-n", "4",
                           stdin="What happens?\nWhy?\n")
        self.assertEqual(done.stderr.count("looked again at"), 2)
        self.assertIn("and 2 more", done.stderr)

    def test_look_again_needs_a_file(self):
        video = make_video("ten.ts", 10)
        with open(video, "rb") as file:
            piped = subprocess.run([program.PROGRAM, "ask", "-m", str(program.model()), "--video", "-", "--look-again",
                                    "3", "What?"], stdin=file, capture_output=True, text=True,
                                   env=program.environment(), timeout=60, check=False)
        self.assertEqual(piped.returncode, 2, piped.stderr)
        self.assertIn("only files allow", piped.stderr)
        self.assertEqual(len(piped.stderr.splitlines()), 1)
        none = program.run("ask", "-m", program.model(), "--look-again", "3", "What?")
        self.assertEqual(none.returncode, 2)
        self.assertIn("--look-again needs --video or --index", none.stderr)
        gone, index = FOLDER / "gone.ts", FOLDER / "gone.index"
        gone.write_bytes(video.read_bytes())
        self.run_ok("index", gone, "-o", index, "-m", program.model(), "--fusion-frames", "2")
        gone.unlink()
        done = program.run("ask", "-m", program.model(), "--index", index, "--look-again", "3", "What?")
        self.assertEqual(done.returncode, 1)
        self.assertIn("looking again needs the video", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_errors_are_one_line(self):
        empty = FOLDER / "empty.mp4"
        empty.write_bytes(b"")
        for arguments, code, wanted in (
                (("--video", empty), 1, "empty (0 bytes)"),
                (("--video", FOLDER / "missing.mp4"), 1, "missing.mp4"),
                (("--video", "gopher://x/y"), 1, "unknown kind of address"),
                (("--video", make_video("ten.mp4", 10), "-c", "110"), 1, "has room for 110"),
                (("--video", make_video("ten.mp4", 10), "--hwaccel", "abacus"), 2, "abacus"),
                (("--index", empty), 1, "not a video index")):
            done = program.run("ask", "-m", program.model(), *arguments, "What?")
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn(wanted, done.stderr)

    def test_chat(self):
        video = make_video("ten.mp4", 10)
        done = self.run_ok("chat", "-m", program.model(), "-n", "4",
                           stdin=f"/video {video}\nWhat happens?\nWhy?\n/quit\n")
        self.assertEqual(done.stdout.count("\n") >= 2, True)
        self.assertIn("it is looked at with the next question", done.stderr)


class Indexing(Base):
    def test_killed_work_is_gone_on_with(self):
        video = make_video("forty.mp4", 40)
        index = FOLDER / "forty.index"
        arguments = ("index", video, "-o", index, "-m", program.model(), "--segment", "4")
        running = subprocess.Popen([program.PROGRAM, *map(str, arguments)], env=program.environment(),
                                   stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while time.time() < deadline and (not index.exists() or index.stat().st_size < 600_000):
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        refused = program.run("ask", "-m", program.model(), "--index", index, "What?")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("not complete", refused.stderr)
        result = json.loads(self.run_ok(*arguments, "--json").stdout)
        self.assertEqual(result["frames"], 40)
        self.assertLess(result["made"], 40)
        self.assertGreater(result["made"], 0)
        answer = json.loads(self.run_ok("ask", "-m", program.model(), "--index", index, "-n", "3", "--json",
                                        "What happens?").stdout)
        self.assertEqual(answer["vision_tokens"], 40)
        self.assertEqual(answer["seconds"]["vision_tower"], 0)
        self.assertEqual(json.loads(self.run_ok(*arguments, "--json").stdout)["made"], 0)


class Measuring(Base):
    def test_bench(self):
        svg = FOLDER / "memory.svg"
        done = self.run_ok("bench", "-m", program.model(), "--against", "none", "--video", make_video("ten.mp4", 10),
                           "--video-frames", "2", "--video-prefill", "600", "--json", "--svg", svg)
        result = json.loads(done.stdout)
        self.assertGreater(result["reader"]["times_real_time"], 5)
        self.assertEqual(result["model"]["vision_tokens"], 1)
        self.assertEqual(result["model"]["kv_bytes_f16"], 3 * 2 * 32 * 2)
        for stage in ("vision_tower", "prefusion_vision", "prefusion_text", "prefill"):
            self.assertGreater(result["model"]["seconds"][stage], 0, stage)
            self.assertGreater(result["model"]["flops"][stage], 0, stage)
        self.assertEqual(result["prefill"]["tokens"], 600)
        self.assertIn("24 GiB", svg.read_text())


class Watching(Base):
    def watch(self, source, *flags):
        return subprocess.Popen([program.PROGRAM, "watch", source, "--ask", "What happens?", "--every", "1s",
                                 "--window", "5s", "-m", str(program.model()), "-n", "2", "--json", *flags],
                                env=program.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, watcher):
        watcher.send_signal(signal.SIGINT)
        out, err = watcher.communicate(timeout=60)
        self.assertEqual(watcher.returncode, 0, err)
        return [json.loads(line) for line in out.splitlines()], err

    def test_tcp_cut_off_and_started_again(self):
        port = free_port()
        target = f"tcp://127.0.0.1:{port}"
        camera = sender(target + "?listen=1")
        watcher = self.watch(target)
        try:
            first = [json.loads(watcher.stdout.readline()) for _ in range(3)]
            kill(camera)
            time.sleep(1.5)
            camera = sender(target + "?listen=1")
            again = [json.loads(watcher.stdout.readline()) for _ in range(6)]
            rest, errors = self.finish(watcher)
        finally:
            kill(camera)
            kill(watcher)
        answers = first + again + rest
        self.assertIn("trying again in", errors)
        self.assertGreaterEqual(errors.count("watching tcp"), 2)
        self.assertEqual(max(answer["frames"] for answer in answers), 5)  # the window
        self.assertEqual([a["seconds"] for a in answers], sorted(a["seconds"] for a in answers))
        for answer in answers:
            self.assertEqual(answer["vision_tokens"], answer["frames"])
            self.assertLess(answer["prompt_tokens"], 150)

    def test_udp_and_http(self):
        for kind, target, source in (
                (socket.SOCK_DGRAM, "udp://127.0.0.1:{}?pkt_size=1316", "udp://127.0.0.1:{}"),
                (socket.SOCK_STREAM, "http://127.0.0.1:{}", "http://127.0.0.1:{}")):
            port = free_port(kind)
            flags = ("-listen", "1") if target.startswith("http") else ()
            watcher = self.watch(source.format(port))
            camera = sender(*flags, target.format(port))
            try:
                answers = [json.loads(watcher.stdout.readline()) for _ in range(2)]
                self.finish(watcher)
            finally:
                kill(camera)
                kill(watcher)
            self.assertGreaterEqual(answers[1]["frames"], 1)

    def test_a_fast_source_is_thinned_out(self):
        video = make_video("forty.ts", 40)
        watcher = self.watch(str(video), "--fps", "10")
        try:
            for _ in range(3):
                last = json.loads(watcher.stdout.readline())
            _, errors = self.finish(watcher)
        finally:
            kill(watcher)
        self.assertGreater(last["dropped"], 0)
        self.assertIn("dropped evenly", errors)

    def test_interrupt_while_waiting(self):
        watcher = self.watch(f"tcp://127.0.0.1:{free_port()}")
        try:
            time.sleep(1)
            answers, errors = self.finish(watcher)
        finally:
            kill(watcher)
        self.assertEqual(answers, [])
        self.assertIn("trying again", errors)


if __name__ == "__main__":
    unittest.main()
