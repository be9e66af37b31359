"""A stand-in LLM, to try bursar without a key: python3 envoy/standin.py --port 10001

The package standin/ beside this file has it all. Standard library only; it listens on 127.0.0.1.
"""

from standin.server import run

if __name__ == "__main__":
    run()
