"""Owns kills: a run in a process of its own is ended by SIGKILL at random moments, again and again, until it is done.

`python kills.py` serves: a line "MODULE FUNCTION ARGUMENT PATH SEGMENT SECONDS" starts the run of
MODULE.FUNCTION(ARGUMENT), with its checkpoint at PATH, in a child that is killed SECONDS after its first launch; the
answer is "killed" or "done".
"""

import importlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import fastsgd as fs
from fastsgd import checkpoint


class Killer:
    """A process that starts runs and kills them; it forks, and never runs anything itself."""

    def __enter__(self):
        self.server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       text=True)
        return self

    def __exit__(self, *_):
        self.server.stdin.close()
        self.server.wait()

    def run(self, module, function, argument, path, segment, seconds):
        """Start a run and kill it after so many seconds; returns whether it was done before."""
        print(module, function, argument, path, segment, seconds, file=self.server.stdin, flush=True)
        return self.server.stdout.readline().strip() == "done"

    def until_done(self, module, function, argument, folder, segment, rng, most=20):
        """Kill a run at random moments until it is done, and look at what each kill leaves.

        most: kills; the last start is left to its end
        Returns (its result, read from the checkpoint; kills that found it in the middle).
        """
        path, seen, met = Path(folder) / "run.ckpt", 0, 0
        for kill in range(most + 1):
            done = self.run(module, function, argument, path, segment, rng.uniform(0, 0.1) if kill < most else 600)
            left = set(os.listdir(folder))
            assert left <= {"run.ckpt", "run.ckpt.previous"}, f"litter: {left}"
            if path.exists():
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # a whole file needs no previous one
                    run, progress = checkpoint.load(path)
                assert progress.t >= seen, "a step back"
                met += 0 < progress.t < run.steps
                seen = progress.t
            if done:
                break
        return fs.resume(path), met


def _serve():
    sys.path.insert(0, os.path.dirname(__file__))
    for line in sys.stdin:
        module, function, argument, path, segment, seconds = line.split()
        module = importlib.import_module(module)  # once: what it imports may take seconds
        ready, say = os.pipe()
        child = os.fork()
        if not child:
            warnings.simplefilter("ignore")
            run = getattr(module, function)(argument)
            fs.train(run, checkpoint=fs.Checkpoint(path, every=0), tuning=fs.Tuning(segment=int(segment), threads=1),
                     progress=lambda *_, say=say: os.write(say, b"."))
            os._exit(0)
        os.close(say)
        os.read(ready, 1)
        end = time.monotonic() + float(seconds)
        while not (ended := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() < end:
            time.sleep(0.002)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(ready)
        print("done" if ended else "killed", flush=True)


if __name__ == "__main__":
    _serve()
