"""What our `task_status` parameters take is a `trio_typing.TaskStatus`.

Our own annotations name `trio.TaskStatus`, which is younger than trio-typing. Code that is annotated with the older
name can start our tasks all the same. This shows it at run time, as the type checker does not get to see trio-typing,
whose stubs shadow Trio's own types.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

import pytest
import trio
import trio_typing

import triorelay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def startable_functions() -> Iterator[Callable[..., object]]:
    """Every function of the package that a nursery can start."""
    for module_info in pkgutil.walk_packages(triorelay.__path__, "triorelay."):
        if module_info.name.endswith(".__main__"):
            continue
        module = importlib.import_module(module_info.name)
        for _, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and "task_status" in inspect.signature(function).parameters:
                yield function


STARTABLE = list(startable_functions())


def test_serve_is_startable() -> None:
    assert "serve" in [function.__name__ for function in STARTABLE]


@pytest.mark.parametrize("function", STARTABLE, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_task_status_is_keyword_only_and_defaults_to_one(function: Callable[..., object]) -> None:
    parameter = inspect.signature(function).parameters["task_status"]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert isinstance(parameter.default, trio_typing.TaskStatus)


async def test_what_a_nursery_passes_is_one() -> None:
    async def startable(*, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(task_status)

    async with trio.open_nursery() as nursery:
        status = await nursery.start(startable)
    assert isinstance(status, trio_typing.TaskStatus)
