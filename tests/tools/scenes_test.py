"""llava-mini scenes and eval: reproducible, whole or not at all, with figures that add up."""

import filecmp
import json
import pathlib
import unittest

import program
from command_line_test import Base


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


class Scenes(Base):
    def test_the_seed_makes_the_files(self):
        folder = program.temporary_folder("scenes")
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            self.ok("scenes", "--seed", seed, "-N", 8, "--clips", 0.3, "--out", folder / name)
        files = files_below(folder / "a")
        self.assertEqual(files, files_below(folder / "b"))
        self.assertIn("samples.json", files)
        self.assertEqual(filecmp.cmpfiles(folder / "a", folder / "b", files, shallow=False)[0], files)
        self.assertNotEqual((folder / "a/samples.json").read_bytes(), (folder / "c/samples.json").read_bytes())
        samples = json.loads((folder / "a/samples.json").read_text())
        self.assertEqual(len(samples), 8)
        for sample in samples:
            self.assertTrue((folder / "a" / (sample.get("image") or sample["video"])).exists())
            self.assertEqual(len(sample["conversations"]), 2 * len(sample["types"]))

    def test_examples_are_what_the_script_makes(self):
        """Seeds and code still give the pictures in examples/ (as texts: pixels depend on the fonts' version)."""
        folder = program.temporary_folder("examples")
        examples = program.ROOT / "examples" / "scenes"
        common = ("scenes", "--split", "test", "--seed", 2026)
        self.ok(*common, "-N", 12, "--turns", 4, 6, "--out", folder / "pictures")
        self.ok(*common, "-N", 2, "--clips", 1, "--frames", 6, 8, "--turns", 3, 4, "--out",
                folder / "clips")
        for part in ("pictures", "clips"):
            self.assertEqual(files_below(folder / part), files_below(examples / part))
            self.assertEqual((folder / part / "samples.json").read_text(), (examples / part / "samples.json").read_text())

    def test_sheet_and_priors(self):
        sheet = program.temporary_folder("sheet") / "sheet.png"
        done = self.ok("scenes", "-N", 600, "--split", "val", "--stats", "--json")
        stats = json.loads(done.stdout)
        self.assertGreater(stats["samples_per_second"], 20)
        priors = {prior["type"]: prior for prior in stats["priors"]}
        self.assertLess(priors["exist"]["constant"], 0.6)
        self.assertEqual(sum(p["questions"] for t, p in priors.items() if t != "all"), priors["all"]["questions"])
        self.ok("scenes", "-N", 3, "--clips", 0.5, "--sheet", sheet)
        self.assertEqual(sheet.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_wrong_usage(self):
        folder = program.temporary_folder("full")
        (folder / "file").write_text("x")
        self.fails(2, "nothing to do", "scenes")
        self.fails(2, "is there already", "scenes", "--out", folder)
        self.fails(2, "'smell' is no type of question", "scenes", "--stats", "--weight", "smell=1")
        self.fails(2, "expected TYPE=NUMBER", "scenes", "--stats", "--weight", "what")
        self.fails(2, "things in a picture", "scenes", "--stats", "--things", 5, 2)
        self.fails(1, "Debian package fonts-noto-color-emoji", "scenes", "--stats", "--fonts", "/nowhere")
        self.assertEqual(files_below(folder), ["file"])


class Eval(Base):
    def eval(self, *arguments):
        return self.ok("eval", "-m", program.model(), "-n", 3, *arguments)

    def test_scenes_on_the_fly_equal_those_on_disk(self):
        folder = program.temporary_folder("eval")
        options = ("--split", "val", "--seed", 3, "--turns", 1, 2)
        self.ok("scenes", *options, "-N", 4, "--out", folder / "data")
        on_the_fly = self.eval(*options, "-N", 4, "-j", 2, "--json", "--out", folder / "a.jsonl")
        on_disk = self.eval("--data", folder / "data/samples.json", "--json", "--out", folder / "b.jsonl")
        self.assertEqual(on_the_fly.stdout, on_disk.stdout)
        self.assertEqual((folder / "a.jsonl").read_text(), (folder / "b.jsonl").read_text())
        answers = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
        self.assertEqual({*answers[0]}, {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"})
        scores = json.loads(on_the_fly.stdout)
        self.assertEqual(scores["types"][-1]["type"], "all")
        self.assertEqual(scores["types"][-1]["questions"], len(answers))

    def test_long_clips(self):
        scores = json.loads(self.eval("--long", 5, "-N", 1, "--size", 32, "--json").stdout)
        self.assertEqual({score["type"] for score in scores["types"]}, {"after", "before", "seen", "when", "all"})

    def test_bad_samples_are_named(self):
        folder = program.temporary_folder("bad")
        turns = [{"from": "human", "value": "What is 1 + 1?"}, {"from": "gpt", "value": "2"}]
        data = [{"id": "text", "conversations": turns}, {"id": "gone", "image": "gone.png", "conversations": turns}]
        (folder / "data.json").write_text(json.dumps(data))
        done = self.eval("--data", folder / "data.json")
        self.assertIn("left out as bad: 1", done.stderr)
        self.assertIn("number 1 (gone): ", done.stderr)
        (folder / "broken.json").write_text("[{]")
        self.fails(1, "broken.json: not valid JSON", "eval", "-m", program.model(), "--data", folder / "broken.json")


if __name__ == "__main__":
    unittest.main()
