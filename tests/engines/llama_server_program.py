"""A `llama-server` for tests, run as a program: xllamacpp behind the words of llama.cpp's own command line."""

from __future__ import annotations

import argparse
import signal
import sys

VERSION = "version: 4321 (abc1234)\nbuilt with a compiler for this test\n"
NUMBERS = ("--port", "--ctx-size", "--parallel", "--threads", "--threads-batch", "--batch-size", "--ubatch-size",
           "--n-gpu-layers", "--cache-ram")  # fmt: skip
TEXTS = ("--model", "--alias", "--host", "--flash-attn", "--cache-type-k", "--cache-type-v", "--verbosity")


def main() -> None:
    """Serve until told to end."""
    if "--version" in sys.argv:
        sys.stderr.write(VERSION)
        return
    parser = argparse.ArgumentParser(add_help=True)
    for name in NUMBERS:
        parser.add_argument(name, type=int)
    for name in TEXTS:
        parser.add_argument(name)
    parser.add_argument("--metrics", action="store_true")
    asked = parser.parse_args()
    if asked.port is None:
        sys.stderr.write("0.00.001 I system_info: n_threads = 1 / 2 | CPU : SSE3 = 1 | AVX2 = 1 | \n")
        sys.exit(1)  # the model is not there
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.model_alias = asked.model, {asked.alias}
    parameters.n_ctx, parameters.n_parallel = asked.ctx_size, asked.parallel
    parameters.cpuparams.n_threads = asked.threads
    parameters.port, parameters.endpoint_metrics = asked.port, asked.metrics
    server = xllamacpp.Server(parameters)
    assert server.listening_address.endswith(str(asked.port))
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
