"""A whole plane for the tests: `npm start` on free ports and a data folder of its own."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def plane():
    with tempfile.TemporaryDirectory() as data:
        anywhere = "127.0.0.1:0"
        process = subprocess.Popen(
            [str(ROOT / "node_modules/.bin/node"), "standalone/start.js"],
            cwd=ROOT,
            env={
                **os.environ,
                "STANDALONE_DATA_FOLDER": data,
                "STANDALONE_ROUTER_ADDRESS": anywhere,
                "STANDALONE_REGISTRY_ADDRESS": anywhere,
                "STANDALONE_EDGE_ADDRESS": anywhere,
                "STANDALONE_DEVICE_ADDRESS": anywhere,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Plane(process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


class Plane:
    """The running plane: where publishers call, and what its demo device prints."""

    def __init__(self, process):
        self._lines = process.stdout
        self.address = self._wait_for(r"publishers\s+(\S+)").group(1)
        self.devices = self._wait_for(r"devices\s+(\S+)").group(1)
        self._wait_for(r"A device of your own")

    def printed(self, text: str) -> str:
        """The next line with this text."""
        return self._wait_for(f"(.*{re.escape(text)}.*)").group(1)

    def _wait_for(self, pattern: str) -> re.Match:
        for line in self._lines:
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the plane ended without printing {pattern}")
