"""llava-mini chat in a real terminal: editing, history, Ctrl-C, Ctrl-D, commands. Driven through tmux."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import time
import unittest

import program

WAIT = 60  # seconds until something that must appear counts as missing


class Terminal:
    """One tmux server with one window in which a command runs."""

    def __init__(self, command, cwd, env):
        self.socket = f"llava-mini-test-{os.getpid()}-{time.monotonic_ns()}"
        # Ctrl-C goes to the shell as well, which must outlive it; the exit code stays on the screen.
        script = f"trap : INT; {shlex.join(map(str, command))}; echo \"exit code $?.\"; exec sleep 1000"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "50", "sh", "-c", script,
                  cwd=cwd, env={**env, "TERM": "xterm", "LC_ALL": "C.UTF-8"})

    def tmux(self, *arguments, **options):
        done = subprocess.run(["tmux", "-L", self.socket, *arguments], capture_output=True, text=True, timeout=30,
                              check=False, **options)
        if done.returncode != 0:
            raise AssertionError(f"tmux {arguments[0]}: {done.stderr}")
        return done.stdout

    def screen(self):
        return self.tmux("capture-pane", "-p", "-S", "-")

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def key(self, *names):
        self.tmux("send-keys", *names)

    def wait(self, wanted, what):
        """Waits until `wanted(screen)` holds."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            screen = self.screen()
            if wanted(screen):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}; the terminal shows:\n{self.screen()}")

    def wait_for(self, text, times=1):
        return self.wait(lambda screen: screen.count(text) >= times, repr(text))

    def wait_for_prompt(self):
        return self.wait(lambda screen: screen.rstrip().splitlines()[-1:] == [">"], "an empty prompt")

    def close(self):
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], capture_output=True, check=False)


class ChatInATerminal(unittest.TestCase):
    def setUp(self):
        self.folder = program.temporary_folder(self.id().rsplit(".", 1)[-1])
        shutil.copy(program.GOLDEN / "pictures" / "square_336.png", self.folder / "harbour picture.png")
        # An answer that never ends by itself.
        (self.folder / "endless.gbnf").write_text('root ::= "ab " root\n')
        suppressions = pathlib.Path(__file__).with_name("lsan_suppressions.txt")
        self.env = program.environment(LLAVA_MINI_CACHE=str(self.folder / "cache"), HOME=str(self.folder),
                                       LSAN_OPTIONS=f"suppressions={suppressions}:print_suppressions=0")

    def start(self, *arguments):
        command = [program.PROGRAM, "chat", "-m", program.model(), *arguments]
        terminal = Terminal(command, self.folder, self.env)
        self.addCleanup(terminal.close)
        terminal.wait_for_prompt()
        return terminal

    def test_conversation(self):
        terminal = self.start("--grammar", "endless.gbnf", "-n", "0", "-c", "100000")
        terminal.wait_for("/help lists the commands")

        # Editing: a letter put in at the left.
        terminal.type("/hlp")
        terminal.key("Left", "Left")
        terminal.type("e")
        terminal.key("Enter")
        terminal.wait_for("/save FILE")
        terminal.wait_for_prompt()

        # A turn that fails is not the end.
        terminal.type("/image missing.png")
        terminal.key("Enter")
        terminal.wait_for("llava-mini: error: missing.png: cannot open")
        terminal.wait_for_prompt()

        terminal.type("/image harbour picture.png")
        terminal.key("Enter")
        terminal.wait_for("added harbour picture.png")

        # Ctrl-C stops the answer, not the program.
        terminal.type("What is tò see?")
        terminal.key("Enter")
        terminal.wait_for("ab ab ab ab")
        terminal.key("C-c")
        terminal.wait_for("(stopped)")
        terminal.wait_for_prompt()

        # History, and Ctrl-C on a line drops it.
        terminal.key("Up")
        terminal.wait(lambda screen: screen.rstrip().endswith("> What is tò see?"), "the last question")
        terminal.key("C-c")
        terminal.wait_for_prompt()
        self.assertNotIn("again", terminal.screen())

        terminal.type("/save talk.json")
        terminal.key("Enter")
        terminal.wait_for("saved talk.json")
        saved = json.loads((self.folder / "talk.json").read_text())
        self.assertEqual(saved["images"], ["harbour picture.png"])
        self.assertEqual([turn["question"] for turn in saved["turns"]], ["What is tò see?"])
        self.assertTrue(saved["turns"][0]["answer"].startswith("ab ab"))

        # Ctrl-C on an empty line asks once, then leaves.
        terminal.wait_for_prompt()
        terminal.key("C-c")
        terminal.wait_for("Ctrl-C again or Ctrl-D to quit")
        terminal.wait_for_prompt()
        terminal.type("/reset")
        terminal.key("Enter")
        terminal.wait_for("the conversation is forgotten")
        terminal.wait_for_prompt()
        terminal.key("C-c")
        terminal.wait_for("Ctrl-C again or Ctrl-D to quit", times=2)
        terminal.key("C-c")
        terminal.wait_for("exit code 0.")

        # Lines are remembered from one run to the next.
        history = pathlib.Path(self.env["LLAVA_MINI_CACHE"]) / "chat_history"
        self.assertEqual(history.stat().st_mode & 0o077, 0, "what was typed is nobody else's business")
        terminal = self.start()
        terminal.key("Up")
        terminal.wait(lambda screen: screen.rstrip().endswith("> /reset"), "the last line of the run before")
        terminal.key("C-c")
        terminal.wait_for_prompt()
        terminal.key("C-d")
        terminal.wait_for("exit code 0.")

    def test_tab_completes_file_names(self):
        shutil.copy(self.folder / "harbour picture.png", self.folder / "square.png")
        terminal = self.start()
        terminal.type("/image squ")
        terminal.key("Tab")
        terminal.wait_for("/image square.png")
        terminal.key("Enter")
        terminal.wait_for("added square.png")
        terminal.type("/quit")
        terminal.key("Enter")
        terminal.wait_for("exit code 0.")


if __name__ == "__main__":
    unittest.main()
