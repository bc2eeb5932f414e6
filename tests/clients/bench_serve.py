"""`vllm bench serve`: the CPU build's own command line looks for a package named vllm and finds none."""

import argparse
import asyncio

from vllm.benchmarks.serve import add_cli_args, main_async

parser = argparse.ArgumentParser()
add_cli_args(parser)
asyncio.run(main_async(parser.parse_args()))
