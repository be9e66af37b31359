"""A stand-in LLM, to try bursar without an API key: python3 envoy/standin.py --port 10001

The code is in the package standin/ beside this file. It needs only the standard library, and listens on 127.0.0.1.
"""

from standin.server import run

if __name__ == "__main__":
    run()
