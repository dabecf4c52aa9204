"""Finds the command, parses its flags, turns bad input into one line and an exit code.

A command is a module of `toolkit.cli` with a docstring (a summary, then examples), `parse(words)`, from the words
after the command to what `run` takes, and `run`.
"""

import importlib
import io
import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import wrapt

from toolkit.errors import DISK_ERRORS, InputError, Interrupted, RunFailed, what_failed
from toolkit.runs.arguments import Arguments, to_flags
from toolkit.runs.output import OutputArguments, check_inputs_stay, claimed

COMMANDS = {
    "quickstart": "See in minutes what pretraining buys, on embedded samples.",
    "tokenizer": "Train a tokenizer on your text.",
    "prepare": "Tokenize a corpus of any size once, on all cores or many machines.",
    "pretrain": "Pretrain an encoder on text or images.",
    "finetune": "Put a task's head on an encoder and train it on labelled data.",
    "score": "Score a fine-tuned checkpoint on labelled data, or an encoder on text.",
    "predict": "Predict with a fine-tuned checkpoint.",
    "explain": "Explain a prediction: the importance of pixels or words, attention, hidden states.",
    "compare": "Say in one table what pretraining bought.",
    "fewshot": "Classify with a handful of labelled examples of each class.",
    "zeroshot": "Classify by the names or descriptions of classes.",
    "app": "Open a page to teach a classifier by examples, and try it.",
    "push": "Send a model, tokenizer or data set to a Hub, with a card.",
    "pull": "Fetch a model or data set from a Hub, complete and verified.",
    "doctor": "Check this machine and, with --hub, the Hub.",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line `toolkit WORDS` (default: the words of this process).

    Returns the exit code: 0, 1 after a failure outside, 2 after bad input, 128 plus its number after a signal.
    """
    words = list(sys.argv[1:] if words is None else words)
    _print_all_characters()
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from toolkit import __version__

        print(f"toolkit {__version__}")
        return 0
    name = words[0]
    try:
        if name not in COMMANDS:
            raise InputError(f"unknown command '{name}', expected one of {', '.join(COMMANDS)}")
        command = importlib.import_module(f"toolkit.cli.{name}")
        parsed = command.parse(words[1:])
        _quieten_libraries()
        with _claim_output(parsed):
            command.run(parsed)
    except (InputError, RunFailed) as error:
        print(f"toolkit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except Interrupted as interruption:
        print(f"toolkit: {interruption}", file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        print("toolkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `toolkit predict … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, RuntimeError, MemoryError) as error:
        what = str(error) if getattr(error, "errno", None) in DISK_ERRORS else what_failed(error)
        if what is None:
            raise
        print(f"toolkit: error: {what}", file=sys.stderr)
        return 1
    finally:
        _leave_process_group()
    return 0


def _claim_output(parsed: Any) -> AbstractContextManager:
    """Claim the output folder of a command that has one, so that no other run writes to it meanwhile.

    Raises `InputError` if the command would delete there what it reads.
    """
    groups = [each for each in (parsed if isinstance(parsed, tuple) else (parsed,)) if isinstance(each, Arguments)]
    for arguments in groups:
        output = getattr(arguments, "output", None)
        if isinstance(output, OutputArguments) and output.output_dir is not None:
            for each in groups:
                check_inputs_stay(output, to_flags(each))
            return claimed(output)
    return nullcontext()


def entry_point() -> None:
    sys.exit(main())


def _print_all_characters() -> None:
    """Write UTF-8 whatever the locale, but to a terminal what it can show; names of files may hold any bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if stream.isatty():
                stream.reconfigure(errors="replace")
            else:
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _leave_process_group() -> None:
    """Leave it, because a process that exits while its threads still communicate with others is aborted."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _overview() -> str:
    commands = "\n".join(f"  {name:<12}{summary}" for name, summary in COMMANDS.items())
    return textwrap.dedent("""\
        usage: toolkit COMMAND …

        Pretrain small encoders on your own data, transfer them to your task, see what the pretraining bought.

        commands:
        {commands}

        examples:
          toolkit quickstart
          toolkit pretrain elmo --corpus my_text.txt --output_dir runs/elmo --max_minutes 20
          toolkit finetune pos --encoder runs/elmo --data my_treebank/ --output_dir runs/tagger

        Each command explains itself: toolkit COMMAND --help""").format(commands=commands)


def _quieten_libraries() -> None:
    """Keep the libraries' own progress bars and hints away from ours."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    wrapt.when_imported("transformers.utils.logging")(lambda logging: logging.disable_progress_bar())
