"""`make run`: the tour shows admitted, downgraded and throttled traffic, and says so by its exit status."""

import os
import subprocess
import sys

from harness.envoy import ROOT, render


def test_the_tour_passes_against_the_bundled_stand_in(tmp_path):
    env = dict(os.environ, PORT="0", ADMIN_PORT="0", STANDIN_PORT="0", ENVOY=render.envoy_binary(),
               RUN_DIR=str(tmp_path))
    env.pop("UPSTREAM", None)
    done = subprocess.run([sys.executable, str(ROOT / "envoy/run.py"), "--tour-only"], env=env, cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    told = done.stdout.decode()
    assert done.returncode == 0, told
    for word in ("admit", "downgrade", "throttle", "gpt-4o-mini", "429"):
        assert word in told.lower(), told
