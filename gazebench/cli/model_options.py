"""What the commands that ask a vision-language model share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gazebench.vlm.options import ModelOptions

if TYPE_CHECKING:
    from gazebench.vlm.ask import Outcome
    from gazebench.vlm.store import AnswerStore

Command = Callable[..., int | None]


def model_options(model: str, max_tokens: int = 512) -> Callable[[Command], Command]:
    """Decorates a command with a parameter ``options: ModelOptions``: each field becomes an option of its own.

    It stands below ``@command(...)``. ``model`` and ``max_tokens`` are the defaults.
    """
    defaults = vars(ModelOptions(model, max_tokens=max_tokens))
    hints = get_type_hints(ModelOptions, include_extras=True)

    def decorate(function: Command) -> Command:
        @wraps(function)
        def run(*arguments: Any, **named: Any) -> int | None:
            options = ModelOptions(**{name: named.pop(name) for name in defaults})
            return function(*arguments, options=options, **named)

        own = signature(function, eval_str=True)
        parameters = [parameter for name, parameter in own.parameters.items() if name != "options"]
        for name, hint in hints.items():
            annotation = Annotated[hint, typer.Option(help=hint.__metadata__[0])]  # type: ignore[valid-type]
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation))
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def print_siblings(store: AnswerStore) -> None:
    """Prints which stores hold answers of the same model to other prompts, settings or questions."""
    for sibling in store.other_identities():
        print(f"  {sibling.answers:,} answers of another identity stay in {sibling.folder.name}: {sibling.differs}")


def print_open(outcome: Outcome, what: str, hint: str = "") -> int:
    """Prints how many items have no answer, and why; returns the exit code, 1 if there are any."""
    if not outcome.open:
        return 0
    key, reason = next(iter(outcome.open.items()))
    lines = [f"{len(outcome.open):,} {what} have no answer, e.g. {key}: {reason}"]
    lines += [f"  {reason}" for reason in outcome.unreadable[:20]]
    if len(outcome.unreadable) > 20:
        lines.append(f"  and {len(outcome.unreadable) - 20:,} more images that cannot be read")
    print("\n".join(lines), f"repeat the command to ask for them{hint}", sep="\n", file=sys.stderr)
    return 1
