"""What a person sees while a run works: one line a long step, with the time left."""

import sys
import time
from typing import TextIO

from student.interface import Progress

LINE_EVERY_SECONDS = 10.0
LEAST_SHARE = 0.05
"""Share of a step to be done before its time left is guessed: first answers wait until all prompts are read."""


class ProgressPrinter:
    """Prints progress to a stream: a line that is rewritten on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._what = ""
        self._began = 0.0
        self._first_done = 0
        self._printed = 0.0

    def __call__(self, what: str, progress: Progress) -> None:
        """Shows how far the long step `what` is."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._first_done, self._printed = what, now, progress.done, now
        finished = progress.done >= progress.total
        if not finished and now - self._printed < (0.2 if self._live else LINE_EVERY_SECONDS):
            return
        self._printed = now
        text = f"{what}: {progress.done}/{progress.total}"
        if progress.note:
            text += f", {progress.note}"
        since = progress.done - self._first_done
        if finished:
            text += f", {now - self._began:.0f} s"
            self._what = ""
        elif since > LEAST_SHARE * progress.total:
            text += f", {(progress.total - progress.done) * (now - self._began) / since:.0f} s left"
        if self._live:
            self._stream.write(f"\r\x1b[K  {text}" + ("\n" if finished else ""))
        else:
            self._stream.write(f"  {text}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        self._stream.write(("\r\x1b[K" if self._live else "") + text + "\n")
        self._stream.flush()
