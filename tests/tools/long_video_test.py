"""A long video through the whole path: every frame looked at, memory explained by vision tokens and KV cache.

Minutes come from LONG_VIDEO_MINUTES (180 for the three hours that the README speaks of)."""

import json
import os
import subprocess
import tempfile
import unittest

import program

MINUTES = int(os.environ.get("LONG_VIDEO_MINUTES", "20"))
SHORT = 10 if MINUTES > 20 else 2
MAY_GROW = 64 << 20
EXPLAINED = 64 * 2 + 3 * 2 * 32 * 2  # bytes a frame: a vision token of width 64, its keys and values, f16
# The context's own buffers grow with its length: the mask and scores of a batch of 512 rows.
BUFFERS = 512 * (4 + 4 * 4)


class LongVideo(unittest.TestCase):
    def peak(self, minutes, folder):
        video = os.path.join(folder, f"{minutes}.mp4")
        subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i",
                        f"testsrc=size=64x48:rate=5:duration={60 * minutes}", "-c:v", "libx264", "-preset",
                        "ultrafast", "-pix_fmt", "yuv420p", video], check=True)
        # A child of its own, so that the peak is this run's.
        code = ("import resource, subprocess, sys\n"
                "done = subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL, check=True, stdout=subprocess.PIPE)\n"
                "sys.stdout.buffer.write(done.stdout)\n"
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n")
        done = subprocess.run(["python3", "-c", code, program.PROGRAM, "ask", "-m", program.model(), "--video", video,
                               "-c", str(60 * minutes + 512), "-n", "4", "--json", "What happens?"],
                              capture_output=True, text=True, check=True, env=program.environment())
        answer = json.loads(done.stdout)
        self.assertEqual(answer["vision_tokens"], 60 * minutes)
        self.assertEqual(answer["video"]["report"]["frames"], 60 * minutes)
        self.assertEqual(answer["video"]["report"]["damaged_packets"], 0)
        return int(done.stderr) * 1024

    def test_memory_does_not_grow(self):
        with tempfile.TemporaryDirectory() as folder:
            short, long = self.peak(SHORT, folder), self.peak(MINUTES, folder)
        explained = 60 * (MINUTES - SHORT) * (EXPLAINED + BUFFERS)
        print(f"\npeak memory: {short / 2**20:.1f} MiB with {SHORT} minutes, {long / 2**20:.1f} MiB with {MINUTES}, "
              f"of the difference {explained / 2**20:.1f} MiB are tokens, KV cache and its buffers")
        self.assertLess(long, short + explained + MAY_GROW)


if __name__ == "__main__":
    unittest.main()
