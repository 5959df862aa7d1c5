"""llava-mini run and piped: answers on stdout, errors in one line on stderr, exit codes, nothing half-written."""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

import program

PICTURE = program.GOLDEN / "pictures" / "photo_640x480.jpg"
COMMANDS = ("ask", "bench", "chat", "convert", "dump", "eval", "index", "info", "quantize", "scenes", "synth", "train", "watch")


class Base(unittest.TestCase):
    def ok(self, *arguments, **options):
        done = program.run(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def fails(self, exit_code, wanted, *arguments, **options):
        """The program ends with this code, one line on stderr that holds `wanted`, and nothing on stdout."""
        done = program.run(*arguments, **options)
        what = f"llava-mini {' '.join(map(str, arguments))}\nstderr: {done.stderr}"
        self.assertEqual(done.returncode, exit_code, what)
        self.assertEqual(done.stdout, "", what)
        lines = [line for line in done.stderr.splitlines() if not line.endswith("%")]  # progress
        self.assertEqual(len(lines), 1, what)
        self.assertTrue(lines[0].startswith("llava-mini: error: "), what)
        self.assertIn(wanted, lines[0], what)

    def ask(self, *arguments, **options):
        return self.ok("ask", "-m", program.model(), "-n", "12", *arguments, **options)


class Answers(Base):
    def test_answer_alone_is_on_stdout(self):
        done = self.ask("--image", PICTURE, "What is in this picture?")
        self.assertTrue(done.stdout.endswith("\n"))
        self.assertGreater(len(done.stdout), 3)
        self.assertNotIn("llava-mini", done.stdout)

    def test_json(self):
        answer = json.loads(self.ask("--json", "--image", PICTURE, "What is in this picture?").stdout)
        self.assertEqual(answer["model"], "llava-mini-tiny-a")
        self.assertEqual(answer["vision_tokens"], 1)
        self.assertEqual(answer["generated_tokens"], 12)
        self.assertEqual(answer["stop_reason"], "max_tokens")
        self.assertEqual(answer["cached_tokens"], 0)
        self.assertGreater(answer["prompt_tokens"], 100)
        seconds = answer["seconds"]
        stages = ("preprocess", "vision_tower", "compressor", "projector", "prefusion_vision", "prefusion_text",
                  "prefill")
        for stage in stages:
            self.assertGreater(seconds[stage], 0, stage)
        self.assertAlmostEqual(seconds["time_to_first_token"], sum(seconds[stage] for stage in stages), places=6)
        streamed = self.ask("--image", PICTURE, "What is in this picture?").stdout
        self.assertEqual(streamed, answer["answer"] + "\n")

    def test_several_pictures_are_token_groups_in_order(self):
        other = program.GOLDEN / "pictures" / "square_336.png"
        both = json.loads(self.ask("--json", "--image", PICTURE, "--image", other, "Compare them.").stdout)
        self.assertEqual(both["vision_tokens"], 2)
        self.assertEqual(both["images"], [str(PICTURE), str(other)])
        one = json.loads(self.ask("--json", "--image", PICTURE, "Compare them.").stdout)
        self.assertEqual(both["prompt_tokens"], one["prompt_tokens"] + 1)
        self.assertNotEqual(both["answer"], one["answer"])

    def test_same_picture_twice_is_encoded_once(self):
        answer = json.loads(self.ask("--json", "--image", PICTURE, "--image", PICTURE, "Same?").stdout)
        self.assertEqual((answer["vision_tokens"], answer["pictures_cached"]), (2, 1))
        answer = json.loads(self.ask("--json", "--image-cache", "0", "--image", PICTURE, "--image", PICTURE,
                                     "Same?").stdout)
        self.assertEqual(answer["pictures_cached"], 0)

    def test_question_from_stdin(self):
        self.assertEqual(self.ask("-", stdin="Who are you?\n").stdout, self.ask("Who are you?").stdout)

    def test_sampling_is_repeatable(self):
        flags = ("--temp", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0")
        first = self.ask(*flags, "-s", "5", "Hi?").stdout
        self.assertEqual(self.ask(*flags, "-s", "5", "Hi?").stdout, first)
        self.assertNotEqual(self.ask(*flags, "-s", "6", "Hi?").stdout, first)

    def test_grammar_is_followed(self):
        grammar = program.temporary_folder("grammar") / "yes_no.gbnf"
        grammar.write_text('root ::= "yes" | "no"\n')
        self.assertIn(self.ask("--grammar", grammar, "Well?").stdout, ("yes\n", "no\n"))

    def test_flags_of_llama_cpp(self):
        self.ask("-ngl", "0", "-c", "512", "-t", "1", "--kv-type", "f32", "-sys", "Be brief.", "Hi?")
        self.ok("ask", "--mmproj", program.model() / "vision.gguf", "-m", program.model() / "language.gguf", "-n", "3",
                "Hi?")

    def test_kinds_of_views(self):
        square = json.loads(self.ask("--json", "--image-aspect-ratio", "square", "--image", PICTURE, "Hi?").stdout)
        large = json.loads(self.ask("--json", "--resolution-ratio", "2", "--image", PICTURE, "Hi?").stdout)
        usual = json.loads(self.ask("--json", "--image", PICTURE, "Hi?").stdout)
        self.assertEqual(len({square["answer"], large["answer"], usual["answer"]}), 3)

    def test_exif_is_obeyed_unless_told_otherwise(self):
        turned = program.GOLDEN / "pictures" / "exif6_480x320.jpg"
        self.assertNotEqual(self.ask("--image", turned, "Hi?").stdout,
                            self.ask("--image", turned, "--no-exif", "Hi?").stdout)

    def test_official_quirks_change_the_prompt(self):
        ours = json.loads(self.ask("--json", "Hi!").stdout)
        theirs = json.loads(self.ask("--json", "--official-quirks", "Hi!").stdout)
        self.assertEqual(theirs["prompt_tokens"], ours["prompt_tokens"] + 1)  # begin-of-text twice

    def test_engine_is_heard_only_when_asked(self):
        self.assertNotIn("llama", self.ask("Hi?").stderr.replace("llava-mini", ""))
        self.assertIn("llama", self.ask("-v", "Hi?").stderr.replace("llava-mini", ""))

    def test_model_from_the_environment(self):
        done = self.ok("ask", "-n", "3", "Hi?", env=program.environment(LLAVA_MINI_MODEL=str(program.model())))
        self.assertEqual(done.stdout, self.ok("ask", "-m", program.model(), "-n", "3", "Hi?").stdout)

    def test_model_beside_the_program(self):
        place = program.temporary_folder("installed")
        (place / "bin").mkdir()
        copy = shutil.copy(program.PROGRAM, place / "bin")
        lonely = subprocess.run([copy, "ask", "Hi?"], capture_output=True, text=True, env=program.environment(),
                                check=False)
        self.assertEqual(lonely.returncode, 1)
        self.assertIn("no model: name one with -m", lonely.stderr)
        shutil.copytree(program.model(), place / "share" / "llava-mini" / "models" / "tiny")
        found = subprocess.run([copy, "ask", "-n", "3", "Hi?"], capture_output=True, text=True,
                               env=program.environment(), check=False)
        self.assertEqual(found.returncode, 0, found.stderr)

    def test_example_of_the_api(self):
        done = subprocess.run([os.environ["EXAMPLE_ASK"], program.model(), PICTURE, "What is this?"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"[1-9]\d* of \d+ tokens were taken over")


class Chat(Base):
    def test_piped(self):
        saved = program.temporary_folder("saved") / "talk.md"
        lines = ["  ", "/nonsense", "/image /no/such/file.png", f"/image {PICTURE}", "What is it?", "And now?",
                 f"/save {saved}", "/reset", "/quit", "never asked"]
        done = self.ok("chat", "-m", program.model(), "-n", "4", stdin="\n".join(lines))
        self.assertEqual(done.stderr.count("llava-mini: error: "), 2)
        self.assertIn("unknown command /nonsense", done.stderr)
        text = saved.read_text()
        self.assertEqual(text.count("**Question:**"), 2)
        self.assertIn(str(PICTURE), text)
        for answer in done.stdout.splitlines():
            self.assertIn(answer, text)

    def test_end_of_input_ends_it(self):
        self.ok("chat", "-m", program.model(), "--image", PICTURE, stdin="")


class Dump(Base):
    def test_every_stage_is_written(self):
        out = program.temporary_folder("dump") / "stages"
        self.ok("dump", "-m", program.model(), "--image", PICTURE, "--prompt", "<image>\nWhat is it?", "--greedy", "3",
                "--out", out)
        names = {"input_ids", "pixel_values", "vision_features", "compressor_out", "compressor_attn",
                 "projected_compressed", "prefusion_in", "prefusion_out", "prefusion_positions", "prefusion_visible",
                 "vision_tokens", "fused_text", "inputs_embeds", "logits_last", "greedy_ids", "greedy_logits"}
        self.assertEqual({file.name for file in out.iterdir()}, {name + ".npy" for name in names})

    def test_recorded_ids_and_frames(self):
        out = program.temporary_folder("dump") / "video"
        self.ok("dump", "-m", program.model(), "--frames", program.GOLDEN / "video" / "raw_frames.npy", "--ids",
                program.GOLDEN / "cases" / "video6" / "input_ids.npy", "--official-quirks", "--out", out)
        self.assertTrue((out / "prefusion_in_frame5.npy").exists())

    def test_nothing_is_written_when_it_fails(self):
        out = program.temporary_folder("dump") / "failed"
        self.fails(1, "2 image placeholders", "dump", "-m", program.model(), "--image", PICTURE, "--prompt",
                   "<image><image>", "--out", out)
        self.assertFalse(out.exists())


class WrongUse(Base):
    def test_exit_code_2(self):
        for wanted, *arguments in (
            ("command is required",),
            ("no such command: paint", "paint"),
            ("question is required", "ask"),
            ("--temp", "ask", "--temp", "hot", "Hi?"),
            ("--kv-type", "ask", "--kv-type", "q1", "Hi?"),
            ("--image-cache", "ask", "--image-cache", "much", "Hi?"),
            ("-c", "ask", "-c", "0", "Hi?"),
            ("--resolution-ratio", "ask", "--resolution-ratio", "99", "Hi?"),
            ("expected", "ask", "Hi?", "--no-such-flag"),
            ("--out is required", "dump", "--prompt", "a"),
            ("excludes", "dump", "--prompt", "a", "--ids", "b.npy", "--out", "c"),
            ("either a prompt or token ids", "dump", "-m", program.model(), "--out", "c"),
            ("7 vision tokens", "ask", "-m", program.model(), "--vision-tokens", "7", "--image", PICTURE, "Hi?"),
        ):
            with self.subTest(arguments):
                self.fails(2, wanted, *arguments)

    def test_help_and_version(self):
        self.assertRegex(self.ok("--version").stdout, r"^llava-mini \d+\.\d+\.\d+\n$")
        everything = self.ok("--help").stdout
        for command in COMMANDS:
            self.assertIn(f"\n  {command} ", everything)
            if command == "train" and not pathlib.Path(program.PROGRAM + "-train").exists():
                self.fails(1, "this build has no trainer", "train", "--help")
                continue
            for line in self.ok(command, "--help").stdout.splitlines():
                self.assertLessEqual(len(line), 100, line)
        self.assertIn("takes the mean", " ".join(self.ok("ask", "--help").stdout.split()))


class BadInput(Base):
    """Each gives one clear line, exit code 1, no crash, nothing half-written."""

    def setUp(self):
        self.folder = program.temporary_folder("bad_input")

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def test_pictures(self):
        jpeg = PICTURE.read_bytes()
        png = (program.GOLDEN / "pictures" / "square_336.png").read_bytes()
        fifo = self.folder / "fifo.png"
        if not fifo.exists():
            os.mkfifo(fifo)
        for wanted, picture in (
            ("missing.png: cannot open", self.folder / "missing.png"),
            ("found a directory", self.folder),
            ("found a named pipe", fifo),
            ("found a device", pathlib.Path("/dev/zero")),
            ("empty.jpg", self.file("empty.jpg", b"")),
            ("cut.jpg", self.file("cut.jpg", jpeg[: len(jpeg) // 2])),
            ("cut.png", self.file("cut.png", png[: len(png) // 2])),
            ("text.jpg", self.file("text.jpg", b"no picture at all\n" * 50)),
            # 60000 x 60000 pixels say the 33 bytes of a header.
            ("bomb.png", self.file("bomb.png", png[:16] + bytes.fromhex("0000ea600000ea60") + png[24:])),
        ):
            with self.subTest(picture.name):
                self.fails(1, wanted, "ask", "-m", program.model(), "--image", picture, "Hi?")

    def test_picture_with_the_wrong_extension_is_read_all_the_same(self):
        self.ask("--image", self.file("really_a_jpeg.png", PICTURE.read_bytes()), "Hi?")

    def test_pixel_limit(self):
        self.fails(1, "640 x 480 pixels, at most 100000", "ask", "-m", program.model(), "--max-pixels", "100000", "--image", PICTURE, "Hi?")

    def test_questions(self):
        for wanted, *arguments in (
            ("the question is empty", ""),
            ("the question is empty", " \t"),
            ("the question is empty", "-"),
            ("no picture", "<image> what?"),
        ):
            with self.subTest(arguments):
                self.fails(1, wanted, "ask", "-m", program.model(), *arguments, stdin="\n")

    def test_prompt_longer_than_the_context_names_both_numbers(self):
        done = program.run("ask", "-m", program.model(), "-c", "256", "word " * 600)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^llava-mini: error: the prompt has \d{3,4} tokens .* 256\b")

    def test_outputs_that_are_no_files_are_not_replaced(self):
        for wanted, out in (("found a device", pathlib.Path("/dev/null")), ("found a directory", self.folder)):
            with self.subTest(out):
                self.fails(1, wanted, "quantize", program.model() / "vision.gguf", out, "q8_0")
                self.assertFalse(out.is_file())

    def test_model_that_is_a_pipe(self):
        folder = program.temporary_folder("bad_input/pipes")
        for name in ("language.gguf", "vision.gguf"):
            if not (folder / name).exists():
                os.mkfifo(folder / name)
        self.fails(1, "found a named pipe", "ask", "-m", folder, "Hi?")

    def test_models(self):
        language = (program.model() / "language.gguf").read_bytes()
        vision = (program.model() / "vision.gguf").read_bytes()

        def folder(name, language_bytes, vision_bytes):
            path = program.temporary_folder("bad_input/" + name)
            (path / "language.gguf").write_bytes(language_bytes)
            (path / "vision.gguf").write_bytes(vision_bytes)
            return path

        no_vision = program.temporary_folder("bad_input/no_vision")
        (no_vision / "language.gguf").write_bytes(language)
        for wanted, path in (
            ("no such file", self.folder / "nowhere"),
            ("vision.gguf: no such file", no_vision),
            ("language.gguf", folder("cut_language", language[:-5000], vision)),
            ("vision.gguf", folder("cut_vision", language, vision[:-5000])),
            ("vision.gguf", folder("empty_vision", language, b"")),
            ("vision.gguf", folder("text_vision", language, b"hello " * 100)),
            ("architecture", folder("swapped", vision, language)),
            ("architecture", folder("two_visions", vision, vision)),
            ("architecture", folder("two_languages", language, language)),
        ):
            with self.subTest(path.name):
                self.fails(1, wanted, "ask", "-m", path, "Hi?")

    def test_kv_type_that_the_models_heads_do_not_allow(self):
        # Heads of 16 are no multiple of q8_0's blocks of 32.
        self.fails(1, "q8_0", "ask", "-m", program.model(), "--kv-type", "q8_0", "Hi?")

    def test_grammars(self):
        self.fails(1, "missing.gbnf", "ask", "-m", program.model(), "--grammar", self.folder / "missing.gbnf", "Hi?")
        bad = self.file("bad.gbnf", b'root ::= "open\n')
        self.fails(1, "grammar", "ask", "-m", program.model(), "--grammar", bad, "Hi?")

    def test_checkpoints_leave_nothing_behind(self):
        checkpoint = program.temporary_folder("bad_input/checkpoint")
        for file in program.CHECKPOINT.iterdir():
            shutil.copy(file, checkpoint)
        shard = checkpoint / "model-00002-of-00004.safetensors"
        shard.write_bytes(shard.read_bytes()[:-100])
        out = self.folder / "converted"
        for wanted, path in ((shard.name, checkpoint), ("nowhere: cannot open", self.folder / "nowhere"),
                             ("safetensors", program.temporary_folder("bad_input/empty"))):
            with self.subTest(path.name):
                self.fails(1, wanted, "convert", "--checkpoint", path, "--vision-tower", program.TOWER, "--out", out)
                self.assertEqual(list(out.iterdir()) if out.exists() else [], [])

    def test_stdout_that_takes_nothing(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([program.PROGRAM, "ask", "-m", program.model(), "-n", "3", "Hi?"], stdout=full,
                                  stderr=subprocess.PIPE, text=True, env=program.environment(), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to stdout", done.stderr)


if __name__ == "__main__":
    unittest.main()
