"""What the tests of the program share: where it is, how it is run, the converted model of the recordings."""

import atexit
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PROGRAM = os.environ["LLAVA_MINI"]
CHECKPOINT = GOLDEN / "models" / "llava-mini-tiny-a"
TOWER = GOLDEN / "models" / "openai" / "clip-vit-tiny-a-patch14-336"
TIMEOUT = 120  # seconds for one run, far more than any needs

_temporary = pathlib.Path(tempfile.mkdtemp(prefix="llava-mini-tools-"))
atexit.register(shutil.rmtree, _temporary, ignore_errors=True)


def temporary_folder(name):
    """A folder that lives as long as the tests."""
    folder = _temporary / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(**extra):
    """The tests' own cache and no model but the one named."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LLAVA_MINI")}
    return {**clean, "LLAVA_MINI_CACHE": str(temporary_folder("cache")), **extra}


def run(*arguments, stdin=None, cwd=None, env=None, timeout=TIMEOUT):
    """Runs llava-mini; stdout and stderr come as text."""
    return subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, text=True, cwd=cwd,
                          env=env or environment(), timeout=timeout, check=False, errors="replace")


_model = None


def model():
    """Folder of the recordings' model, converted by the program at the first call."""
    global _model
    if _model is None:
        folder = temporary_folder("model")
        done = run("convert", "--checkpoint", CHECKPOINT, "--vision-tower", TOWER, "--out", folder)
        assert done.returncode == 0, done.stderr
        _model = folder
    return _model
