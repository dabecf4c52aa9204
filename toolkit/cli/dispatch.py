"""The command line: finds the command, parses its flags, turns bad input into one line.

A command is a module of `toolkit.cli` with a docstring, whose first line is its help and whose rest is examples,
`parse(arguments)` from the words after the command to what `run` takes, and `run`.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import wrapt

from toolkit.errors import DISK_ERRORS, InputError, Interrupted, RunFailed, what_failed

COMMANDS = (
    "quickstart",
    "tokenizer",
    "prepare",
    "pretrain",
    "finetune",
    "score",
    "predict",
    "explain",
    "compare",
    "fewshot",
    "zeroshot",
    "push",
    "pull",
    "doctor",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 after bad input, 1 after a failure outside, 128 and the signal's number after a
    signal."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        from toolkit import __version__

        print(f"toolkit {__version__}")
        return 0
    name = arguments[0]
    try:
        if name not in COMMANDS:
            raise InputError(f"unknown command '{name}', expected one of {', '.join(COMMANDS)}")
        command = importlib.import_module(f"toolkit.cli.{name}")
        parsed = command.parse(arguments[1:])
        _quieten_libraries()
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


def _leave_process_group() -> None:
    """A process that ends while its threads still talk to the others is aborted."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def entry_point() -> None:
    sys.exit(main())


def _overview() -> str:
    lines = [
        "usage: toolkit COMMAND …",
        "",
        "Pretrain small encoders on your own data, transfer them to your task, see what the pretraining bought.",
        "",
        "commands:",
    ]
    for name in COMMANDS:
        summary = (importlib.import_module(f"toolkit.cli.{name}").__doc__ or "").splitlines()[0]
        lines.append(f"  {name:<12}{summary}")
    lines += [
        "",
        "examples:",
        "  toolkit quickstart",
        "  toolkit pretrain elmo --corpus my_text.txt --output_dir runs/elmo --max_minutes 20",
        "  toolkit finetune pos --encoder runs/elmo --data my_treebank/ --output_dir runs/tagger",
        "",
        "Each command explains itself: toolkit COMMAND --help",
    ]
    return "\n".join(lines)


def _quieten_libraries() -> None:
    """One progress line, ours: the libraries' own bars and hints would drown it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    wrapt.when_imported("transformers.utils.logging")(lambda logging: logging.disable_progress_bar())
