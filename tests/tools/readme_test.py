"""The examples of README.md are run: every command of llava-mini in a block marked `sh`, as it stands there.

The files they name are there: the recordings' checkpoint and tower under the names of the official ones, and pictures.
"""

import os
import re
import shutil
import subprocess
import unittest

import program


def example_lines():
    """(line number, command) of every line that a person could type to see llava-mini at work."""
    inside, number, pending = False, 0, ""
    for number, line in enumerate((program.ROOT / "README.md").read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```sh"
            continue
        if not inside:
            continue
        pending += line.rstrip("\\")
        if line.endswith("\\"):
            continue
        if re.search(r"(^|\| )llava-mini ", pending):
            yield number, pending
        pending = ""


class ReadmeExamples(unittest.TestCase):
    def test_commands_work(self):
        folder = program.temporary_folder("readme")
        shutil.copytree(program.CHECKPOINT, folder / "llava-mini-llama-3.1-8b")
        shutil.copytree(program.TOWER, folder / "clip-vit-large-patch14-336")
        pictures = program.GOLDEN / "pictures"
        shutil.copy(program.ROOT / "examples" / "photo.jpg", folder / "photo.jpg")
        shutil.copy(pictures / "square_336.png", folder / "before.png")
        shutil.copy(pictures / "rgba_300x200.png", folder / "after.png")
        (folder / "yes-or-no.gbnf").write_text('root ::= "Yes." | "No."\n')
        shutil.copy(program.GOLDEN / "cases" / "single_short" / "input_ids.npy", folder / "ids.npy")
        subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=10:duration=8",
                        "-pix_fmt", "yuv420p", folder / "talk.mp4"], check=True, timeout=60)
        binary = folder / "bin"
        binary.mkdir()
        (binary / "llava-mini").symlink_to(program.PROGRAM)
        env = program.environment(PATH=f"{binary}:{os.environ['PATH']}")

        commands = list(example_lines())
        self.assertGreaterEqual(len(commands), 8, "README.md has lost its examples")
        for number, command in commands:
            with self.subTest(line=number, command=command):
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=env, text=True,
                                      capture_output=True, stdin=subprocess.DEVNULL, timeout=program.TIMEOUT,
                                      check=False, errors="replace")
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_first_two_commands_are_there(self):
        blocks = re.findall(r"```sh\n(.*?)```", (program.ROOT / "README.md").read_text(), re.S)
        opening = blocks[0].strip().splitlines() + blocks[1].strip().splitlines()
        self.assertEqual(opening, ["scripts/demo", "scripts/test"])
        for script in opening:
            self.assertTrue(os.access(program.ROOT / script, os.X_OK), script)


if __name__ == "__main__":
    unittest.main()
