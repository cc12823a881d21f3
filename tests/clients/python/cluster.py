"""The cluster that the scripts drive, and the runner of their tests."""

import inspect
import asyncio
import json
import os
import subprocess
import sys
import time
import traceback

# How long anything may take before a test gives up, in seconds. Never a measure of speed.
PATIENCE = 60


class Cluster:
    """A running `onefold dev`, as its dev.json lists it."""

    def __init__(self, onefold, data_dir):
        self.onefold, self.data_dir = onefold, data_dir
        with open(os.path.join(data_dir, "dev.json"), encoding="utf-8") as file:
            self.nodes = json.load(file)
        assert len(self.nodes) >= 3, "three nodes are needed"

    def address(self, index):
        host, port = self.nodes[index]["etcd"].rsplit(":", 1)
        return {"host": host, "port": int(port)}

    def act(self, action, index):
        """Does something to a node: kill (with SIGKILL) or start."""
        node = str(self.nodes[index]["id"])
        arguments = ["dev", "node", action, node, "--data-dir", self.data_dir]
        subprocess.run([self.onefold, *arguments], check=True, capture_output=True)


def raises(kind, call, text=""):
    """Whether a call fails with this kind of exception, whose text has `text`."""
    try:
        call()
    except kind as error:
        assert text in str(error), f"{text!r} is not in {error!r}"
        return True
    return False


def until(holds, what):
    """Waits until something holds."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.05)


def run(module):
    """Runs every function of a module that is called test_…, in their order."""
    cluster = Cluster(*sys.argv[1:3])
    failed = []
    for name, test in list(vars(module).items()):
        if not name.startswith("test_"):
            continue
        try:
            if inspect.iscoroutinefunction(test):
                asyncio.run(asyncio.wait_for(test(cluster), 2 * PATIENCE))
            else:
                test(cluster)
            print(f"ok   {name}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed.append(name)
            print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
    sys.exit(1 if failed else 0)
