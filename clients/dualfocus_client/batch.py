"""`dualfocus batch QUESTIONS`: a file of questions asked, a file of answers written."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from dualfocus_client.answers import Answers
from dualfocus_client.asking import INTERRUPTION, Halt, Server, ask_all, heed_signals
from dualfocus_client.client import MODES, AskError
from dualfocus_client.line_formats.line_format import Question
from dualfocus_client.options import add_server, config_parser, key_of, parse
from dualfocus_client.questions import BatchError, QuestionFile

_SOME_FAILED, _NOTHING_ASKED, _INTERRUPTED = 1, 2, 130


def main(argv: list[str]) -> int:
    """Run `dualfocus batch`; returns the exit status."""
    args = parse(make_parser(), argv)
    output = args.output or args.questions.with_name(f"{args.questions.stem}.answers.jsonl")
    try:
        server, questions = _server(args), QuestionFile(args.questions, args.mode, args.model)
        with Answers(output, questions) as answers:
            count = questions.check(lambda question: _fault(question, answers))
            answers.check_all_met()
            return _run(server, questions, answers, count, output)
    except (BatchError, AskError) as error:
        _say(f"error: {error}")
        return _NOTHING_ASKED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `dualfocus batch`."""
    parser = argparse.ArgumentParser(
        prog="dualfocus batch",
        description="Ask a running server a file of questions. Goes on where it stopped when the same command is given "
        "again; exit status 0 where every question has an answer, 1 where some failed, 2 where nothing could be asked, "
        "130 where it was interrupted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        parents=[config_parser()],
    )
    parser.add_argument(
        "questions",
        type=Path,
        help="a JSON object a line: image (a file beside it, or a URL), question; or the lines of OpenAI's batch API",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="where answers go; QUESTIONS.answers.jsonl beside the questions if left out"
    )
    add_server(parser)
    parser.add_argument(
        "--mode",
        choices=MODES,
        help="which looks, for lines that name none; left out, dual for our own lines and nothing for OpenAI's",
    )
    parser.add_argument("--model", help="the model's name for lines that name none, where the server is to check it")
    parser.add_argument("--concurrency", type=_at_least(1), default=8, metavar="N", help="questions asked at a time")
    parser.add_argument(
        "--retries", type=_at_least(0), default=5, metavar="N", help="times that a question is asked again, for each"
    )
    return parser


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: at least {least}")
        return value

    return number


def _server(args: argparse.Namespace) -> Server:
    """Read where questions go. Raises BatchError for an address that is none: every question would fail alike."""
    try:
        url = httpx.URL(args.base_url)
    except httpx.InvalidURL as error:
        raise BatchError(f"--base-url {args.base_url}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise BatchError(f"--base-url {args.base_url}: expected an address such as http://127.0.0.1:8000")
    return Server(args.base_url, key_of(args), args.timeout, args.concurrency, args.retries)


def _fault(question: Question, answers: Answers) -> str | None:
    """Return what is wrong with a question that is to be asked. Raises BatchError for one that has changed."""
    answers.check(question)
    return None if answers.has(question.line) else question.fault()


def _run(server: Server, questions: QuestionFile, answers: Answers, count: int, output: Path) -> int:
    if answers.was_torn:
        _say(f"{output}: its last line was torn; that question is asked again")
    if answers.answered:
        _say(f"{output}: {answers.answered} of {count} questions are answered already")
    try:
        reason = asyncio.run(_ask(server, questions, answers, count))
    except KeyboardInterrupt:
        reason = INTERRUPTION
    try:
        return _ended(answers, count, output, reason)
    except OSError as error:
        _say(f"error: {output}: the answers are there, but in the order they came: {error}")
        return _SOME_FAILED


async def _ask(server: Server, questions: QuestionFile, answers: Answers, count: int) -> str | None:
    """Ask what has no answer yet; returns why it ended early, None where it did not."""
    halt = Halt()
    heed_signals(halt)
    every = 0.1 if sys.stderr.isatty() else 10.0  # seconds: a log is spared what a terminal overwrites
    with tqdm(total=count, initial=answers.answered, unit="question", smoothing=0.05, mininterval=every) as bar:
        failed = 0

        def keep(question: Question, found: dict[str, Any]) -> None:
            nonlocal failed
            answers.add(question, found)
            failed += not answers.has(question.line)
            bar.set_postfix({"failed": failed} if failed else {}, refresh=False)
            bar.update()

        await ask_all(server, questions.read(lambda line: not answers.has(line)), keep, halt)
    return halt.reason


def _ended(answers: Answers, count: int, output: Path, reason: str | None) -> int:
    """Put the answers in order, tell what failed, and return the exit status."""
    failures = answers.failures()
    answers.put_in_order()
    if failures.count:
        _say(f"{failures.count} failed:\n{failures}")
    _say(f"{output}: {answers.answered} of {count} questions are answered")
    if reason is not None:
        _say(f"error: ended early: {reason}")
    if answers.answered < count:
        _say("The same command again asks those that are not.")
    if reason == INTERRUPTION:
        return _INTERRUPTED
    return _SOME_FAILED if answers.answered < count or reason else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
