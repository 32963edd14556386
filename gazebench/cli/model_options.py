"""The options of commands that ask a vision-language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_type_hints

import typer

from gazebench.vlm.options import ModelOptions

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
