"""llava-mini train as its users meet it: recipes for data in the official format, adapters, plans."""

import json
import unittest

import program
from command_line_test import PICTURE, Base

RECIPES = program.ROOT / "recipes"
# Few samples, one at a time; everything else as the recipe says.
SMALL = ("--set", "phases.0.samples=2", "--set", "phases.0.batch=2", "--set", "phases.0.accumulate=1")


def train(*arguments):
    return program.run("train", *arguments)


class OfficialData(Base):
    @classmethod
    def setUpClass(cls):
        """Pictures and a clip from the generator, a text, and a sample whose picture is damaged."""
        cls.folder = program.temporary_folder("train")
        cls.data = cls.folder / "data"
        done = program.run("scenes", "--seed", 4, "-N", 4, "--clips", 0.4, "--frames", 2, 2, "--turns", 1, 2,
                           "--out", cls.data)
        assert done.returncode == 0, done.stderr
        samples = json.loads((cls.data / "samples.json").read_text())
        assert {"image", "video"} <= {key for sample in samples for key in sample}
        turns = [{"from": "human", "value": "What is 1 + 1?"}, {"from": "gpt", "value": "2"}]
        samples.append({"id": "text", "conversations": turns})
        samples.append({"id": "bad", "image": "bad.png", "conversations": turns})
        (cls.data / "bad.png").write_text("no picture")
        (cls.data / "samples.json").write_text(json.dumps(samples))

    def stage(self, number, out, *arguments):
        file = f"phases.0.data.0.options.file={self.data / 'samples.json'}"
        done = train("--recipe", RECIPES / f"stage{number}.json", "--out", self.folder / out, *SMALL, "--set", file,
                     "--log-every", 1, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def log(self, out):
        return [json.loads(line) for line in (self.folder / out / "log.jsonl").read_text().splitlines()]

    def test_both_stages_and_an_adapter(self):
        # Once through all six samples, so that the bad one must be met.
        done = self.stage(1, "one", "--set", "phases.0.samples=6", "--checkpoint", program.CHECKPOINT,
                          "--vision-tower", program.TOWER)
        self.assertIn("1 samples could not be used", done.stderr)
        self.assertIn("sample bad", done.stderr)
        log = self.log("one")
        self.assertEqual(log[-1]["skipped"], 1)
        self.assertEqual([entry["id"] for entry in log if entry["event"] == "skipped"], [""])
        steps = [entry for entry in log if entry["event"] == "train"]
        self.assertEqual(len(steps), 3)
        self.assertEqual(set(steps[0]["rates"]), {"compressor", "projector", "prefusion"})
        self.assertLessEqual(max(max(step["rates"].values()) for step in steps), 1e-4)

        self.stage(2, "two", "--checkpoint", self.folder / "one/model")
        self.stage(2, "lora", "--checkpoint", self.folder / "one/model", "--set", 'lora={"rank": 8}', "--set",
                   "phases.0.lr.language=0", "--set", "phases.0.lr.head=0", "--set", "phases.0.lr.lora=0.3", "--set", "phases.0.schedule=constant")

        # The adapter beside the language model it began from answers as the merged model does.
        for name, checkpoint in (("merged", "lora/model"), ("base", "one/model")):
            self.ok("convert", "--checkpoint", self.folder / checkpoint, "--out", self.folder / name, "--outtype",
                    "f32")
        question = ("-n", 12, "--image", PICTURE, "What is in this picture?")
        merged = self.ok("ask", "-m", self.folder / "merged", *question).stdout
        beside = ("-m", self.folder / "base", "--mmproj", self.folder / "merged/vision.gguf")
        adapted = self.ok("ask", *beside, "--lora", self.folder / "lora/adapter.gguf", *question).stdout
        without = self.ok("ask", *beside, *question).stdout
        self.assertEqual(merged, adapted)
        self.assertNotEqual(merged, without)
        self.fails(1, "expected an adapter", "ask", *beside, "--lora", self.folder / "base/language.gguf", *question)

    def test_mistakes(self):
        def fails(code, wanted, *arguments):
            done = train(*arguments)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
            lines = [line for line in done.stderr.splitlines() if not line.endswith("%")]  # progress
            self.assertEqual(len(lines), 1, done.stderr)
            self.assertIn(wanted, lines[0])

        stage2 = ("--recipe", RECIPES / "stage2.json", "--out", self.folder / "bad")
        fails(2, "--recipe and --out are required", "--out", self.folder / "bad")
        fails(2, "expected PATH=VALUE", *stage2, "--set", "seed")
        fails(2, "--checkpoint", *stage2)
        tiny = RECIPES.parent / "models/tiny"
        fails(2, "GGUF files: give the folder of the tokenizer", *stage2, "--checkpoint", tiny)
        fails(1, "not the tokenizer of", *stage2, "--checkpoint", tiny, "--tokenizer", program.CHECKPOINT)
        fails(1, "expected a checkpoint", *stage2, "--checkpoint", self.folder)
        fails(2, "a tokenizer of its own", *stage2, "--checkpoint", program.CHECKPOINT, "--tokenizer",
              RECIPES / "tiny-tokenizer")
        self.assertFalse((self.folder / "bad/initial").exists())
        fails(1, "data/stage2.json", *stage2, "--checkpoint", program.CHECKPOINT, "--vision-tower", program.TOWER)


class Plans(Base):
    def test_plan_of_a_shape(self):
        done = train("--plan", "--shape", "llava-mini-llama-3.1-8b", "--json", "--gpus", 4)
        self.assertEqual(done.returncode, 0, done.stderr)
        plan = json.loads(done.stdout)
        self.assertEqual(plan["processes"], 4)
        self.assertEqual(len(plan["rows"]), 6)
        table = train("--plan", "--shape", "llava-mini-llama-3.1-8b", "--gpus", 4).stdout
        for row in plan["rows"]:
            self.assertIn(row["name"], table)
            self.assertIn(f"{row['hours']:.3g}", table)

    def test_plan_of_a_recipe(self):
        tiny = json.loads(train("--plan", "--recipe", RECIPES / "tiny.json", "--json").stdout)
        self.assertEqual(tiny["rows"][0]["name"], "align")
        self.assertLess(tiny["rows"][0]["parameters"], 10e6)
        stage2 = json.loads(train("--plan", "--recipe", RECIPES / "stage2.json", "--shape", "llava-mini-small",
                                  "--json").stdout)
        self.assertEqual(stage2["rows"][0]["name"], "stage 2")
        self.assertEqual(train("--plan").returncode, 2)


if __name__ == "__main__":
    unittest.main()
