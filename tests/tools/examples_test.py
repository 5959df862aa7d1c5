"""The model in the repository: asked all questions of examples/scenes, and what README.md says that it answers."""

import json
import subprocess
import sys
import unittest

import program

MODEL = program.ROOT / "models" / "tiny"
EXAMPLES = program.ROOT / "examples" / "scenes"


class Examples(unittest.TestCase):
    def answers(self, kind):
        """Answers to all questions of a kind of example, and the share that is right."""
        out = program.temporary_folder("examples") / f"{kind}.jsonl"
        done = program.run("eval", "-m", MODEL, "--data", EXAMPLES / kind / "samples.json", "--out", out, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        asked = sum(len(sample["conversations"]) // 2
                    for sample in json.loads((EXAMPLES / kind / "samples.json").read_text()))
        self.assertEqual(len(answers), asked)
        self.assertTrue(all(answer["text"] for answer in answers))
        right = {entry["type"]: entry["exact"]["value"] for entry in json.loads(done.stdout)["types"]}["all"]
        for answer in answers:
            print(f"\n{answer['question_id']}: {answer['prompt']} {answer['text']} ({answer['metadata']['answer']})",
                  end="")
        print(f"\n{kind}: {100 * right:.0f} % right", end=" ")
        return right

    # The model card says how often answers are right; a broken model gets none or the commonest ones.
    def test_pictures(self):
        self.assertGreaterEqual(self.answers("pictures"), 0.7)

    def test_clips(self):
        self.assertGreaterEqual(self.answers("clips"), 0.5)

    def test_it_is_the_default(self):
        picture = EXAMPLES / "pictures" / "images" / "test-2026-1.png"
        named = program.run("ask", "-m", MODEL, "--image", picture, "Describe the picture.")
        default = program.run("ask", "--image", picture, "Describe the picture.")
        self.assertEqual(default.returncode, 0, default.stderr)
        self.assertEqual(default.stdout, named.stdout)

    def test_readme_says_what_it_answers(self):
        done = subprocess.run([sys.executable, program.ROOT / "scripts" / "readme-answers", "--check"],
                              env=program.environment(LLAVA_MINI=str(program.PROGRAM)), capture_output=True, text=True,
                              timeout=program.TIMEOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
